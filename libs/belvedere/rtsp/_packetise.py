"""Access units to RTP payloads: RFC 6184 (H.264, packetization-mode=1), RFC 7798 (H.265), RFC 2435 (JPEG). Pure.

One packetiser serves all viewers of a source: payloads are the same for everyone, headers are per session.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ._jpeg import jpeg_payloads
from ._nal import is_delimiter, is_parameter_set, nal_type, parameter_sets, split_annexb
from ._source import AccessUnit, Codec, StreamDescription

MAX_PAYLOAD = 1388
"""With 12 bytes of RTP header 1400: fits an Ethernet frame also through IPv6, VLAN and most tunnels."""

_H264_STAP_A, _H264_FU_A = 24, 28
_H265_AP, _H265_FU = 48, 49


@dataclass(frozen=True, slots=True)
class Unit:
    """One access unit as RTP payloads; the last one carries the marker bit."""

    payloads: tuple[bytes, ...]
    pts_90k: int
    keyframe: bool
    size: int


class Packetiser:
    """Makes payloads and sees to it that every key frame comes with its parameter sets."""

    def __init__(self, description: StreamDescription, max_payload: int = MAX_PAYLOAD) -> None:
        self._codec: Codec = description.codec
        self._sets = description.parameter_sets
        self._max = max_payload

    def packetise(self, unit: AccessUnit) -> Unit | None:
        """The payloads of an access unit, or None when it holds no NAL unit, or a JPEG that RTP cannot carry."""
        if self._codec == "mjpeg":
            scans = jpeg_payloads(unit.data, self._max)
            return Unit(tuple(scans), unit.pts_90k, True, sum(map(len, scans))) if scans else None
        nals = split_annexb(unit.data)
        inband = parameter_sets(self._codec, nals)
        if inband:
            self._sets = inband
        rest = [nal for nal in nals if not is_parameter_set(self._codec, nal)]
        payloads: list[bytes] = []
        if rest and is_delimiter(self._codec, rest[0]):
            payloads += self._payloads(rest.pop(0))
        if unit.keyframe or inband:
            payloads += self._aggregate(self._sets)
        for nal in rest:
            payloads += self._payloads(nal)
        if not payloads:
            return None
        return Unit(tuple(payloads), unit.pts_90k, unit.keyframe, sum(map(len, payloads)))

    def _payloads(self, nal: bytes) -> list[bytes]:
        if len(nal) <= self._max:
            return [nal]
        return self._fragment_h264(nal) if self._codec == "h264" else self._fragment_h265(nal)

    def _aggregate(self, sets: tuple[bytes, ...]) -> list[bytes]:
        """Parameter sets in one packet (STAP-A, AP); one by one where they do not fit."""
        head = self._aggregate_header(sets)
        if len(sets) < 2 or len(head) + sum(2 + len(nal) for nal in sets) > self._max:
            return [payload for nal in sets for payload in self._payloads(nal)]
        return [head + b"".join(struct.pack("!H", len(nal)) + nal for nal in sets)]

    def _aggregate_header(self, sets: tuple[bytes, ...]) -> bytes:
        if self._codec == "h264":  # F and NRI: the highest of what is inside (RFC 6184 §5.7)
            return bytes([max((nal[0] & 0x60 for nal in sets), default=0) | _H264_STAP_A])
        return bytes([_H265_AP << 1, 1])  # layer 0, TID 1 (RFC 7798 §4.4.2)

    def _fragment_h264(self, nal: bytes) -> list[bytes]:
        indicator = (nal[0] & 0xE0) | _H264_FU_A
        kind = nal_type("h264", nal)
        step = self._max - 2
        ends = range(1, len(nal), step)
        return [
            bytes([indicator, kind | (0x80 if at == 1 else 0) | (0x40 if at + step >= len(nal) else 0)])
            + nal[at : at + step]
            for at in ends
        ]

    def _fragment_h265(self, nal: bytes) -> list[bytes]:
        head = bytes([(nal[0] & 0x81) | (_H265_FU << 1), nal[1]])
        kind = nal_type("hevc", nal)
        step = self._max - 3
        return [
            head
            + bytes([kind | (0x80 if at == 2 else 0) | (0x40 if at + step >= len(nal) else 0)])
            + nal[at : at + step]
            for at in range(2, len(nal), step)
        ]
