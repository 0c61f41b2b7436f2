"""RTP packets put together again: what was packetised comes out whole, and nothing that comes in breaks anything."""

from __future__ import annotations

import contextlib
import itertools
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.rtsp import AccessUnit, Codec, ReceivedUnit, StreamDescription, StreamUnsupported, join_annexb
from belvedere.rtsp._datagrams import MAX_HELD_PACKETS, ReorderWindow
from belvedere.rtsp._packetise import Packetiser
from belvedere.rtsp._receive import MAX_READY_UNITS, OnLoss, RtpReceiver
from belvedere.rtsp._rtp import NTP_EPOCH_OFFSET_S, RtpState
from belvedere.rtsp._sdp_read import VideoMedia

CODECS = ["h264", "hevc"]
MAX = 64
BODIES = st.binary(min_size=1, max_size=400).map(lambda body: b"\x80" + body.replace(b"\0", b"\1") + b"E")
UNITS = st.lists(st.tuples(st.lists(BODIES, min_size=1, max_size=3), st.booleans()), min_size=1, max_size=8)
SETS = {"h264": (b"\x67sps", b"\x68pps"), "hevc": (b"\x40\x01vps", b"\x42\x01sps", b"\x44\x01pps")}
HEADS = {"h264": (b"\x65", b"\x41"), "hevc": (b"\x26\x01", b"\x02\x01")}


def receiver(codec: Codec, on_loss: OnLoss = "drop", max_unit_bytes: int = 100_000, clock: float = 1e9) -> RtpReceiver:
    return RtpReceiver(VideoMedia(codec, 96, 90_000, "", "", ()), on_loss, max_unit_bytes, lambda: clock)


def picture(codec: Codec, bodies: list[bytes], key: bool) -> list[bytes]:
    """NAL units: the first slice of the picture and those that follow it."""
    head = HEADS[codec][0 if key else 1]
    return [head + (body if number == 0 else b"\x40" + body[1:]) for number, body in enumerate(bodies)]


def sent(
    codec: Codec, units: list[tuple[list[bytes], bool]], *, marked: bool = True
) -> tuple[list[bytes], list[bytes]]:
    """The packets of these units, and what must come out."""
    packetiser, state = Packetiser(StreamDescription(codec, SETS[codec]), MAX), RtpState()
    packets, wanted = [], []
    for number, (bodies, key) in enumerate(units):
        nals = picture(codec, bodies, key)
        made = packetiser.packetise(AccessUnit(join_annexb(nals), number * 3600, key))
        assert made is not None
        packets += state.packets_of(made, 0.0)
        wanted.append(join_annexb([*(SETS[codec] if key else ()), *nals]))
    if not marked:
        packets = [packet[:1] + bytes([packet[1] & 0x7F]) + packet[2:] for packet in packets]
    return packets, wanted


def fed(into: RtpReceiver, packets: list[bytes]) -> list[ReceivedUnit]:
    """The units that come out, each packet a nanosecond after the other."""
    units = []
    for number, packet in enumerate(packets):
        into.packet(memoryview(packet), number)
        while into.ready:
            units.append(into.ready.popleft())
    return units


