"""NAL units of H.264 and H.265: splitting Annex B, and telling the kinds apart. Pure.

Sources: ITU-T H.264 §7.4.1 and Annex B, ITU-T H.265 §7.4.2 and Annex B.
"""

from __future__ import annotations

from ._source import Codec

H264_IDR, H264_SPS, H264_PPS, H264_AUD = 5, 7, 8, 9
H265_VPS, H265_SPS, H265_PPS, H265_AUD = 32, 33, 34, 35
H265_IRAP = range(16, 24)
PARAMETER_SETS: dict[Codec, tuple[int, ...]] = {
    "h264": (H264_SPS, H264_PPS),
    "hevc": (H265_VPS, H265_SPS, H265_PPS),
    "mjpeg": (),
}


def split_annexb(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream, without start codes and without zero bytes at their end."""
    start = data.find(b"\x00\x00\x01")
    units = []
    while start >= 0:
        begin = start + 3
        start = data.find(b"\x00\x00\x01", begin)
        unit = data[begin : start if start >= 0 else len(data)].rstrip(b"\x00")
        if unit:
            units.append(unit)
    return units


def join_annexb(units: tuple[bytes, ...] | list[bytes]) -> bytes:
    """The NAL units behind four-byte start codes."""
    return b"".join(b"\x00\x00\x00\x01" + unit for unit in units)


def nal_type(codec: Codec, unit: bytes) -> int:
    """nal_unit_type of a unit of at least one byte."""
    return unit[0] & 0x1F if codec == "h264" else (unit[0] >> 1) & 0x3F


def is_parameter_set(codec: Codec, unit: bytes) -> bool:
    return nal_type(codec, unit) in PARAMETER_SETS[codec]


def is_delimiter(codec: Codec, unit: bytes) -> bool:
    """Access unit delimiter: stands before everything else of its picture."""
    return nal_type(codec, unit) == (H264_AUD if codec == "h264" else H265_AUD)


def is_random_access(codec: Codec, units: list[bytes]) -> bool:
    """Whether decoding can start at the picture these units make."""
    kinds = {nal_type(codec, unit) for unit in units}
    return H264_IDR in kinds if codec == "h264" else any(kind in H265_IRAP for kind in kinds)


def parameter_sets(codec: Codec, units: list[bytes]) -> tuple[bytes, ...]:
    """The parameter sets among the units, in the order that decoders and SDP expect."""
    order = PARAMETER_SETS[codec]
    found = [unit for unit in units if nal_type(codec, unit) in order]
    return tuple(sorted(found, key=lambda unit: order.index(nal_type(codec, unit))))
