"""Documents in JetStream's key-value buckets.

Cloud side: `KeyValue(bus, "target")`: get, put with an expected revision, update with a pure function, watch.
Device: `get_target(bus)` and `put_reported(bus, data)`: plain requests on its imports, which work behind a leaf.

A revision is the sequence of the key's last message in the bucket's stream. What is in a document is not its business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from belvedere.bus import subjects
from belvedere.bus.connection import REQUEST_TIMEOUT_S, Bus
from belvedere.bus.errors import BusError, StreamError, WrongRevision
from belvedere.bus.jetstream import consume, last_message, publish_stored

UPDATE_ATTEMPTS = 20  # each lost attempt means that somebody else's succeeded
OPERATION = "KV-Operation"
DELETED = ("DEL", "PURGE")


@dataclass(frozen=True)
class Entry:
    """One document. `value` is None where it was deleted."""

    key: str
    value: bytes | None
    revision: int


class KeyValue:
    """One bucket, on the cloud side."""

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus = bus
        self.bucket = bucket

    async def get(self, key: str) -> Entry | None:
        """The document of `key`, None if there is none or it was deleted."""
        entry = await self._last(key)
        return entry if entry is not None and entry.value is not None else None

    async def put(self, key: str, value: bytes, *, revision: int | None = None) -> int:
        """Writes and returns the new revision. `revision`: the one it must replace, 0 for none; else WrongRevision."""
        ack = await publish_stored(self._bus, subjects.kv_key(self.bucket, key), value, expected_revision=revision)
        return ack.sequence

    async def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> Entry | None:
        """Reads, changes, writes, and does so again if somebody else wrote in between.

        `change` gets the document (None: there is none) and gives the new one, or None to leave everything as it is;
        it is pure: it may be called several times. Returns what stands there afterwards.
        """
        for _ in range(UPDATE_ATTEMPTS):
            entry = await self._last(key)
            before = entry.value if entry is not None else None
            after = change(before)
            if after is None or after == before:
                return entry if entry is not None and entry.value is not None else None
            try:
                revision = await self.put(key, after, revision=entry.revision if entry is not None else 0)
                return Entry(key, after, revision)
            except WrongRevision:
                continue
        raise BusError(f"{self.bucket}/{key} was changed by others {UPDATE_ATTEMPTS} times in a row: try again")

    async def delete(self, key: str) -> None:
        """Leaves a mark of deletion; no error where there is nothing."""
        headers = {OPERATION: "DEL"}
        await publish_stored(self._bus, subjects.kv_key(self.bucket, key), b"", headers=headers)

    async def watch(self, key: str = "") -> AsyncIterator[Entry]:
        """Every document (or that of `key`) as it stands now, then every change, for ever.

        After a loss of the hub everything is told again as it then stands: compare revisions if that matters.
        """
        subject = subjects.kv_key(self.bucket, key) if key else subjects.kv_keys(self.bucket)
        stream = subjects.kv_stream(self.bucket)
        async for message in consume(self._bus, stream, filter_subject=subject, deliver="last_per_subject", ack=False):
            gone = message.headers.get(OPERATION) in DELETED
            yield Entry(message.subject.rsplit(".", 1)[1], None if gone else message.data, message.sequence)

    async def _last(self, key: str) -> Entry | None:
        found = await last_message(self._bus, subjects.kv_stream(self.bucket), subjects.kv_key(self.bucket, key))
        if found is None:
            return None
        gone = found.headers.get(OPERATION) in DELETED
        return Entry(key, None if gone else found.data, found.sequence)


async def get_target(bus: Bus, *, timeout_s: float = REQUEST_TIMEOUT_S) -> tuple[bytes, int] | None:
    """A device's own target: the document and its revision; None where none was written yet.

    Raises NoResponders or RequestTimeout while the link to the cloud is down.
    """
    answer = await bus.request(subjects.CTL_TARGET_GET, timeout_s=timeout_s)
    if answer.status == 404 or answer.headers.get(OPERATION) in DELETED:
        return None
    if answer.status is not None:
        raise StreamError(answer.status, answer.headers.get("Description", "refused"), "cannot read the target")
    return answer.data, int(answer.headers["Nats-Sequence"])


async def put_reported(bus: Bus, data: bytes, *, timeout_s: float = REQUEST_TIMEOUT_S) -> int:
    """Stores what a device says it is; returns the revision once the hub has it on disk."""
    ack = await publish_stored(bus, subjects.CTL_REPORTED_PUT, data, timeout_s=timeout_s)
    return ack.sequence
