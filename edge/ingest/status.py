"""What is known of one camera: written by the camera's thread, read by the worker's, sent to the service as JSON."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from belvedere.rtsp import ReceiverStats

# Over how long rates are measured.
RATE_WINDOW_NS = 3_000_000_000
RATE_SAMPLES_MAX = 512
# Over how many of the last frames times are measured: ten seconds at 30 a second.
TIMES_MAX = 300


@dataclass(frozen=True, slots=True)
class RingCounts:
    """What the ring says of its readers."""

    readers: int = 0
    frames_written: int = 0
    delivered: int = 0
    skipped: int = 0
    held: int = 0
    evicted: int = 0
    bgr_late: int = 0


@dataclass(slots=True)
class _Times:
    """The last durations of something."""

    nanoseconds: deque[int] = field(default_factory=lambda: deque(maxlen=TIMES_MAX))

    def row(self) -> dict[str, float | None]:
        ordered = sorted(self.nanoseconds)
        return {"p50": _quantile(ordered, 0.5), "p99": _quantile(ordered, 0.99)}


def _quantile(ordered: Sequence[int], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6, 2) if ordered else None


@dataclass(slots=True)
class _Rate:
    """So many a second."""

    moments: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_SAMPLES_MAX))

    def at(self, now_ns: int) -> float:
        moments = self.moments
        while moments and now_ns - moments[0] > RATE_WINDOW_NS:
            moments.popleft()
        if len(moments) < 2:
            return 0.0
        # Until now, not until the last one: a stream that stops comes down to 0 within the window.
        return round((len(moments) - 1) * 1e9 / (now_ns - moments[0]), 2)


class CameraStatus:
    """The row of one camera in `ingest.status`, but for `camera_id`. `changed` is called, from the camera's thread,
    when the state or its reason changes.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._state = "connecting"
        self._reason: str | None = None
        self._width = self._height = 0
        self._codec: str | None = None
        self._transport: str | None = None
        self._device: str | None = None
        self._device_note: str | None = None
        self._decoding = False
        self._decoded = self._no_slot = self._undecodable = self._passed_over = self._reconnects = 0
        self._last_frame_ns: int | None = None
        self._came, self._went = _Rate(), _Rate()
        self._decode_times, self._ages = _Times(), _Times()
        self._stream = ReceiverStats()
        """Of the present connection; those before it are in `_before`."""
        self._before = ReceiverStats()

    def state(self, state: str, reason: str | None = None) -> None:
        """Enter a state of `ingest.status`."""
        with self._lock:
            same = (state, reason) == (self._state, self._reason)
            self._state, self._reason = state, reason
        if not same:
            self._changed()

    def authenticating(self) -> None:
        """The camera asks for the password. A failure that is on show stays there: the same question is asked at every
        try.
        """
        with self._lock:
            first = self._state == "connecting" and self._reason is None
        if first:
            self.state("authenticating")

    def reconnect(self) -> None:
        """Count one more try after the first."""
        with self._lock:
            self._reconnects += 1

    def stream(self, codec: str, transport: str, stats: ReceiverStats) -> None:
        """A stream has been opened, whose counters go on counting in `stats`."""
        with self._lock:
            self._codec, self._transport, self._stream = codec, transport, stats

    def connection_ended(self, stats: ReceiverStats) -> None:
        """Its counters will not change any more."""
        with self._lock:
            if self._stream is stats:
                for name in ReceiverStats.__slots__:
                    setattr(self._before, name, getattr(self._before, name) + getattr(stats, name))
                self._stream = ReceiverStats()
            self._decoding = False

    def decoder(self, device: str, note: str | None) -> None:
        """What decodes from now on, and why it is not what was asked for."""
        with self._lock:
            self._device, self._device_note = device, note

    def decoding(self, on: bool) -> None:
        """Whether pictures are decoded."""
        with self._lock:
            self._decoding = on

    def arrived(self, at_ns: int) -> None:
        """A whole picture has come."""
        with self._lock:
            self._came.moments.append(at_ns)

    def passed_over(self) -> None:
        """It was not decoded, since nobody asks."""
        with self._lock:
            self._passed_over += 1

    def undecodable(self) -> None:
        """Count a packet that is no picture."""
        with self._lock:
            self._undecodable += 1

    def decoded(self, frames: int, took_ns: int) -> None:
        """A picture has gone into the decoder, and so many frames have come out."""
        with self._lock:
            self._decoding = True
            self._decoded += frames
            self._decode_times.nanoseconds.append(took_ns)

    def frame(self, width: int, height: int, capture_ns: int, *, dropped: bool) -> None:
        """A frame has been handed on: the camera streams. `dropped`: no slot was free for it. Size: as handed on. `capture_ns`:
        when its last packet came.
        """
        now_ns = time.monotonic_ns()
        with self._lock:
            same = self._state == "streaming" and self._reason is None
            self._no_slot += dropped
            self._width, self._height = width, height
            self._last_frame_ns = now_ns
            self._went.moments.append(now_ns)
            self._ages.nanoseconds.append(now_ns - capture_ns)
        if not same:
            self.state("streaming")

    def row(self, ring: RingCounts) -> dict[str, Any]:
        """The JSON row; `last_frame_ns` stands in it for `last_frame_age_ms`, which is made when it is published."""
        now_ns = time.monotonic_ns()
        with self._lock:
            return {
                "state": self._state,
                "reason": self._reason,
                "width": self._width,
                "height": self._height,
                "codec": self._codec,
                "transport": self._transport,
                "decoder": self._device,
                "decoder_note": self._device_note,
                "decoding": self._decoding,
                "frames_decoded": self._decoded,
                "frames_dropped": self._no_slot,
                "undecodable": self._undecodable,
                "drops": {
                    "no_slot": self._no_slot,
                    "undecodable": self._undecodable,
                    "lost_packets": self._total("dropped_units"),
                    "oversized": self._total("oversized_units"),
                    "no_reader": self._passed_over,
                },
                "packets_in": self._total("packets"),
                "packets_lost": self._total("lost_packets"),
                "bytes_in": self._total("octets"),
                "fps_in": self._came.at(now_ns),
                "fps": self._went.at(now_ns),
                "decode_ms": self._decode_times.row(),
                "age_ms": self._ages.row(),
                "reconnects": self._reconnects,
                "readers": ring.readers,
                "frames_written": ring.frames_written,
                "frames_delivered": ring.delivered,
                "frames_skipped": ring.skipped,
                "slots_held": ring.held,
                "readers_evicted": ring.evicted,
                "bgr_late": ring.bgr_late,
                "last_frame_ns": self._last_frame_ns,
            }

    def _total(self, name: str) -> int:
        return int(getattr(self._before, name)) + int(getattr(self._stream, name))
