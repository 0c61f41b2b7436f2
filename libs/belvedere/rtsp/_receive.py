"""RTP packets become access units: sequence, time stamps, loss, reports. Pure but for the wall clock that it is given.

A unit ends where the marker bit says so: with its own last packet, not with the first of the next. Cameras that never
set it, or set it on every slice, are found out by their time stamps, and then a unit ends when the next one begins.
"""

from __future__ import annotations

import secrets
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ._depacketise import Depacketiser, H264Depacketiser, H265Depacketiser
from ._jpeg import JpegDepacketiser
from ._rtp import NTP_EPOCH_OFFSET_S, empty_report, receiver_report
from ._sdp_read import VideoMedia
from ._source import AccessUnit

OnLoss = Literal["mark", "drop", "drop_until_key"]

MAX_READY_UNITS = 8
"""Complete units that wait while an answer is waited for; the oldest is dropped beyond."""
MAX_CLOCK_ERROR_S = 365 * 86_400.0
"""A camera whose clock is further off than this has never been told the time; it has no wall clock."""
_HEADER = struct.Struct("!BBHII")
_FRAMED = struct.Struct("!BBHBBHIIBBB")
"""An interleaved frame ($, channel, size), the same of the RTP packet in it, and three bytes of payload."""
FRAMED_MIN = _FRAMED.size + 1
_SENDER_REPORT = struct.Struct("!BBHIIII")
_SR, _BYE = 200, 203
_ERA_S = 1 << 32


@dataclass(frozen=True, slots=True)
class ReceivedUnit(AccessUnit):
    """One encoded picture as it came. `pts_90k` is the camera's RTP time stamp, carried on beyond 32 bits."""

    first_packet_ns: int
    """CLOCK_MONOTONIC when the unit's first packet was read from its socket."""
    last_packet_ns: int
    """The same of its last packet: from here on the unit could be handed on."""
    lost: int
    """Packets that are missing in it, or next to it so that they may be; 0 in a whole unit."""
    captured_unix_s: float | None
    """The camera's wall clock at capture, from its sender reports; None before the first, or where it has no clock."""


@dataclass(slots=True)
class ReceiverStats:
    """Counters since the stream began."""

    packets: int = 0
    octets: int = 0
    units: int = 0
    """Handed on."""
    lost_packets: int = 0
    late_packets: int = 0
    """UDP: came after they had been given up, or twice."""
    dropped_units: int = 0
    """Not handed on since a part of them, or of what they build on, was lost; and those nobody fetched."""
    oversized_units: int = 0
    malformed_packets: int = 0
    foreign_packets: int = 0
    """Of another payload type than the one set up."""
    unmarked_units: int = 0
    """Units without a marker bit: they came one frame interval late."""


