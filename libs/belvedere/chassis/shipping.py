"""Log lines and metric values of one edge process, in batches to the appliance's own JetStream.

    shipper = Shipper("ingest", bus)
    shipper.log(group, "occ_log", "camera connected", timestamp_ms=…)
    shipper.metric("PanoramaDeviceMetrics", "DeviceActive", 1, unit="Count", dimensions={"DeviceId": id})
    await shipper.run()             # until cancelled; await shipper.flush() before the end

Must not know what is logged or measured, nor where batches go after the local streams. `log` and `metric` may be called
from any thread and never wait: what does not fit is dropped, oldest first, and counted. Sequences rise strictly, are
unique over the processes of an appliance and over restarts, and sort by time: microseconds since 1970, then 10 bits of
the process's name.
"""

import asyncio
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.jetstream import publish_stored

LOG_FLUSH_S = 0.5
METRIC_FLUSH_S = 2.0
"""Values of one metric within this time become one datum with sum, minimum, maximum and count."""
MAX_WAITING_ENTRIES = 10_000
"""Log entries kept while the local bus is away."""
MAX_WAITING_METRICS = 1_000
MAX_MESSAGE_BYTES = 32 * 1024
"""A longer log message is cut here, with a note."""
BATCH_BYTES = 200 * 1024
"""Batches stay below this (the limit of the seam is 256 KiB)."""


@dataclass
class ShipperStats:
    """Counters since the start."""

    entries: int = 0
    dropped_entries: int = 0
    cut_messages: int = 0
    dropped_metrics: int = 0


@dataclass
class _Datum:
    namespace: str
    name: str
    dimensions: dict[str, str]
    unit: str
    timestamp_ms: int
    sum: float
    minimum: float
    maximum: float
    sample_count: float


class Shipper:
    """Collects and sends; one a process."""

    def __init__(self, process: str, bus: Bus) -> None:
        self.stats = ShipperStats()
        self._process = process
        self._bus = bus
        self._salt = int.from_bytes(hashlib.sha256(process.encode()).digest()[:2]) & 0x3FF
        self._last_us = 0
        self._lock = threading.Lock()
        self._entries: deque[tuple[str, bytes, int]] = deque()
        self._metrics: dict[tuple[Any, ...], _Datum] = {}

    def log(
        self, group: str, stream: str, message: str, *, timestamp_ms: int | None = None, instance_id: str | None = None
    ) -> None:
        """One entry. With `instance_id` it is an application's line and goes on that application's subject."""
        subject = (
            subjects.edge_log(self._process)
            if instance_id is None
            else subjects.edge_app_log(instance_id, stream.replace(".", "_"))
        )
        raw = message.encode("utf-8", "replace")
        if len(raw) > MAX_MESSAGE_BYTES:
            kept = raw[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore")
            message = f"{kept} … ({len(raw) - MAX_MESSAGE_BYTES} bytes cut)"
            self.stats.cut_messages += 1
        with self._lock:
            sequence = self._next_sequence()
            entry = {
                "group": group,
                "stream": stream,
                "timestamp_ms": int(time.time() * 1000) if timestamp_ms is None else timestamp_ms,
                "message": message,
                "sequence": sequence,
            }
            self._entries.append((subject, json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace"), sequence))
            self.stats.entries += 1
            if len(self._entries) > MAX_WAITING_ENTRIES:
                self._entries.popleft()
                self.stats.dropped_entries += 1

    def metric(
        self,
        namespace: str,
        name: str,
        value: float,
        *,
        unit: str = "None",
        dimensions: Mapping[str, str] | None = None,
    ) -> None:
        """One value."""
        parts = dict(dimensions or {})
        key = (namespace, name, tuple(sorted(parts.items())), unit)
        with self._lock:
            datum = self._metrics.get(key)
            if datum is None:
                if len(self._metrics) >= MAX_WAITING_METRICS:
                    self.stats.dropped_metrics += 1
                    return
                now = int(time.time() * 1000)
                self._metrics[key] = _Datum(namespace, name, parts, unit, now, value, value, value, 1)
                return
            datum.sum += value
            datum.minimum = min(datum.minimum, value)
            datum.maximum = max(datum.maximum, value)
            datum.sample_count += 1

    async def run(self) -> None:
        """Sends until cancelled; while the bus is away, entries wait."""
        metrics_due = time.monotonic() + METRIC_FLUSH_S
        while True:
            await asyncio.sleep(LOG_FLUSH_S)
            due = time.monotonic() >= metrics_due
            if due:
                metrics_due = time.monotonic() + METRIC_FLUSH_S
            await self.flush(metrics=due)

    async def flush(self, *, metrics: bool = True) -> bool:
        """Sends what waits; False where the local streams did not take it, which keeps the entries for the next
        time."""
        try:
            while batch := self._take_batch():
                subject, entries, first = batch
                try:
                    body = b'{"entries":[' + b",".join(raw for _, raw, _ in entries) + b"]}"
                    await publish_stored(self._bus, subject, body, msg_id=f"{self._process}-{first}")
                except BaseException:
                    with self._lock:
                        self._entries.extendleft(reversed(entries))
                    raise
            if metrics:
                await self._flush_metrics()
        except BusError:
            # The bus itself has logged that it is away, and everything is kept: the next flush is the next step.
            return False
        return True

    async def _flush_metrics(self) -> None:
        with self._lock:
            taken, self._metrics = self._metrics, {}
            first = self._next_sequence()
        if not taken:
            return
        body = {"data": [vars(datum) for datum in taken.values()]}
        try:
            await publish_stored(
                self._bus, subjects.edge_metric(self._process), body, msg_id=f"{self._process}-{first}"
            )
        except BusError:
            self.stats.dropped_metrics += len(taken)
            raise

    def _next_sequence(self) -> int:
        self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        return self._last_us << 10 | self._salt

    def _take_batch(self) -> tuple[str, list[tuple[str, bytes, int]], int] | None:
        """The oldest entries of one subject that fit into one message."""
        with self._lock:
            if not self._entries:
                return None
            subject, size = self._entries[0][0], 0
            batch: list[tuple[str, bytes, int]] = []
            while self._entries and self._entries[0][0] == subject:
                size += len(self._entries[0][1])
                if batch and size > BATCH_BYTES:
                    break
                batch.append(self._entries.popleft())
            return subject, batch, batch[0][2]
