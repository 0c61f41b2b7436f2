"""The pictures of one connection on their way to the ring: decoded as far as somebody wants them.

While no reader asks, nothing is decoded but the first picture ever (it tells the size of the ring, and that the stream can
be decoded at all); the packets since the last key frame are kept. When a reader asks, they are decoded in one go, as fast
as that goes, and the newest picture is handed on: the reader has it within a frame interval and the decoding of what was
kept, instead of at the next key frame.

Must not know how a camera is connected.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import av

from belvedere.chassis.logs import get_logger
from belvedere.rtsp import ReceivedUnit, StreamDescription
from edge.ingest.decoder import Decoder, Undecodable
from edge.ingest.direct import Room
from edge.ingest.gop import UNITS_MAX, Gop
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus
from edge.ingest.timestamps import TimestampValidator

log = get_logger(__name__)


class FrameSink(Protocol):
    """Where frames go."""

    def put(self, frame: av.VideoFrame, *, capture_ns: int, pts_us: int) -> tuple[int, int, bool]:
        """Hand on one frame. Gives the size as handed on, and whether it was (False: dropped, no slot was free)."""

    def claim(self, width: int, height: int) -> Room | None:
        """Memory for a picture that is about to be decoded: see `direct.Claim`."""

    def ready(self) -> bool:
        """Readers can attach: there is a ring."""

    def wanted(self) -> bool:
        """A reader waits for a frame."""

    def wait_wanted(self, timeout_s: float) -> bool:
        """Until a reader asks (True), `wake` is called, or the time is over."""

    def wake(self) -> None:
        """Ends `wait_wanted`."""

    def retire(self) -> None:
        """The newest frame is old news: who asks from now on waits for the next one."""


class Demand:
    """Whether somebody wants a camera's frames, or has wanted them lately; goes on across connections."""

    def __init__(self, sink: FrameSink, idle_after_s: float) -> None:
        self._sink = sink
        self._idle_after_ns = int(idle_after_s * 1e9)
        self._last_ns = time.monotonic_ns()

    def __call__(self) -> bool:
        now_ns = time.monotonic_ns()
        if self._sink.wanted():
            self._last_ns = now_ns
        return now_ns - self._last_ns <= self._idle_after_ns


class Feed:
    """One connection's pictures. `unit` from the camera's thread."""

    def __init__(
        self,
        description: StreamDescription,
        sink: FrameSink,
        demand: Demand,
        status: CameraStatus,
        timestamps: TimestampValidator,
        settings: Settings,
    ) -> None:
        self._decoder = Decoder(description, settings.decode_threads, settings.decode_device, sink.claim)
        self._gop = Gop(settings.gop_buffer_mb << 20)
        self._sink = sink
        self._demand = demand
        self._status = status
        self._timestamps = timestamps
        self._active = True
        self.seen_key = False
        """A key frame has come."""
        self.alive_ns = time.monotonic_ns()
        """When it was last seen to work: a frame came out, or a picture came in while nobody wanted frames."""
        self.worked_since_ns: int | None = None
        status.decoder(self._decoder.device, self._decoder.note)

    def unit(self, unit: ReceivedUnit, more: Callable[[], ReceivedUnit | None]) -> None:
        """The next picture. `more`: one that has come meanwhile, or None."""
        self._take_in(unit)
        if not self._demand() and self._sink.ready():
            self._rest(unit)
        elif self._active:
            for decoded in self._frames(unit):
                self._hand_on(*decoded)
                self._alive(unit.last_packet_ns)
        else:
            self._catch_up(unit, more)

    @property
    def device(self) -> str:
        """What decodes: `Decoder.device`."""
        return self._decoder.device

    @property
    def healthy_s(self) -> float:
        """How long it has worked since its first picture."""
        return 0.0 if self.worked_since_ns is None else (self.alive_ns - self.worked_since_ns) / 1e9

    def _take_in(self, unit: ReceivedUnit) -> None:
        self.seen_key = self.seen_key or unit.keyframe
        self._gop.add(unit)
        self._status.arrived(unit.last_packet_ns)

    def _alive(self, at_ns: int) -> None:
        self.alive_ns = at_ns
        if self.worked_since_ns is None:
            self.worked_since_ns = at_ns

    def _rest(self, unit: ReceivedUnit) -> None:
        if self._active:
            self._active = False
            self._sink.retire()
            self._status.decoding(False)
            log.info("no reader: nothing is decoded")
        self._status.passed_over()
        self._status.state("streaming")
        self._alive(unit.last_packet_ns)

    def _catch_up(self, unit: ReceivedUnit, more: Callable[[], ReceivedUnit | None]) -> None:
        """In step again with the stream: through all that was kept, but only its end is shown."""
        self._active = True
        self._decoder.restart()
        pending = deque(self._gop.units() or [unit])
        began_ns, count = time.monotonic_ns(), 0
        newest: tuple[av.VideoFrame, int, int] | None = None
        while pending:
            for decoded in self._frames(pending.popleft()):
                newest = decoded
            count += 1
            # The connection must not run full meanwhile.
            while (another := more()) is not None:
                self._take_in(another)
                if another.keyframe or len(pending) >= UNITS_MAX:
                    # Nothing before a key frame matters; and who cannot catch up at all waits for one.
                    pending.clear()
                    self._decoder.restart()
                pending.append(another)
        took_ms = round((time.monotonic_ns() - began_ns) / 1e6, 1)
        log.info("a reader: decoding again", pictures=count, took_ms=took_ms)
        if newest is not None:
            self._hand_on(*newest)
            self._alive(time.monotonic_ns())

    def _frames(self, unit: ReceivedUnit) -> list[tuple[av.VideoFrame, int, int]]:
        began_ns = time.monotonic_ns()
        device = self._decoder.device
        try:
            frames = self._decoder.decode(unit)
        except Undecodable:
            # The next key frame mends it. If none comes, it is a stall.
            self._status.undecodable()
            return []
        if self._decoder.device != device:
            self._status.decoder(self._decoder.device, self._decoder.note)
        self._status.decoded(len(frames), time.monotonic_ns() - began_ns)
        return frames

    def _hand_on(self, frame: av.VideoFrame, capture_ns: int, camera_us: int) -> None:
        pts_us = self._timestamps.next(camera_us, capture_ns)
        width, height, handed_on = self._sink.put(frame, capture_ns=capture_ns, pts_us=pts_us)
        self._status.frame(width, height, capture_ns, dropped=not handed_on)
