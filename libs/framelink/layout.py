"""How a picture lies in a slot: formats, planes, alignment. Pure arithmetic on a buffer.

A slot is a header of HEADER_BYTES (`framelink.notice`) and a payload. In the payload the planes follow each other, each
aligned to ALIGN, without padding between rows and with room for some more rows behind the last (BLOCK_ROWS), so that a
decoder can write into them; the BGR picture, if there is one, follows the planes. A TENSORS slot holds
`framelink.tensors` bytes.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from framelink.errors import LayoutError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Bytes = npt.NDArray[np.uint8]

ALIGN = 64
"""A cache line, and what SIMD loads of every CPU we know like."""

BLOCK_ROWS = 16
SPARE_ROWS = 2
"""Decoders write whole blocks of BLOCK_ROWS rows, and read up to SPARE_ROWS rows beyond the last one."""

HEADER_BYTES = 128
MAX_SIDE = 16384
"""Pixels. Larger pictures are refused; 16384² × 3 is 0.8 GB."""

FLAG_BGR = 0x1


class PixelFormat(enum.IntEnum):
    """What the planes of a slot are."""

    I420 = 1
    """Three planes: Y (height, width), U and V (half of each, rounded up)."""
    NV12 = 2
    """Two planes: Y (height, width), UV (half height, half width, 2)."""
    BGR24 = 3
    """One plane (height, width, 3)."""
    TENSORS = 4
    """No picture: bytes of `framelink.tensors`."""


FORMATS = {int(format): format for format in PixelFormat}


class FrameInfo(NamedTuple):
    """One frame's data. Nanoseconds are CLOCK_MONOTONIC of the appliance. A tuple: one is made for every frame on either side."""

    sequence: int
    """1, 2, 3 … for each frame that the writer published."""
    capture_ns: int
    """When the frame's last packet arrived from the camera."""
    publish_ns: int
    """When the frame was complete in its slot."""
    pts_us: int
    """The camera's own time of the picture, microseconds; never goes back."""
    width: int
    """Pixels; 0 for tensors."""
    height: int
    """Pixels; 0 for tensors."""
    format: PixelFormat
    has_bgr: bool
    """There is a BGR picture beside the planes (always so for BGR24)."""


def align(size: int) -> int:
    """The next multiple of ALIGN."""
    return (size + ALIGN - 1) // ALIGN * ALIGN


