"""A look at a picture that owes nothing to Belvedere: OpenVINO finds the people, numpy finds the red boxes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino

Box = tuple[float, float, float, float]
"""left, top, right, bottom; 0..1"""


@cache
def _detector(model: Path) -> Any:
    return openvino.Core().compile_model(str(model), "CPU")


def boxes_of_people(model: Path, image: np.ndarray[Any, Any], threshold: float) -> list[Box]:
    """The people in an RGB picture, HxWx3 uint8, by the SSDLite frozen graph in `model`."""
    compiled = _detector(model)
    small = cv2.resize(image, (300, 300))[np.newaxis]
    outputs = {name: value[0] for port, value in compiled([small]).items() for name in port.get_names()}
    boxes = next(value for name, value in outputs.items() if name.startswith("detection_boxes"))
    scores = next(value for name, value in outputs.items() if name.startswith("detection_scores"))
    return [
        (float(b[1]), float(b[0]), float(b[3]), float(b[2]))
        for b, s in zip(boxes, scores, strict=True)
        if s > threshold
    ]


def share_of_red_border(image: np.ndarray[Any, Any], box: Box, tolerance: int = 10) -> float:
    """Which part of a box's outline has something red within `tolerance` pixels; 0..1."""
    red = ((image[..., 0] > 140) & (image[..., 1] < 110) & (image[..., 2] < 110)).astype(np.uint8)
    near = cv2.dilate(red, np.ones((2 * tolerance + 1, 2 * tolerance + 1), np.uint8))
    height, width = red.shape
    left, right = (int(np.clip(x * width, 0, width - 1)) for x in (box[0], box[2]))
    top, bottom = (int(np.clip(y * height, 0, height - 1)) for y in (box[1], box[3]))
    outline = np.concatenate(
        [near[top, left:right], near[bottom, left:right], near[top:bottom, left], near[top:bottom, right]]
    )
    return float(outline.mean()) if outline.size else 0.0
