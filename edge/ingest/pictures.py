"""From a decoded frame to the planes and the BGR picture of a slot. Knows PyAV and numpy; must not know where the slot
lies.

How BGR is made, measured on 1080p, one core (medians, milliseconds): libyuv, where there is one, 0.5 to 0.7 (`libyuv.py`),
swscale straight into the slot 0.6 to 0.9 (`swscale.py`), swscale through PyAV and one copy into the slot 1.3 to 1.5, `cv2.cvtColor(dst=slot)` 0.9 to 1.8,
`VideoFrame.to_ndarray(format="bgr24")` and a copy 1.2. OpenCV is not taken: it knows neither the colour space nor the range
of the frame (a camera with full-range colours comes out too contrasty), nor any pixel format but a few. The copy of the
planes takes 0.3 to 0.5 ms, where it is needed: most pictures are decoded into their slot (`direct.py`).
"""

from __future__ import annotations

from typing import Any, cast

import av
import av.video.reformatter
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

from edge.ingest.libyuv import YuvConverter
from edge.ingest.swscale import Converter, Route

Bytes = npt.NDArray[np.uint8]

FIT_WIDTH, FIT_HEIGHT = 1920, 1080
PIXELS_MAX = FIT_WIDTH * FIT_HEIGHT
# One thread: frames of several cameras are converted at once, and two threads for one frame cost more than they save.
SWS_THREADS = 1


def fit(width: int, height: int) -> tuple[int, int]:
    """The size to hand on for a camera's size: itself up to 2 megapixels, else the largest even one within
    1920×1080.
    """
    if width * height <= PIXELS_MAX:
        return width, height
    scale = min(FIT_WIDTH / width, FIT_HEIGHT / height)
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


class Pictures:
    """The converters of one camera; swscale keeps its tables in them from frame to frame. Each belongs to one thread at
    a time.
    """

    def __init__(self) -> None:
        self._to_i420 = av.video.reformatter.VideoReformatter()
        self._to_bgr = av.video.reformatter.VideoReformatter()
        self._direct: YuvConverter | Converter | None = None
        self._twin: av.VideoFrame | None = None
        """Stands for a decoded frame that is gone."""

    def i420(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as I420 of limited range (Y 16..235) and no larger than 2 megapixels: itself where it is so already.

        Cameras with full-range colours (`yuvj420p`, every JPEG) are converted: planes carry no word of their range, so
        that whoever shows or encodes them takes it for the usual one, and black and white would be cut off.
        """
        width, height = fit(frame.width, frame.height)
        if frame.format.name == "yuv420p" and frame.color_range != ColorRange.JPEG:
            if (width, height) == (frame.width, frame.height):
                return frame
            return self._to_i420.reformat(frame, width=width, height=height, format="yuv420p", threads=SWS_THREADS)
        return self._to_i420.reformat(
            frame, width=width, height=height, format="yuv420p", dst_color_range=ColorRange.MPEG, threads=SWS_THREADS
        )

    def copy_planes(self, frame: av.VideoFrame, planes: tuple[npt.NDArray[Any], ...]) -> None:
        """Copy an I420 frame into Y (height, width), U and V (half of each, rounded up)."""
        for plane, target in zip(frame.planes, planes, strict=True):
            np.copyto(target, _rows(plane, target.shape[0])[:, : target.shape[1]])

    def copy_bgr(self, frame: av.VideoFrame, target: npt.NDArray[Any], route: Route | None = None) -> None:
        """Convert a frame into BGR (height, width, 3). `route`: from the frame's memory to `target`, where it is known already."""
        direct = self._direct_for(frame)
        if direct is not None:
            direct.follow(route or Route.between(frame, target), frame.height)
            return
        self._reformat(frame, target)

    def planes_to_bgr(self, planes: tuple[npt.NDArray[Any], ...], colorspace: int, target: npt.NDArray[Any]) -> None:
        """The same from I420 planes of limited range, for when the decoded frame is gone; it was of `colorspace` (AVColorSpace)."""
        height, width = planes[0].shape
        twin = self._twin
        if twin is None or (twin.width, twin.height, twin.colorspace) != (width, height, colorspace):
            twin = self._twin = av.VideoFrame(width, height, "yuv420p")
            twin.colorspace = colorspace
        direct = self._direct_for(twin)
        if direct is not None:
            route = Route.make([plane.ctypes.data for plane in planes], [plane.strides[0] for plane in planes], target)
            direct.follow(route, height)
            return
        for plane, source in zip(twin.planes, planes, strict=True):
            np.copyto(_rows(plane, source.shape[0])[:, : source.shape[1]], source)
        self._reformat(twin, target)

    def _direct_for(self, frame: av.VideoFrame) -> YuvConverter | Converter | None:
        direct = self._direct
        if direct is None or not direct.fits(frame):
            direct = self._direct = YuvConverter.make(frame) or Converter.make(frame)
        return direct

    def _reformat(self, frame: av.VideoFrame, target: npt.NDArray[Any]) -> None:
        height, width, _ = target.shape
        converted = self._to_bgr.reformat(frame, format="bgr24", threads=SWS_THREADS)
        np.copyto(target, _rows(converted.planes[0], height)[:, : width * 3].reshape(height, width, 3))


def _rows(plane: Any, height: int) -> Bytes:
    """A plane's memory as rows, padding included. Lines of decoded frames never run upwards (negative line size) in
    H.264/5.
    """
    flat = np.frombuffer(plane, np.uint8)
    return cast(Bytes, flat[: height * plane.line_size].reshape(height, plane.line_size))
