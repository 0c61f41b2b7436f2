"""Boxes, labels and placards, drawn straight into the planes of an I420 picture. Knows no streams and no time.

Colours are YCbCr BT.601, limited range, as cameras and encoders here take it. Everything is clipped to the picture:
what an application sends is never trusted to lie inside.
"""

from __future__ import annotations

import functools
import math
import textwrap
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Plane = npt.NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]
"""Y (height, width), U and V (height/2, width/2), of even size."""

RED = (81, 90, 240)
LINE_PX = 2
WHITE_Y, NEUTRAL = 235, 128
BACKING_LUMA = 0.3
"""How much of the picture shows through behind a label: dark enough for white text on any picture."""
DARKENED_LUMA = 0.25
LABEL_HEIGHTS = 34
"""A picture is so many lines of text high: 17 px at 576, 32 px at 1080."""
MIN_FONT_PX = 13
PLACARD_HEIGHTS = 18
REASON_LINES, MIN_COLUMNS = 4, 8
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf")
"""Looked for in the system's font folders; Pillow's own font, which is there always, has ASCII only."""
MAX_TEXT = 200
"""Characters of a label; more would not fit into a picture."""
MAX_RECTS, MAX_LABELS = 1000, 200
"""Per picture: more can't be seen, and drawing them would starve the encoder."""
_CACHED_MASKS = 256


def draw_rect(planes: Planes, rect: tuple[float, float, float, float], colour: tuple[int, int, int] = RED) -> None:
    """A frame of two pixels along (left, top, right, bottom), 0..1, on even pixels, so that its colour is sharp too."""
    if not all(map(math.isfinite, rect)):
        return
    height, width = planes[0].shape
    left, right = sorted((_even(rect[0], width), _even(rect[2], width)))
    top, bottom = sorted((_even(rect[1], height), _even(rect[3], height)))
    for x0, y0, x1, y1 in (
        (left, top, right, top),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
        (right, top, right, bottom),
    ):
        planes[0][y0 : y1 + LINE_PX, x0 : x1 + LINE_PX] = colour[0]
        for plane, value in zip(planes[1:], colour[1:], strict=True):
            plane[y0 // 2 : y1 // 2 + 1, x0 // 2 : x1 // 2 + 1] = value


def draw_label(planes: Planes, text: str, x: float, y: float) -> None:
    """White text on a dark backing, its upper left corner at (x, y), 0..1, moved inside where it would not fit."""
    if not text.strip() or not (math.isfinite(x) and math.isfinite(y)):
        return
    height, width = planes[0].shape
    mask = _mask(_plain(text), max(MIN_FONT_PX, height // LABEL_HEIGHTS))
    _blend(planes, mask, _even(x, width), _even(y, height), backing=True)


def draw_placard(planes: Planes, text: str, reason: str = "") -> None:
    """Darkens the whole picture and writes the text across its middle, and the reason below it: nobody may take it for a
    live one.
    """
    luma, *chroma = planes
    np.multiply(luma, DARKENED_LUMA, out=luma, casting="unsafe")
    luma += int(16 * (1 - DARKENED_LUMA))
    for plane in chroma:
        plane[:] = NEUTRAL
    height, width = luma.shape
    size = max(MIN_FONT_PX, height // PLACARD_HEIGHTS)
    masks = [_fitting(_plain(text), size, width)]
    small = max(MIN_FONT_PX, size * 2 // 3)
    masks += [_fitting(line, small, width) for line in _wrapped(_plain(reason), small, width)]
    top = (height - sum(mask.shape[0] for mask in masks)) // 4 * 2
    for mask in masks:
        _blend(planes, mask, (width - mask.shape[1]) // 4 * 2, top, backing=False)
        top += mask.shape[0]


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """The text in lines of about this width, so many at most as a placard has room for."""
    if not text.strip():
        return []
    columns = len(text) * width // max(width, _mask(text, size).shape[1])
    return textwrap.wrap(text, max(MIN_COLUMNS, columns - 1 if columns < len(text) else columns))[:REASON_LINES]


def _fitting(text: str, size: int, width: int) -> npt.NDArray[np.uint16]:
    mask = _mask(text, size)
    return mask if mask.shape[1] <= width else _mask(text, max(8, size * width // mask.shape[1] - 1))


def fill_black(planes: Planes) -> None:
    planes[0][:] = 16
    planes[1][:] = NEUTRAL
    planes[2][:] = NEUTRAL


def _even(position: float, size: int) -> int:
    """The even pixel at 0..1 of a side, clipped so that a line of two pixels still fits."""
    return min(round(min(max(position, 0.0), 1.0) * size / 2) * 2, size - LINE_PX)


def _blend(planes: Planes, mask: npt.NDArray[np.uint16], x: int, y: int, *, backing: bool) -> None:
    luma, *chroma = planes
    height, width = luma.shape
    mask = mask[: height // 2 * 2, : width // 2 * 2]
    rows, columns = mask.shape
    x, y = max(0, min(x, (width - columns) // 2 * 2)), max(0, min(y, (height - rows) // 2 * 2))
    under = luma[y : y + rows, x : x + columns].astype(np.uint16)
    if backing:
        under = (under * BACKING_LUMA).astype(np.uint16)
    luma[y : y + rows, x : x + columns] = (under * (255 - mask) + WHITE_Y * mask) // 255
    for plane in chroma:
        plane[y // 2 : (y + rows) // 2, x // 2 : (x + columns) // 2] = NEUTRAL


def _plain(text: str) -> str:
    """What can be shown of a text: one line, nothing that is no character."""
    return "".join(one if one.isprintable() else " " for one in text[:MAX_TEXT])


@functools.lru_cache(_CACHED_MASKS)
def _mask(text: str, size: int) -> npt.NDArray[np.uint16]:
    """The text's coverage 0..255 with a margin around it, of even size. Cached: labels repeat from frame to frame."""
    font: Any = _font(size)
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font=font)
    margin = max(2, size // 5)
    width = (math.ceil(right - left) + 2 * margin + 1) // 2 * 2
    height = (math.ceil(bottom - top) + 2 * margin + 1) // 2 * 2
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=255)
    return np.asarray(image, dtype=np.uint16)


@functools.lru_cache(16)
def _font(size: int) -> Any:
    # The basic layout takes any text; the other one refuses some control characters.
    basic = ImageFont.Layout.BASIC
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size, layout_engine=basic)
        except OSError:
            continue  # not installed here
    found: Any = ImageFont.load_default(size)
    return found.font_variant(layout_engine=basic) if isinstance(found, ImageFont.FreeTypeFont) else found