def check_size(width: int, height: int) -> None:
    """LayoutError unless this is the size of a picture that we handle."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise LayoutError("a picture of %dx%d pixels: each side must be 1..%d" % (width, height, MAX_SIDE))


def plane_shapes(width: int, height: int, format: PixelFormat) -> list[tuple[int, ...]]:
    """The numpy shape of each plane, in their order."""
    check_size(width, height)
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    if format == PixelFormat.I420:
        return [(height, width), (half_height, half_width), (half_height, half_width)]
    if format == PixelFormat.NV12:
        return [(height, width), (half_height, half_width, 2)]
    if format == PixelFormat.BGR24:
        return [(height, width, 3)]
    raise LayoutError("%r has no planes" % (format,))


def plane_offsets(shapes: list[tuple[int, ...]], format: PixelFormat) -> tuple[list[int], int]:
    """Where each plane begins in the payload, and where the BGR picture would begin."""
    offsets, at = [], 0
    for shape in shapes:
        offsets.append(at)
        rows = shape[0] if format == PixelFormat.BGR24 else rows_for(shape[0])
        at = align(at + _size(shape) // shape[0] * rows)
    return offsets, at


def rows_for(rows: int) -> int:
    """Rows that a plane of so many has room for."""
    return (rows + BLOCK_ROWS - 1) // BLOCK_ROWS * BLOCK_ROWS + SPARE_ROWS


def slot_bytes_for(width: int, height: int) -> int:
    """Payload bytes for one frame of this size in any format, with its BGR picture beside it."""
    _, after_planes = plane_offsets(plane_shapes(width, height, PixelFormat.I420), PixelFormat.I420)
    return align(after_planes + width * height * 3)


class Geometry:
    """Where the planes and the BGR picture of one size and format lie: worked out once, used for every frame."""

    def __init__(self, width: int, height: int, format: PixelFormat) -> None:
        shapes = plane_shapes(width, height, format)
        offsets, after_planes = plane_offsets(shapes, format)
        self._of = (width, height, format)
        self._planes = [(shape, offset, _size(shape)) for shape, offset in zip(shapes, offsets)]
        self._end = after_planes
        start = 0 if format == PixelFormat.BGR24 else after_planes
        self._bgr_start, self._bgr_end = start, start + width * height * 3
        self._bgr_shape = (height, width, 3)

    def planes(self, payload: Bytes) -> tuple[Array, ...]:
        """Views of the planes. LayoutError where the slot is too small."""
        if self._end > align(payload.size):
            raise LayoutError(
                "a %dx%d %s picture needs %d bytes, the slot has %d"
                % (self._of[0], self._of[1], self._of[2].name, self._end, payload.size)
            )
        return tuple([payload[at : at + size].reshape(shape) for shape, at, size in self._planes])

    def bgr(self, payload: Bytes) -> Array:
        """A view (height, width, 3) of the BGR picture. LayoutError where the slot is too small."""
        if self._bgr_end > payload.size:
            raise LayoutError(
                "%dx%d %s with BGR needs %d bytes, the slot has %d: make the ring with slot_bytes_for(width, height)"
                % (self._of[0], self._of[1], self._of[2].name, self._bgr_end, payload.size)
            )
        return payload[self._bgr_start : self._bgr_end].reshape(self._bgr_shape)


_GEOMETRIES_MAX = 64
_geometries: dict[tuple[int, int, int], Geometry] = {}


def geometry(width: int, height: int, format: PixelFormat) -> Geometry:
    """The one of this size and format. Raises LayoutError."""
    known = _geometries.get((width, height, format))
    if known is None:
        known = Geometry(width, height, format)
        if len(_geometries) >= _GEOMETRIES_MAX:  # Somebody sends ever new sizes.
            _geometries.clear()
        _geometries[(width, height, format)] = known
    return known


def planes_of(payload: Bytes, width: int, height: int, format: PixelFormat) -> tuple[Array, ...]:
    """Views of the planes in a slot's payload. LayoutError where the slot is too small."""
    return geometry(width, height, format).planes(payload)


def bgr_of(payload: Bytes, width: int, height: int, format: PixelFormat) -> Array:
    """A view (height, width, 3) of the BGR picture in a slot's payload. LayoutError where the slot is too small."""
    return geometry(width, height, format).bgr(payload)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def bgr_from_planes(planes: tuple[Array, ...], format: PixelFormat) -> Array:
    """A new (height, width, 3) BGR picture from planes, BT.601 limited range like swscale's default.

    In numpy, so some 40 ms for 1920×1080: for the rare frame that nobody asked BGR for in time.
    """
    if format == PixelFormat.BGR24:
        return np.array(planes[0])
    luma = planes[0]
    height, width = luma.shape
    if format == PixelFormat.I420:
        blue_part, red_part = planes[1], planes[2]
    else:
        blue_part, red_part = planes[1][:, :, 0], planes[1][:, :, 1]
    y = (luma.astype(np.int32) - 16) * 298 + 128
    u = blue_part.repeat(2, axis=0).repeat(2, axis=1)[:height, :width].astype(np.int32) - 128
    v = red_part.repeat(2, axis=0).repeat(2, axis=1)[:height, :width].astype(np.int32) - 128
    out = np.empty((height, width, 3), np.uint8)
    out[:, :, 0] = np.clip((y + 516 * u) >> 8, 0, 255)
    out[:, :, 1] = np.clip((y - 100 * u - 208 * v) >> 8, 0, 255)
    out[:, :, 2] = np.clip((y + 409 * v) >> 8, 0, 255)
    return out
