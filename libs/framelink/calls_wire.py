"""The messages of a call, as bytes. Pure. `framelink.wire` says how a message is framed.

    client → server   HELLO(name)  BUFFER(ring; descriptor)  RETIRE(buffer)  CALL(id, buffer, deadline, model)  DONE(id)
    server → client   READY(limits)  BUFFER(…)  RETIRE(…)  REPLY(id, buffer)  FAIL(id, code, message)  GOODBYE(text)

A request's buffer is the client's again when the answer has come; a reply's buffer is the server's again after DONE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from framelink.errors import WireError
from framelink.wire import clipped, message, text, unpack

READY, BUFFER, RETIRE, CALL, REPLY, FAIL, DONE = 16, 17, 18, 19, 20, 21, 22

CODES = ("UNKNOWN_MODEL", "LOADING", "INVALID_INPUT", "FAILED", "OVERLOADED", "TOO_LARGE")
"""Why a call fails; the index is the number on the wire."""

MAX_MODEL_BYTES = 512
MAX_REASON_BYTES = 4096
LARGEST_MESSAGE = 8192
"""Of a call's messages: tensors travel in buffers."""

_READY = struct.Struct("<IIQ")  # calls at a time, zero, bytes of one request
_CALL = struct.Struct("<QIIq")  # id, buffer, zero, deadline; then the model's id
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
class Call:
    call_id: int
    buffer: int
    deadline_ns: int
    model_id: str


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
    body = _CALL.pack(asked.call_id, asked.buffer, 0, asked.deadline_ns)
    return message(CALL, body + clipped(asked.model_id, MAX_MODEL_BYTES))


def parse_call(body: bytes) -> Call:
    call_id, buffer, _, deadline_ns = unpack(_CALL, body[: _CALL.size])
    return Call(call_id, buffer, deadline_ns, text(body[_CALL.size :], MAX_MODEL_BYTES))


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
