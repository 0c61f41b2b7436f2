"""What is decoded, and when: as far as somebody looks."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import AccessUnit, ReceivedUnit, RtspServer, StreamDescription
from edge.ingest.decoder import Decoder, Undecodable
from edge.ingest.feed import Demand, Feed
from edge.ingest.gop import Gop
from edge.ingest.hardware import candidates
from edge.ingest.ring import CameraRing
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus
from edge.ingest.timestamps import TimestampValidator
from tests.edge.ingest.looking import Reel, looking, next_frame
from tests.support.clips import make_clip
from tests.support.waiting import until

FPS = 25


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One key frame, at the beginning."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    return make_clip(path, "h264", 320, 240, FPS, 40, keyframe_every_s=60)


async def in_real_time(units: Sequence[AccessUnit]) -> AsyncGenerator[AccessUnit, None]:
    for number in itertools.count():
        yield replace(units[number % len(units)], pts_90k=number * 3600)
        await asyncio.sleep(1 / FPS)


async def test_nothing_is_decoded_while_nobody_looks_and_who_looks_has_the_newest_frame_at_once(
    tmp_path: Path, clip: Path
) -> None:
    source = Reel(clip, in_real_time)
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", source)
        async with looking(server.url("front"), tmp_path) as seen:
            resting = await seen.until(lambda row: row["drops"]["no_reader"] > 5)
            assert (resting["decoding"], resting["state"]) == (False, "streaming")
            row = await seen.until(lambda row: row["drops"]["no_reader"] > resting["drops"]["no_reader"] + 2 * FPS)
            assert row["frames_decoded"] == resting["frames_decoded"]
            assert row["bytes_in"] > resting["bytes_in"] and row["fps_in"] > 0
            asked_ns = time.monotonic_ns()
            with await seen.reader() as reader, await next_frame(reader, bgr=True) as frame:
                # Not the last one that was decoded before, and long before the next key frame, which is a minute away.
                assert frame.info.capture_ns > asked_ns - 1e9
                assert frame.info.has_bgr
                assert time.monotonic_ns() - asked_ns < 20e9
            row = await seen.until(lambda row: row["decoding"])
            assert (source.starts, row["reconnects"], row["undecodable"]) == (1, 0, 0)
            # Gone again: at rest again.
            await seen.until(lambda row: not row["decoding"])


async def test_an_attached_reader_that_does_not_ask_is_no_demand(tmp_path: Path, clip: Path) -> None:
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", Reel(clip, in_real_time))
        async with looking(server.url("front"), tmp_path) as seen:
            with await seen.reader():
                row = await seen.until(lambda row: row["drops"]["no_reader"] > 10)
                assert (row["readers"], row["decoding"]) == (1, False)


async def test_a_connection_that_nobody_needs_is_dropped_where_the_settings_say_so(tmp_path: Path, clip: Path) -> None:
    source = Reel(clip, in_real_time)
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", source)
        async with looking(server.url("front"), tmp_path, idle="drop") as seen:
            row = await seen.state("standby")
            assert (row["reason"], row["reconnects"]) == (None, 0)
            await until(lambda: server.stats("front").viewers == 0)
            before, asked_ns = len(seen.states), time.monotonic_ns()
            with await seen.reader() as reader, await next_frame(reader) as frame:
                assert frame.info.capture_ns > asked_ns
                # It is told after the frame is handed on, and may be over again before we look.
                await until(lambda: "streaming" in seen.states[before:])
            assert source.starts == 2
            await seen.state("standby")


async def test_without_memory_for_packets_the_next_key_frame_is_waited_for(tmp_path: Path) -> None:
    often = make_clip(tmp_path / "often.mp4", "h264", 320, 240, FPS, 2, keyframe_every_s=0.4)
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", Reel(often, in_real_time))
        async with looking(server.url("front"), tmp_path, gop_buffer_mb=0) as seen:
            await seen.until(lambda row: row["drops"]["no_reader"] > 5)
            with await seen.reader() as reader, await next_frame(reader) as frame:
                assert frame.info.capture_ns > 0


@pytest.mark.parametrize(
    ("scheme", "setting", "taken"),
    [("rtsp", "tcp", "tcp"), ("rtsp", "udp", "udp"), ("rtspt", "udp", "tcp"), ("rtspu", "tcp", "udp")],
)
async def test_a_camera_sends_as_the_setting_says_unless_its_address_says_otherwise(
    scheme: str, setting: str, taken: str, tmp_path: Path, clip: Path
) -> None:
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", Reel(clip, in_real_time))
        url = server.url("front").replace("rtsp:", f"{scheme}:")
        async with looking(url, tmp_path, transport=setting) as seen:
            row = await seen.state("streaming")
            assert row["transport"] == taken
            with await seen.reader() as reader:
                (await next_frame(reader)).release()


async def test_bgr_is_made_for_those_frames_only_that_a_reader_waits_for_with_bgr(tmp_path: Path, clip: Path) -> None:
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", Reel(clip, in_real_time))
        async with looking(server.url("front"), tmp_path) as seen:
            with await seen.reader() as planes_only:
                for _ in range(5):
                    with await next_frame(planes_only, bgr=False) as frame:
                        assert not frame.info.has_bgr
                with await seen.reader() as wants_bgr, await next_frame(wants_bgr, bgr=True) as frame:
                    assert frame.info.has_bgr
                    behind = frame.info.sequence
                # One that was asked for before is the other reader's business; so is the one after it, which may have been on its
                # way into the ring already when that reader was given the last one, whose BGR was made late.
                sequence = 0
                while sequence <= behind + 1:
                    with await next_frame(planes_only, bgr=False) as frame:
                        sequence = frame.info.sequence
                for _ in range(3):
                    with await next_frame(planes_only, bgr=False) as frame:
                        assert not frame.info.has_bgr


@pytest.mark.parametrize("scheme", ["Basic", "MD5", "SHA-256"])
@pytest.mark.parametrize("place", ["beside", "inside"])
async def test_any_password_opens_the_camera(
    scheme: Literal["Basic", "MD5", "SHA-256"], place: str, tmp_path: Path, clip: Path
) -> None:
    user, password = "näme", 'c4n:ary/@ %41"\\größe€#?&'
    if scheme != "Basic":
        user = "nä:me"  # basic cannot carry a colon in the name
    async with RtspServer("127.0.0.1", 0, users={user: Secret(password)}, schemes=(scheme,)) as server:
        server.add("front", Reel(clip, in_real_time))
        url = server.url("front")
        if place == "inside":
            url = url.replace("rtsp://", f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@")
            user = password = ""
        async with looking(url, tmp_path, user, password) as seen:
            await seen.state("streaming")


async def test_the_states_of_a_first_connection_come_in_their_order(tmp_path: Path, clip: Path) -> None:
    async with RtspServer("127.0.0.1", 0, users={"u": Secret("p")}) as server:
        server.add("front", Reel(clip, in_real_time))
        async with looking(server.url("front"), tmp_path, "u", "p") as seen:
            assert seen.row()["state"] in ("connecting", "authenticating", "streaming")
            await seen.state("streaming")
    assert seen.states == ["authenticating", "streaming"]


def unit(number: int, key: bool, size: int = 100) -> ReceivedUnit:
    return ReceivedUnit(bytes(size), number * 3600, key, number, number, 0, None)


def test_what_is_kept_begins_with_the_last_key_frame() -> None:
    gop = Gop(max_bytes=10_000)
    for number, key in enumerate([False, False, True, False, False, True, False]):
        gop.add(unit(number, key))
    assert [kept.pts_90k // 3600 for kept in gop.units()] == [5, 6]


def test_what_grows_too_large_is_let_go_until_the_next_key_frame() -> None:
    gop = Gop(max_bytes=250, max_units=100)
    for number, key in enumerate([True, False, False, False]):
        gop.add(unit(number, key))
    assert (gop.units(), gop.bytes) == ([], 0)
    gop.add(unit(9, True))
    assert len(gop) == 1
    gop = Gop(max_bytes=1 << 20, max_units=3)
    for number in range(4):
        gop.add(unit(number, number == 0))
    assert not gop.units()


def test_hardware_is_looked_for_where_there_is_some(tmp_path: Path) -> None:
    assert candidates("none") == []
    assert candidates("auto", tmp_path) == []
    assert candidates("vaapi:/dev/dri/renderD129", tmp_path) == [("vaapi", "/dev/dri/renderD129")]
    assert candidates("cuda", tmp_path) == [("cuda", None)]
    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/nvidia0").touch()
    (tmp_path / "dev/dri/renderD128").touch()
    found = candidates("auto", tmp_path)
    assert found[0] == ("cuda", None)  # the wheels of PyAV have it built in
    assert all(device == str(tmp_path / "dev/dri/renderD128") for kind, device in found if kind in ("vaapi", "qsv"))


@pytest.mark.parametrize("device", ["cuda", "vaapi:/dev/dri/renderD250", "no-such-thing"])
def test_a_device_that_is_not_there_falls_back_to_the_processor_and_says_so(device: str, clip: Path) -> None:
    if device == "cuda" and Path("/dev/nvidia0").exists():
        pytest.skip("there is an NVIDIA GPU here")
    decoder = Decoder(StreamDescription("h264", ()), 1, device)
    assert decoder.device == "software"
    assert decoder.note is not None and device.partition(":")[0] in decoder.note
    assert "decoding on the processor" in decoder.note
    assert Decoder(StreamDescription("h264", ()), 1, "none").note is None


async def test_a_camera_without_its_hardware_decoder_streams_and_its_status_says_why(
    tmp_path: Path, clip: Path
) -> None:
    async with RtspServer("127.0.0.1", 0) as server:
        server.add("front", Reel(clip, in_real_time))
        async with looking(server.url("front"), tmp_path, decode_device="no-such-thing") as seen:
            row = await seen.state("streaming")
            assert row["decoder"] == "software"
            assert "no-such-thing" in row["decoder_note"] and "decoding on the processor" in row["decoder_note"]


async def test_hardware_that_opens_and_cannot_decode_this_camera_is_given_up_for_the_processor(clip: Path) -> None:
    decoder = Decoder(StreamDescription("h264", ()), 1)
    decoder.device = "cuda"  # As after opening one: what follows is what the first picture's failure leads to.
    [first, *_] = await Reel(clip, in_real_time).units()
    good = ReceivedUnit(first.data, 0, True, 1, 1, 0, None)
    with pytest.raises(Undecodable):
        list(decoder.decode(replace(good, data=b"\0\0\0\1\x65" + b"\xaa" * 50)))
    assert decoder.device == "software"
    assert decoder.note is not None and "cuda does not decode this stream" in decoder.note
    assert len(list(decoder.decode(good))) == 1


@pytest.mark.parametrize("threads", [1, 3])
def test_a_decoder_has_the_threads_of_the_setting_and_keeps_no_picture_back_for_them(
    threads: int, tmp_path: Path
) -> None:
    ring = CameraRing(tmp_path / "frames.sock", "test", 4)
    settings = Settings(decode_threads=threads)
    status = CameraStatus(lambda: None)
    feed = Feed(StreamDescription("h264", ()), ring, Demand(ring, 1.0), status, TimestampValidator(), settings)
    context = feed._decoder._context
    assert (context.thread_count, str(context.thread_type).rpartition(".")[2]) == (threads, "SLICE")
