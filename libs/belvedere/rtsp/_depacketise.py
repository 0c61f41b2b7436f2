"""RTP payloads back to NAL units: RFC 6184 (H.264) and RFC 7798 (H.265). Pure; the other direction is `_packetise`.

Units are gathered in one buffer, Annex B, with one copy from the packet. Nothing a packet says is believed beyond its
end, and the buffer is bounded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ._nal import H265_IRAP
from .errors import StreamUnsupported

START_CODE = b"\x00\x00\x00\x01"
_H264_REFUSED = {25: "STAP-B", 26: "MTAP16", 27: "MTAP24", 29: "FU-B"}


class Depacketiser(ABC):
    """Gathers one access unit. `add` each payload in order, then `take`."""

    header_bytes: int
    """Of a NAL unit."""
    fragment: tuple[int, int] = (0, 1)
    """A payload whose first byte, under this mask, is that is a fragment of a NAL unit; here none is."""
    body_at: int = 0
    """Where in it the body begins, behind the fragment's own header (1 byte: begins, ends, type)."""

    def __init__(self, max_bytes: int) -> None:
        self.data = bytearray()
        """The unit as far as it came. `RtpReceiver.burst` adds to it, too, as `_within` does."""
        self.max_bytes = max_bytes
        self.fragment_at: int | None = None
        """Where in the buffer the fragmented NAL unit begins that is not yet complete."""
        self.has_picture = False
        self.keyframe = False
        self.begins_picture = True
        """Of the first slice in the buffer: it is the first of its picture too."""
        self.damaged = 0
        """Payloads that made no sense, or were left over from something lost."""
        self.oversized = False

    def __len__(self) -> int:
        return len(self.data)

    def gap(self) -> None:
        """Packets are missing here: a fragmented NAL unit that is under way cannot be completed."""
        self._drop_fragment()

    def take(self) -> bytes:
        """The gathered unit; the next one begins."""
        if self.fragment_at is not None:
            self._drop_fragment()
        data = bytes(self.data)
        self.clear()
        return data

    def clear(self) -> None:
        """Forget what is gathered."""
        self.data.clear()
        self.fragment_at = None
        self.has_picture = self.keyframe = self.oversized = False
        self.begins_picture = True
        self.damaged = 0

    @abstractmethod
    def add(self, payload: memoryview) -> None:
        """One payload, of at least one byte. Raises StreamUnsupported for kinds of packets that are not taken."""

    def _append(self, payload: memoryview) -> None:
        if len(self.data) + len(payload) > self.max_bytes:
            self.data.clear()
            self.fragment_at = None
            self.oversized = True
        if not self.oversized:
            self.data += payload

    def _single(self, nal: memoryview, kind: int) -> None:
        if self.fragment_at is not None:
            self._drop_fragment()
        self._note(kind, nal[self.header_bytes] if len(nal) > self.header_bytes else 0)
        self._append(memoryview(START_CODE))
        self._append(nal)

    @abstractmethod
    def opening(self, packets: memoryview, at: int) -> bytes:
        """What the NAL unit begins with whose first fragment stands there: start code and header. It is noted."""

    def _begin_fragment(self, payload: memoryview) -> None:
        if self.fragment_at is not None:
            self._drop_fragment()
        opening = self.opening(payload, 0)
        self.fragment_at = len(self.data)
        self._append(memoryview(opening))
        self._append(payload[self.body_at :])

    def _within(self, payload: memoryview, start: int) -> bool:
        """The usual packet: one in the midst of a fragmented NAL unit that is under way. False: it is another one."""
        data = self.data
        if self.fragment_at is None or len(data) + len(payload) > self.max_bytes:
            return False
        data += payload[start:]
        return True

    def _continue_fragment(self, body: memoryview) -> None:
        if self.fragment_at is not None:
            self._append(body)
        elif not self.oversized:
            self.damaged += 1

    def _end_fragment(self) -> None:
        self.fragment_at = None

    def _drop_fragment(self) -> None:
        if self.fragment_at is not None:
            del self.data[self.fragment_at :]
            self.fragment_at = None
            self.damaged += 1

    def _aggregate(self, units: memoryview) -> None:
        """16-bit sizes, each with its NAL unit behind it."""
        at, end = 0, len(units)
        while end - at > 2:
            size = units[at] << 8 | units[at + 1]
            at += 2
            if size < self.header_bytes or at + size > end:
                self.damaged += 1
                return
            nal = units[at : at + size]
            self._single(nal, self._kind(nal))
            at += size

    @abstractmethod
    def _kind(self, nal: memoryview) -> int:
        """nal_unit_type."""

    @abstractmethod
    def _note(self, kind: int, slice_head: int) -> None:
        """Remember what a NAL unit of this type means for the unit; `slice_head`: the byte behind its header."""

    def _note_slice(self, slice_head: int) -> None:
        if not self.has_picture:
            self.has_picture = True
            # first_mb_in_slice = 0 in H.264, first_slice_segment_in_pic_flag in H.265: the first bit is set.
            self.begins_picture = bool(slice_head & 0x80)


