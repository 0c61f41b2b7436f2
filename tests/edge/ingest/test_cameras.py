"""Cameras of our own RTSP server, and worse ones, read by the real processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import RtspServer
from framelink import Frame, FrameReader, RingGone
from tests.edge.ingest.cameras import STALL_S, WAIT_S, ScriptedCamera, camera, ingesting, server_that_says
from tests.support.clips import make_clip, square
from tests.support.waiting import until

USER, PASSWORD = "watcher", "c4nary/pass@word"
WIDTH, HEIGHT, FPS = 320, 240, 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "h264.mp4", "h264", WIDTH, HEIGHT, FPS, 3)


@pytest.fixture
async def server() -> AsyncIterator[RtspServer]:
    async with RtspServer("127.0.0.1", 0, users={USER: Secret(PASSWORD)}) as server:
        yield server


async def next_frame(reader: FrameReader, bgr: bool = True) -> Frame:
    return await asyncio.to_thread(reader.get, WAIT_S, bgr=bgr)


def square_at(frame: Frame) -> int:
    """The left side of the bright square, in pixels."""
    bright = frame.bgr().min(axis=2) > 190
    return int(np.flatnonzero(bright[HEIGHT // 2])[0])


@pytest.mark.parametrize("codec", ["h264", "hevc", "mjpeg"])
async def test_every_frame_of_a_camera_reaches_a_reader_in_order(
    codec: str, tmp_path: Path, server: RtspServer
) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clip = make_clip(tmp_path / "clip.mp4", codec, WIDTH, HEIGHT, FPS, 2, pixel_format=pixels)
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        lefts, infos = [], []
        with await ingest.reader("front") as reader:
            for _ in range(20):
                with await next_frame(reader) as frame:
                    assert frame.info.has_bgr
                    lefts.append(square_at(frame))
                    infos.append(frame.info)
        expected = [square(index, WIDTH, HEIGHT)[0] for index in range(2 * FPS)]
        first = min(range(len(expected)), key=lambda index: abs(expected[index] - lefts[0]))
        passed = [info.sequence - infos[0].sequence for info in infos]
        for left, index in zip(lefts, passed, strict=True):
            assert abs(left - expected[(first + index) % len(expected)]) <= 3
        # Two that came in one read on a busy machine arrived at the same time.
        assert all(a.pts_us < b.pts_us and a.capture_ns <= b.capture_ns for a, b in itertools.pairwise(infos))
        assert all(info.capture_ns <= info.publish_ns <= time.monotonic_ns() for info in infos)
        spacings = [(b.pts_us - a.pts_us) / (b.sequence - a.sequence) for a, b in itertools.pairwise(infos)]
        assert statistics.median(spacings) == pytest.approx(1e6 / FPS, rel=0.02)
        row = await ingest.row("front", lambda row: row["frames_decoded"] >= 20 and row["fps"] > 0)
        assert (row["width"], row["height"], row["codec"], row["reason"]) == (WIDTH, HEIGHT, codec, None)
        assert 0 <= row["last_frame_age_ms"] < WAIT_S * 1000


async def test_two_readers_share_one_connection_to_the_camera(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        with await ingest.reader("front") as one, await ingest.reader("front") as two:
            for reader in (one, two, one, two):
                (await next_frame(reader)).release()
            row = await ingest.row("front", lambda row: row["readers"] == 2)
            assert row["state"] == "streaming"
            assert (server.stats("front").viewers, server.stats("front").starts) == (1, 1)


async def test_bgr_is_made_late_for_a_reader_that_asks_after_the_frame_came(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    source = ScriptedCamera(clip)
    server.add("front", source)
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        source.freeze()  # nobody has asked for BGR yet, and no new frame comes
        with await ingest.reader("front") as reader, await next_frame(reader, bgr=True) as frame:
            assert frame.info.has_bgr
            assert frame.bgr().max() > 190


async def test_a_wrong_password_is_refused_and_the_right_one_mends_it(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front-1.0-0a1b2c3d", server.url("front"), USER, "wrong"))
        row = await ingest.state("front-1.0-0a1b2c3d", "refused")
        assert row["reason"] == {
            "code": "CAMERA_UNAUTHORIZED",
            "message": "camera `front`: 401 from the camera: wrong user name or password",
        }
        await ingest.row("front-1.0-0a1b2c3d", lambda row: row["state"] == "refused" and row["reconnects"] >= 2)
        await ingest.want(camera("front-1.0-0a1b2c3d", server.url("front"), USER, PASSWORD))
        row = await ingest.state("front-1.0-0a1b2c3d", "streaming")
        assert row["reason"] is None


async def test_a_password_put_right_at_the_camera_needs_no_command(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, "new-password"))
        await ingest.state("front", "refused")
        server.set_users({USER: Secret("new-password")})
        await ingest.state("front", "streaming")


async def test_each_failure_has_its_state_and_says_what_to_do(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    server.add("front", ScriptedCamera(clip))
    mpeg4 = make_clip(tmp_path / "old.mp4", "mpeg4", seconds=1)
    junk = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE\r\n\r\n" + bytes(range(256)) * 20
    with server_that_says(junk) as garbage, server_that_says(b"") as closing, server_that_says(None) as silent:
        cameras = {
            "missing": (server.url("back"), "not_found", "404 from the camera: it has no stream /back"),
            "nobody": ("rtsp://127.0.0.1:1/x", "unreachable", "127.0.0.1:1 refuses connections"),
            "unknown": ("rtsp://camera.invalid/x", "unreachable", "the name camera.invalid is not known here"),
            "garbage": (garbage, "unreachable", "not with RTSP that can be understood"),
            "closing": (closing, "unreachable", "closed the connection before the stream began"),
            "silent": (silent, "unreachable", "no answer from 127.0.0.1"),
            "file": (str(mpeg4), "unsupported", "the stream URL must begin with rtsp:// or rtsps://"),
            "http": ("http://127.0.0.1/video", "unsupported", "the stream URL must begin with rtsp:// or rtsps://"),
        }
        # As long as eight processes that start at once may take to ask the cameras that do answer.
        async with ingesting(tmp_path, open_timeout_s=10.0) as ingest:
            await ingest.want(*(camera(name, url, USER, PASSWORD) for name, (url, _, _) in cameras.items()))
            for name, (_, state, says) in cameras.items():
                row = await ingest.row(name, lambda row: row["reason"] is not None)
                assert row["state"] == state, row
                assert row["reason"]["message"].startswith(f"camera `{name}`: "), row
                assert says in row["reason"]["message"], row


async def test_a_camera_that_freezes_is_stalled_and_its_readers_go_on_when_it_thaws(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    source = ScriptedCamera(clip)
    server.add("front", source)
    async with ingesting(tmp_path, stall_s=STALL_S) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        with await ingest.reader("front") as reader:
            with await next_frame(reader) as frame:
                before = frame.info
            source.freeze()
            # From the second connection on, which brings nothing either, it is "no picture for".
            row = await ingest.state("front", "stalled")
            assert row["reason"]["code"] == "CAMERA_STALLED"
            assert re.search("no (frame|picture) for", row["reason"]["message"])
            source.thaw()
            row = await ingest.state("front", "streaming")
            assert row["reconnects"] >= 1
            with await next_frame(reader) as frame:  # the same ring: the reader has noticed nothing
                assert frame.info.pts_us > before.pts_us


async def test_a_camera_whose_clock_jumps_back_hands_on_times_that_do_not(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    source = ScriptedCamera(clip)
    source.offset_90k = 3600 * 90_000
    server.add("front", source)
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        times = []
        with await ingest.reader("front") as reader:
            for number in range(30):
                if number == 10:
                    source.offset_90k = 0
                with await next_frame(reader, bgr=False) as frame:
                    times.append(frame.info.pts_us)
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # The clock jumps by an hour; what was missed on a busy machine is seconds.
        assert min(steps) > 0 and max(steps) < 60_000_000


async def test_a_stretch_of_garbage_is_counted_and_survived(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    source = ScriptedCamera(clip)
    server.add("front", source)
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        before = await ingest.row("front", lambda row: row["frames_decoded"] > 5)
        source.garbage = 10
        row = await ingest.row("front", lambda row: row["frames_decoded"] > before["frames_decoded"] + 20)
        assert source.garbage == 0
        assert (row["state"], row["reconnects"]) == ("streaming", 0)
        assert row["undecodable"] > 0


async def test_a_new_picture_size_makes_a_new_ring(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    source = ScriptedCamera(clip)
    server.add("front", source)
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        with await ingest.reader("front") as reader:
            (await next_frame(reader)).release()
            await server.remove("front")
            source.play(make_clip(tmp_path / "large.mp4", "h264", 2048, 1152, 10, 1))
            server.add("front", source)
            with pytest.raises(RingGone):
                while True:
                    (await next_frame(reader, bgr=False)).release()
            await asyncio.to_thread(reader.reconnect)
            with await next_frame(reader) as frame:
                assert (frame.info.width, frame.info.height) == (1920, 1080)
                assert frame.bgr().shape == (1080, 1920, 3)


async def test_a_camera_that_closes_the_connection_is_called_again_at_once(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    source = ScriptedCamera(clip)
    server.add("front", source)
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        before = await ingest.state("front", "streaming")
        await server.remove("front")
        server.add("front", source)
        row = await ingest.row(
            "front", lambda row: row["reconnects"] > before["reconnects"] and row["state"] == "streaming"
        )
        assert row["reason"] is None


async def test_a_paused_camera_has_no_connection_until_it_goes_on(
    tmp_path: Path, server: RtspServer, clip: Path
) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD, paused=True))
        row = await ingest.state("front", "paused")
        assert (row["reason"], row["fps"]) == (None, 0.0)
        await until(lambda: server.stats("front").viewers == 0)
        assert not ingest.socket("front").exists()
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")


def workers() -> list[psutil.Process]:
    """The cameras' processes: others of the test run (a database that is kept for all of it) are children too."""
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if "edge.ingest.worker" in child.cmdline()]


