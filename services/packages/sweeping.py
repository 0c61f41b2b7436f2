"""Uploads that nobody completed: forgotten after a while, with the bytes of their parts.

Only parts' blobs are deleted, which nothing else can name. All others stay: the same digest may be named by objects, package
versions and deployed graphs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from belvedere.blobs import BlobError, BlobStore
from belvedere.chassis import logs
from belvedere.chassis.database import Database
from services.packages import objects, rules

SWEEP_EVERY_S = 3600.0

log = logs.get_logger(__name__)


class UploadSweeper:
    """Forgets abandoned uploads."""

    def __init__(
        self, database: Database, blobs: BlobStore, clock: Callable[[], datetime], upload_lifetime_s: float
    ) -> None:
        self._database, self._blobs, self._clock = database, blobs, clock
        self._lifetime = timedelta(seconds=upload_lifetime_s)

    async def run(self) -> None:
        """Once at start, then every SWEEP_EVERY_S, until cancelled."""
        while True:
            try:
                await self.sweep()
            except BlobError as error:
                # The rows are gone, some bytes are not: a later sweep can't find them again, an operator can.
                log.error("parts of abandoned uploads are left in the store", error=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self) -> int:
        """Forgets the uploads that were not written to for the lifetime; how many."""
        before = self._clock() - self._lifetime
        async with self._database.session(read_only=True) as session:
            found = await objects.abandoned_uploads(session, rules.UPLOADS, rules.UPLOAD_ID_LENGTH, before)
        forgotten = 0
        for account, region, bucket, upload_id in found:
            where = (account, region, bucket, f"{rules.UPLOADS}{upload_id}")
            async with self._database.session() as session, session.begin():
                # Asked again under the write lock: a part may have come since.
                if await objects.changed_since(session, *where, before):
                    continue
                taken = await objects.take_objects(session, *where)
            await delete_parts(self._blobs, taken)
            forgotten += 1
            log.info("abandoned upload forgotten", account=account, bucket=bucket, upload_id=upload_id)
        return forgotten


async def delete_parts(blobs: BlobStore, taken: Iterable[tuple[str, str]]) -> None:
    """Deletes the blobs of those (key, digest) that are parts of uploads."""
    for key, digest in taken:
        if rules.is_part(key):
            await blobs.delete(digest)
