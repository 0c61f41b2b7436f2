"""Small video clips, encoded on the spot, whose every frame can be told from the others.

The picture is a grey ramp with a bright square that moves by `SQUARE_STEP` pixels a frame: motion that an encoder has
to code, and a position that tells which frame it is. Clips are real H.264 or H.265 (or another codec that PyAV
encodes); the container follows from the file's suffix.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

SQUARE_STEP = 8
ENCODERS = {"h264": "libx264", "hevc": "libx265", "h265": "libx265"}
# Without look-ahead or B-frames, so that frames come out as they go in, as a camera's do.
ENCODER_OPTIONS = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"},
    # The Huffman tables of the standard, as RTP wants them.
    "mjpeg": {"huffman": "default"},
}


def make_clip(
    path: str | Path,
    codec: str = "h264",
    width: int = 320,
    height: int = 240,
    fps: int = 25,
    seconds: float = 2.0,
    *,
    pixel_format: str = "yuv420p",
    keyframe_every_s: float = 1.0,
) -> Path:
    """Encode `seconds` of the moving pattern and give back the path.

    `codec`: "h264", "hevc", or any encoder name that PyAV knows ("mjpeg", "mpeg4").
    """
    path = Path(path)
    encoder = ENCODERS.get(codec, codec)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=fps, options=dict(ENCODER_OPTIONS.get(encoder, {})))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = max(1, round(fps * keyframe_every_s))
        for index in range(max(1, round(fps * seconds))):
            frame = av.VideoFrame.from_ndarray(pattern(index, width, height), format="rgb24").reformat(
                format=pixel_format
            )
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_audio_clip(path: str | Path, seconds: float = 2.0) -> Path:
    """Encode a tone and no picture: what a camera with its video switched off sends."""
    path = Path(path)
    rate = 48_000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, int(rate * seconds), 1024):
            tone = np.sin(2 * np.pi * 440 * np.arange(start, start + 1024) / rate).astype(np.float32)[None, :] * 0.2
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pattern(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Frame `index` of the pattern: RGB, height × width × 3."""
    ramp = np.linspace(40, 120, width, dtype=np.uint8)
    picture = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2)
    left, top, side = square(index, width, height)
    picture[top : top + side, left : left + side] = 235
    return picture


def square(index: int, width: int, height: int) -> tuple[int, int, int]:
    """Where the bright square of frame `index` is: (left, top, side), in pixels."""
    side = max(8, min(width, height) // 4)
    return (index * SQUARE_STEP) % max(1, width - side), (height - side) // 2, side
