"""PyAV's own libswscale, told where to write: BGR goes straight into the slot.

PyAV converts into a frame of its own, from which 6 MB then have to be copied: 1.3 to 1.5 ms for 1080p where this takes 0.9,
with the same bits. It reaches for the library that PyAV has loaded into this process (two functions whose signatures have not
changed since 2010); where that does not work, `Converter.make` gives None and PyAV's way is taken.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

from edge.ingest.libav import loaded

_YUV420P, _BGR24 = 0, 3
_BILINEAR = 2
UNSPECIFIED, _DEFAULT = 2, 5
"""AVCOL_SPC_UNSPECIFIED, and what libswscale takes it for (BT.601)."""
FORMATS = frozenset({"yuv420p", "yuvj420p"})
"""I420, as FFmpeg calls it: of limited range unless the frame says otherwise, and of full."""
WIDTH_STEP = 32
"""Its loops write whole vectors: with other widths beyond the end of the picture, where the next slot begins."""
_Pointers, _Strides = ctypes.c_void_p * 4, ctypes.c_int * 4


@functools.cache
def _library() -> Any | None:
    library = loaded("libswscale")
    if library is None:
        return None
    library.sws_getContext.restype = ctypes.c_void_p
    library.sws_getContext.argtypes = [ctypes.c_int] * 7 + [ctypes.c_void_p] * 3
    library.sws_getCoefficients.restype = ctypes.c_void_p
    library.sws_getCoefficients.argtypes = [ctypes.c_int]
    library.sws_setColorspaceDetails.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, *[ctypes.c_int] * 4
    ]  # fmt: skip
    library.sws_scale.argtypes = [ctypes.c_void_p, _Pointers, _Strides, ctypes.c_int, ctypes.c_int, _Pointers, _Strides]
    library.sws_freeContext.argtypes = [ctypes.c_void_p]
    library.sws_freeContext.restype = None
    return library


class Route(NamedTuple):
    """From where to where, as libswscale and libyuv want it: worked out once for a place that is used again and again."""

    places: tuple[int, ...]
    """Each plane and its stride, then the target and its."""
    source: Any
    source_strides: Any
    target: Any
    target_strides: Any

    @classmethod
    def make(cls, planes: Sequence[int], strides: Sequence[int], target: npt.NDArray[np.uint8]) -> Route:
        """`planes`: addresses of Y, U and V. `target`: (height, width, 3), contiguous and writable."""
        address, stride = target.ctypes.data, target.strides[0]
        places = [number for pair in zip(planes, strides, strict=True) for number in pair]
        into = _Pointers(address, None, None, None)
        source = _Pointers(*planes, None), _Strides(*strides, 0)
        return cls((*places, address, stride), *source, into, _Strides(stride, 0, 0, 0))

    @classmethod
    def between(cls, frame: av.VideoFrame, target: npt.NDArray[np.uint8]) -> Route:
        """From the frame's memory."""
        planes = frame.planes
        return cls.make([plane.buffer_ptr for plane in planes], [plane.line_size for plane in planes], target)


class Converter:
    """I420 → BGR for one size, range and colour space. One thread at a time."""

    def __init__(self, library: Any, context: int, key: tuple[Any, ...]) -> None:
        self._library = library
        self._context = context
        self._key = key

    @classmethod
    def make(cls, frame: av.VideoFrame) -> Converter | None:
        """For frames like this one; None where it has to be done in another way."""
        width, height = frame.width, frame.height
        if frame.format.name not in FORMATS or width % WIDTH_STEP or height % 2:
            return None
        library = _library()
        if library is None:
            return None
        context = library.sws_getContext(width, height, _YUV420P, width, height, _BGR24, _BILINEAR, None, None, None)
        if not context:
            return None
        full = frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG
        space = _DEFAULT if frame.colorspace == UNSPECIFIED else frame.colorspace
        table = library.sws_getCoefficients(space)
        library.sws_setColorspaceDetails(context, table, full, table, True, 0, 1 << 16, 1 << 16)
        return cls(library, context, key_of(frame))

    def fits(self, frame: av.VideoFrame) -> bool:
        """The frame is like the one that it was made for."""
        return self._key == key_of(frame)

    def follow(self, route: Route, height: int) -> None:
        """Convert the picture that lies where the route begins."""
        self._library.sws_scale(
            self._context, route.source, route.source_strides, 0, height, route.target, route.target_strides
        )

    def __del__(self) -> None:
        self._library.sws_freeContext(self._context)


def key_of(frame: av.VideoFrame) -> tuple[Any, ...]:
    """What a converter depends on."""
    return frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace
