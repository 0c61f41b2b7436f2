"""Presentation times that never go back, whatever the camera's do. Pure: no clock, no I/O.

Cameras restart their clocks, wrap their counters, send frames without times, and jump by hours when NTP finds them.
What is handed on is the camera's own spacing where it is believable, and the spacing of the arrivals where it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

# A step of the camera's clock that differs from that of the arrivals by more than this is a reset, not spacing. Wide
# enough for the burst after a stall (10 s of buffered frames), narrow enough that a clock jump does not freeze an
# application's own timers.
JUMP_MAX_US = 10_000_000
# The least step between two frames: equal times are as bad as times that go back.
STEP_MIN_US = 1


@dataclass(slots=True)
class TimestampValidator:
    """Makes the camera's times strictly increasing.

    `next` takes the camera's time (microseconds, or None where the frame has none) and the arrival (CLOCK_MONOTONIC,
    nanoseconds), and gives the time to hand on, in microseconds. The first frame's time is that of its arrival, so that it
    does not go back where the process is another one; it goes on across reconnects.
    """

    resets: int = 0
    """How often the camera's clock jumped, in either direction."""
    _out_us: int | None = None
    _camera_us: int | None = None
    _arrival_ns: int = 0

    def next(self, camera_us: int | None, arrival_ns: int) -> int:
        """The time to hand on for a frame, always greater than the one before."""
        if self._out_us is None:
            self._out_us, step_us = arrival_ns // 1000, 0
        else:
            arrived_us = max(0, arrival_ns - self._arrival_ns) // 1000
            step_us = arrived_us
            if camera_us is not None and self._camera_us is not None:
                camera_step_us = camera_us - self._camera_us
                if camera_step_us > 0 and abs(camera_step_us - arrived_us) <= JUMP_MAX_US:
                    step_us = camera_step_us
                else:
                    self.resets += 1
            step_us = max(STEP_MIN_US, step_us)
        self._out_us += step_us
        self._arrival_ns = arrival_ns
        if camera_us is not None:
            self._camera_us = camera_us
        return self._out_us

    def reconnected(self) -> None:
        """The camera's clock may start anywhere now: the next step comes from the arrivals."""
        self._camera_us = None
