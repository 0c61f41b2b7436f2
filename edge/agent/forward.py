"""Logs and metrics: from the appliance's own streams to the cloud's, nothing lost and nothing doubled while they last.

An entry is acknowledged here only once the hub has stored it. What fails waits and is sent again under the same id, which
the hub de-duplicates. A cut may reorder batches: entries carry their own sequence. When the cloud is away for longer than
the streams can hold, the oldest go, and are counted.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.jetstream import StoredMessage, consume, ensure_stream, publish_stored, stream_info
from belvedere.chassis.logs import get_logger
from edge.agent.device import write_private

log = get_logger(__name__)

DURABLE = "forward"
ACK_WAIT_S = 10.0
PUBLISH_TIMEOUT_S = 5.0
RETRY_S = 0.5
MAX_LOG_BYTES = 256 * 1024**2
"""Days of logs of a talkative appliance; the disk's own limit is the leaf's max_file."""
MAX_METRIC_BYTES = 64 * 1024**2
MAX_MESSAGE_BYTES = 512 * 1024


def local_streams() -> list[dict[str, Any]]:
    """The appliance's own streams, as JetStream's API takes them."""
    common = {"storage": "file", "retention": "limits", "discard": "old", "max_msg_size": MAX_MESSAGE_BYTES}
    return [
        common | {"name": subjects.EDGE_LOGS_STREAM, "subjects": [subjects.EDGE_LOGS_ALL], "max_bytes": MAX_LOG_BYTES},
        common
        | {
            "name": subjects.EDGE_METRICS_STREAM,
            "subjects": [subjects.EDGE_METRICS_ALL],
            "max_bytes": MAX_METRIC_BYTES,
        },
    ]


async def ensure_local_streams(bus: Bus) -> None:
    """Makes the appliance's streams, or brings them to today's configuration."""
    for configuration in local_streams():
        await ensure_stream(bus, configuration)


def message_ids(file: Path) -> str:
    """The front of this appliance's message ids, made once. Random: ids are shared by all who write to a stream of the
    hub, and who could guess another's could make its messages look like duplicates."""
    if not file.exists():
        write_private(file, secrets.token_hex(16).encode())
    return file.read_text()


@dataclass
class ForwardStats:
    """Counters of one forwarder."""

    forwarded: int = 0
    retried: int = 0
    dropped: int = 0
    """Messages that the local stream had to let go before they could be sent."""


class Forwarder:
    """Moves one local stream to one subject of the hub."""

    def __init__(
        self, bus: Bus, id_prefix: str, stream: str, subject: str, *, window: int, link_up: asyncio.Event
    ) -> None:
        self.stats = ForwardStats()
        self._bus = bus
        self._id_prefix = id_prefix
        self._stream = stream
        self._subject = subject
        self._slots = asyncio.Semaphore(window)
        self._window = window
        self._link_up = link_up
        self._last = 0

    async def run(self) -> None:
        """For ever."""
        created = str((await stream_info(self._bus, self._stream))["created"])
        async with asyncio.TaskGroup() as group:
            async for message in consume(
                self._bus, self._stream, durable=DURABLE, ack_wait_s=ACK_WAIT_S, max_ack_pending=2 * self._window
            ):
                self._count_drops(message)
                await self._link_up.wait()
                await self._slots.acquire()
                group.create_task(self._send(message, created))

    def _count_drops(self, message: StoredMessage) -> None:
        if message.delivered > 1:
            return
        if self._last and message.sequence > self._last + 1:
            gone = message.sequence - self._last - 1
            self.stats.dropped += gone
            log.warning("the oldest entries had to go before the cloud was back", stream=self._stream, messages=gone)
        self._last = max(self._last, message.sequence)

    async def _send(self, message: StoredMessage, created: str) -> None:
        msg_id = f"{self._id_prefix}-{created}-{message.sequence}"
        try:
            await publish_stored(self._bus, self._subject, message.data, msg_id=msg_id, timeout_s=PUBLISH_TIMEOUT_S)
            await message.ack()
            self.stats.forwarded += 1
        except BusError as error:
            self.stats.retried += 1
            log.debug("not forwarded yet", stream=self._stream, reason=str(error))
            await self._return(message)
        finally:
            self._slots.release()

    async def _return(self, message: StoredMessage) -> None:
        try:
            await message.nak(RETRY_S)
        except BusError:
            log.debug("the local bus is away; the message comes again after its ack wait", wait_s=ACK_WAIT_S)
