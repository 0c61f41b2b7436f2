"""What came since the last key frame: from here a decoder that stood still is in step again. Pure.

While nobody looks at a camera nothing is decoded; the packets are kept, so that who begins to look has the newest picture
at once and does not wait for the next key frame, which some cameras send once a minute.
"""

from __future__ import annotations

from belvedere.rtsp import ReceivedUnit

UNITS_MAX = 2000
"""Pictures; one key frame a minute at 30 a second. To decode them takes seconds: more is not worth it."""


class Gop:
    """Bounded by bytes and pictures; what is longer is let go, and the next key frame waited for."""

    def __init__(self, max_bytes: int, max_units: int = UNITS_MAX) -> None:
        self._max_bytes = max_bytes
        self._max_units = max_units
        self._units: list[ReceivedUnit] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._units)

    def add(self, unit: ReceivedUnit) -> None:
        """The next picture of the stream."""
        if unit.keyframe:
            self.clear()
        elif not self._units:
            return  # Its beginning is not here.
        self._units.append(unit)
        self.bytes += len(unit.data)
        if self.bytes > self._max_bytes or len(self._units) > self._max_units:
            self.clear()

    def units(self) -> list[ReceivedUnit]:
        """A key frame and all since; empty where there is none."""
        return list(self._units)

    def clear(self) -> None:
        """Forget everything up to the next key frame."""
        self._units.clear()
        self.bytes = 0
