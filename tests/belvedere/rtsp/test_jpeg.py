"""JPEG over RTP: what is taken apart and put together again is the same picture."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from belvedere.rtsp._jpeg import JpegDepacketiser, headers, jpeg_payloads, quantisation_tables
from belvedere.rtsp._sdp_read import read_sdp
from tests.support.clips import pattern


def jpeg(width: int = 320, height: int = 240, pixels: str = "yuvj420p", **options: str) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, pixels, Fraction(1, 25)
    encoder.color_range = 2
    encoder.thread_count = 1  # more make slices, with restart markers between them
    encoder.options = {"huffman": "default", **options}
    frame = av.VideoFrame.from_ndarray(pattern(3, width, height), format="rgb24").reformat(format=pixels)
    frame.pts, frame.pict_type = 0, 0
    [packet] = [*encoder.encode(frame), *encoder.encode(None)]
    return bytes(packet)


def decoded(data: bytes) -> np.ndarray:
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    [frame] = decoder.decode(av.Packet(data))
    return frame.to_ndarray(format="bgr24")


def together(payloads: list[bytes], **size: tuple[int, int]) -> JpegDepacketiser:
    unit = JpegDepacketiser(1 << 20, **size)
    for payload in payloads:
        unit.add(memoryview(payload))
    return unit


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2"])
def test_a_picture_comes_out_as_it_went_in(subsampling: str) -> None:
    file = io.BytesIO()
    Image.fromarray(pattern(3, 320, 240)).save(file, "jpeg", subsampling=subsampling)
    data = file.getvalue()
    payloads = jpeg_payloads(data, 1000)
    assert len(payloads) > 2 and max(map(len, payloads)) <= 1000
    unit = together(payloads)
    assert (unit.damaged, unit.keyframe, unit.begins_picture) == (0, True, True)
    assert (decoded(unit.take()) == decoded(data)).all()


def test_tables_that_are_not_sent_follow_from_q() -> None:
    luma, chroma = quantisation_tables(50)
    assert (luma[0], chroma[0]) == (16, 17)
    assert quantisation_tables(99)[0][0] == 1
    scan = jpeg_payloads(jpeg(), 1 << 16)[0]
    body = scan[8 + 4 + 128 :]
    unit = together([scan[:5] + bytes([50]) + scan[6:8] + body])
    data = unit.take()
    assert luma in data and chroma in data and decoded(data).shape == (240, 320, 3)


def test_tables_that_came_once_are_kept_for_the_pictures_after() -> None:
    [first] = jpeg_payloads(jpeg(), 1 << 16)
    named = first[:5] + bytes([200]) + first[6:]
    later = named[:8] + struct.pack("!BBH", 0, 0, 0) + named[8 + 4 + 128 :]
    unit = together([named])
    whole = unit.take()
    unit.add(memoryview(later))
    assert unit.damaged == 0 and unit.take() == whole
    assert together([later]).damaged == 1, "nobody has told these tables"


def test_a_picture_with_a_hole_is_damaged() -> None:
    payloads = jpeg_payloads(jpeg(), 500)
    assert together(payloads[:2] + payloads[3:]).damaged > 0
    assert together(payloads[1:]).damaged == len(payloads) - 1


def test_a_picture_too_large_for_its_header_takes_its_size_from_the_description() -> None:
    [payload] = jpeg_payloads(jpeg(), 1 << 16)
    large = payload[:6] + b"\0\0" + payload[8:]
    assert together([large]).damaged == 1
    assert together([large], size=(320, 240)).take() == together([payload]).take()
    sdp = b"v=0\r\nm=video 0 RTP/AVP 26\r\na=framesize:26 2592-1944\r\n"
    media = read_sdp(sdp)
    assert (media.codec, media.payload_type, media.clock_rate, media.size) == ("mjpeg", 26, 90_000, (2592, 1944))


def test_restart_markers_are_announced() -> None:
    made = headers(1, 64, 64, bytes(range(1, 65)), 0, 7)
    assert b"\xff\xdd\x00\x04\x00\x07" in made


def test_what_rtp_cannot_carry_is_not_sent() -> None:
    assert jpeg_payloads(jpeg(pixels="yuvj444p"), 1000) == []
    for options in ({"optimize": True}, {"progressive": True}):
        file = io.BytesIO()
        Image.fromarray(pattern(3, 320, 240)).save(file, "jpeg", **options)
        assert jpeg_payloads(file.getvalue(), 1000) == []
    assert jpeg_payloads(b"\xff\xd8\xff\xd9", 1000) == []


@settings(max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8))
def test_nothing_that_is_received_breaks_it(payloads: list[bytes]) -> None:
    unit = together(payloads)
    assert len(unit.take()) < 1 << 20