class RtpReceiver:
    """Takes packets in order, puts units into `ready`."""

    def __init__(
        self,
        media: VideoMedia,
        on_loss: OnLoss,
        max_unit_bytes: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.ready: deque[ReceivedUnit] = deque()
        self.stats = ReceiverStats()
        self.said_goodbye = False
        self._media = media
        self._on_loss = on_loss
        self._wall_clock = wall_clock
        self._unit = depacketiser(media, max_unit_bytes)
        self._ssrc: int | None = None
        self._own_ssrc = secrets.randbits(32)
        self._next_sequence = 0
        self._highest = 0
        self._expected_from = 0
        self._stamp = 0
        self._extended: int | None = None
        self._ended_stamp: int | None = None
        self._markers_lie = False
        self._first_ns = self._last_ns = 0
        self._lost = 0
        self._needs_key = False
        self._report: tuple[int, int, float] | None = None
        """Of the last sender report: middle of its NTP time, when it came, and what it says."""
        self._clock: tuple[float, int] | None = None
        self._jitter = 0.0
        self._transit: float | None = None
        self._reported_expected = self._reported_lost = self._lost_before = 0

    def packet(self, data: memoryview, arrived_ns: int) -> None:
        """One RTP packet. Raises StreamUnsupported."""
        stats = self.stats
        size = len(data)
        if size < 13:
            stats.malformed_packets += 1
            return
        first, second, sequence, stamp, ssrc = _HEADER.unpack_from(data)
        if first != 0x80:
            payload = _payload(data, first)
            if payload is None:
                stats.malformed_packets += 1
                return
        else:
            payload = data[12:]
        if second & 0x7F != self._media.payload_type:
            stats.foreign_packets += 1
            return
        stats.packets += 1
        stats.octets += size
        if ssrc != self._ssrc:
            self._begin_stream(ssrc, sequence, stamp)
        elif sequence != self._next_sequence:
            self._gap(sequence, stamp)
        self._highest += (sequence - self._highest) & 0xFFFF
        self._next_sequence = (sequence + 1) & 0xFFFF
        unit = self._unit
        if stamp != self._stamp:
            if unit.has_picture or unit.oversized:
                stats.unmarked_units += 1
                self._end()
            self._stamp = stamp
        if not len(unit) and not unit.oversized:
            self._first_ns = arrived_ns
        self._last_ns = arrived_ns
        unit.add(payload)
        if second & 0x80 and not self._markers_lie and (unit.has_picture or unit.oversized):
            self._end()

    def burst(self, view: memoryview, at: int, end: int, channel: int, arrived_ns: int) -> int:
        """Takes the usual packets in `view[at:end]`, to the end of a unit: whole interleaved frames of `channel`, RTP with nothing
        special in it, next in sequence, each the next fragment of a NAL unit. Gives where the first other one begins. For `packet`
        they would be the same; this is one loop, because between two pictures all code has gone cold and each line costs anew.
        """
        unit = self._unit
        mask, fragment = unit.fragment
        body_at, data = unit.body_at, unit.data
        # A packet adds less than its size: beyond this it is `packet` that has to look.
        room = unit.max_bytes - len(data)
        if unit.oversized:
            return at
        known, ssrc, stamp, expected = self._media.payload_type, self._ssrc, self._stamp, self._next_sequence
        within, begun = unit.fragment_at, at
        count, ended = 0, False
        while end - at >= FRAMED_MIN and not ended:
            mark, its, size, first, second, sequence, its_stamp, source, a, b, c = _FRAMED.unpack_from(view, at)
            following = at + 4 + size
            room -= size
            if (
                following > end or mark != 0x24 or its != channel or first != 0x80 or second & 0x7F != known
                or sequence != expected or source != ssrc or a & mask != fragment or size < 16 or room < 0
            ):  # fmt: skip
                break
            head = b if body_at == 2 else c
            if head >= 0x80:
                if within is not None or head & 0x40 or (its_stamp != stamp and unit.has_picture):
                    break
                stamp = its_stamp
                if not data:
                    self._first_ns = arrived_ns
                opening = unit.opening(view, at + 16)
                within = len(data)
                data += opening
            elif within is None or its_stamp != stamp:
                break
            elif head & 0x40:
                within = None
            data += view[at + 16 + body_at : following]
            at = following
            expected = (expected + 1) & 0xFFFF
            count += 1
            ended = second >= 0x80 and unit.has_picture and not self._markers_lie
        if count:
            unit.fragment_at = within
            self._stamp, self._next_sequence, self._last_ns = stamp, expected, arrived_ns
            self._highest += count
            stats = self.stats
            stats.packets += count
            stats.octets += at - begun - 4 * count
            if ended:
                self._end()
        return at

    def _begin_stream(self, ssrc: int, sequence: int, stamp: int) -> None:
        """A new source, also where the camera starts again in the middle: nothing of before goes with it."""
        if self._ssrc is not None:
            self._unit.clear()
            self._lost = 1
            self._report = self._clock = self._transit = None
        self._ssrc = ssrc
        self._highest = self._expected_from = sequence
        self._stamp = stamp
        self._ended_stamp = None
        self._reported_expected = 0
        self._lost_before = self._reported_lost = self.stats.lost_packets

    def _gap(self, sequence: int, stamp: int) -> None:
        missing = (sequence - self._next_sequence) & 0xFFFF
        if missing >= 0x8000:  # backwards: counted from anew, or twice the same; what is missing is not known
            missing = 1
            self._expected_from = self._highest = sequence
        self.stats.lost_packets += missing
        self._lost += missing
        unit = self._unit
        unit.gap()
        if stamp != self._stamp and unit.has_picture:
            # The end of one and the beginning of the next: which of the two it was, nobody knows.
            self.stats.unmarked_units += 1
            self._end()
            self._lost = missing

    def _end(self) -> None:
        """The gathered unit is complete, as far as it came."""
        unit, stats = self._unit, self.stats
        if unit.fragment_at is not None:
            unit.gap()
        lost = self._lost + unit.damaged
        self._lost = 0
        stamp, continues = self._stamp, not unit.begins_picture and self._stamp == self._ended_stamp
        self._ended_stamp = stamp
        if continues and not lost:
            # The rest of the picture that was handed on already: this camera sets the marker on every slice.
            self._markers_lie = True
        if self._extended is None:
            self._extended = stamp
        else:
            self._extended += ((stamp - self._extended + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._measure_jitter()
        keyframe = unit.keyframe
        if unit.oversized:
            stats.oversized_units += 1
            lost += 1
        broken = unit.oversized or continues or not len(unit)
        self._needs_key = self._on_loss == "drop_until_key" and (lost > 0 or (self._needs_key and not keyframe))
        if broken or (lost and self._on_loss != "mark") or self._needs_key:
            stats.dropped_units += 1
            unit.clear()
            return
        if len(self.ready) >= MAX_READY_UNITS:
            self.ready.popleft()
            stats.dropped_units += 1
            stats.units -= 1
        stats.units += 1
        rate = self._media.clock_rate
        pts_90k = self._extended if rate == 90_000 else self._extended * 90_000 // rate
        captured = None
        if self._clock is not None:
            captured = self._clock[0] + (self._extended - self._clock[1]) / rate
        self.ready.append(ReceivedUnit(unit.take(), pts_90k, keyframe, self._first_ns, self._last_ns, lost, captured))

    def rtcp(self, data: memoryview, arrived_ns: int) -> None:
        """A compound RTCP packet: sender reports and goodbyes of this source are read, the rest is left."""
        at, end = 0, len(data)
        while end - at >= 8:
            size = 4 + 4 * (data[at + 2] << 8 | data[at + 3])
            if data[at] >> 6 != 2 or at + size > end:
                return
            kind = data[at + 1]
            (source,) = struct.unpack_from("!I", data, at + 4)
            if self._ssrc is None or source == self._ssrc:
                if kind == _SR and size >= 28:
                    self._sender_report(data[at : at + size], arrived_ns)
                elif kind == _BYE and data[at] & 0x1F:
                    self.said_goodbye = True
            at += size

    def _sender_report(self, data: memoryview, arrived_ns: int) -> None:
        _, _, _, _, seconds, fraction, stamp = _SENDER_REPORT.unpack_from(data)
        unix_s = seconds - NTP_EPOCH_OFFSET_S + fraction / _ERA_S
        now = self._wall_clock()
        unix_s += round((now - unix_s) / _ERA_S) * _ERA_S  # NTP's seconds start again in 2036
        self._report = (((seconds & 0xFFFF) << 16) | fraction >> 16, arrived_ns, unix_s)
        if not seconds or abs(now - unix_s) > MAX_CLOCK_ERROR_S:
            self._clock = None
            return
        if self._extended is None:
            self._extended = self._stamp = stamp
        offset = ((stamp - self._extended + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        self._clock = (unix_s, self._extended + offset)

    def _measure_jitter(self) -> None:
        """RFC 3550 §6.4.1, one sample a unit rather than a packet: its packets have one time stamp."""
        if self._extended is None:
            return
        transit = self._first_ns * self._media.clock_rate / 1e9 - self._extended
        if self._transit is not None:
            self._jitter += (abs(transit - self._transit) - self._jitter) / 16
        self._transit = transit

    def empty_report(self, cname: str) -> bytes:
        """RR and SDES before anything was received."""
        return empty_report(self._own_ssrc, cname)

    def receiver_report(self, now_ns: int, cname: str) -> bytes | None:
        """RR and SDES for the camera; None before the first packet."""
        if self._ssrc is None:
            return None
        expected = self._highest - self._expected_from + 1
        lost = self.stats.lost_packets
        lately, lost_lately = expected - self._reported_expected, max(0, lost - self._reported_lost)
        self._reported_expected, self._reported_lost = expected, lost
        fraction = min(255, (lost_lately << 8) // lately) if lately > 0 else 0
        last_report, delay = 0, 0
        if self._report is not None:
            last_report, delay = self._report[0], (now_ns - self._report[1]) * 65_536 // 1_000_000_000
        return receiver_report(
            own_ssrc=self._own_ssrc,
            ssrc=self._ssrc,
            fraction_lost=fraction,
            lost=lost - self._lost_before,
            highest_sequence=self._highest,
            jitter=int(self._jitter),
            last_report=last_report,
            delay=delay,
            cname=cname,
        )


def depacketiser(media: VideoMedia, max_bytes: int) -> Depacketiser:
    """For this media's codec."""
    if media.codec == "mjpeg":
        return JpegDepacketiser(max_bytes, media.size)
    return H264Depacketiser(max_bytes) if media.codec == "h264" else H265Depacketiser(max_bytes)


def _payload(data: memoryview, first: int) -> memoryview | None:
    """The payload behind contributing sources and header extension, without padding; None when there is none."""
    if first >> 6 != 2:
        return None
    start, end = 12 + 4 * (first & 0x0F), len(data)
    if first & 0x10:
        if start + 4 > end:
            return None
        start += 4 + 4 * (data[start + 2] << 8 | data[start + 3])
    if first & 0x20:
        padding = data[end - 1]
        if padding == 0:
            return None
        end -= padding
    return data[start:end] if start < end else None
