"""One viewer of one path: a bounded queue and the task that empties it.

The queue belongs to the viewer, so a slow one loses its own pictures (up to the next key frame) and nobody else's.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from ._carrier import Carrier
from ._packetise import Unit
from ._rtp import RtpState

SESSION_TIMEOUT_S = 60
"""RFC 2326's default; clients send a keep-alive after half of it."""
MAX_QUEUED_UNITS = 64
MAX_QUEUED_BYTES = 4 * 1024 * 1024
SENDER_REPORT_INTERVAL_S = 5.0
CNAME = "belvedere"


class Conduct(ABC):
    """How a server that imitates a bad camera departs from what is right."""

    @abstractmethod
    def packets(self, packets: list[bytes]) -> list[bytes]:
        """What is sent instead of these."""

    @abstractmethod
    def unix_s(self) -> float:
        """What its clock says."""


class Session:
    """A viewer between SETUP and TEARDOWN."""

    def __init__(self, path: str, carrier: Carrier, conduct: Conduct | None = None) -> None:
        self.id = secrets.token_hex(8)
        self.path = path
        self.carrier = carrier
        self.rtp = RtpState()
        self.playing = False
        self._conduct = conduct
        self.sent = 0
        self.dropped = 0
        self._queue: deque[Unit] = deque()
        self._queued_bytes = 0
        self._needs_key = True
        self._ended = False
        self._ready = asyncio.Event()

    def offer(self, unit: Unit) -> None:
        """Queues a unit, or drops it and all up to the next key frame when the viewer is behind. Never waits."""
        if self._needs_key and not unit.keyframe:
            self.dropped += self.sent > 0 or self.dropped > 0  # waiting for the first key frame is no loss
            return
        full = len(self._queue) >= MAX_QUEUED_UNITS or self._queued_bytes + unit.size > MAX_QUEUED_BYTES
        if full and self._queue:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            if not unit.keyframe:
                self.dropped += 1
                self._needs_key = True
                return
        self._needs_key = False
        self._queue.append(unit)
        self._queued_bytes += unit.size
        self._ready.set()

    def end(self) -> None:
        """The source has ended: what is queued is still sent, then BYE."""
        self._ended = True
        self._ready.set()

    async def send_all(self, on_sent: Callable[[], None]) -> None:
        """Sends until the source ends (returns) or the viewer is gone (raises CarrierClosed)."""
        next_report = 0.0
        while True:
            while self._queue:
                unit = self._queue.popleft()
                self._queued_bytes -= unit.size
                packets = self.rtp.packets_of(unit, self._now())
                await self.carrier.send_rtp(self._conduct.packets(packets) if self._conduct else packets)
                self.sent += 1
                on_sent()
                if time.monotonic() >= next_report:
                    self._report()
                    next_report = time.monotonic() + SENDER_REPORT_INTERVAL_S
            if self._ended:
                self.carrier.send_rtcp(self.rtp.bye())
                return
            self._ready.clear()
            await self._ready.wait()

    def _now(self) -> float:
        return self._conduct.unix_s() if self._conduct else time.time()

    def _report(self) -> None:
        report = self.rtp.sender_report(self._now(), CNAME)
        if report is not None:
            self.carrier.send_rtcp(report)
