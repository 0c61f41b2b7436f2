"""What is known of one camera: written by the camera's thread, read by the worker's, sent to the service as JSON."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

# Over how long the frame rate is measured.
FPS_WINDOW_NS = 3_000_000_000
FPS_FRAMES_MAX = 512


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
        self._decoded = self._dropped = self._undecodable = self._reconnects = 0
        self._last_frame_ns: int | None = None
        self._arrivals: deque[int] = deque(maxlen=FPS_FRAMES_MAX)

    def state(self, state: str, reason: str | None = None) -> None:
        """Enter a state of `ingest.status`."""
        with self._lock:
            same = (state, reason) == (self._state, self._reason)
            self._state, self._reason = state, reason
        if not same:
            self._changed()

    def reconnect(self) -> None:
        """Count one more try after the first."""
        with self._lock:
            self._reconnects += 1

    def stream(self, codec: str) -> None:
        """A stream has been opened."""
        with self._lock:
            self._codec = codec

    def undecodable(self) -> None:
        """Count a packet that is no picture."""
        with self._lock:
            self._undecodable += 1

    def frame(self, width: int, height: int, *, dropped: bool) -> None:
        """A frame has been decoded; `dropped`: no slot was free for it. Size: as handed on."""
        with self._lock:
            self._decoded += 1
            self._dropped += dropped
            self._width, self._height = width, height
            self._last_frame_ns = time.monotonic_ns()
            self._arrivals.append(self._last_frame_ns)

    def row(self, readers: int) -> dict[str, Any]:
        """The JSON row; `last_frame_ns` stands in it for `last_frame_age_ms`, which is made when it is published."""
        now_ns = time.monotonic_ns()
        with self._lock:
            return {
                "state": self._state,
                "reason": self._reason,
                "width": self._width,
                "height": self._height,
                "codec": self._codec,
                "frames_decoded": self._decoded,
                "frames_dropped": self._dropped,
                "undecodable": self._undecodable,
                "fps": round(self._fps(now_ns), 2),
                "reconnects": self._reconnects,
                "readers": readers,
                "last_frame_ns": self._last_frame_ns,
            }

    def _fps(self, now_ns: int) -> float:
        while self._arrivals and now_ns - self._arrivals[0] > FPS_WINDOW_NS:
            self._arrivals.popleft()
        if len(self._arrivals) < 2:
            return 0.0
        # Until now, not until the last frame: a stream that stops comes down to 0 within the window.
        return (len(self._arrivals) - 1) * 1e9 / (now_ns - self._arrivals[0])
