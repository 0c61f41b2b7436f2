"""The collector of garbage: takes what nothing names any more out of the blob store.

    look at all names (`naming`) → go through the store, a part at a time → take away what is unnamed and old

Old: last written or renewed longer than `grace` before the look began. Why nobody is harmed, with
`grace` > 2 · RENEW_AGE + the time from finding bytes to naming them (GRACE_MIN):

- Who names bytes in a database has written or renewed them before (`belvedere.blobs.ages`). If the look saw the name, they
  stay. If not, the name came after the look began, and the bytes were found and made young within the grace before that:
  they are not old, which is looked at once more at the moment of their end, under the lock that a renewal takes. However
  long a round takes, and whatever is renewed meanwhile, "old" stays what it was when the look began.
- Where all of an asset was renewed not long ago, its chunks are not looked at again (`ChunkStore.is_fresh`): hence twice.
- A name that moves is seen: an object that is copied is renewed by the copy; an instance's graph comes from versions,
  which are read before graphs; and what a version names is renewed when that is taken away, so that a graph that is just
  being made of it has the grace to be named in.
- A registration renews what it is going to read, so that it ends well though somebody deletes the object meanwhile.
- If names can't be had (the deployments service is away, a table can't be read), nothing is taken away.
- Several replicas may collect at once, or die at it: each act by itself is right.
- An appliance that fetches what was just taken away (its application was removed meanwhile) is told that a chunk is not
  there, asks again later, and by then has another target.

Must not know what names mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from belvedere.blobs import Amount, BlobError, BlobStore
from belvedere.blobs.ages import RENEW_AGE, Stored
from belvedere.chassis import logs
from belvedere.chassis.database import Database
from belvedere.chassis.errors import BelvedereError
from belvedere.chunks.store import ChunkStore
from services.packages import store
from services.packages.figures import Figures
from services.packages.naming import Look, Names

FIRST_AFTER_S = 300.0
"""From the start to the first round: a start is busy enough."""
ROUND_LIMIT_S = 3600.0
"""A round that takes longer is given up; the next one begins where it stopped."""
GRACE_MIN = 2 * RENEW_AGE + timedelta(hours=6)
"""The last part is for registering: conversion and cutting of whatever is large."""
MODELS_AT_ONCE = 500
DISCARDED_AT_ONCE = 100
"""Objects that are taken away under one hold of the lock that who renews waits for: some milliseconds."""
PARTS = tuple(f"{front}/{number:02x}" for front in ("sha256", "chunks") for number in range(256))
"""Of the store, in the order in which they are gone through: roots before chunks, so that a round that ends early leaves
chunks without a root, never the other way round."""

log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Round:
    """What one round found."""

    freed: Amount
    stored: Amount
    """All that is left, whether it is named or not: objects and bytes."""
    unnamed: Amount
    """Of it, what nothing names and is too young."""
    whole: bool = True
    """Whether all of the store was gone through."""

    def __add__(self, other: Round) -> Round:
        return Round(
            self.freed + other.freed,
            self.stored + other.stored,
            self.unnamed + other.unnamed,
            self.whole and other.whole,
        )


class Collector:
    """Collects."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        look: Look,
        figures: Figures,
        clock: Callable[[], datetime],
        every_s: float,
        grace: timedelta,
    ) -> None:
        self._database, self._blobs, self._look, self._figures, self._clock = database, blobs, look, figures, clock
        self._chunks = ChunkStore(blobs)
        self._every_s, self._grace = every_s, grace
        self._next = 0

    async def run(self) -> None:
        """Rounds, until cancelled."""
        await asyncio.sleep(min(FIRST_AFTER_S, self._every_s))
        while True:
            try:
                done = await self.collect()
                await self._figures.tell({"Freed": done.freed, "Stored": done.stored, "Unnamed": done.unnamed})
            except (BelvedereError, BlobError) as error:
                log.warning("no garbage is collected this time", error=str(error), again_s=self._every_s)
            await asyncio.sleep(self._every_s)

    async def collect(self) -> Round:
        """One round. Raises BelvedereError, BlobError: where it can't be known what is named, or the store fails."""
        began = time.monotonic()
        before = self._clock() - self._grace
        done = Round(Amount(), Amount(), Amount())
        with Names() as names:
            await self._look.into(names)
            for _ in PARTS:
                if time.monotonic() - began > ROUND_LIMIT_S:
                    done = replace(done, whole=False)
                    break
                done += await asyncio.to_thread(self._sweep, PARTS[self._next], names, before)
                self._next = (self._next + 1) % len(PARTS)
            await asyncio.to_thread(self._chunks.forget_roots_but, names.has, before)
        await asyncio.to_thread(self._blobs.clear_incoming)
        await self._forget_models()
        log.info(
            "garbage collected",
            freed_bytes=done.freed.size_bytes,
            freed_objects=done.freed.objects,
            unnamed_bytes=done.unnamed.size_bytes,
            stored_bytes=done.stored.size_bytes,
            stored_objects=done.stored.objects,
            whole=done.whole,
            seconds=round(time.monotonic() - began, 2),
        )
        return done

    def _sweep(self, part: str, names: Names, before: datetime) -> Round:
        freed = stored = unnamed = Amount()
        for page in self._blobs.ages.listed(part):
            garbage = [item for item in page if not names.has(_digest(item))]
            old = [item for item in garbage if item.modified < before]
            gone = Amount()
            for at in range(0, len(old), DISCARDED_AT_ONCE):
                gone += self._blobs.ages.discard(old[at : at + DISCARDED_AT_ONCE], before)
            freed += gone
            stored += _sum(page) - gone
            unnamed += _sum(garbage) - gone
        return Round(freed, stored, unnamed)

    async def _forget_models(self) -> None:
        """What was written down of models whose bytes are gone."""
        async for rows in store.pages(self._database, store.taken_models, MODELS_AT_ONCE):
            gone = [row.key for row in rows if not await self._blobs.exists(row.digest)]
            if gone:
                async with self._database.session() as session, session.begin():
                    await store.forget_models(session, gone)


def _digest(item: Stored) -> str:
    return item.key.rpartition("/")[2]


def _sum(items: Sequence[Stored]) -> Amount:
    return Amount(len(items), sum(item.size_bytes for item in items))