class H264Depacketiser(Depacketiser):
    """RFC 6184 §5.4, packetization modes 0 and 1."""

    header_bytes = 1
    fragment = (0x1F, 28)
    body_at = 2

    def opening(self, packets: memoryview, at: int) -> bytes:
        kind = packets[at + 1] & 0x1F
        self._note(kind, packets[at + 2])
        return START_CODE + bytes((packets[at] & 0xE0 | kind,))

    def add(self, payload: memoryview) -> None:
        kind = payload[0] & 0x1F
        if kind == 28:  # FU-A
            if len(payload) < 3:
                self.damaged += 1
                return
            head = payload[1]
            if not head & 0xC0 and self._within(payload, 2):
                return
            if head & 0x80:
                self._begin_fragment(payload)
            else:
                self._continue_fragment(payload[2:])
            if head & 0x40:
                self._end_fragment()
        elif 1 <= kind <= 23:
            self._single(payload, kind)
        elif kind == 24:  # STAP-A
            self._aggregate(payload[1:])
        elif kind in _H264_REFUSED:
            raise StreamUnsupported(
                f"the stream comes in {_H264_REFUSED[kind]} packets (interleaved mode); switch that off on the camera"
            )
        else:
            self.damaged += 1

    def _kind(self, nal: memoryview) -> int:
        return nal[0] & 0x1F

    def _note(self, kind: int, slice_head: int) -> None:
        if 1 <= kind <= 5:
            self._note_slice(slice_head)
            self.keyframe = self.keyframe or kind == 5


class H265Depacketiser(Depacketiser):
    """RFC 7798 §4.4, without decoding order numbers (sprop-max-don-diff = 0)."""

    header_bytes = 2
    fragment = (0x7E, 49 << 1)
    body_at = 3

    def opening(self, packets: memoryview, at: int) -> bytes:
        kind = packets[at + 2] & 0x3F
        self._note(kind, packets[at + 3])
        return START_CODE + bytes((packets[at] & 0x81 | kind << 1, packets[at + 1]))

    def add(self, payload: memoryview) -> None:
        kind = payload[0] >> 1 & 0x3F
        if len(payload) < 3:
            self.damaged += 1
        elif kind == 49:  # FU
            if len(payload) < 4:
                self.damaged += 1
                return
            head = payload[2]
            if not head & 0xC0 and self._within(payload, 3):
                return
            if head & 0x80:
                self._begin_fragment(payload)
            else:
                self._continue_fragment(payload[3:])
            if head & 0x40:
                self._end_fragment()
        elif kind < 48:
            self._single(payload, kind)
        elif kind == 48:  # AP
            self._aggregate(payload[2:])
        elif kind == 50:
            raise StreamUnsupported("the stream comes in PACI packets, which are not taken; switch that off")
        else:
            self.damaged += 1

    def _kind(self, nal: memoryview) -> int:
        return nal[0] >> 1 & 0x3F

    def _note(self, kind: int, slice_head: int) -> None:
        if kind < 32:
            self._note_slice(slice_head)
            self.keyframe = self.keyframe or kind in H265_IRAP
