"""Decoding straight into the ring: the same pictures as by copying, and nothing written that somebody still needs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from belvedere.rtsp import ReceivedUnit, StreamDescription
from edge.ingest import direct
from edge.ingest.decoder import Decoder
from edge.ingest.ring import DECODERS_SLOTS, CameraRing
from framelink import Frame, FrameReader
from tests.support.clips import make_clip

pytestmark = pytest.mark.skipif(not direct.available(), reason="this FFmpeg cannot be told where to decode to")


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[CameraRing]:
    made = CameraRing(tmp_path / "frames.sock", "test", 6)
    yield made
    made.close()


def units(clip: Path) -> list[ReceivedUnit]:
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        annexb = av.BitStreamFilterContext(
            f"{container.streams.video[0].codec_context.name}_mp4toannexb", container.streams.video[0]
        )
        filtered = [one for packet in packets for one in annexb.filter(packet)]
    return [ReceivedUnit(bytes(one), n * 3600, one.is_keyframe, n, n, 0, None) for n, one in enumerate(filtered)]


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(("width", "height"), [(640, 368), (640, 360), (322, 242)])
def test_frames_are_the_same_whether_decoded_into_the_ring_or_copied(
    codec: Literal["h264", "hevc"], width: int, height: int, tmp_path: Path, ring: CameraRing
) -> None:
    taken = units(make_clip(tmp_path / "clip.mp4", codec, width, height, 25, 1))
    plain = Decoder(StreamDescription(codec, ()), 2)
    inside = Decoder(StreamDescription(codec, ()), 2, claim=ring.claim)
    [(frame, _, _)] = inside.decode(taken[0])
    ring.put(frame, capture_ns=0, pts_us=0)
    pictures = [picture for unit in taken for picture, _, _ in plain.decode(unit)]
    into_ring = 0
    with FrameReader(tmp_path / "frames.sock", "test") as reader:
        for number, unit in enumerate(taken[1:], 1):
            reader.request(bgr=bool(number % 2))
            [(frame, _, _)] = inside.decode(unit)
            into_ring += frame.planes[0].buffer_ptr in ring._claimed
            ring.put(frame, capture_ns=number, pts_us=number)
            del frame
            with reader.get(5.0, bgr=bool(number % 2)) as seen:
                wanted = pictures[seen.info.capture_ns]
                planes = [np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size) for plane in wanted.planes]
                for plane, own in zip(planes, seen.planes(), strict=True):
                    assert np.array_equal(plane[: own.shape[0], : own.shape[1]], own)
                if seen.info.has_bgr:
                    colours = wanted.to_ndarray(format="bgr24").astype(int)
                    assert np.abs(seen.bgr() - colours).max() <= 3  # libyuv rounds, libswscale rounds down
    # All but the first, whose size the ring was made by, where rows lie as FFmpeg wants them. (libx265's pictures refer to more than
    # one other: some of them go elsewhere.)
    least, most = (len(taken) // 2 if codec == "hevc" else len(taken) - 1, len(taken) - 1) if width == 640 else (0, 0)
    assert least <= into_ring <= most


def test_a_picture_that_a_reader_holds_is_not_decoded_over(tmp_path: Path, ring: CameraRing) -> None:
    taken = units(make_clip(tmp_path / "clip.mp4", "h264", 640, 360, 25, 1))
    decoder = Decoder(StreamDescription("h264", ()), 2, claim=ring.claim)
    [(first, _, _)] = decoder.decode(taken[0])
    ring.put(first, capture_ns=0, pts_us=0)
    with FrameReader(tmp_path / "frames.sock", "test") as reader:
        held: list[Frame] = []
        before = []
        for number, unit in enumerate(taken[1:]):
            [(frame, _, _)] = decoder.decode(unit)
            _, _, handed_on = ring.put(frame, capture_ns=number, pts_us=number)
            assert handed_on, "there is always a slot, whatever a reader holds"
            if len(held) < 4:
                held.append(reader.get(5.0, bgr=False))
                before.append(held[-1].planes()[0].copy())
        assert all(np.array_equal(frame.planes()[0], luma) for frame, luma in zip(held, before, strict=True))
        for one in held:
            one.release()


def test_what_is_decoded_and_never_shown_goes_back_to_the_ring(tmp_path: Path, ring: CameraRing) -> None:
    """As when a decoder catches up: many pictures, of which only the last is handed on."""
    taken = units(make_clip(tmp_path / "clip.mp4", "h264", 640, 360, 25, 1))
    decoder = Decoder(StreamDescription("h264", ()), 2, claim=ring.claim)
    [(first, _, _)] = decoder.decode(taken[0])
    ring.put(first, capture_ns=0, pts_us=0)
    for _ in range(4):
        inside = 0
        decoder.restart()
        for unit in taken:
            [(frame, _, _)] = decoder.decode(unit)
            inside += frame.planes[0].buffer_ptr in ring._claimed
        assert inside == len(taken)
        _, _, handed_on = ring.put(frame, capture_ns=0, pts_us=0)
        assert handed_on


def test_a_ring_that_ends_while_its_pictures_are_in_use_keeps_its_memory(tmp_path: Path, ring: CameraRing) -> None:
    taken = units(make_clip(tmp_path / "clip.mp4", "h264", 640, 360, 25, 1))
    decoder = Decoder(StreamDescription("h264", ()), 2, claim=ring.claim)
    for number, unit in enumerate(taken[:6]):
        [(frame, _, _)] = decoder.decode(unit)
        if number < 5:
            ring.put(frame, capture_ns=number, pts_us=number)
    luma = frame.to_ndarray()
    ring.close()
    gc.collect()
    assert np.array_equal(frame.to_ndarray(), luma)
    # Its references lie there, too; and what comes now is decoded elsewhere.
    [(after, _, _)] = decoder.decode(taken[6])
    ring.put(after, capture_ns=7, pts_us=7)
    hook = direct._hook()
    assert hook is not None and 0 < len(hook._rooms) <= DECODERS_SLOTS
    del decoder, frame, after
    ring.close()
    assert not hook._rooms


def test_another_picture_size_of_the_stream_goes_elsewhere_until_there_is_a_ring_for_it(
    tmp_path: Path, ring: CameraRing
) -> None:
    small = units(make_clip(tmp_path / "small.mp4", "h264", 640, 360, 25, 1))
    large = units(make_clip(tmp_path / "large.mp4", "h264", 1280, 720, 25, 1))
    decoder = Decoder(StreamDescription("h264", ()), 2, claim=ring.claim)
    inside = []
    for number, unit in enumerate([*small[:3], *large[:3], *small[:3]]):
        [(frame, _, _)] = decoder.decode(unit)
        inside.append(frame.planes[0].buffer_ptr in ring._claimed)
        assert ring.put(frame, capture_ns=number, pts_us=number) == (frame.width, frame.height, True)
    assert inside == [False, True, True] * 3


def test_a_decoder_that_ends_leaves_nothing_behind(tmp_path: Path, ring: CameraRing) -> None:
    hook = direct._hook()
    assert hook is not None
    before = len(hook.attached)
    unit = units(make_clip(tmp_path / "clip.mp4", "h264", 640, 360, 25, 1))[0]

    def connection() -> None:
        decoder = Decoder(StreamDescription("h264", ()), 2, claim=ring.claim)
        for _ in range(2):
            [(frame, _, _)] = decoder.decode(unit)
            ring.put(frame, capture_ns=0, pts_us=0)

    for _ in range(20):
        thread = threading.Thread(target=connection)
        thread.start()
        thread.join()
    assert len(hook.attached) == before
    assert len(hook._rooms) <= 1  # the newest frame's
