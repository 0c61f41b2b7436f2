"""What the simulated camera of the video benchmarks shows: 1080p at 30 a second, 4 Mbit/s, two seconds from key frame to key
frame, made once below .cache/bench/.

A still, textured background with sensor noise in it and a dozen things that move: what a camera on a wall sees, and what
it costs to decode. The number of each picture stands in its upper left corner, in blocks that survive any encoder.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tests.bench.peers import FOLDER

WIDTH, HEIGHT, FPS, SECONDS, GOP_S = 1920, 1080, 30, 10, 2
FRAMES = FPS * SECONDS
BIT_RATE = 4_000_000
DIGITS, BLOCK = 10, 32
VERSION = 2

Picture = npt.NDArray[Any]


def clip() -> Path:
    """The clip; takes half a minute the first time."""
    path = FOLDER / f"footage-{VERSION}.mp4"
    if not path.exists():
        print(f"making {path.name}: {FRAMES} pictures", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}.mp4")
        _encode(half)
        half.replace(path)
    return path


def number_of(picture: Picture) -> int:
    """The number in a picture (height, width, 3) or plane (height, width)."""
    row = picture[BLOCK // 2, BLOCK // 2 : DIGITS * BLOCK : BLOCK]
    bits = (row if row.ndim == 1 else row[:, 1]) > 127
    return int(sum(1 << digit for digit, bit in enumerate(bits) if bit))


def _encode(path: Path) -> None:
    random = np.random.default_rng(7)
    background = _texture(random)
    noise = random.normal(0, 1.5, (8, HEIGHT, WIDTH)).astype(np.int16)
    things = [
        (
            random.integers(40, 90),
            random.integers(90, 180),
            random.integers(80, HEIGHT - 200),
            random.integers(0, WIDTH),
            random.integers(2, 7),
        )
        for _ in range(12)
    ]
    patches = [random.integers(30, 220, (height, width)).astype(np.int16) // 2 + 40 for width, height, *_ in things]
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "tune": "zerolatency", "x264-params": "scenecut=0:sliced-threads=0:slices=1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BIT_RATE
        stream.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = FPS * GOP_S
        chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
        for index in range(FRAMES):
            luma = background + noise[index % 8]
            for (width, height, top, start, speed), patch in zip(things, patches, strict=True):
                left = int((start + index * speed) % (WIDTH - width))
                luma[top : top + height, left : left + width] = patch
            for digit in range(DIGITS):
                luma[:BLOCK, digit * BLOCK : (digit + 1) * BLOCK] = 235 if index >> digit & 1 else 16
            planes = np.concatenate([np.clip(luma, 16, 235).astype(np.uint8), chroma])
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _texture(random: np.random.Generator) -> npt.NDArray[np.int16]:
    """Soft and coarse at once, as walls, trees and asphalt are."""
    picture = np.zeros((HEIGHT, WIDTH))
    for side, strength in ((8, 14.0), (24, 18.0), (120, 30.0)):
        coarse = random.normal(0, strength, (HEIGHT // side + 2, WIDTH // side + 2))
        picture += np.kron(coarse, np.ones((side, side)))[:HEIGHT, :WIDTH]
    return (picture + 120).clip(30, 220).astype(np.int16)
