"""The messages between a frame writer and its readers, as bytes. Pure.

One message is one packet of a SOCK_SEQPACKET socket: magic, version and kind (`PREFIX`), then a fixed struct, then,
in some, a text. Both ends run on one machine, yet from different installations: a wrong version is an error that says
so.

    reader → writer   HELLO(name)  WANT(bgr, last sequence, given back: (slot, sequence) …)  RELEASE(slot, sequence)
    writer → reader   WELCOME(ring; carries the descriptor)  NOTICE (`framelink.notice`)
                      PRESS(slot, sequence)  GOODBYE(text)

    a reader, on a connection of its own → writer   MAKE_BGR(ring id, slot, sequence, name)
    writer → reader                                 MADE_BGR(slot, sequence, whether)

A WELCOME tells in the place of its ring's generation, which readers of before do not look at, what else its writer can do
(MAKES_BGR): who meets an older one does not ask for it. PRESS asks for a slot back because another reader goes without frames; who does not follow within the writer's
`PRESS_GRACE_S` is disconnected.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Sequence

from framelink.errors import WireError
from framelink.layout import FLAG_BGR

MAGIC = 0x4B4C4D46  # "FMLK"
VERSION = 2
MAX_MESSAGE = 65536
SMALL_MESSAGE = 448
"""The largest between a frame writer and its readers. A receive buffer of 64 KiB costs 30 µs each time; this one comes from
Python's own small memory."""
MAX_NAME_BYTES = 128
MAX_REASON_BYTES = 400
"""Of a GOODBYE."""

HELLO, WELCOME, WANT, NOTICE, RELEASE, PRESS, GOODBYE, MAKE_BGR, MADE_BGR = 1, 2, 3, 4, 5, 6, 7, 8, 9

MAKES_BGR = 0x1
"""In a WELCOME: the writer makes the BGR picture of a frame that it has given out already."""

PREFIX = struct.Struct("<IHH")
_RING = struct.Struct("<IIQQ")  # slots, generation, slot bytes, ring id
_WANT_PACKET = struct.Struct("<IHHIIQ")  # prefix, flags, zero, last sequence; then a _SLOT for each that is given back
_WANT_AND_ONE_BACK = struct.Struct("<IHHIIQIIQ")
WANT_PREFIX = PREFIX.pack(MAGIC, VERSION, WANT)
_SLOT = struct.Struct("<IIQ")  # slot, zero (MADE_BGR: whether), sequence
_MAKE_BGR = struct.Struct("<QIIQ")  # ring id, slot, zero, sequence; then a name


@dataclass(frozen=True)
class Announcement:
    """A ring about to be handed over: what the receiver checks the descriptor against."""

    slots: int
    slot_bytes: int
    ring_id: int
    generation: int = 0
    """Which of its owner's rings this is, where there can be several (calls, outputs)."""


def message(kind: int, body: bytes = b"") -> bytes:
    """A whole packet."""
    return PREFIX.pack(MAGIC, VERSION, kind) + body


def parse(packet: bytes) -> tuple[int, bytes]:
    """(kind, body). WireError where this is no message of ours."""
    if len(packet) < PREFIX.size:
        raise WireError("a message of %d bytes is too short" % len(packet))
    magic, version, kind = PREFIX.unpack_from(packet)
    if magic != MAGIC:
        raise WireError("the other end does not speak framelink (magic %#x)" % magic)
    if version != VERSION:
        raise WireError(
            "the other end speaks framelink version %d, this is version %d: install the same release"
            % (version, VERSION)
        )
    return kind, packet[PREFIX.size :]


def unpack(layout: struct.Struct, body: bytes) -> tuple[int, ...]:
    """The fields of a body of exactly this layout."""
    if len(body) != layout.size:
        raise WireError("a message body of %d bytes, wanted are %d" % (len(body), layout.size))
    return layout.unpack(body)


def text(body: bytes, limit: int = MAX_NAME_BYTES) -> str:
    """The text at the end of a message."""
    if len(body) > limit:
        raise WireError("a text of %d bytes, the limit is %d" % (len(body), limit))
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise WireError("a text that is not UTF-8") from error


