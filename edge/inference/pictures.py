"""A camera's picture as a model's input: resized, its channels in order, normalised, as the model's descriptor says.

The one place that does so, for pictures read from a camera's ring and for those that an application sends: equal pixels
give equal tensors. Must not know where pixels come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from belvedere.graph import ImageInput
from edge.inference.errors import InvalidInput
from edge.inference.tensors import Array, TensorInfo

AS_IT_IS = ImageInput()
"""Where the descriptor says nothing: resized, blue first, 0..255."""
GREY = (114, 114, 114)
_COLORS = {"RGB": cv2.COLOR_BGR2RGB, "GRAY": cv2.COLOR_BGR2GRAY}


def input_of(name: str, names: Mapping[str, TensorInfo]) -> TensorInfo:
    """The input that is meant: `name`, or where it is empty the only one. Raises InvalidInput."""
    infos = list(dict.fromkeys(names.values()))
    if not name and len(infos) == 1:
        return infos[0]
    info = names.get(name.removesuffix(":0"))
    if info is None:
        takes = ", ".join(map(str, infos))
        raise InvalidInput(f"there is no input `{name}` for the picture; the model takes {takes}")
    return info


def tensor(pixels: Array, info: TensorInfo, image: ImageInput) -> Array:
    """`pixels` (height, width, 3) uint8, blue first → an array of `info`'s shape and type. Raises InvalidInput."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InvalidInput(f"a picture is (height, width, 3) uint8, this one is {pixels.shape} {pixels.dtype}")
    channels = 1 if image.color == "GRAY" else 3
    height, width, channels_first = _geometry(info, channels)
    if (height, width) == (None, None):
        height, width = pixels.shape[:2]
    if height is None or width is None:
        raise InvalidInput(f"a picture needs to know both height and width of the input; the model takes {info}")
    # Size first: everything after it has fewer pixels to look at.
    sized = _resized(pixels, width, height, image.fit)
    if image.color in _COLORS:
        sized = cv2.cvtColor(sized, _COLORS[image.color])
    values: Array = sized.reshape(height, width, channels)
    if image.scale != 1.0 or image.mean or image.std:
        scale = np.float32(image.scale) / np.array(image.std or (1.0,), np.float32)
        shift = np.array(image.mean or (0.0,), np.float32) / np.array(image.std or (1.0,), np.float32)
        values = values * scale - shift
    if channels_first:
        values = np.moveaxis(values, 2, 0)
    return values if len(info.shape) == 3 else values[np.newaxis]


def _resized(pixels: Array, width: int, height: int, fit: str) -> Array:
    if pixels.shape[:2] == (height, width):
        return pixels
    if fit != "letterbox":
        stretched: Array = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        return stretched
    ratio = min(width / pixels.shape[1], height / pixels.shape[0])
    inner = (max(1, round(pixels.shape[1] * ratio)), max(1, round(pixels.shape[0] * ratio)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    framed: Array = np.full((height, width, 3), GREY, np.uint8)
    framed[top : top + inner[1], left : left + inner[0]] = cv2.resize(pixels, inner, interpolation=cv2.INTER_LINEAR)
    return framed


def _geometry(info: TensorInfo, channels: int) -> tuple[int | None, int | None, bool]:
    """(height, width, channels first)."""
    shape = info.shape[1:] if len(info.shape) == 4 else info.shape
    if len(shape) == 3 and (len(info.shape) == 3 or info.shape[0] in (1, None)):
        if shape[2] == channels:
            return shape[0], shape[1], False
        if shape[0] == channels:
            return shape[1], shape[2], True
    raise InvalidInput(
        f"a picture does not fit: the model takes {info}; it would have to be (1, height, width, {channels}) "
        f"or (1, {channels}, height, width)"
    )
