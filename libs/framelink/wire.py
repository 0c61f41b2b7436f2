"""The messages between a frame writer and its readers, as bytes. Pure.

One message is one packet of a SOCK_SEQPACKET socket: magic, version and kind (`PREFIX`), then a fixed struct, then,
in some, a text. Both ends run on one machine, yet from different installations: a wrong version is an error that says
so.

    reader → writer   HELLO(name)  WANT(bgr, last sequence)  RELEASE(slot, sequence)
    writer → reader   WELCOME(ring; carries the descriptor)  NOTICE(frame, slot, skipped)
                      PRESS(slot, sequence)  GOODBYE(text)

PRESS asks for a slot back because another reader goes without frames; who does not follow within the writer's
`PRESS_GRACE_S` is disconnected.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from framelink.errors import WireError
from framelink.layout import FLAG_BGR, FORMATS, MAX_SIDE, FrameInfo, PixelFormat

MAGIC = 0x4B4C4D46  # "FMLK"
VERSION = 1
MAX_MESSAGE = 65536
SMALL_MESSAGE = 448
"""The largest between a frame writer and its readers. A receive buffer of 64 KiB costs 30 µs each time; this one comes from
Python's own small memory."""
MAX_NAME_BYTES = 128
MAX_REASON_BYTES = 400
"""Of a GOODBYE."""

HELLO, WELCOME, WANT, NOTICE, RELEASE, PRESS, GOODBYE = 1, 2, 3, 4, 5, 6, 7

PREFIX = struct.Struct("<IHH")
_RING = struct.Struct("<IIQQ")  # slots, generation, slot bytes, ring id
_WANT = struct.Struct("<IIQ")  # flags, zero, last sequence
_NOTICE = struct.Struct("<IHHIIQqqqIIIIQ")
# prefix, then slot flags sequence capture publish pts width height format zero skipped: one step, since every frame waits for it
NOTICE_BYTES = _NOTICE.size
NOTICE_PREFIX = PREFIX.pack(MAGIC, VERSION, NOTICE)
NOTICE_HEAD = struct.Struct("<IIQ")  # slot flags sequence
NOTICE_HEAD_AT = 8
NOTICE_GEOMETRY = slice(48, 60)  # width height format
_SLOT = struct.Struct("<IIQ")  # slot, zero, sequence


@dataclass(frozen=True)
class Announcement:
    """A ring about to be handed over: what the receiver checks the descriptor against."""

    slots: int
    slot_bytes: int
    ring_id: int
    generation: int = 0
    """Which of its owner's rings this is, where there can be several (calls, outputs)."""


class Notice(NamedTuple):
    """A frame that the reader now holds."""

    slot: int
    info: FrameInfo
    skipped: int


_made = tuple.__new__
"""Makes a named tuple without a call of Python's own, which every frame would wait for."""


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


def want(bgr: bool, last_sequence: int) -> bytes:
    return message(WANT, _WANT.pack(FLAG_BGR if bgr else 0, 0, last_sequence))


def parse_want(body: bytes) -> tuple[bool, int]:
    """(bgr, last sequence that the reader was given)."""
    flags, _, last_sequence = unpack(_WANT, body)
    return bool(flags & FLAG_BGR), last_sequence


def notice(slot: int, info: FrameInfo, skipped: int) -> bytes:
    sequence, capture_ns, publish_ns, pts_us, width, height, format, has_bgr = info
    flags = FLAG_BGR if has_bgr else 0
    return _NOTICE.pack(
        MAGIC, VERSION, NOTICE, slot, flags, sequence, capture_ns, publish_ns, pts_us, width, height, format, 0, skipped
    )


def parse_notice(packet: bytes, slots: int) -> Notice:
    """Of a whole packet: prefix and body."""
    if len(packet) != NOTICE_BYTES or not packet.startswith(NOTICE_PREFIX):
        raise WireError("a message of %d bytes that is no notice of this version" % len(packet))
    (
        _, _, _, slot, flags, sequence, capture_ns, publish_ns, pts_us, width, height, number, _, skipped
    ) = _NOTICE.unpack(packet)  # fmt: skip
    format = FORMATS.get(number)
    if format is None or (format is not PixelFormat.TENSORS and not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE)):
        raise WireError("a frame that cannot be: %dx%d pixels of format %d" % (width, height, number))
    if slot >= slots or sequence == 0:
        raise WireError("a frame in slot %d with sequence %d; the ring has %d slots" % (slot, sequence, slots))
    has_bgr = bool(flags & FLAG_BGR)
    fields = (sequence, capture_ns, publish_ns, pts_us, width, height, format, has_bgr)
    return _made(Notice, (slot, _made(FrameInfo, fields), skipped))


def release(slot: int, sequence: int) -> bytes:
    return message(RELEASE, _SLOT.pack(slot, 0, sequence))


def press(slot: int, sequence: int) -> bytes:
    return message(PRESS, _SLOT.pack(slot, 0, sequence))


def parse_slot(body: bytes) -> tuple[int, int]:
    """(slot, sequence) of RELEASE and PRESS."""
    slot, _, sequence = unpack(_SLOT, body)
    return slot, sequence