def rtp(sequence: int, stamp: int, payload: bytes, marker: bool = False, ssrc: int = 7, first: int = 0x80) -> bytes:
    return struct.pack("!BBHII", first, 96 | marker << 7, sequence & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + payload


@pytest.mark.parametrize("codec", CODECS)
@given(UNITS)
def test_without_loss_every_unit_comes_out_as_it_went_in(codec: Codec, units: list[tuple[list[bytes], bool]]) -> None:
    packets, wanted = sent(codec, units)
    found = fed(receiver(codec), packets)
    assert [unit.data for unit in found] == wanted
    assert [unit.keyframe for unit in found] == [key for _, key in units]
    assert {unit.lost for unit in found} == {0}
    steps = {later.pts_90k - earlier.pts_90k for earlier, later in itertools.pairwise(found)}
    assert steps <= {3600}


@pytest.mark.parametrize("codec", CODECS)
@given(UNITS, st.randoms(use_true_random=False))
def test_with_loss_only_whole_units_come_out_and_in_order(
    codec: Codec, units: list[tuple[list[bytes], bool]], chance: random.Random
) -> None:
    packets, wanted = sent(codec, units)
    kept = [packet for packet in packets if chance.random() > 0.1]
    found = [unit.data for unit in fed(receiver(codec), kept)]
    # Parameter sets lost in front of the first unit that arrives are not known to be missing.
    rest = iter(wanted)
    assert all(any(unit == whole or whole.endswith(unit) for whole in rest) for unit in found)


@pytest.mark.parametrize("codec", CODECS)
@given(UNITS, st.randoms(use_true_random=False))
def test_packets_that_overtake_each_other_are_put_back_in_order(
    codec: Codec, units: list[tuple[list[bytes], bool]], chance: random.Random
) -> None:
    packets, wanted = sent(codec, units)
    first, rest = packets[0], packets[1:]
    mixed = [first, *(rest[index] for index in sorted(range(len(rest)), key=lambda i: i + chance.random() * 8))]
    mixed += mixed[-2:]  # and some come twice
    into = receiver(codec)
    window = ReorderWindow(into.packet)
    for number, packet in enumerate(mixed):
        window.add(memoryview(packet), number)
    found = list(into.ready)
    assert [unit.data for unit in found] == wanted[-MAX_READY_UNITS:]
    assert window.due_ns is None
    assert window.late == len(mixed) - len(packets)


@pytest.mark.parametrize("codec", CODECS)
@given(st.lists(st.tuples(st.binary(max_size=80), st.booleans()), max_size=40), st.sampled_from(["mark", "drop"]))
def test_no_bytes_break_it(codec: Codec, payloads: list[tuple[bytes, bool]], on_loss: OnLoss) -> None:
    into = receiver(codec, on_loss, max_unit_bytes=500)
    for number, (payload, framed) in enumerate(payloads):
        packet = rtp(number, number // 3, payload, number % 3 == 0) if framed else payload
        with contextlib.suppress(StreamUnsupported):  # the one thing that it may say
            into.packet(memoryview(packet), number)
        into.rtcp(memoryview(payload), number)
        assert all(len(unit.data) <= 500 for unit in into.ready)
        assert len(into.ready) <= MAX_READY_UNITS


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 50)), max_size=300))
def test_a_window_holds_no_more_than_it_may_and_lets_everything_go_in_time(packets: list[tuple[int, int]]) -> None:
    out: list[int] = []
    window = ReorderWindow(lambda packet, _: out.append(packet[2] << 8 | packet[3]))
    now = 0
    for sequence, later_ms in packets:
        now += later_ms * 1_000_000
        window.expire(now)
        window.add(memoryview(rtp(sequence, 0, b"x")), now)
        assert len(window._held) <= MAX_HELD_PACKETS
    window.expire(now + 1_000_000_000)
    assert window.due_ns is None


def test_a_missing_packet_is_waited_for_only_a_moment() -> None:
    out: list[int] = []
    window = ReorderWindow(lambda packet, _: out.append(packet[3]), max_held_s=0.03)
    for sequence in (1, 3, 4):
        window.add(memoryview(rtp(sequence, 0, b"x")), 1_000)
    window.expire(20_000_000)
    assert out == [1]
    window.expire(31_000_000)
    assert out == [1, 3, 4]
    window.add(memoryview(rtp(2, 0, b"x")), 32_000_000)
    assert (out, window.late) == ([1, 3, 4], 1)


def test_a_unit_is_handed_on_with_its_last_packet_and_says_when_its_packets_came() -> None:
    packets, _ = sent("h264", [([b"\x80" + b"x" * 200], True)])
    into = receiver("h264")
    for number, packet in enumerate(packets):
        assert not into.ready
        into.packet(memoryview(packet), 1000 + number)
    [unit] = into.ready
    assert (unit.first_packet_ns, unit.last_packet_ns) == (1000, 1000 + len(packets) - 1)


