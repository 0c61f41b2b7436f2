"""The server against clients that are not ours: libavformat (PyAV) for both transports and codecs, and GStreamer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import FileSource, RtspServer, SourceError, SourceUnsupported, serve_camera
from tests.support.clips import make_audio_clip, make_clip, pattern
from tests.support.waiting import until

SIZE = (320, 240)
FPS = 25


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        codec: make_clip(folder / f"{codec}.mp4", codec, *SIZE, fps=FPS, seconds=1.0, keyframe_every_s=0.5)
        for codec in ("h264", "hevc")
    }


@pytest.fixture
async def server(clips: dict[str, Path]) -> AsyncIterator[RtspServer]:
    async with RtspServer("127.0.0.1", 0, users={"admin": Secret("pa:ss wörd")}) as made:
        for codec, clip in clips.items():
            made.add(f"cameras/{codec}", FileSource(clip))
        yield made


def url_of(server: RtspServer, path: str) -> str:
    return server.url(path).replace("rtsp://", "rtsp://admin:pa%3Ass%20w%C3%B6rd@")


def watch(url: str, frames: int, transport: str) -> list[av.VideoFrame]:
    """So many frames."""
    with av.open(url, options={"rtsp_transport": transport, "analyzeduration": "200000"}, timeout=30) as container:
        found = []
        for frame in container.decode(video=0):
            found.append(frame)
            if len(found) >= frames:
                break
        return found


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_a_clip_plays_in_a_loop_pixel_for_pixel(server: RtspServer, codec: str, transport: str) -> None:
    found = await asyncio.to_thread(watch, url_of(server, f"cameras/{codec}"), FPS + 10, transport)
    pictures = [frame.to_ndarray(format="rgb24")[::4, ::4] for frame in found]
    wanted = [pattern(index, *SIZE)[::4, ::4].astype(int) for index in range(FPS)]

    def nearest(picture: np.ndarray) -> int:
        return int(np.argmin([np.abs(picture - one).mean() for one in wanted]))

    shown = [nearest(picture) for picture in pictures]
    assert all((after - before) % FPS == 1 for before, after in pairwise(shown)), shown
    assert np.abs(pictures[-1] - wanted[shown[-1]]).mean() < 8
    times = [frame.pts for frame in found if frame.pts is not None]
    assert all(after > before for before, after in pairwise(times)), "time never goes back"


async def test_it_plays_in_real_time(server: RtspServer) -> None:
    began = time.monotonic()
    await asyncio.to_thread(watch, url_of(server, "cameras/h264"), 60, "tcp")
    read = server.stats("cameras/h264").units_read
    # A busy machine may be late; what is never so is that a picture comes before its time.
    assert 60 <= read <= (time.monotonic() - began) * FPS + 2


async def test_the_source_runs_only_while_somebody_looks_and_once_for_all(server: RtspServer) -> None:
    path = "cameras/h264"
    assert server.stats(path).starts == 0
    url = url_of(server, path)
    await asyncio.gather(*(asyncio.to_thread(watch, url, 20, transport) for transport in ("tcp", "tcp", "udp")))
    stats = server.stats(path)
    assert stats.units_sent > stats.units_read
    await until(lambda: server.stats(path).viewers == 0)
    await asyncio.sleep(0)  # what the last viewer's going ends has its turn
    read = server.stats(path).units_read
    starts = server.stats(path).starts
    await asyncio.sleep(0.3)
    assert server.stats(path).units_read == read, "nobody looks, nothing is read"
    await asyncio.to_thread(watch, url, 3, "tcp")
    assert server.stats(path).starts == starts + 1


async def test_a_wrong_password_is_refused_and_an_unknown_path_not_found(server: RtspServer) -> None:
    with pytest.raises(av.HTTPUnauthorizedError):
        await asyncio.to_thread(watch, url_of(server, "cameras/h264").replace("pa%3Ass", "nope"), 1, "tcp")
    with pytest.raises(av.HTTPNotFoundError):
        await asyncio.to_thread(watch, url_of(server, "cameras/none"), 1, "tcp")


async def test_basic_authentication_works_where_it_is_asked_for(clips: dict[str, Path]) -> None:
    async with RtspServer("127.0.0.1", 0, users={"admin": Secret("pa:ss wörd")}, schemes=("Basic",)) as server:
        server.add("camera", FileSource(clips["h264"]))
        assert len(await asyncio.to_thread(watch, url_of(server, "camera"), 3, "tcp")) == 3
        with pytest.raises(av.HTTPUnauthorizedError):
            await asyncio.to_thread(watch, server.url("camera").replace("rtsp://", "rtsp://admin:x@"), 1, "tcp")


async def test_a_removed_path_ends_its_viewers_and_a_stopped_server_all(server: RtspServer) -> None:
    def until_the_end(url: str) -> str:
        try:
            watch(url, 10_000, "tcp")
        except av.FFmpegError as error:
            return str(error)
        return "ended"

    path = "cameras/h264"
    watching = asyncio.create_task(asyncio.to_thread(until_the_end, url_of(server, path)))
    await until(lambda: server.stats(path).viewers == 1)
    await server.remove(path)
    assert await asyncio.wait_for(watching, 30)
    with pytest.raises(av.HTTPNotFoundError):
        await asyncio.to_thread(watch, url_of(server, path), 1, "tcp")


async def test_a_file_that_ends_says_goodbye(clips: dict[str, Path]) -> None:
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("once", FileSource(clips["h264"], loop=False))
        found = await asyncio.wait_for(asyncio.to_thread(watch, server.url("once"), 10_000, "tcp"), 30)
    assert len(found) == FPS


async def test_a_file_without_h264_or_h265_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SourceUnsupported, match="no video"):
        await FileSource(make_audio_clip(tmp_path / "tone.mp4")).describe()
    with pytest.raises(SourceUnsupported, match="mpeg4"):
        await FileSource(make_clip(tmp_path / "old.avi", "mpeg4", seconds=0.2)).describe()
    (tmp_path / "junk.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(SourceError, match="cannot be opened"):
        await FileSource(tmp_path / "junk.mp4").describe()


async def test_the_camera_command_serves_until_it_is_stopped(clips: dict[str, Path]) -> None:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_camera(
            clips["h264"], "127.0.0.1", 0, "front", "admin", Secret("secret"), ready=ready.set_result, stop=stop
        )
    )
    url = (await asyncio.wait_for(ready, 30)).replace("rtsp://", "rtsp://admin:secret@")
    assert len(await asyncio.to_thread(watch, url, 3, "tcp")) == 3
    stop.set()
    await asyncio.wait_for(serving, 30)


GST_CLIENT = """
import sys
sys.path.append("/usr/lib/python3/dist-packages")
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
url, protocols = sys.argv[1:]
line = Gst.parse_launch(
    f'rtspsrc location={url} user-id=admin user-pw="pa:ss wörd" protocols={protocols} latency=0'
    " ! decodebin ! appsink name=s sync=false"
)
line.set_state(Gst.State.PLAYING)
sink = line.get_by_name("s")
for _ in range(30):
    sample = sink.emit("try-pull-sample", 10 * Gst.SECOND)
    if sample is None:
        message = line.get_bus().pop_filtered(Gst.MessageType.ERROR)
        sys.exit(message.parse_error()[0].message if message else "no picture")
caps = sample.get_caps().get_structure(0)
print(caps.get_value("width"), caps.get_value("height"))
line.set_state(Gst.State.NULL)
"""


@pytest.mark.debian
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_gstreamer_plays_it(server: RtspServer, codec: str, transport: str) -> None:
    if not Path("/usr/lib/python3/dist-packages/gi").is_dir():
        pytest.skip("needs Debian packages: python3-gi gstreamer1.0-plugins-good gstreamer1.0-libav")
    command = [sys.executable, "-c", GST_CLIENT, server.url(f"cameras/{codec}"), transport]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    if "no element" in done.stderr or "Namespace" in done.stderr:
        pytest.skip("needs Debian packages: gstreamer1.0-plugins-good gstreamer1.0-libav gir1.2-gstreamer-1.0")
    assert (done.returncode, done.stdout.split()) == (0, ["320", "240"]), done.stderr
