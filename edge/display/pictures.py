"""Pixels from shared memory to a frame of our own: one copy, cropped to even size. Knows no streams and no viewers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from framelink import PixelFormat

from .composer import MIN_SIDE, planes_of

Array = npt.NDArray[Any]


class PictureTooSmall(Exception):
    """A picture that no encoder takes."""


def copy_picture(planes: Sequence[Array], pixel_format: PixelFormat) -> av.VideoFrame:
    """A yuv420p frame with the picture's pixels; the last column or row of an odd size is left out.

    `planes`: as framelink gives them for I420, NV12 or BGR24. Raises PictureTooSmall below 32 × 32 pixels.
    """
    height, width = (side // 2 * 2 for side in planes[0].shape[:2])
    if width < MIN_SIDE or height < MIN_SIDE:
        raise PictureTooSmall(f"a picture of {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} can be shown")
    if pixel_format == PixelFormat.BGR24:
        pixels = np.ascontiguousarray(planes[0][:height, :width])
        return av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format="yuv420p")
    frame = av.VideoFrame(width, height, "yuv420p")
    y, u, v = planes_of(frame)
    rows, columns = height // 2, width // 2
    y[:] = planes[0][:height, :width]
    if pixel_format == PixelFormat.NV12:
        u[:] = planes[1][:rows, :columns, 0]
        v[:] = planes[1][:rows, :columns, 1]
    else:
        u[:] = planes[1][:rows, :columns]
        v[:] = planes[2][:rows, :columns]
    return frame
