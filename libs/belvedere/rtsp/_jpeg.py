"""JPEG pictures over RTP (RFC 2435), both ways. Pure.

The headers of a picture do not travel: they are made anew from eight bytes, so that only what those can say is carried:
baseline, 4:2:2 or 4:2:0, the usual Huffman tables. Quantisation tables come along (Q ≥ 128) or follow from Q.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ._depacketise import Depacketiser

MAX_SIDE = 255 * 8
"""The main header counts blocks of eight pixels in one byte; 0 there: the session description says the size."""

# ITU-T T.81 Annex K.3: classes, lengths and symbols of the four tables as one DHT segment has them.
_AC_TAIL = "35363738393a434445464748494a535455565758595a636465666768696a737475767778797a"
_HUFFMAN = bytes.fromhex(
    "0000010501010101010100000000000000000102030405060708090a0b"
    "0100030101010101010101010000000000000102030405060708090a0b"
    "100002010303020403050504040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282"
    "090a161718191a25262728292a34" + _AC_TAIL + "838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8"
    "b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    "1100020102040403040705040400010277000102031104052131061241510761711322328108144291a1b1c109233352f0156272d1"
    "0a162434e125f11718191a262728292a" + _AC_TAIL + "82838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6"
    "b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
)
# T.81 Annex K.1 and K.2, in zigzag order as RFC 2435 Appendix A has them.
_LUMA = bytes.fromhex(
    "100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763"
)
_CHROMA = bytes.fromhex(
    "1112121815182f1a1a2f634238426363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363636363"
)
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEADER = struct.Struct("!BBHBBBB")  # type-specific, offset (24 bits), type, Q, width / 8, height / 8


def quantisation_tables(q: int) -> tuple[bytes, bytes]:
    """Luma and chroma for Q 1..99 (RFC 2435 §4.2)."""
    factor = min(max(q, 1), 99)
    scale = 5000 // factor if factor < 50 else 200 - factor * 2
    luma, chroma = (
        bytes(min(max((value * scale + 50) // 100, 1), 255) for value in table) for table in (_LUMA, _CHROMA)
    )
    return luma, chroma


def headers(kind: int, width: int, height: int, tables: bytes, precision: int, restart_interval: int) -> bytes:
    """A picture's headers up to its scan. `tables`: one for all, or luma and chroma; bit n of `precision`: table n has
    16-bit entries.
    """
    made = [b"\xff\xd8"]
    at = number = 0
    while at < len(tables) and number < 2:
        size = 128 if precision >> number & 1 else 64
        segment = bytes([(precision >> number & 1) << 4 | number]) + tables[at : at + size]
        made.append(b"\xff\xdb" + struct.pack("!H", 2 + len(segment)) + segment)
        at, number = at + size, number + 1
    if restart_interval:
        made.append(b"\xff\xdd" + struct.pack("!HH", 4, restart_interval))
    chroma_table = max(0, number - 1)
    luma_sampling = 0x22 if kind & 1 else 0x21
    components = bytes([1, luma_sampling, 0, 2, 0x11, chroma_table, 3, 0x11, chroma_table])
    made.append(b"\xff\xc0" + struct.pack("!HBHHB", 8 + len(components), 8, height, width, 3) + components)
    made.append(b"\xff\xc4" + struct.pack("!H", 2 + len(_HUFFMAN)) + _HUFFMAN)
    made.append(b"\xff\xda" + struct.pack("!HB", 12, 3) + bytes([1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]))
    return b"".join(made)


class JpegDepacketiser(Depacketiser):
    """Gathers one picture; each is a key frame."""

    header_bytes = 0

    def __init__(self, max_bytes: int, size: tuple[int, int] | None = None) -> None:
        """`size`: of the session description, for pictures too large for the main header."""
        super().__init__(max_bytes)
        self._size = size
        self._next = 0
        """The scan's byte that the next fragment must begin with."""
        self._tables: dict[int, tuple[bytes, int]] = {}
        """Of Q 128..254, which a sender may leave out after the first time."""

    def add(self, payload: memoryview) -> None:
        if len(payload) < 9:
            self.damaged += 1
            return
        _, high, low, kind, q, width, height = _HEADER.unpack_from(payload)
        offset, at, restart = high << 16 | low, 8, 0
        if 64 <= kind <= 127:
            if len(payload) < 13:
                self.damaged += 1
                return
            restart, at = struct.unpack_from("!H", payload, 8)[0], 12
        if offset == 0:
            self._begin(payload, at, kind, q, width * 8, height * 8, restart)
        elif offset != self._next or not len(self):
            self.damaged += not self.oversized
        else:
            self._scan(payload[at:])

    def _begin(self, payload: memoryview, at: int, kind: int, q: int, width: int, height: int, restart: int) -> None:
        if len(self):
            self.clear()
            self.damaged += 1
        if not (width and height) and self._size is not None:
            width, height = self._size
        found = self._read_tables(payload, at, q)
        if found is None or kind & 63 > 1 or kind > 127 or not (width and height):
            self.damaged += 1
            return
        tables, precision, at = found
        self.has_picture = self.keyframe = True
        self._append(memoryview(headers(kind, width, height, tables, precision, restart)))
        self._scan(payload[at:])

    def _read_tables(self, payload: memoryview, at: int, q: int) -> tuple[bytes, int, int] | None:
        """(tables, their precision, where the scan begins); None where they are missing."""
        if q < 128:
            return (b"".join(quantisation_tables(q)), 0, at) if 1 <= q <= 99 else None
        if len(payload) < at + 4:
            return None
        precision, length = payload[at + 1], payload[at + 2] << 8 | payload[at + 3]
        at += 4
        if not length:
            kept = self._tables.get(q)
            return (*kept, at) if kept is not None and q != 255 else None
        if length not in (64, 128, 192, 256) or at + length > len(payload):
            return None
        tables = bytes(payload[at : at + length])
        if q != 255:
            self._tables[q] = (tables, precision)
        return tables, precision, at + length

    def _scan(self, data: memoryview) -> None:
        self._append(data)
        self._next += len(data)

    def take(self) -> bytes:
        if len(self) and self.data[-2:] != b"\xff\xd9":
            self._append(memoryview(b"\xff\xd9"))
        return super().take()

    def clear(self) -> None:
        super().clear()
        self._next = 0

    # JPEG has no NAL units: of these nobody asks.

    def opening(self, packets: memoryview, at: int) -> bytes:
        return b""

    def _kind(self, nal: memoryview) -> int:
        return 0

    def _note(self, kind: int, slice_head: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """What of a JPEG file travels."""

    kind: int
    width: int
    height: int
    tables: bytes
    restart_interval: int
    scan: bytes


def jpeg_payloads(data: bytes, max_payload: int) -> list[bytes]:
    """A JPEG file as RTP payloads; none where RFC 2435 cannot carry it (progressive, 4:4:4, own Huffman tables, larger
    than 2040 pixels).
    """
    picture = _parse(data)
    if picture is None:
        return []
    restart = struct.pack("!HH", picture.restart_interval, 0xFFFF) if picture.restart_interval else b""
    payloads, at = [], 0
    while at < len(picture.scan):
        head = _HEADER.pack(0, at >> 16, at & 0xFFFF, picture.kind, 255, picture.width // 8, picture.height // 8)
        head += restart
        if at == 0:
            head += struct.pack("!BBH", 0, 0, len(picture.tables)) + picture.tables
        step = max_payload - len(head)
        payloads.append(head + picture.scan[at : at + step])
        at += step
    return payloads


def _parse(data: bytes) -> _Picture | None:
    tables: dict[int, bytes] = {}
    kind = width = height = restart = 0
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], data[at + 2] << 8 | data[at + 3]
        body = data[at + 4 : at + 2 + size]
        at += 2 + size
        if marker == 0xDB:
            while len(body) >= 65 and body[0] < 16:
                tables[body[0]] = body[1:65]
                body = body[65:]
        elif marker == 0xC0:
            height, width = struct.unpack_from("!HH", body, 1)
            sampling = body[7] if body[5] == 3 else 0
            if sampling not in (0x21, 0x22) or body[10] != 0x11 or body[13] != 0x11:
                return None
            kind = sampling & 1 ^ 1
            # One table for all is told as two equal ones.
            tables = {0: tables.get(body[8], b""), 1: tables.get(body[11], b"")}
        elif marker == 0xDD:
            restart = struct.unpack_from("!H", body)[0]
        elif marker == 0xC4:
            if not _usual(body):
                return None
        elif marker in _OTHER_FRAMES:
            return None
        elif marker == 0xDA:
            if not width or max(width, height) > MAX_SIDE or width % 8 or height % 8 or not all(tables.values()):
                return None
            scan = data[at:]
            return _Picture(kind | (64 if restart else 0), width, height, tables[0] + tables[1], restart, scan)
    return None


def _usual(tables: bytes) -> bool:
    """Whether a DHT segment has nothing but tables of the standard."""
    while len(tables) >= 17:
        end = 17 + sum(tables[1:17])
        if tables[:end] not in _HUFFMAN:
            return False
        tables = tables[end:]
    return not tables
