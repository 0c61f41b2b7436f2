"""How a picture lies in a slot: formats, planes, alignment, and the slot's own header. Pure arithmetic on a buffer.

A slot is a header of HEADER_BYTES and a payload. In the payload the planes follow each other, each aligned to ALIGN,
without padding between rows; the BGR picture, if there is one, follows the planes. A TENSORS slot holds
`framelink.tensors` bytes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from framelink.errors import LayoutError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Bytes = npt.NDArray[np.uint8]

ALIGN = 64
"""A cache line, and what SIMD loads of every CPU we know like."""

HEADER_BYTES = 128
MAX_SIDE = 16384
"""Pixels. Larger pictures are refused; 16384² × 3 is 0.8 GB."""

FLAG_BGR = 0x1

_HEADER = struct.Struct("<QqqqIIIIQ")  # sequence capture_ns publish_ns pts_us width height format flags payload bytes


_FLAGS_AT = 44


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


@dataclass(frozen=True)
class FrameInfo:
    """One frame's data. Nanoseconds are CLOCK_MONOTONIC of the appliance."""

    sequence: int
    """1, 2, 3 … for each frame that the writer published."""
    capture_ns: int
    """When the frame began to arrive from the camera."""
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


def plane_offsets(shapes: list[tuple[int, ...]]) -> tuple[list[int], int]:
    """Where each plane begins in the payload, and where the BGR picture would begin."""
    offsets, at = [], 0
    for shape in shapes:
        offsets.append(at)
        size = 1
        for side in shape:
            size *= side
        at = align(at + size)
    return offsets, at


def slot_bytes_for(width: int, height: int) -> int:
    """Payload bytes for one frame of this size in any format, with its BGR picture beside it."""
    _, after_planes = plane_offsets(plane_shapes(width, height, PixelFormat.I420))
    return align(after_planes + width * height * 3)


def planes_of(payload: Bytes, width: int, height: int, format: PixelFormat) -> tuple[Array, ...]:
    """Views of the planes in a slot's payload. LayoutError where the slot is too small."""
    shapes = plane_shapes(width, height, format)
    offsets, end = plane_offsets(shapes)
    if end > align(payload.size):
        raise LayoutError(
            "a %dx%d %s picture needs %d bytes, the slot has %d" % (width, height, format.name, end, payload.size)
        )
    views = []
    for shape, offset in zip(shapes, offsets):
        size = int(np.prod(shape, dtype=np.int64))
        views.append(payload[offset : offset + size].reshape(shape))
    return tuple(views)


def bgr_of(payload: Bytes, width: int, height: int, format: PixelFormat) -> Array:
    """A view (height, width, 3) of the BGR picture in a slot's payload. LayoutError where the slot is too small."""
    if format == PixelFormat.BGR24:
        return planes_of(payload, width, height, format)[0]
    _, start = plane_offsets(plane_shapes(width, height, format))
    size = width * height * 3
    if start + size > payload.size:
        raise LayoutError(
            "%dx%d %s with BGR needs %d bytes, the slot has %d: make the ring with slot_bytes_for(width, height)"
            % (width, height, format.name, start + size, payload.size)
        )
    return payload[start : start + size].reshape((height, width, 3))


def write_header(header: memoryview, info: FrameInfo, payload_bytes: int) -> None:
    """Fill a slot's header; the sequence goes in last, so that a half-written one is never taken for whole."""
    flags = FLAG_BGR if info.has_bgr else 0
    _HEADER.pack_into(
        header,
        0,
        0,
        info.capture_ns,
        info.publish_ns,
        info.pts_us,
        info.width,
        info.height,
        int(info.format),
        flags,
        payload_bytes,
    )
    set_sequence(header, info.sequence)


def read_header(header: memoryview) -> tuple[FrameInfo, int] | None:
    """(info, payload bytes) of a slot, or None where it is empty, being written, or makes no sense.

    The memory may belong to someone hostile: everything is read once, checked, and only then used.
    """
    sequence, capture, publish, pts, width, height, number, flags, size = _HEADER.unpack_from(header, 0)
    if sequence == 0 or sequence_of(header) != sequence:
        return None
    try:
        format = PixelFormat(number)
        if format != PixelFormat.TENSORS:
            check_size(width, height)
    except ValueError:
        return None
    return FrameInfo(sequence, capture, publish, pts, width, height, format, bool(flags & FLAG_BGR)), size


def mark_bgr(header: memoryview) -> None:
    """A BGR picture has joined the planes of a published frame."""
    flags = header[_FLAGS_AT : _FLAGS_AT + 4].cast("I")
    flags[0] |= FLAG_BGR


def set_sequence(header: memoryview, sequence: int) -> None:
    """One aligned 8-byte store: a reader sees the old number or the new one, never half of each."""
    header[:8].cast("Q")[0] = sequence


def sequence_of(header: memoryview) -> int:
    """The sequence that a slot holds at this moment; 0 while it is being written."""
    return int(header[:8].cast("Q")[0])


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
