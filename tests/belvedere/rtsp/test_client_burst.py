"""The usual packets taken in one loop are the same as packet by packet, whatever stands between them."""

from __future__ import annotations

import dataclasses
import random
import socket
import struct
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.rtsp import AccessUnit, ClientClosed, Codec, ReceivedUnit, StreamDescription, join_annexb
from belvedere.rtsp._packetise import Packetiser
from belvedere.rtsp._receive import OnLoss, RtpReceiver
from belvedere.rtsp._rtp import RtpState
from belvedere.rtsp._sdp_read import VideoMedia
from belvedere.rtsp._wire import Waker, Wire, WireClosed

CODECS = ["h264", "hevc"]
SETS = {"h264": (b"\x67sps", b"\x68pps"), "hevc": (b"\x40\x01vps", b"\x42\x01sps", b"\x44\x01pps")}
HEADS = {"h264": (b"\x65", b"\x41"), "hevc": (b"\x26\x01", b"\x02\x01")}
OURS = 0
PICTURES = st.lists(st.tuples(st.lists(st.integers(1, 900), min_size=1, max_size=2), st.booleans()), max_size=8)


def receiver(codec: Codec, on_loss: OnLoss, max_unit_bytes: int) -> RtpReceiver:
    return RtpReceiver(VideoMedia(codec, 96, 90_000, "", "", ()), on_loss, max_unit_bytes, lambda: 1e9)


def packets_of(codec: Codec, pictures: list[tuple[list[int], bool]]) -> list[bytes]:
    packetiser, state = Packetiser(StreamDescription(codec, SETS[codec]), 64), RtpState()
    packets: list[bytes] = []
    for number, (sizes, key) in enumerate(pictures):
        nals = [
            HEADS[codec][not key] + bytes([0x40 if index else 0x80]) + b"x" * size for index, size in enumerate(sizes)
        ]
        made = packetiser.packetise(AccessUnit(join_annexb(nals), number * 3600, key))
        assert made is not None
        packets += state.packets_of(made, 0.0)
    return packets


def spoilt(packets: list[bytes], chance: random.Random) -> list[bytes]:
    """What cameras and networks do to one packet in ten."""
    out: list[bytes] = []
    for packet in packets:
        what = chance.randrange(100)
        head, rest = packet[:12], packet[12:]
        if what == 0:
            continue  # lost
        if what == 1:
            out.append(packet)  # twice
        elif what == 2:
            packet = bytes([0xA0]) + packet[1:] + b"\0\0\3"  # with padding
        elif what == 3:
            packet = bytes([0x90]) + head[1:] + b"\xbe\xde\0\1abcd" + rest  # with an extension
        elif what == 4:
            packet = head[:1] + bytes([head[1] ^ 0x80]) + packet[2:]  # marked where it should not be, or not marked
        elif what == 5:
            packet = head[:1] + b"\x61" + packet[2:]  # of another payload type
        elif what == 6:
            packet = head[:8] + b"\1\2\3\4" + rest  # of another source
        elif what == 7:
            packet = head[:4] + struct.pack("!I", chance.getrandbits(32)) + packet[8:]  # of another time
        elif what == 8:
            packet = packet[: chance.randrange(len(packet))]  # cut short
        elif what == 9:
            packet = head + bytes([rest[0]]) + bytes([chance.getrandbits(8)]) + rest[2:]
        out.append(packet)
    return out


def one_by_one(into: RtpReceiver, packets: list[bytes]) -> list[ReceivedUnit]:
    units: list[ReceivedUnit] = []
    for packet in packets:
        into.packet(memoryview(packet), 5)
        units += into.ready
        into.ready.clear()
    return units


def in_bursts(into: RtpReceiver, packets: list[bytes], chance: random.Random) -> list[ReceivedUnit]:
    """As the client does it, from a buffer that fills in pieces."""
    stream = memoryview(b"".join(struct.pack("!BBH", 0x24, OURS, len(packet)) + packet for packet in packets))
    units: list[ReceivedUnit] = []
    at = end = 0
    while at < len(stream):
        end = min(len(stream), end + chance.randrange(1, 700))
        while True:
            taken = into.burst(stream, at, end, OURS, 5)
            if taken == at and end - at >= 4:  # then the next one is somebody else's
                following = at + 4 + (stream[at + 2] << 8 | stream[at + 3])
                if following <= end:
                    into.packet(stream[at + 4 : following], 5)
                    taken = following
            units += into.ready
            into.ready.clear()
            if taken == at:
                break
            at = taken
    return units


def state_of(into: RtpReceiver) -> dict[str, Any]:
    unit = vars(into._unit)
    return {
        **{
            name: value
            for name, value in vars(into).items()
            if name not in ("_unit", "_own_ssrc", "stats", "_wall_clock")
        },
        **dataclasses.asdict(into.stats),
        **unit,
    }


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("on_loss", ["mark", "drop", "drop_until_key"])
@given(PICTURES, st.integers(0, 1 << 32), st.sampled_from([300, 100_000]))
def test_bursts_end_in_the_same_units_and_the_same_state(
    codec: Codec, on_loss: OnLoss, pictures: list[tuple[list[int], bool]], seed: int, max_unit_bytes: int
) -> None:
    chance = random.Random(seed)
    packets = packets_of(codec, pictures)
    if seed % 3:
        packets = spoilt(packets, chance)
    plain, quick = receiver(codec, on_loss, max_unit_bytes), receiver(codec, on_loss, max_unit_bytes)
    assert in_bursts(quick, packets, chance) == one_by_one(plain, packets)
    assert state_of(quick) == state_of(plain)


@pytest.mark.parametrize("codec", CODECS)
def test_a_picture_of_fragments_is_one_burst(codec: Codec) -> None:
    packets = packets_of(codec, [([900], True), ([900], False)])
    into = receiver(codec, "drop", 100_000)
    first = next(index for index, packet in enumerate(packets) if packet[1] & 0x80) + 1
    one_by_one(into, packets[:first])
    stream = memoryview(b"".join(struct.pack("!BBH", 0x24, OURS, len(one)) + one for one in packets[first:]))
    assert into.burst(stream, 0, len(stream), OURS, 5) == len(stream)
    assert len(into.ready) == 1


@pytest.mark.parametrize("codec", CODECS)
@given(st.binary(max_size=300))
def test_no_bytes_break_a_burst(codec: Codec, data: bytes) -> None:
    into = receiver(codec, "drop", 500)
    one_by_one(into, packets_of(codec, [([90], True)])[:-1])
    assert 0 <= into.burst(memoryview(data), 0, len(data), OURS, 5) <= len(data)


def test_a_read_ends_in_time_and_when_it_is_woken() -> None:
    near, far = socket.socketpair()
    waker = Waker()
    wire = Wire(near, waker)
    try:
        assert not wire.more(0.05)
        far.sendall(b"$\0\0\1x")
        assert wire.more(30.0) and wire.end == 5
        timer = threading.Timer(0.05, waker.wake)
        timer.start()
        with pytest.raises(ClientClosed):
            while True:
                wire.more(30.0)
        timer.join()
    finally:
        wire.close()
        waker.release()
        far.close()


def test_a_server_that_goes_ends_a_read() -> None:
    near, far = socket.socketpair()
    waker = Waker()
    wire = Wire(near, waker)
    far.close()
    with pytest.raises(WireClosed):
        wire.more(30.0)
    wire.close()
    waker.wake()
    waker.release()
