"""The messages of a call, as bytes. Pure. `framelink.wire` says how a message is framed.

    client → server   HELLO(name)  BUFFER(ring; descriptor)  RETIRE(buffer)  CALL(id, buffer, deadline, model)  DONE(id)
    server → client   READY(limits)  BUFFER(…)  RETIRE(…)  REPLY(id, buffer)  FAIL(id, code, message)  GOODBYE(text)

A request's buffer is the client's again when the answer has come; a reply's buffer is the server's again after DONE.
A client may keep its DONEs until its next CALL and send them just before it: they wake the server once.

CALL may end with a JSON object of pictures, by the model's inputs: `[camera, ring, slot, sequence]` for a frame that the
client holds in a camera's ring, null for one that lies as a tensor under `picture_key` in the buffer.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional

from framelink.errors import WireError
from framelink.wire import clipped, message, text, unpack

READY, BUFFER, RETIRE, CALL, REPLY, FAIL, DONE = 16, 17, 18, 19, 20, 21, 22

CODES = ("UNKNOWN_MODEL", "LOADING", "INVALID_INPUT", "FAILED", "OVERLOADED", "TOO_LARGE", "FRAME_GONE")
"""Why a call fails; the index is the number on the wire."""

MAX_MODEL_BYTES = 512
MAX_REASON_BYTES = 4096
MAX_PICTURES_BYTES = 4096
MAX_PICTURES = 16
LARGEST_MESSAGE = 8192
"""Of a call's messages: tensors travel in buffers."""

_READY = struct.Struct("<IIQ")  # calls at a time, zero, bytes of one request
_CALL = struct.Struct("<QIIq")  # id, buffer, bytes of pictures, deadline; then the model's id, then the pictures
_REPLY = struct.Struct("<QII")  # id, buffer, zero
_FAIL = struct.Struct("<QII")  # id, code, zero; then the message
_NUMBER = struct.Struct("<Q")


@dataclass(frozen=True)
class Limits:
    """What a server grants each client."""

    max_in_flight: int
    max_bytes: int
    """Of all the client's buffers together."""


@dataclass(frozen=True)
class FrameName:
    """A frame in a camera's ring, for who may read it: the ring's number is known only to those its writer let in."""

    camera_id: str
    ring_id: int
    slot: int
    sequence: int


Pictures = Dict[str, Optional[FrameName]]
"""input of the model (empty: its only one) → the frame, or None where its pixels are in the buffer"""


class Call(NamedTuple):
    """A tuple, since one is made and changed for each call: a frozen dataclass takes four times as long."""

    call_id: int
    buffer: int
    deadline_ns: int
    model_id: str
    pictures: bytes = b""
    """As `encode_pictures` made them."""


def picture_key(name: str) -> str:
    """Under which tensor's name the pixels for this input are sent."""
    return "picture:" + name


def encode_pictures(pictures: Pictures) -> bytes:
    plain = {
        name: None if frame is None else [frame.camera_id, frame.ring_id, frame.slot, frame.sequence]
        for name, frame in pictures.items()
    }
    data = json.dumps(plain).encode() if plain else b""
    if len(data) > MAX_PICTURES_BYTES or len(plain) > MAX_PICTURES:
        raise ValueError("%d pictures in one call; at most %d go" % (len(plain), MAX_PICTURES))
    return data


def parse_pictures(data: bytes) -> Pictures:
    """WireError for what `encode_pictures` does not make."""
    if not data:
        return {}
    try:
        plain = json.loads(data)
        if len(plain) > MAX_PICTURES:
            raise ValueError
        return {name: None if row is None else _frame_name(*row) for name, row in plain.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WireError("a call's pictures make no sense") from error


def _frame_name(camera_id: object, ring_id: object, slot: object, sequence: object) -> FrameName:
    if isinstance(camera_id, str) and type(ring_id) is type(slot) is type(sequence) is int:
        return FrameName(camera_id, ring_id, slot, sequence)
    raise ValueError


def ready(limits: Limits) -> bytes:
    return message(READY, _READY.pack(limits.max_in_flight, 0, limits.max_bytes))


def parse_ready(body: bytes) -> Limits:
    in_flight, _, max_bytes = unpack(_READY, body)
    if not in_flight or not max_bytes:
        raise WireError("a server that grants nothing")
    return Limits(in_flight, max_bytes)


def retire(number: int) -> bytes:
    return message(RETIRE, _NUMBER.pack(number))


def call(asked: Call) -> bytes:
    body = _CALL.pack(asked.call_id, asked.buffer, len(asked.pictures), asked.deadline_ns)
    return message(CALL, body + clipped(asked.model_id, MAX_MODEL_BYTES) + asked.pictures)


def parse_call(body: bytes) -> Call:
    call_id, buffer, size, deadline_ns = unpack(_CALL, body[: _CALL.size])
    end = len(body) - size
    if size > MAX_PICTURES_BYTES or end < _CALL.size:
        raise WireError("a call with %d bytes of pictures in %d" % (size, len(body)))
    return Call(call_id, buffer, deadline_ns, text(body[_CALL.size : end], MAX_MODEL_BYTES), body[end:])


def reply(call_id: int, buffer: int) -> bytes:
    return message(REPLY, _REPLY.pack(call_id, buffer, 0))


def parse_reply(body: bytes) -> tuple[int, int]:
    """(id, buffer)."""
    call_id, buffer, _ = unpack(_REPLY, body)
    return call_id, buffer


def fail(call_id: int, code: str, reason: str) -> bytes:
    number = CODES.index(code) if code in CODES else CODES.index("FAILED")
    return message(FAIL, _FAIL.pack(call_id, number, 0) + clipped(reason, MAX_REASON_BYTES))


def parse_fail(body: bytes) -> tuple[int, str, str]:
    """(id, code, message)."""
    call_id, number, _ = unpack(_FAIL, body[: _FAIL.size])
    if number >= len(CODES):
        raise WireError("an unknown reason of failure: %d" % number)
    return call_id, CODES[number], text(body[_FAIL.size :], MAX_REASON_BYTES)


def done(call_id: int) -> bytes:
    return message(DONE, _NUMBER.pack(call_id))


def parse_number(body: bytes) -> int:
    """The one number of RETIRE and DONE."""
    return unpack(_NUMBER, body)[0]
