"""A frame as the SDK keeps it: in its slot while it may, in memory of our own when it must.

Several medias may share one picture (a cached frame is delivered again), and the display may be reading it. The slot
goes back to the camera when the last of them has gone, or when the picture is settled: copied, for the medias that
still need it.

Must not know: ports, batches, or when it is time to settle.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from framelink import Frame
from panoramasdk._spec import Stream

if TYPE_CHECKING:
    import numpy.typing as npt

    from panoramasdk._media import media

    Pixels = npt.NDArray[np.uint8]


class Picture:
    """One frame of one camera."""

    def __init__(self, stream: Stream, frame: Frame, looked: Callable[[], None]) -> None:
        """`looked` is told when its pixels are wanted for the first time."""
        self.stream = stream
        self._looked: Callable[[], None] | None = looked
        self.info = frame.info
        self._lock = threading.RLock()
        self._frame: Frame | None = frame
        self._pixels: Any = None
        self._lent = 0
        self._medias: weakref.WeakSet[media] = weakref.WeakSet()

    def shown_by(self, one: media) -> None:
        """A media has this picture."""
        with self._lock:
            self._medias.add(one)

    def looked_at(self) -> None:
        """The application, or a model for it, wants the pixels."""
        looked, self._looked = self._looked, None
        if looked is not None:
            looked()

    def copy(self) -> Pixels:
        """The caller's own (height, width, 3) BGR pixels."""
        with self._lock:
            if self._pixels is not None:
                return np.array(self._pixels)
            if self._frame is None:
                raise ValueError("the pixels of this frame are gone")
            return np.array(self._frame.bgr())

    def is_equal(self, pixels: Pixels) -> bool:
        """The pixels are still those of the camera, as far as the camera's can still be seen in their slot."""
        with self._lock:
            if self._frame is None or not self._frame.info.has_bgr:
                return False
            return _equal(self._frame.bgr(), pixels)

    def lend(self) -> Frame | None:
        """The frame, to be shown by reference until `give_back`. None where it is in its slot no longer."""
        with self._lock:
            if self._frame is None or not self._frame.held:
                return None
            self._lent += 1
            return self._frame

    def give_back(self) -> None:
        """The display has finished with it."""
        with self._lock:
            self._lent -= 1

    def settle(self, give_back: Callable[[Frame], object] = Frame.release) -> bool:
        """Give the slot back; what medias still need is copied. False while the display reads it.

        `give_back`: what gives the frame back, now or soon.
        """
        with self._lock:
            if self._frame is None:
                return True
            if self._lent:
                return False
            if any(one._needs_picture() for one in list(self._medias)):
                self._pixels = self.copy()
            give_back(self._frame)
            self._frame = None
            return True

    def matches(self, sequence: int) -> bool:
        """It is this frame of its camera, and in its slot."""
        return self._frame is not None and self.info.sequence == sequence


_ROWS_AT_A_TIME = 16
"""Compared in pieces that stay in the cache, so that a drawing near the top is found at once."""


def _equal(first: Pixels, second: Pixels) -> bool:
    if first.shape != second.shape:
        return False
    words = first.shape[1] * 3 % 8 == 0 and first.flags.c_contiguous and second.flags.c_contiguous
    for row in range(0, first.shape[0], _ROWS_AT_A_TIME):
        here, there = first[row : row + _ROWS_AT_A_TIME], second[row : row + _ROWS_AT_A_TIME]
        if words:
            here, there = here.reshape(-1).view(np.uint64), there.reshape(-1).view(np.uint64)
        if not np.array_equal(here, there):
            return False
    return True
