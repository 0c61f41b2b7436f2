"""Fragmented MP4 (ISO/IEC 14496-12, -15) with one H.264 track: an init segment, then a fragment per picture. Pure.

Browsers play it through Media Source Extensions. A fragment is complete by itself, so that nothing waits for the next
picture.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

TIMESCALE = 90_000
TRACK_ID = 1

_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_SAMPLE_SYNC = 0x02000000  # depends on no other
_SAMPLE_DELTA = 0x01010000  # depends on others, is no sync sample


def codec_string(sps: bytes) -> str:
    """RFC 6381's name of the stream, "avc1.42c01f": profile, constraints and level of the SPS."""
    return f"avc1.{sps[1:4].hex()}"


def mime_type(sps: bytes) -> str:
    """What a page gives to `MediaSource.addSourceBuffer`."""
    return f'video/mp4; codecs="{codec_string(sps)}"'


def init_segment(width: int, height: int, sps: bytes, pps: bytes) -> bytes:
    """`ftyp` and `moov`; parameter sets without start codes."""
    return _box(b"ftyp", b"iso6" + struct.pack(">I", 0) + b"iso6avc1mp41") + _box(
        b"moov", _mvhd(), _trak(width, height, sps, pps), _box(b"mvex", _trex())
    )


def fragment(sequence: int, decode_time: int, duration: int, keyframe: bool, sample: bytes) -> bytes:
    """`moof` and `mdat` with one picture; times in 1/90000 s, `sample` with length prefixes (`length_prefixed`)."""
    mfhd = _full(b"mfhd", 0, 0, struct.pack(">I", sequence))
    tfhd = _full(b"tfhd", 0, 0x020000, struct.pack(">I", TRACK_ID))  # default-base-is-moof
    tfdt = _full(b"tfdt", 1, 0, struct.pack(">Q", decode_time))
    flags = _SAMPLE_SYNC if keyframe else _SAMPLE_DELTA

    def moof(data_offset: int) -> bytes:
        # data offset, duration, size and flags present
        trun = _full(b"trun", 0, 0x000701, struct.pack(">IiIII", 1, data_offset, duration, len(sample), flags))
        return _box(b"moof", mfhd, _box(b"traf", tfhd, tfdt, trun))

    head = moof(len(moof(0)) + 8)
    return b"".join((head, struct.pack(">I", len(sample) + 8), b"mdat", sample))


def length_prefixed(units: Sequence[bytes]) -> bytes:
    """NAL units as a sample of a track: each behind its length in four bytes."""
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def _box(kind: bytes, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return struct.pack(">I", len(body) + 8) + kind + body


def _full(kind: bytes, version: int, flags: int, *contents: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *contents)


def _mvhd() -> bytes:
    times = struct.pack(">IIIIIHHII", 0, 0, TIMESCALE, 0, 0x10000, 0x0100, 0, 0, 0)
    return _full(b"mvhd", 0, 0, times, _MATRIX, bytes(24), struct.pack(">I", TRACK_ID + 1))


def _trak(width: int, height: int, sps: bytes, pps: bytes) -> bytes:
    tkhd = struct.pack(">IIIIIIIHHHH", 0, 0, TRACK_ID, 0, 0, 0, 0, 0, 0, 0, 0)
    size = struct.pack(">II", width << 16, height << 16)
    mdhd = struct.pack(">IIIIHH", 0, 0, TIMESCALE, 0, 0x55C4, 0)  # language "und"
    hdlr = struct.pack(">I4sIII", 0, b"vide", 0, 0, 0) + b"Belvedere\0"
    dref = _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))  # in this file
    empty = struct.pack(">I", 0)
    stbl = _box(
        b"stbl",
        _full(b"stsd", 0, 0, struct.pack(">I", 1), _avc1(width, height, sps, pps)),
        _full(b"stts", 0, 0, empty),
        _full(b"stsc", 0, 0, empty),
        _full(b"stsz", 0, 0, empty, empty),
        _full(b"stco", 0, 0, empty),
    )
    minf = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), _box(b"dinf", dref), stbl)
    mdia = _box(b"mdia", _full(b"mdhd", 0, 0, mdhd), _full(b"hdlr", 0, 0, hdlr), minf)
    return _box(b"trak", _full(b"tkhd", 0, 3, tkhd, _MATRIX, size), mdia)


def _avc1(width: int, height: int, sps: bytes, pps: bytes) -> bytes:
    visual = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    config = bytes((1, sps[1], sps[2], sps[3], 0xFF, 0xE1)) + struct.pack(">H", len(sps)) + sps
    config += b"\x01" + struct.pack(">H", len(pps)) + pps
    if sps[1] in (100, 110, 122, 144):  # 4:2:0, 8 bits, no extensions
        config += bytes((0xFD, 0xF8, 0xF8, 0))
    return _box(b"avc1", visual, _box(b"avcC", config))


def _trex() -> bytes:
    return _full(b"trex", 0, 0, struct.pack(">IIIII", TRACK_ID, 1, 0, 0, 0))
