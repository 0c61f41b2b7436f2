"""What logs_metrics consumes: whose devices are (EVENTS), their log batches (UP_LOGS) and metric batches (UP_METRICS).

A message on `up.<id>.…` names a device, never an account: that would be the device's word. The account and region come
from registry's events `registry.device.*`, kept in a table of our own, so that nothing is asked of a peer while logs
pour in. A batch that comes before its device's event is looked at again a little later.

Each message is acknowledged after the commit that holds it; delivered again, it changes nothing: log events are unique
by the sequence that the device gave them, messages of metrics are marked as taken in the same transaction.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.jetstream import StoredMessage, consume
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.logs import get_logger
from services.logs_metrics import alarms, logs, metrics, rules
from services.logs_metrics.logs import NewEvent, StreamKey
from services.logs_metrics.metrics import NewDatum
from services.logs_metrics.settings import Settings
from services.logs_metrics.store import DeviceRow

log = get_logger(__name__)

DURABLE = "logs_metrics"
"""Name of our consumers: the hub remembers under it how far we are, all replicas together."""
MAX_TIMESTAMP_MS = 2**50
MAX_SEQUENCE = 2**63 - 1


@dataclass
class IntakeStats:
    """Counters since the start."""

    entries: int = 0
    data: int = 0
    refused_messages: int = 0
    """Messages that cannot be read, or of a device that never became known."""
    refused_entries: int = 0
    """Entries in them that cannot be stored: wrong types, or a group that is not the device's."""


class Intake:
    """Takes what appliances send into the database."""

    def __init__(self, database: Database, bus: Bus, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._owners: dict[str, tuple[str, str]] = {}
        self._stream_ids: dict[StreamKey, int] = {}
        self.stats = IntakeStats()

    async def devices(self) -> None:
        """Keeps the table of devices."""
        source = consume(
            self._bus, subjects.EVENTS_STREAM, durable=f"{DURABLE}-devices", filter_subject=subjects.events("registry")
        )
        async for message in source:
            await self._device(message)

    async def _device(self, message: StoredMessage) -> None:
        try:
            event = Event.from_json(message.data)
        except InvalidDocument as error:
            await self._refuse(message, str(error))
            return
        if event.type.startswith("registry.device."):
            async with self._database.session() as session, session.begin():
                await session.merge(DeviceRow(device_id=event.subject, account=event.account, region=event.region))
            self._owners[event.subject] = (event.account, event.region)
        await message.ack()

    async def logs(self) -> None:
        """Takes log batches until cancelled."""
        source = consume(self._bus, subjects.UP_LOGS_STREAM, durable=DURABLE, batch=self._settings.batch_messages)
        async for batch in _in_batches(source, self._settings.batch_messages):
            await self._take_logs(batch)

    async def _take_logs(self, batch: list[StoredMessage]) -> None:
        taken: list[StoredMessage] = []
        events: dict[StreamKey, list[NewEvent]] = {}
        for message in batch:
            device, owner = await self._sender(message)
            entries = await self._items(message, "entries") if owner else None
            if owner is None or entries is None:
                continue
            taken.append(message)
            for entry in entries:
                parsed = _log_entry(device, entry)
                if parsed is None:
                    self.stats.refused_entries += 1
                else:
                    group, stream, event = parsed
                    events.setdefault(StreamKey(*owner, group, stream), []).append(event)
        now_ms = self._now_ms()
        fresh: dict[StreamKey, int] = {}
        async with self._database.session() as session, session.begin():
            for key, new in events.items():
                stream_id = self._stream_ids.get(key)
                if stream_id is not None and await logs.append(session, stream_id, new, now_ms):
                    continue
                # Not written to yet, or removed since then.
                fresh[key] = await logs.ensure_stream(session, key, now_ms)
                await logs.append(session, fresh[key], new, now_ms)
        self._stream_ids.update(fresh)
        self.stats.entries += sum(map(len, events.values()))
        for message in taken:
            await message.ack()

    async def metrics(self) -> None:
        """Takes metric batches until cancelled."""
        source = consume(self._bus, subjects.UP_METRICS_STREAM, durable=DURABLE, batch=self._settings.batch_messages)
        async for batch in _in_batches(source, self._settings.batch_messages):
            await self._take_metrics(batch)

    async def _take_metrics(self, batch: list[StoredMessage]) -> None:
        known: list[tuple[StoredMessage, tuple[str, str], list[NewDatum]]] = []
        for message in batch:
            _, owner = await self._sender(message)
            items = await self._items(message, "data") if owner else None
            if owner is None or items is None:
                continue
            data = [datum for item in items if (datum := _datum(item)) is not None]
            self.stats.refused_entries += len(items) - len(data)
            known.append((message, owner, data))
        async with self._database.session() as session, session.begin():
            for message, owner, data in known:
                if await metrics.first_time(session, message.sequence, self._now_ms()):
                    await metrics.put(session, *owner, data)
                    self.stats.data += len(data)
        for message, _, _ in known:
            await message.ack()

    async def _sender(self, message: StoredMessage) -> tuple[str, tuple[str, str] | None]:
        """The device and its (account, region); without the latter the message has been answered."""
        device = subjects.device_of(message.subject)
        if device not in self._owners:
            async with self._database.session(read_only=True) as session:
                row = await session.get(DeviceRow, device)
            if row is not None:
                self._owners[device] = (row.account, row.region)
        owner = self._owners.get(device)
        if owner is None:
            age_s = self._clock().timestamp() - message.timestamp_ns / 1e9
            if age_s > self._settings.unknown_device_limit_s:
                await self._refuse(message, f"no device {device} is known")
            else:
                await message.nak(self._settings.unknown_device_retry_s)
        return device, owner

    async def _items(self, message: StoredMessage, name: str) -> list[Any] | None:
        try:
            items = json.loads(message.data)[name]
        except (ValueError, TypeError, KeyError) as error:
            await self._refuse(message, f"not a batch: {error!r}")
            return None
        if not isinstance(items, list):
            await self._refuse(message, f"{name} is no list")
            return None
        return items

    async def _refuse(self, message: StoredMessage, why: str) -> None:
        self.stats.refused_messages += 1
        log.warning("message dropped", subject=message.subject, why=why, dropped=self.stats.refused_messages)
        await message.term()

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)


