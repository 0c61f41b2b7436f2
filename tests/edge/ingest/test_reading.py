"""One camera read in this process: when its frames are handed on, and how reading ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from belvedere.rtsp import AccessUnit, FileSource, ReceivedUnit, RtspServer, Source, StreamDescription
from edge.ingest.address import Address
from edge.ingest.camera import Camera
from edge.ingest.decoder import Decoder, Undecodable
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus, RingCounts
from tests.support.clips import make_clip, pattern
from tests.support.waiting import until

# Longer than any test: no wait of these ends by itself.
SETTINGS = Settings(open_timeout_s=60.0, connect_timeout_s=60.0, stall_s=60.0)


class Playlist(Source):
    """Clips one after the other in one stream, once; then nothing more, and the connection stays."""

    def __init__(self, *clips: Path) -> None:
        self._clips = [FileSource(clip, loop=False, realtime=False) for clip in clips]
        self.sent_ns: list[int] = []

    async def describe(self) -> StreamDescription:
        return await self._clips[0].describe()

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        offset = 0
        for clip in self._clips:
            async for unit in clip.subscribe():
                self.sent_ns.append(time.monotonic_ns())
                offset += 3600
                yield replace(unit, pts_90k=offset)
        await asyncio.Event().wait()


@dataclass
class Frames:
    """A sink that notes what comes."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    captured_ns: list[int] = field(default_factory=list)
    pts_us: list[int] = field(default_factory=list)

    def put(self, frame: av.VideoFrame, *, capture_ns: int, pts_us: int) -> tuple[int, int, bool]:
        self.sizes.append((frame.width, frame.height))
        self.captured_ns.append(capture_ns)
        self.pts_us.append(pts_us)
        return frame.width, frame.height, True

    def claim(self, width: int, height: int) -> None:
        return None

    def ready(self) -> bool:
        return bool(self.sizes)

    def wanted(self) -> bool:
        return True

    def wait_wanted(self, timeout_s: float) -> bool:
        return True

    def wake(self) -> None:
        pass

    def retire(self) -> None:
        pass


@contextlib.asynccontextmanager
async def reading(source: Source) -> AsyncIterator[tuple[Frames, CameraStatus]]:
    """A camera that plays `source`, read by a thread; at the end it must let go at once."""
    frames, status, stop = Frames(), CameraStatus(lambda: None), threading.Event()
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", source)
        camera = Camera(Address.parse(server.url("front")), frames, status, SETTINGS)
        thread = threading.Thread(target=camera.run, args=(stop,))
        thread.start()
        try:
            yield frames, status
        finally:
            stop.set()
            camera.close()
            await asyncio.to_thread(thread.join, SETTINGS.stall_s / 2)
            assert not thread.is_alive(), "a wait for the camera did not end"


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_the_last_frame_of_a_camera_that_sends_no_more_is_handed_on(codec: str, tmp_path: Path) -> None:
    source = Playlist(make_clip(tmp_path / "clip.mp4", codec, fps=5, seconds=1))
    async with reading(source) as (frames, status):
        await until(lambda: len(frames.sizes) == 5)
        assert all(sent < seen for sent, seen in zip(source.sent_ns, frames.captured_ns, strict=True))
        assert status.row(RingCounts())["undecodable"] == 0
        assert status.row(RingCounts())["state"] == "streaming"


async def test_a_new_picture_size_in_the_middle_of_a_stream_is_followed(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.mp4", "h264", 320, 240, fps=5, seconds=1)
    large = make_clip(tmp_path / "large.mp4", "h264", 640, 360, fps=5, seconds=1)
    async with reading(Playlist(small, large, small)) as (frames, status):
        await until(lambda: len(frames.sizes) == 15)
        assert frames.sizes == [(320, 240)] * 5 + [(640, 360)] * 5 + [(320, 240)] * 5
        assert (status.row(RingCounts())["reconnects"], status.row(RingCounts())["undecodable"]) == (0, 0)


def encoded(count: int, options: dict[str, str]) -> Iterator[ReceivedUnit]:
    """Units as a camera with this encoder sends them, a nanosecond apart."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 320, 240, "yuv420p", Fraction(1, 25)
    encoder.options = options
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(pattern(index, 320, 240), format="rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    for number, packet in enumerate([*packets, *encoder.encode(None)]):
        assert packet.pts is not None
        yield ReceivedUnit(bytes(packet), packet.pts * 3600, packet.is_keyframe, number, number, 0, None)


def test_without_b_frames_each_unit_gives_its_own_frame_at_once() -> None:
    decoder = Decoder(StreamDescription("h264", ()), threads=2)
    for unit in encoded(10, {"preset": "fast", "tune": "zerolatency"}):
        [(_, arrived_ns, camera_us)] = decoder.decode(unit)
        assert (arrived_ns, camera_us) == (unit.last_packet_ns, unit.pts_90k * 100 // 9)


def test_with_b_frames_frames_come_in_order_each_with_its_own_packets_arrival() -> None:
    decoder = Decoder(StreamDescription("h264", ()), threads=2)
    units = list(encoded(20, {"preset": "medium", "x264-params": "bframes=2:b-adapt=0"}))
    arrivals = {unit.pts_90k * 100 // 9: unit.last_packet_ns for unit in units}
    frames = [(camera_us, arrived_ns) for unit in units for _, arrived_ns, camera_us in decoder.decode(unit)]
    assert len(frames) >= 16
    assert [camera_us for camera_us, _ in frames] == sorted(arrivals)[: len(frames)]
    assert all(arrivals[camera_us] == arrived_ns for camera_us, arrived_ns in frames)


def test_what_is_no_picture_is_undecodable_and_the_next_one_is_not() -> None:
    decoder = Decoder(StreamDescription("h264", ()), threads=2)
    [first, *_] = encoded(3, {"preset": "fast", "tune": "zerolatency"})
    with pytest.raises(Undecodable):
        list(decoder.decode(replace(first, data=b"\0\0\0\1\x65" + b"\xaa" * 50)))
    assert len(list(decoder.decode(first))) == 1