@pytest.mark.parametrize("codec", CODECS)
@given(UNITS)
def test_without_markers_a_unit_ends_when_the_next_begins(codec: Codec, units: list[tuple[list[bytes], bool]]) -> None:
    packets, wanted = sent(codec, units, marked=False)
    into = receiver(codec)
    assert [unit.data for unit in fed(into, packets)] == wanted[:-1]
    assert into.stats.unmarked_units == len(units) - 1


def test_a_camera_that_marks_every_slice_is_found_out() -> None:
    into, packets = receiver("h264"), []
    for number in range(4):
        packets.append(rtp(2 * number, number, b"\x65\x80first", True))
        packets.append(rtp(2 * number + 1, number, b"\x65\x40second", True))
    found = fed(into, packets)
    whole = join_annexb([b"\x65\x80first", b"\x65\x40second"])
    assert [unit.data for unit in found[-2:]] == [whole, whole]


def test_parameter_sets_that_come_marked_go_in_front_of_their_picture() -> None:
    packets = [rtp(1, 0, b"\x67sps", True), rtp(2, 0, b"\x68pps", True), rtp(3, 0, b"\x65\x80picture", True)]
    [unit] = fed(receiver("h264"), packets)
    assert unit.data == join_annexb([b"\x67sps", b"\x68pps", b"\x65\x80picture"])
    assert unit.keyframe and unit.lost == 0


def test_two_pictures_with_one_time_stamp_stay_two() -> None:
    found = fed(receiver("h264"), [rtp(1, 0, b"\x65\x80a", True), rtp(2, 0, b"\x41\x80b", True)])
    assert [unit.data for unit in found] == [join_annexb([b"\x65\x80a"]), join_annexb([b"\x41\x80b"])]


@pytest.mark.parametrize(("on_loss", "wanted"), [("mark", "01234"), ("drop", "0234"), ("drop_until_key", "034")])
def test_what_is_done_about_loss_is_a_setting(on_loss: OnLoss, wanted: str) -> None:
    packets, sequence = [], 0
    for number in range(5):
        head = b"\x65" if number in (0, 3) else b"\x41"
        packets.append(rtp(sequence, number, head + b"\x80" + str(number).encode()))
        sequence += 2 if number == 1 else 1
        packets.append(rtp(sequence, number, head + b"\x40", True))
        sequence += 1
    into = receiver("h264", on_loss)
    found = fed(into, packets)
    assert "".join(chr(unit.data[6]) for unit in found) == wanted
    assert (into.stats.lost_packets, into.stats.dropped_units) == (1, 5 - len(wanted))
    assert [unit.lost for unit in found if unit.lost] == ([1] if on_loss == "mark" else [])


def test_a_unit_that_never_ends_is_given_up_and_the_next_one_comes() -> None:
    into = receiver("h264", max_unit_bytes=10_000)
    endless = [rtp(number, 5, b"\x41\x80" + b"x" * 1000) for number in range(50)]
    assert fed(into, [*endless, rtp(50, 6, b"\x65\x80next", True)])[0].data.endswith(b"next")
    assert (into.stats.oversized_units, into.stats.dropped_units) == (1, 1)


@pytest.mark.parametrize(
    ("codec", "payload", "name"),
    [
        ("h264", b"\x19xxxx", "STAP-B"),
        ("h264", b"\x1axxxx", "MTAP16"),
        ("h264", b"\x1bxxxx", "MTAP24"),
        ("h264", b"\x1dxxxx", "FU-B"),
        ("hevc", b"\x64\x01xx", "PACI"),
    ],
)
def test_packets_of_interleaved_mode_are_refused_by_name(codec: Codec, payload: bytes, name: str) -> None:
    with pytest.raises(StreamUnsupported, match=name):
        fed(receiver(codec), [rtp(1, 0, payload)])


