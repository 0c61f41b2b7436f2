"""The messages of an application's output, as bytes. Pure. `framelink.wire` says how a message is framed.

    sender → receiver   OUTPUT_HELLO(instance, node)  BUFFER(ring; descriptor)  RETIRE(buffer)  PUT(picture, annotations)
    receiver → sender   READY(limits)  DONE(id)  GOODBYE(text)

A picture is either a camera's frame, named by camera, ring, slot and sequence, or a buffer of the sender's own.
Annotations are data: they are drawn once, by whoever shows the picture.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Sequence

from framelink.errors import WireError
from framelink.layout import check_size
from framelink.wire import MAX_MESSAGE, MAX_NAME_BYTES, clipped, message, text, unpack

OUTPUT_HELLO, PUT = 32, 33

MAX_RECTS = 1024
MAX_LABELS = 1024
MAX_LABEL_BYTES = 512
MAX_ANNOTATION_BYTES = MAX_MESSAGE - 2048
"""Rectangles and labels of one picture together; the rest of the message is small."""

_HELLO = struct.Struct("<HH")
_PUT = struct.Struct("<QIIQQqqIIHHHH")
# id buffer slot sequence ring-id capture pts width height; rects labels; bytes of camera and stream
_RECT = struct.Struct("<4f")
_LABEL = struct.Struct("<2fHH")


@dataclass(frozen=True)
class Annotations:
    """What to draw over a picture; every coordinate is a part, 0..1, of its width or height."""

    rects: Sequence[tuple[float, float, float, float]] = ()
    """(left, top, right, bottom)"""
    labels: Sequence[tuple[str, float, float]] = ()
    """(text, x, y)"""


@dataclass(frozen=True)
class Put:
    """One picture on its way."""

    put_id: int
    stream_id: str
    capture_ns: int
    pts_us: int
    width: int
    height: int
    buffer: int = 0
    """The sender's own buffer; 0 for a camera's frame."""
    camera_id: str = ""
    slot: int = 0
    sequence: int = 0
    ring_id: int = 0
    annotations: Annotations = field(default_factory=Annotations)


def output_hello(instance_id: str, node: str) -> bytes:
    instance, name = clipped(instance_id), clipped(node)
    return message(OUTPUT_HELLO, _HELLO.pack(len(instance), len(name)) + instance + name)


def parse_output_hello(body: bytes) -> tuple[str, str]:
    """(instance id, node name)."""
    first, second = unpack(_HELLO, body[: _HELLO.size])
    rest = body[_HELLO.size :]
    if len(rest) != first + second:
        raise WireError("an introduction of %d bytes, wanted are %d" % (len(rest), first + second))
    return text(rest[:first]), text(rest[first:])


def put(picture: Put) -> tuple[bytes, int]:
    """(packet, annotations left out because there are more than fit)."""
    parts, used, left_out = [], 0, 0
    rects = labels = 0
    for rect in picture.annotations.rects:
        if rects == MAX_RECTS or used + _RECT.size > MAX_ANNOTATION_BYTES:
            left_out += 1
            continue
        parts.append(_RECT.pack(*rect))
        used += _RECT.size
        rects += 1
    for words, x, y in picture.annotations.labels:
        raw = clipped(words, MAX_LABEL_BYTES)
        if labels == MAX_LABELS or used + _LABEL.size + len(raw) > MAX_ANNOTATION_BYTES:
            left_out += 1
            continue
        parts.append(_LABEL.pack(x, y, len(raw), 0) + raw)
        used += len(parts[-1])
        labels += 1
    camera, stream = clipped(picture.camera_id), clipped(picture.stream_id)
    head = _PUT.pack(
        picture.put_id,
        picture.buffer,
        picture.slot,
        picture.sequence,
        picture.ring_id,
        picture.capture_ns,
        picture.pts_us,
        picture.width,
        picture.height,
        rects,
        labels,
        len(camera),
        len(stream),
    )
    return message(PUT, head + camera + stream + b"".join(parts)), left_out


def parse_put(body: bytes) -> Put:
    """WireError for anything outside the limits above, and for coordinates outside 0..1."""
    fields = unpack(_PUT, body[: _PUT.size])
    put_id, buffer, slot, sequence, ring_id, capture, pts, width, height = fields[:9]
    rect_count, label_count, camera, stream = fields[9:]
    if rect_count > MAX_RECTS or label_count > MAX_LABELS or max(camera, stream) > MAX_NAME_BYTES:
        raise WireError(
            "%d rectangles, %d labels, names of %d and %d bytes" % (rect_count, label_count, camera, stream)
        )
    try:
        check_size(width, height)
    except ValueError as error:
        raise WireError(str(error)) from error
    at = _PUT.size
    camera_id = text(body[at : at + camera])
    at += camera
    stream_id = text(body[at : at + stream])
    at += stream
    rects = []
    for _ in range(rect_count):
        left, top, right, bottom = _part(_RECT, body, at)
        rects.append((_unit(left), _unit(top), _unit(right), _unit(bottom)))
        at += _RECT.size
    labels = []
    for _ in range(label_count):
        x, y, length, _zero = _part(_LABEL, body, at)
        at += _LABEL.size
        if length > MAX_LABEL_BYTES or at + length > len(body):
            raise WireError("a label of %d bytes" % length)
        labels.append((text(body[at : at + int(length)], MAX_LABEL_BYTES), _unit(x), _unit(y)))
        at += int(length)
    if at != len(body):
        raise WireError("%d bytes after the last annotation" % (len(body) - at))
    annotations = Annotations(rects, labels)
    return Put(put_id, stream_id, capture, pts, width, height, buffer, camera_id, slot, sequence, ring_id, annotations)


def _part(layout: struct.Struct, body: bytes, at: int) -> tuple[float, ...]:
    if at + layout.size > len(body):
        raise WireError("the annotations end in the middle of one")
    return layout.unpack_from(body, at)


def _unit(value: float) -> float:
    if not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise WireError("a coordinate of %r: it must be 0..1" % value)
    return value
