"""The notice of a frame: 64 bytes at the start of its slot, which are at the same time the message that tells a reader of it.

The writer packs them once a frame, straight into the slot, and sends them from there to everybody who waits. What stays
the same from frame to frame stands in front (`FORM_BYTES`), so that a reader recognises it as bytes and has two numbers left
to read. Pure. The sequence is packed last: a slot is never taken for whole before it is.
"""

from __future__ import annotations

import struct

from framelink.errors import WireError
from framelink.layout import FLAG_BGR, FORMATS, MAX_SIDE, FrameInfo, PixelFormat
from framelink.wire import MAGIC, NOTICE, PREFIX, VERSION

# Native and without gaps: magic version kind · width height format flags · slot zero · capture publish pts · sequence
_NOTICE = struct.Struct("@IHHIIIIIIqqqQ")
_SEQUENCE = struct.Struct("@Q")  # one aligned store
_SEQUENCE_AT = 56
_FLAGS = struct.Struct("@I")
_FLAGS_AT = 20

BYTES = _NOTICE.size
FORM_BYTES = 24
"""Magic to flags: size, format and whether there is BGR."""
slot_and_sequence = struct.Struct("@24xI28xQ").unpack
"""Of a whole packet; struct.error where it has another length."""
pack_behind_prefix = struct.Struct("@IIIIIIqqqQ").pack_into
"""(header, PREFIX_BYTES, width, height, format, flags, slot, 0, capture_ns, publish_ns, pts_us, sequence), after `prepare`."""
PREFIX_BYTES = PREFIX.size

_made = tuple.__new__
"""Makes a named tuple without a call of Python's own."""


def prepare(header: memoryview) -> None:
    """A new slot: what begins every notice is written once."""
    PREFIX.pack_into(header, 0, MAGIC, VERSION, NOTICE)


def write(header: memoryview, slot: int, info: FrameInfo) -> None:
    """The frame stands in this slot from now on."""
    sequence, capture_ns, publish_ns, pts_us, width, height, format, has_bgr = info
    flags = FLAG_BGR if has_bgr else 0
    pack_behind_prefix(
        header, PREFIX_BYTES, width, height, format, flags, slot, 0, capture_ns, publish_ns, pts_us, sequence
    )


def parse(packet: bytes, slots: int) -> tuple[int, FrameInfo]:
    """(slot, what is in it) of a message. WireError where it makes no sense in a ring of so many slots."""
    if len(packet) != BYTES:
        raise WireError("a notice of %d bytes, wanted are %d" % (len(packet), BYTES))
    magic, version, kind, width, height, number, flags, slot, _, capture, publish, pts, sequence = _NOTICE.unpack(
        packet
    )
    if (magic, version, kind) != (MAGIC, VERSION, NOTICE):
        raise WireError("a message that is no notice of this version")
    format = FORMATS.get(number)
    if format is None or (format is not PixelFormat.TENSORS and not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE)):
        raise WireError("a frame that cannot be: %dx%d pixels of format %d" % (width, height, number))
    if slot >= slots or sequence == 0:
        raise WireError("a frame in slot %d with sequence %d; the ring has %d slots" % (slot, sequence, slots))
    fields = (sequence, capture, publish, pts, width, height, format, bool(flags & FLAG_BGR))
    return slot, _made(FrameInfo, fields)


def read(header: memoryview) -> bytes | None:
    """The notice that stands in a slot, or None where it is empty or being written. It need not make sense: the memory may
    belong to someone hostile.
    """
    packet = bytes(header[:BYTES])
    sequence = sequence_of(header)
    return packet if sequence and slot_and_sequence(packet)[1] == sequence else None


def mark_bgr(header: memoryview) -> None:
    """A BGR picture has joined the planes of a published frame."""
    _FLAGS.pack_into(header, _FLAGS_AT, _FLAGS.unpack_from(header, _FLAGS_AT)[0] | FLAG_BGR)


def has_bgr(packet: bytes) -> bool:
    """There is a BGR picture beside the planes, or instead of them."""
    return bool(_FLAGS.unpack_from(packet, _FLAGS_AT)[0] & FLAG_BGR)


def forget(header: memoryview) -> None:
    """From here on nobody takes the old picture for whole, not even one who looks without holding it."""
    _SEQUENCE.pack_into(header, _SEQUENCE_AT, 0)


def sequence_of(header: memoryview) -> int:
    """The sequence that a slot holds at this moment; 0 while it is being written."""
    return int(_SEQUENCE.unpack_from(header, _SEQUENCE_AT)[0])
