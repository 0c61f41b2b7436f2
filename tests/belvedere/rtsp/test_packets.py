"""RTP payloads, taken apart again by hand as RFC 6184 and RFC 7798 say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.rtsp import AccessUnit, Codec, StreamDescription, join_annexb, split_annexb
from belvedere.rtsp._packetise import Packetiser
from belvedere.rtsp._rtp import RtpState

MAX = 64
BODIES = st.binary(max_size=400).map(lambda body: body.replace(b"\0", b"\1").replace(b"E", b"e"))
DESCRIPTIONS = {
    "h264": StreamDescription("h264", (b"\x67sps", b"\x68pps")),
    "hevc": StreamDescription("hevc", (b"\x40\x01vps", b"\x42\x01sps", b"\x44\x01pps")),
}


def take_apart(codec: Codec, payloads: tuple[bytes, ...]) -> list[bytes]:
    """The NAL units that a receiver gets."""
    aggregate, fragment, head = (24, 28, 1) if codec == "h264" else (48, 49, 2)
    units: list[bytes] = []
    for payload in payloads:
        kind = payload[0] & 0x1F if codec == "h264" else payload[0] >> 1 & 0x3F
        if kind == aggregate:
            at = head
            while at < len(payload):
                (size,) = struct.unpack_from("!H", payload, at)
                units.append(payload[at + 2 : at + 2 + size])
                at += 2 + size
        elif kind == fragment:
            mark = payload[head]
            if mark & 0x80:
                kept, kind = (
                    (payload[0] & 0xE0, mark & 0x1F) if codec == "h264" else (payload[0] & 0x81, mark << 1 & 0x7E)
                )
                units.append(bytes([kept | kind]) + payload[1:head])
            units[-1] += payload[head + 1 :]
            assert bool(mark & 0x40) == units[-1].endswith(b"END")
        else:
            units.append(payload)
    return units


def picture(codec: Codec, key: bool, body: bytes) -> bytes:
    head = {"h264": (b"\x65", b"\x41"), "hevc": (b"\x26\x01", b"\x02\x01")}[codec][0 if key else 1]
    return head + body + b"END"


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@given(st.lists(BODIES, min_size=1, max_size=4), st.booleans())
def test_what_is_sent_is_what_is_received(codec: Codec, bodies: list[bytes], key: bool) -> None:
    units = [picture(codec, key, body) for body in bodies]
    made = Packetiser(DESCRIPTIONS[codec], MAX).packetise(AccessUnit(join_annexb(units), 0, key))
    assert made is not None
    assert all(len(payload) <= MAX for payload in made.payloads)
    sets = list(DESCRIPTIONS[codec].parameter_sets) if key else []
    assert take_apart(codec, made.payloads) == sets + units


def test_parameter_sets_in_the_stream_replace_the_described_ones() -> None:
    packetiser = Packetiser(DESCRIPTIONS["h264"], MAX)
    changed = [b"\x67new", b"\x68new"]
    packetiser.packetise(AccessUnit(join_annexb([*changed, b"\x65x"]), 0, True))
    made = packetiser.packetise(AccessUnit(join_annexb([b"\x65y"]), 1, True))
    assert made is not None
    assert take_apart("h264", made.payloads) == [*changed, b"\x65y"]


def test_a_delimiter_stays_in_front() -> None:
    made = Packetiser(DESCRIPTIONS["h264"]).packetise(AccessUnit(join_annexb([b"\x09\xf0", b"\x65x"]), 0, True))
    assert made is not None
    assert made.payloads[0] == b"\x09\xf0"


@given(st.binary(max_size=300))
def test_any_bytes_are_split_without_a_crash(data: bytes) -> None:
    for unit in split_annexb(data):
        assert unit
    Packetiser(DESCRIPTIONS["h264"]).packetise(AccessUnit(data, 0, False))


def test_headers_count_on_and_mark_the_last_packet_of_a_picture() -> None:
    state = RtpState()
    state.sequence = 0xFFFF
    made = Packetiser(DESCRIPTIONS["h264"], MAX).packetise(
        AccessUnit(join_annexb([picture("h264", False, b"x" * 100)]), 3000, False)
    )
    assert made is not None
    packets = [struct.unpack("!BBHII", packet[:12]) for packet in state.packets_of(made, 1_000_000.0)]
    assert [packet[2] for packet in packets] == [0xFFFF, 0]
    assert [packet[1] for packet in packets] == [96, 96 | 0x80]
    assert len({packet[3] for packet in packets}) == 1
