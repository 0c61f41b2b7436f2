"""Cameras that do what no camera should: each with what must happen then. (Refused passwords, missing streams and frozen
cameras as processes: `test_cameras.py`.)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import AccessUnit, Fault, FaultScript, FileSource, RtspServer
from belvedere.rtsp._faulty import FaultConduct, FaultyServer
from edge.ingest.backoff import FIRST_S
from framelink import FrameReader, RingGone
from tests.edge.ingest.looking import STALL_S, WAIT_S, Reel, looking, next_frame
from tests.support.clips import make_clip
from tests.support.scripted_rtsp import ScriptedServer

FPS = 25
# Where a stall is told and the connection must last: a busy machine that keeps pictures back for so long would end it.
PATIENT_STALL_S = 4.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "h264.mp4", "h264", 320, 240, FPS, 2, keyframe_every_s=0.4)


@pytest.fixture
def long_group(tmp_path: Path) -> Path:
    """One key frame, at the beginning."""
    return make_clip(tmp_path / "long.mp4", "h264", 320, 240, FPS, 4, keyframe_every_s=60)


async def test_one_key_frame_a_minute_is_waited_for_on_one_connection_and_said(
    tmp_path: Path, long_group: Path
) -> None:
    key_now = asyncio.Event()

    async def midst(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        # As if they were key frames: the server holds others back from a new viewer, a camera does not.
        for number in itertools.count(1):
            unit = units[0 if key_now.is_set() else 1 + number % 20]
            yield replace(unit, pts_90k=number * 3600, keyframe=True)
            await asyncio.sleep(1 / FPS)

    source = Reel(long_group, midst)
    async with (
        RtspServer("127.0.0.1", 0) as server,
        looking(_added(server, source), tmp_path, stall_s=PATIENT_STALL_S) as seen,
    ):
        # Before it, where the first picture itself was late: "no picture for".
        row = await seen.until(lambda row: row["state"] == "stalled" and "no key frame for" in row["reason"])
        assert "waiting up to 60 s for it" in row["reason"]
        await seen.until(lambda row: row["packets_in"] > 40)
        key_now.set()
        row = await seen.state("streaming")
        assert (row["reason"], row["reconnects"], source.starts) == (None, 0, 1)


async def test_a_camera_that_takes_a_minute_to_its_first_picture_is_waited_for_and_said(
    tmp_path: Path, clip: Path
) -> None:
    ready = asyncio.Event()

    async def late(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        await ready.wait()
        for number in itertools.count():
            yield replace(units[number % len(units)], pts_90k=number * 3600)
            await asyncio.sleep(1 / FPS)

    source = Reel(clip, late)
    async with (
        RtspServer("127.0.0.1", 0) as server,
        looking(_added(server, source), tmp_path, stall_s=PATIENT_STALL_S) as seen,
    ):
        row = await seen.state("stalled")
        assert "no picture for" in row["reason"] and "waiting up to 60 s for the first one" in row["reason"]
        ready.set()
        row = await seen.state("streaming")
        assert (row["reason"], row["reconnects"], source.starts) == (None, 0, 1)


async def test_a_camera_that_never_sends_a_picture_is_called_again(tmp_path: Path, clip: Path) -> None:
    async def nothing(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        await asyncio.Event().wait()
        yield units[0]

    async with RtspServer("127.0.0.1", 0) as server:
        url = _added(server, Reel(clip, nothing))
        async with looking(url, tmp_path, stall_s=STALL_S, first_frame_s=1.0) as seen:
            row = await seen.until(lambda row: row["reconnects"] >= 2)
            assert row["state"] == "stalled" and row["frames_decoded"] == 0


@pytest.mark.parametrize("how", ["says so", "in the midst of the stream"])
async def test_a_camera_that_changes_codec_and_size_is_followed(how: str, tmp_path: Path, clip: Path) -> None:
    other = make_clip(tmp_path / "h265.mp4", "hevc", 640, 360, FPS, 2, keyframe_every_s=0.4)
    switch, switched = asyncio.Event(), asyncio.Event()
    other_units = [unit async for unit in FileSource(other, loop=False, realtime=False).subscribe()]

    async def changing(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        for number in itertools.count():
            if switch.is_set() and not switched.is_set():
                # From the next DESCRIBE on it is another camera.
                switched.set()
                source._clip = FileSource(other, loop=False, realtime=False)
                if how == "says so":
                    return
            now = other_units if switched.is_set() else units
            yield replace(now[number % len(now)], pts_90k=number * 3600)
            await asyncio.sleep(1 / FPS)

    source = Reel(clip, changing)
    async with (
        RtspServer("127.0.0.1", 0) as server,
        # Pictures of another codec in the midst of a stream are none: it stalls.
        looking(_added(server, source), tmp_path, stall_s=STALL_S) as seen,
    ):
        with await seen.reader() as reader:
            with await next_frame(reader) as frame:
                assert (frame.info.width, frame.info.height) == (320, 240)
                before = frame.info.pts_us
            switch.set()
            looks = asyncio.create_task(_until_gone(reader))
            await seen.until(lambda row: (row["codec"], row["width"], row["state"]) == ("hevc", 640, "streaming"))
            await looks
            await asyncio.to_thread(reader.reconnect, WAIT_S)
            with await next_frame(reader) as frame:
                assert (frame.info.width, frame.info.height) == (640, 360)
                assert frame.info.pts_us > before


async def test_times_go_on_whatever_the_cameras_clock_does(tmp_path: Path, clip: Path) -> None:
    """Reset to 0, hours ahead, the wrap of RTP's 32 bits, and that of 33 bits."""
    starts = [7 * 3600 * 90_000, 0, 5 * 3600 * 90_000, (1 << 32) - 5 * 3600, (1 << 33) - 5 * 3600]

    async def jumping(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        for number in itertools.count():
            start = starts[min(number // 15, len(starts) - 1)]
            wrapped = (start + number % 15 * 3600) % (1 << 33)
            yield replace(units[number % len(units)], pts_90k=wrapped)
            await asyncio.sleep(1 / FPS)

    async with RtspServer("127.0.0.1", 0) as server, looking(_added(server, Reel(clip, jumping)), tmp_path) as seen:
        times = []
        with await seen.reader() as reader:
            for _ in range(70):
                with await next_frame(reader) as frame:
                    times.append(frame.info.pts_us)
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # The least jump is 19 minutes; what was missed on a busy machine is seconds.
        assert min(steps) > 0 and max(steps) < 60_000_000
        assert seen.row()["reconnects"] == 0


async def test_lost_packets_are_counted_and_what_is_whole_is_shown(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "small.mp4", "h264", 128, 96, FPS, 2, keyframe_every_s=0.2)
    conduct = FaultConduct(FaultScript((Fault("lose", every=10),)), "front")
    server = FaultyServer("127.0.0.1", 0, conduct, None)
    server.add("front", FileSource(small))
    await server.start()
    try:
        async with looking(server.url("front"), tmp_path) as seen:
            with await seen.reader() as reader:
                for _ in range(10):
                    (await next_frame(reader)).release()
            row = await seen.until(lambda row: row["packets_lost"] > 10)
            assert row["state"] == "streaming" and row["drops"]["lost_packets"] > 0
            assert row["packets_lost"] / (row["packets_in"] + row["packets_lost"]) == pytest.approx(1 / 10, abs=0.05)
    finally:
        await server.stop()


async def test_with_every_third_packet_lost_nothing_broken_is_shown_and_the_loss_is_the_reason(tmp_path: Path) -> None:
    # No picture of two packets or more comes whole, or without a gap beside it; it goes on trying.
    large = make_clip(tmp_path / "large.mp4", "h264", 1280, 720, 10, 1, keyframe_every_s=0.1)
    conduct = FaultConduct(FaultScript((Fault("lose", every=3),)), "front")
    server = FaultyServer("127.0.0.1", 0, conduct, None)
    server.add("front", FileSource(large))
    await server.start()
    try:
        async with looking(server.url("front"), tmp_path, stall_s=STALL_S) as seen:
            lost = re.compile(r"\(3\d% of its packets are lost on the way: check the network\)")
            await seen.until(lambda row: row["state"] == "stalled" and lost.search(row["reason"]))
            row = await seen.until(lambda row: row["reconnects"] >= 1 and row["drops"]["lost_packets"] > 3)
            assert row["frames_decoded"] == 0
    finally:
        await server.stop()


async def test_a_camera_that_refuses_the_password_is_refused_and_asked_again_with_long_waits(
    tmp_path: Path, clip: Path
) -> None:
    async with RtspServer("127.0.0.1", 0, users={"u": Secret("right")}) as server:
        url = _added(server, Reel(clip, _endless))
        began = time.monotonic()
        async with looking(url, tmp_path, "u", "wrong", retry_max_s=0.01, refused_retry_max_s=60.0) as seen:
            row = await seen.state("refused")
            assert row["reason"] == "401 from the camera: wrong user name or password"
            await seen.until(lambda row: row["reconnects"] >= 2)
            # Not in a tight loop, which locks accounts: half a second and more between tries (a quarter less by chance).
            tries = seen.row()["reconnects"]
            assert tries <= 1 + (time.monotonic() - began) / (0.75 * FIRST_S)
            assert seen.states == ["authenticating", "refused"]


async def test_a_camera_that_answers_404_is_not_found_and_asked_again_until_it_has_the_stream(
    tmp_path: Path, clip: Path
) -> None:
    async with RtspServer("127.0.0.1", 0) as server, looking(server.url("front"), tmp_path) as seen:
        row = await seen.state("not_found")
        assert "404 from the camera: it has no stream /front" in row["reason"]
        await seen.until(lambda row: row["reconnects"] >= 2)
        server.add("front", Reel(clip, _endless))
        row = await seen.state("streaming")
        assert row["reason"] is None


async def test_a_camera_of_another_codec_is_unsupported_and_told_which_ones_are(tmp_path: Path) -> None:
    sdp = "v=0\r\nm=video 0 RTP/AVP 97\r\na=rtpmap:97 MP4V-ES/90000\r\na=control:track1\r\n"
    with ScriptedServer({"DESCRIBE": lambda asked: asked.answer(200, sdp, "Content-Type: application/sdp")}) as server:
        async with looking(server.url, tmp_path) as seen:
            row = await seen.state("unsupported")
            assert "the camera sends mpeg4; switch its stream to H.264, H.265 or MJPEG" in row["reason"]


async def test_a_camera_with_only_sound_is_unsupported(tmp_path: Path) -> None:
    sdp = "v=0\r\nm=audio 0 RTP/AVP 8\r\na=control:track1\r\n"
    with ScriptedServer({"DESCRIBE": lambda asked: asked.answer(200, sdp, "Content-Type: application/sdp")}) as server:
        async with looking(server.url, tmp_path) as seen:
            row = await seen.state("unsupported")
            assert "only sound in it, no video" in row["reason"]
            await seen.until(lambda row: row["reconnects"] >= 2)  # it may be set right at the camera


@pytest.mark.parametrize(
    ("junk", "state", "says"),
    [
        (os.urandom(1 << 16).replace(b"$", b"#"), "unreachable", "not with RTSP that can be understood"),
        # Frames that promise much and hold nothing that is RTP.
        (b"$\0\x04\0" + bytes(1024) + b"$\x07\0\x02xx", "stalled", "no picture for"),
    ],
)
async def test_garbage_after_the_header_ends_that_connection_and_not_the_process(
    junk: bytes, state: str, says: str, tmp_path: Path
) -> None:
    def send(connection: socket.socket) -> None:
        connection.sendall(junk)

    with ScriptedServer(after_play=send) as server:
        async with looking(server.url, tmp_path, stall_s=STALL_S, first_frame_s=2.5) as seen:
            await seen.until(lambda row: row["state"] == state and says in row["reason"])
            await seen.until(lambda row: row["reconnects"] >= 2)


async def test_a_camera_that_freezes_is_stalled_and_comes_back_by_itself(tmp_path: Path, clip: Path) -> None:
    frozen = asyncio.Event()

    async def freezing(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
        for number in itertools.count():
            if frozen.is_set():
                await asyncio.Event().wait()
            yield replace(units[number % len(units)], pts_90k=number * 3600)
            await asyncio.sleep(1 / FPS)

    async with (
        RtspServer("127.0.0.1", 0) as server,
        looking(_added(server, Reel(clip, freezing)), tmp_path, stall_s=STALL_S) as seen,
    ):
        await seen.state("streaming")
        frozen.set()
        row = await seen.state("stalled")
        assert "no frame for 1 s" in row["reason"] or "no picture for" in row["reason"]
        frozen.clear()
        await seen.state("streaming")


async def _endless(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
    for number in itertools.count():
        yield replace(units[number % len(units)], pts_90k=number * 3600)
        await asyncio.sleep(1 / FPS)


async def _until_gone(reader: FrameReader) -> None:
    """Takes frames as an application does, until the ring is another."""
    with contextlib.suppress(RingGone):
        while True:
            (await next_frame(reader)).release()


def _added(server: RtspServer, source: Reel) -> str:
    server.add("front", source)
    return server.url("front")