def clipped(words: str, limit: int = MAX_NAME_BYTES) -> bytes:
    """A text of ours for the wire: cut to the limit at a character's end."""
    return words.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode()


def hello(name: str) -> bytes:
    return message(HELLO, clipped(name))


def goodbye(reason: str) -> bytes:
    return message(GOODBYE, clipped(reason, MAX_REASON_BYTES))


def ring(kind: int, ring_announced: Announcement) -> bytes:
    """WELCOME of a frame writer; also the ring messages of calls and outputs, under their own kinds."""
    announced = ring_announced
    return message(kind, _RING.pack(announced.slots, announced.generation, announced.slot_bytes, announced.ring_id))


def parse_ring(body: bytes) -> Announcement:
    slots, generation, slot_bytes, ring_id = unpack(_RING, body)
    return Announcement(slots, slot_bytes, ring_id, generation)


def want(bgr: bool, last_sequence: int, given_back: Sequence[tuple[int, int]] = ()) -> bytes:
    """`given_back`: (slot, sequence) of frames that are released at the same time."""
    packet = _WANT_PACKET.pack(MAGIC, VERSION, WANT, FLAG_BGR if bgr else 0, 0, last_sequence)
    for slot, sequence in given_back:
        packet += _SLOT.pack(slot, 0, sequence)
    return packet


def parse_want(packet: bytes) -> tuple[bool, int, Sequence[tuple[int, int]]]:
    """Of a whole packet: (bgr, last sequence that the reader was given, [(slot, sequence) that it gives back])."""
    if len(packet) == _WANT_AND_ONE_BACK.size:  # What nearly all are.
        _, _, _, flags, _, last_sequence, slot, _, sequence = _WANT_AND_ONE_BACK.unpack(packet)
        return bool(flags & FLAG_BGR), last_sequence, ((slot, sequence),)
    behind = len(packet) - _WANT_PACKET.size
    if behind < 0 or behind % _SLOT.size:
        raise WireError("a request of %d bytes" % len(packet))
    _, _, _, flags, _, last_sequence = _WANT_PACKET.unpack_from(packet)
    given_back = [(slot, sequence) for slot, _, sequence in _SLOT.iter_unpack(packet[_WANT_PACKET.size :])]
    return bool(flags & FLAG_BGR), last_sequence, given_back


def release(slot: int, sequence: int) -> bytes:
    return message(RELEASE, _SLOT.pack(slot, 0, sequence))


def press(slot: int, sequence: int) -> bytes:
    return message(PRESS, _SLOT.pack(slot, 0, sequence))


def parse_slot(body: bytes) -> tuple[int, int]:
    """(slot, sequence) of RELEASE and PRESS."""
    slot, _, sequence = unpack(_SLOT, body)
    return slot, sequence


def make_bgr(ring_id: int, slot: int, sequence: int, name: str) -> bytes:
    """The BGR picture of a frame that is in its slot already; `name`: as in HELLO, which is not said on this connection."""
    return message(MAKE_BGR, _MAKE_BGR.pack(ring_id, slot, 0, sequence) + clipped(name))


def parse_make_bgr(body: bytes) -> tuple[int, int, int, str]:
    """(ring id, slot, sequence, name)."""
    if len(body) < _MAKE_BGR.size:
        raise WireError("a demand for BGR of %d bytes" % len(body))
    ring_id, slot, _, sequence = _MAKE_BGR.unpack_from(body)
    return ring_id, slot, sequence, text(body[_MAKE_BGR.size :])


def made_bgr(slot: int, sequence: int, made: bool) -> bytes:
    """`made`: it stands in the slot from now on, and the slot's notice says so."""
    return message(MADE_BGR, _SLOT.pack(slot, made, sequence))


def parse_made_bgr(body: bytes) -> tuple[int, int, bool]:
    """(slot, sequence, whether it stands in the slot)."""
    slot, made, sequence = unpack(_SLOT, body)
    return slot, sequence, bool(made)
