"""A slot in the writer's hand. Must not know who reads, or when it is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framelink import layout
from framelink.errors import LayoutError
from framelink.layout import FrameInfo, PixelFormat

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes


class WritableSlot:
    """A slot in the writer's hand: views of its memory."""

    def __init__(self, index: int, payload: Bytes, info: FrameInfo | None = None) -> None:
        self.index = index
        self.payload = payload
        """All of it: uint8, (slot_bytes,)."""
        self.info = info
        """What was published in it; None before. For `make_bgr`."""
        self._layout: tuple[int, int, PixelFormat] | None = None
        if info is not None:
            self._layout = (info.width, info.height, info.format)

    def planes(self, width: int, height: int, format: PixelFormat) -> tuple[Array, ...]:
        """Writable planes (`PixelFormat` says their shapes). LayoutError where they do not fit."""
        self._layout = (width, height, format)
        return layout.planes_of(self.payload, width, height, format)

    def bgr(self, width: int, height: int) -> Array:
        """The writable BGR picture (height, width, 3) beside the planes; call `planes` first, it decides where this
        one lies.
        """
        known = self._layout
        if known is None:
            known = self._layout = (width, height, PixelFormat.BGR24)
        if known[:2] != (width, height):
            raise LayoutError("BGR of %dx%d beside planes of %dx%d" % (width, height, known[0], known[1]))
        return layout.bgr_of(self.payload, width, height, known[2])
