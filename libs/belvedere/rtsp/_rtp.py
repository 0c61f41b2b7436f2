"""RTP headers and RTCP packets (RFC 3550): what senders and receivers write; `_receive` reads them. Pure.

A sender has one `RtpState` per session: its own source id, first sequence number and first time stamp, as §5.1 asks.
"""

from __future__ import annotations

import secrets
import struct

from ._packetise import Unit

PAYLOAD_TYPE = 96
CLOCK_RATE = 90_000
NTP_EPOCH_OFFSET_S = 2_208_988_800  # 1900-01-01 to 1970-01-01

_HEADER = struct.Struct("!BBHII")
_SENDER_REPORT, _RECEIVER_REPORT, _SDES, _BYE = 200, 201, 202, 203
_CNAME = 1


class RtpState:
    """Sequence numbers, time stamps and counts of one sender to one receiver."""

    def __init__(self) -> None:
        self.ssrc = secrets.randbits(32)
        self.sequence = secrets.randbits(16)
        self.packets = 0
        self.octets = 0
        self._offset = secrets.randbits(32)
        self._last_pts: int | None = None
        self._last_unix = 0.0

    def timestamp(self, pts_90k: int) -> int:
        return (pts_90k + self._offset) & 0xFFFFFFFF

    def packets_of(self, unit: Unit, unix_s: float) -> list[bytes]:
        """The unit as RTP packets; `unix_s` is the time of sending, which sender reports tie to the time stamp."""
        stamp = self.timestamp(unit.pts_90k)
        last = len(unit.payloads) - 1
        packets = []
        for number, payload in enumerate(unit.payloads):
            marker = 0x80 if number == last else 0
            packets.append(_HEADER.pack(0x80, marker | PAYLOAD_TYPE, self.sequence, stamp, self.ssrc) + payload)
            self.sequence = (self.sequence + 1) & 0xFFFF
        self.packets += len(packets)
        self.octets += unit.size
        self._last_pts, self._last_unix = unit.pts_90k, unix_s
        return packets

    def sender_report(self, unix_s: float, cname: str) -> bytes | None:
        """SR and SDES as one compound packet; None before the first picture."""
        if self._last_pts is None:
            return None
        stamp = self.timestamp(self._last_pts + round((unix_s - self._last_unix) * CLOCK_RATE))
        seconds = int(unix_s)
        fraction = int((unix_s - seconds) * (1 << 32)) & 0xFFFFFFFF
        report = struct.pack(
            "!BBHIIIIII",
            0x80,
            _SENDER_REPORT,
            6,
            self.ssrc,
            (seconds + NTP_EPOCH_OFFSET_S) & 0xFFFFFFFF,
            fraction,
            stamp,
            self.packets & 0xFFFFFFFF,
            self.octets & 0xFFFFFFFF,
        )
        return report + _sdes(self.ssrc, cname)

    def bye(self) -> bytes:
        """The stream has ended. RFC 3550 wants BYE in a compound packet; an empty receiver report stands first."""
        return struct.pack("!BBHI", 0x80, _RECEIVER_REPORT, 1, self.ssrc) + struct.pack(
            "!BBHI", 0x81, _BYE, 1, self.ssrc
        )


def receiver_report(
    *,
    own_ssrc: int,
    ssrc: int,
    fraction_lost: int,
    lost: int,
    highest_sequence: int,
    jitter: int,
    last_report: int,
    delay: int,
    cname: str,
) -> bytes:
    """RR and SDES as one compound packet (§6.4.2). `last_report`: the middle 32 bits of the last sender report's NTP
    time; `delay`: since it came, in 1/65536 s; `jitter`: in units of the time stamp.
    """
    block = struct.pack(
        "!IIIIII",
        ssrc,
        (fraction_lost & 0xFF) << 24 | min(lost, 0x7FFFFF),
        highest_sequence & 0xFFFFFFFF,
        jitter & 0xFFFFFFFF,
        last_report & 0xFFFFFFFF,
        delay & 0xFFFFFFFF,
    )
    return struct.pack("!BBHI", 0x81, _RECEIVER_REPORT, 7, own_ssrc) + block + _sdes(own_ssrc, cname)


def empty_report(own_ssrc: int, cname: str) -> bytes:
    """An RR about nothing, with SDES: what a receiver may say before the first packet."""
    return struct.pack("!BBHI", 0x80, _RECEIVER_REPORT, 1, own_ssrc) + _sdes(own_ssrc, cname)


def _sdes(ssrc: int, cname: str) -> bytes:
    name = cname.encode()[:255]
    chunk = struct.pack("!IBB", ssrc, _CNAME, len(name)) + name + b"\x00"
    chunk += b"\x00" * (-len(chunk) % 4)
    return struct.pack("!BBH", 0x81, _SDES, len(chunk) // 4) + chunk