def test_times_go_on_beyond_32_bits_and_sequence_numbers_beyond_16() -> None:
    packets = [rtp(0xFFFE + number, 0xFFFFFFFF - 3600 + number * 3600, b"\x65\x80x", True) for number in range(4)]
    into = receiver("h264")
    found = fed(into, packets)
    assert [unit.pts_90k - found[0].pts_90k for unit in found] == [0, 3600, 7200, 10800]
    assert into.stats.lost_packets == 0
    report = into.receiver_report(0, "x")
    assert report is not None
    assert struct.unpack_from("!I", report, 16)[0] == 0x10001  # extended highest sequence number


def test_a_source_that_starts_again_costs_no_more_than_one_unit() -> None:
    into = receiver("h264")
    packets = [rtp(1, 0, b"\x65\x80a", True), rtp(2, 1, b"\x41\x80half")]
    packets += [rtp(9000, 77, b"\x65\x80b", True, ssrc=8), rtp(9001, 78, b"\x41\x80c", True, ssrc=8)]
    assert [unit.data[-1:] for unit in fed(into, packets)] == [b"a", b"c"]


def test_padding_header_extensions_and_contributing_sources_are_left_out() -> None:
    body = b"\x65\x80picture"
    packets = [
        rtp(1, 0, body + b"\0\0\3", True, first=0xA0),
        rtp(2, 1, b"\xbe\xde\0\1" + b"ext." + body, True, first=0x90),
        rtp(3, 2, b"csrc" * 2 + body, True, first=0x82),
    ]
    assert [unit.data for unit in fed(receiver("h264"), packets)] == [join_annexb([body])] * 3


def test_packets_of_another_payload_type_are_counted_and_left_out() -> None:
    into = receiver("h264")
    other = bytearray(rtp(1, 0, b"\x65\x80x", True))
    other[1] = 0x80 | 97
    assert fed(into, [bytes(other)]) == []
    assert into.stats.foreign_packets == 1


def sender_report(unix_s: float, stamp: int, ssrc: int = 7) -> bytes:
    seconds = int(unix_s)
    ntp = (seconds + NTP_EPOCH_OFFSET_S) & 0xFFFFFFFF
    return struct.pack("!BBHIIIIII", 0x80, 200, 6, ssrc, ntp, int((unix_s - seconds) * 2**32), stamp & 0xFFFFFFFF, 0, 0)


@pytest.mark.parametrize("now", [1_790_000_000.0, 2_090_000_000.0])  # NTP's seconds start again in 2036
def test_sender_reports_give_the_wall_clock_of_capture(now: float) -> None:
    into = receiver("h264", clock=now)
    [before] = fed(into, [rtp(1, 90_000, b"\x65\x80x", True)])
    into.rtcp(memoryview(sender_report(now + 0.5, 90_000)), 5)
    [after] = fed(into, [rtp(2, 180_000, b"\x65\x80x", True)])
    assert before.captured_unix_s is None
    assert after.captured_unix_s == pytest.approx(now + 1.5, abs=1e-3)


def test_a_camera_that_was_never_told_the_time_has_no_wall_clock() -> None:
    into = receiver("h264", clock=1_790_000_000.0)
    fed(into, [rtp(1, 0, b"\x65\x80x", True)])
    into.rtcp(memoryview(sender_report(1000.0, 0)), 5)
    [unit] = fed(into, [rtp(2, 3600, b"\x65\x80x", True)])
    assert unit.captured_unix_s is None


def test_receiver_reports_say_what_was_lost() -> None:
    into = receiver("h264")
    assert into.receiver_report(0, "x") is None
    fed(into, [rtp(number, number, b"\x65\x80x", True) for number in (10, 11, 14, 15)])
    into.rtcp(memoryview(sender_report(1e9, 15)), 1_000_000_000)
    report = into.receiver_report(1_500_000_000, "me")
    assert report is not None
    fields: tuple[Any, ...] = struct.unpack_from("!BBHIIIIIII", report)
    assert fields[:2] == (0x81, 201)
    assert (fields[4], fields[5] >> 24, fields[5] & 0xFFFFFF, fields[6]) == (7, (2 << 8) // 6, 2, 15)
    assert struct.unpack_from("!I", report, 28)[0] == 32768  # half a second since the sender report