class Trimmer:
    """Removes what is older than its retention."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """At the start and every trim_interval_s."""
        while True:
            removed = await self.trim()
            if removed:
                log.info("removed what is past its retention", rows=removed)
            await asyncio.sleep(self._settings.trim_interval_s)

    async def trim(self) -> int:
        """Once; returns how many events and data went."""
        now_s = int(self._clock().timestamp())
        total = 0
        while True:
            async with self._database.session() as session, session.begin():
                removed = await logs.trim(session, now_s * 1000, self._settings.log_retention_days)
                removed += await metrics.trim(session, now_s, self._settings.metric_retention_days)
                await alarms.trim_history(session, now_s * 1000)
            total += removed
            if removed == 0:
                return total


def _log_entry(device: str, entry: Any) -> tuple[str, str, NewEvent] | None:
    """(group, stream, event) of an entry, None where it cannot be stored."""
    if not isinstance(entry, dict):
        return None
    group, stream, message = entry.get("group"), entry.get("stream"), entry.get("message")
    timestamp, sequence = entry.get("timestamp_ms"), entry.get("sequence")
    if not (isinstance(group, str) and isinstance(stream, str) and isinstance(message, str)):
        return None
    if not _whole(timestamp, MAX_TIMESTAMP_MS) or not _whole(sequence, MAX_SEQUENCE):
        return None
    if not rules.may_write(device, group) or "\x00" in message + stream:
        return None
    try:
        rules.check_stream(stream)
    except Invalid:
        return None
    return group, stream, NewEvent(timestamp, message[: rules.MAX_DEVICE_EVENT_CHARACTERS], sequence, sequence)


def _datum(item: Any) -> NewDatum | None:
    """The values of a datum, None where they cannot be stored."""
    if not isinstance(item, dict):
        return None
    dimensions, timestamp = item.get("dimensions") or {}, item.get("timestamp_ms")
    numbers: list[Any] = [item.get(name) for name in ("sum", "minimum", "maximum", "sample_count")]
    if not isinstance(dimensions, dict) or not _whole(timestamp, MAX_TIMESTAMP_MS):
        return None
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return None
    names: tuple[Any, ...] = (item.get("namespace"), item.get("name"), item.get("unit") or "None")
    namespace, name, unit = names
    texts = [namespace, name, unit, *dimensions.values()]
    if not all(isinstance(text, str) and "\x00" not in text for text in texts):
        return None
    try:
        rules.check_metric(namespace, name, dimensions)
    except Invalid:
        return None
    return NewDatum(namespace, name, dimensions, timestamp // 1000, unit, *numbers)


def _whole(value: Any, most: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


async def _in_batches(source: AsyncIterator[StoredMessage], most: int) -> AsyncIterator[list[StoredMessage]]:
    """Whatever has arrived, at least one message and at most `most`: no waiting for a batch to fill."""
    arrived: asyncio.Queue[StoredMessage] = asyncio.Queue(most)

    async def pump() -> None:
        async for message in source:
            await arrived.put(message)

    pumping = asyncio.create_task(pump(), name="pump")
    waiting: asyncio.Task[StoredMessage] | None = None
    try:
        while True:
            waiting = asyncio.create_task(arrived.get(), name="next message")
            done, _ = await asyncio.wait({pumping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if waiting not in done:
                pumping.result()
                return
            batch = [waiting.result()]
            while len(batch) < most and not arrived.empty():
                batch.append(arrived.get_nowait())
            yield batch
    finally:
        tasks: Iterable[asyncio.Task[Any]] = [task for task in (pumping, waiting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
