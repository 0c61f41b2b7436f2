"""`media`: one frame, as an application sees it.

`image` is the application's own copy, made when it is first asked for; a frame whose image nobody has changed goes on
to the display by reference. Boxes and labels travel as data and are drawn there.

Must not know: where frames come from or go to.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from panoramasdk._picture import Picture

if TYPE_CHECKING:
    from panoramasdk._picture import Pixels


class media:
    """One frame of one camera. Applications get them from `node.inputs.<port>.get()`; they do not make any."""

    def __init__(self, picture: Picture, is_cached: bool) -> None:
        self._picture = picture
        self._is_cached = is_cached
        self._image: Any = None
        self._replaced = False
        self._rects: list[tuple[float, float, float, float]] = []
        self._labels: list[tuple[str, float, float]] = []
        # CLOCK_MONOTONIC → wall clock, as of now: a step of the wall clock moves old frames with it.
        self._capture_unix_ns = picture.info.capture_ns + time.time_ns() - time.monotonic_ns()
        picture.shown_by(self)

    @property
    def image(self) -> Pixels:
        """(height, width, 3) uint8, blue first; writable, and yours: drawing in it shows on the output."""
        if self._image is None:
            self._picture.looked_at()
            self._image = self._picture.copy()
        image: Pixels = self._image
        return image

    @image.setter
    def image(self, pixels: Any) -> None:
        array = np.asarray(pixels)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(
                "an image must be (height, width, 3) uint8, this one is %s %s" % (array.shape, array.dtype.name)
            )
        self._image = array
        self._replaced = True

    @property
    def is_cached(self) -> bool:
        """The camera had no new frame for this batch: this is its previous one."""
        return self._is_cached

    @property
    def stream_id(self) -> str:
        """The name of the camera's node."""
        return self._picture.stream.stream_id

    @property
    def stream_uri(self) -> str:
        """The camera's address, without credentials."""
        return self._picture.stream.stream_uri

    @property
    def time_stamp(self) -> tuple[int, int]:
        """When the frame was captured: (seconds, microseconds) since 1970."""
        return self._capture_unix_ns // 1000000000, self._capture_unix_ns // 1000 % 1000000

    def add_label(self, text: str, x: float, y: float) -> None:
        """Text at a point given as parts, 0..1, of width and height. ValueError outside of that."""
        self._labels.append((str(text), _part("x", x), _part("y", y)))

    def add_rect(self, left: float, top: float, right: float, bottom: float) -> None:
        """A box, its sides given as parts, 0..1, of width and height. ValueError outside of that."""
        self._rects.append((_part("left", left), _part("top", top), _part("right", right), _part("bottom", bottom)))

    def __repr__(self) -> str:
        info = self._picture.info
        cached = ", cached" if self._is_cached else ""
        return "<media %s %dx%d frame %d%s>" % (self.stream_id, info.width, info.height, info.sequence, cached)

    # --- For the rest of the SDK; underscored, because applications see this class ------------------------------------

    def _needs_picture(self) -> bool:
        """Nothing of its own yet."""
        return self._image is None

    def _is_untouched(self) -> bool:
        """What the camera sent is what the application shows."""
        return self._image is None or (not self._replaced and self._picture.is_equal(self._image))

    def _pixels(self) -> Pixels:
        """What the application shows, without counting as a look at it."""
        return self._picture.copy() if self._image is None else self._image


def _part(name: str, value: Any) -> float:
    part = float(value)
    if not 0.0 <= part <= 1.0:  # NaN is not, either.
        raise ValueError("%s is %r; coordinates are parts of the picture, 0..1" % (name, value))
    return part