async def test_applying_the_same_set_again_disturbs_no_camera(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        front = camera("front", server.url("front"), USER, PASSWORD)
        await ingest.want(front)
        await ingest.state("front", "streaming")
        [before] = workers()
        await ingest.want(front, camera("other", "rtsp://127.0.0.1:1/x"))
        await ingest.want(front)
        assert workers() == [before]
        assert server.stats("front").starts == 1


async def test_a_cameras_process_that_is_killed_comes_back(tmp_path: Path, server: RtspServer, clip: Path) -> None:
    server.add("front", ScriptedCamera(clip))
    async with ingesting(tmp_path) as ingest:
        await ingest.want(camera("front", server.url("front"), USER, PASSWORD))
        await ingest.state("front", "streaming")
        [worker] = workers()
        with await ingest.reader("front") as reader:
            os.kill(worker.pid, signal.SIGKILL)
            row = await ingest.state("front", "connecting")
            assert "its process on the appliance ended (exit code -9)" in row["reason"]["message"]
            await ingest.state("front", "streaming")
            with pytest.raises(RingGone):
                while True:
                    (await next_frame(reader, bgr=False)).release()
            await asyncio.to_thread(reader.reconnect)
            (await next_frame(reader)).release()


async def test_credentials_stand_in_no_log_no_status_no_command_line_and_no_environment(
    tmp_path: Path, server: RtspServer, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.add("front", ScriptedCamera(clip))
    host = server.url("front").removeprefix("rtsp://")
    async with ingesting(tmp_path) as ingest:
        await ingest.want(
            camera("good", server.url("front"), USER, PASSWORD),
            camera("inside", f"rtsp://{USER}:c4nary%2Fpass%40word@{host}"),
            camera("wrong", server.url("front"), USER, "c4nary-wrong"),
            camera("missing", server.url("c4nary") + "?key=c4nary-key", USER, PASSWORD),
        )
        await ingest.state("good", "streaming")
        await ingest.state("inside", "streaming")
        await ingest.state("wrong", "refused")
        await ingest.state("missing", "not_found")
        processes = workers()
        assert len(processes) == 4
        seen = [str(process.cmdline()) + str(process.environ()) for process in processes]
        seen += [str(row).replace("it has no stream /c4nary;", "") for row in ingest.rows_seen]
    out, err = capfd.readouterr()
    logs = (out + err).replace("/c4nary", "")
    assert "camera gives no frames" in logs
    for text in (*seen, logs):
        assert "c4nary" not in text
