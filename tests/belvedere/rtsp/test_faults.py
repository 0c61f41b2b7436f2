"""Fault scripts: what they say, what is refused, and what a camera then really does to a client that reads it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from belvedere.chassis.secret import Secret
from belvedere.rtsp import (
    ClientSettings,
    FaultScript,
    FaultScriptInvalid,
    ReceivedUnit,
    RtspClient,
    ServerUnreachable,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamStalled,
    serve_camera,
)
from belvedere.rtsp._faulty import FaultConduct
from tests.support.clips import make_clip

USER, PASSWORD = "camera", Secret("pass-word")
GOOD_FOR_S = 0.4
STALL_S = 2.0
PATIENT_S = 30.0


class Hand:
    """A camera's clock, set by hand: what goes wrong begins when the test has seen what it wants to see before."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def after(self, pictures: int) -> Callable[[list[ReceivedUnit]], bool]:
        """Never enough; but when so many pictures are there the good time is over."""

        def look(units: list[ReceivedUnit]) -> bool:
            if len(units) >= pictures:
                self.now_s = max(self.now_s, GOOD_FOR_S)
            return False

        return look


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "a.mp4", fps=25, seconds=2.0, keyframe_every_s=0.2)


@pytest.fixture(scope="module")
def other(clip: Path) -> Path:
    return make_clip(clip.with_name("b.mp4"), "hevc", 160, 120, seconds=1.0, keyframe_every_s=0.2)


def script(folder: Path, text: str) -> FaultScript:
    path = folder / "faults.toml"
    path.write_text(text)
    return FaultScript.load(path, ("entrance",))


@contextlib.asynccontextmanager
async def camera(
    file: Path,
    faults: FaultScript | None,
    ended: asyncio.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[str]:
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    told = {"ready": address.set_result, "faults": faults, "ended": ended, "clock": clock}
    serving = asyncio.create_task(serve_camera(file, "127.0.0.1", 0, "entrance", USER, PASSWORD, **told))
    try:
        yield await address
    finally:
        serving.cancel()
        await asyncio.wait([serving])


def never(units: list[ReceivedUnit]) -> bool:
    return False


async def watch(
    url: str, enough: Callable[[list[ReceivedUnit]], bool], stall_s: float = PATIENT_S
) -> tuple[list[ReceivedUnit], Exception | None]:
    """What a client receives until that is enough, or until it ends otherwise."""
    units: list[ReceivedUnit] = []
    settings = ClientSettings(open_timeout_s=PATIENT_S, stall_timeout_s=stall_s, on_loss="mark")

    def read() -> Exception | None:
        with RtspClient(url, USER, PASSWORD, settings) as client:
            try:
                client.open()
                while not enough(units):
                    units.append(client.receive())
            except (StreamStalled, StreamEnded, StreamRefused, StreamNotFound, ServerUnreachable) as error:
                return error
        return None

    return units, await asyncio.to_thread(read)


async def plays(url: str) -> None:
    assert (await watch(url, lambda units: len(units) > 3))[1] is None


def test_a_script_says_when_and_for_how_long(tmp_path: Path) -> None:
    faults = script(tmp_path, '[[fault]]\ndo = "freeze"\nat_s = 10\nfor_s = 2\nevery_s = 30\n')
    assert [t for t in range(80) if faults.active("freeze", t)] == [10, 11, 40, 41, 70, 71]
    changes, t = [], 0.0
    while len(changes) < 4 and (following := faults.next_change(t)) is not None:
        changes.append(following)
        t = following
    assert changes == [10, 12, 40, 42]
    assert faults.of("yard") == faults


def test_everything_that_is_wrong_in_a_script_is_told_with_its_place(tmp_path: Path) -> None:
    text = """
    speed = 1
    [[fault]]
    do = "explode"
    [[fault]]
    do = "delay"
    at_s = -1
    [[fault]]
    do = "lose"
    share = 2
    file = "x"
    [[fault]]
    do = "freeze"
    for_s = 9
    every_s = 3
    camera = "yard"
    [[fault]]
    do = "switch"
    file = "absent.mp4"
    """
    with pytest.raises(FaultScriptInvalid) as caught:
        script(tmp_path, text)
    told = [problem.removeprefix(f"{tmp_path / 'faults.toml'}: ") for problem in caught.value.problems]
    assert told == [
        "speed: is not known; a script has seed and [[fault]]",
        "fault[0].do: must be one of drop, refuse, missing, freeze, delay, lose, corrupt, clock, switch, not 'explode'",
        "fault[1].by_s: is missing",
        "fault[1].at_s: must be a number from 0 to 1e+06, not -1",
        "fault[2].file: is nothing that lose takes",
        "fault[2].share: must be a number from 0 to 1, not 2",
        "fault[3].for_s: lasts longer than until the next time (every_s)",
        "fault[3].camera: no camera 'yard'; there are: entrance",
        f"fault[4].file: {tmp_path / 'absent.mp4'} is not there",
    ]


def test_every_third_packet_is_lost_and_the_same_bytes_are_damaged_each_time(tmp_path: Path) -> None:
    faults = script(tmp_path, 'seed = 3\n[[fault]]\ndo = "lose"\nevery = 3\n[[fault]]\ndo = "corrupt"\nshare = 0.5\n')
    packets = [bytes([number]) * 40 for number in range(30)]
    first, second = (FaultConduct(faults, "entrance").packets(packets) for _ in range(2))
    assert first == second
    assert len(first) == 20
    damaged = [packet for packet in first if packet not in packets]
    assert 3 < len(damaged) < 17
    assert all(packet[:12] == packet[:1] * 12 for packet in damaged), (
        "headers stay, so that it is a picture that is damaged"
    )


async def test_lost_packets_reach_the_client_as_damaged_pictures(clip: Path, tmp_path: Path) -> None:
    async with camera(clip, script(tmp_path, '[[fault]]\ndo = "lose"\nevery = 3\n')) as url:
        _, error = await watch(url, lambda units: sum(unit.lost > 0 for unit in units) >= 5)
    assert error is None


async def test_a_frozen_camera_stays_connected_and_says_nothing(clip: Path, tmp_path: Path) -> None:
    hand, faults = Hand(), script(tmp_path, f'[[fault]]\ndo = "freeze"\nat_s = {GOOD_FOR_S}\nfor_s = 60\n')
    async with camera(clip, faults, clock=hand) as url:
        units, error = await watch(url, hand.after(3), STALL_S)
    assert len(units) >= 3 and isinstance(error, StreamStalled)


async def test_a_dropped_connection_can_be_made_again_when_the_fault_is_over(clip: Path, tmp_path: Path) -> None:
    hand, faults = Hand(), script(tmp_path, f'[[fault]]\ndo = "drop"\nat_s = {GOOD_FOR_S}\nfor_s = 0.5\n')
    async with camera(clip, faults, clock=hand) as url:
        units, error = await watch(url, hand.after(3))
        assert len(units) >= 3 and isinstance(error, StreamEnded | ServerUnreachable)
        refused = (await watch(url, never))[1]
        assert isinstance(refused, ServerUnreachable)
        hand.now_s += 1.0
        await plays(url)


async def test_the_right_password_is_refused_for_a_while(clip: Path, tmp_path: Path) -> None:
    hand = Hand()
    async with camera(clip, script(tmp_path, '[[fault]]\ndo = "refuse"\nfor_s = 0.4\n'), clock=hand) as url:
        _, error = await watch(url, never)
        assert isinstance(error, StreamRefused)
        hand.now_s = 0.5
        await plays(url)


async def test_a_stream_is_not_found_for_a_while(clip: Path, tmp_path: Path) -> None:
    hand = Hand()
    async with camera(clip, script(tmp_path, '[[fault]]\ndo = "missing"\nfor_s = 60\n'), clock=hand) as url:
        assert isinstance((await watch(url, never))[1], StreamNotFound)
        hand.now_s = 61.0
        await plays(url)


async def test_a_delay_moves_pictures_and_not_their_time_stamps(clip: Path, tmp_path: Path) -> None:
    hand, faults = Hand(), script(tmp_path, f'[[fault]]\ndo = "delay"\nby_s = 0.4\nat_s = {GOOD_FOR_S}\n')
    good = hand.after(8)
    async with camera(clip, faults, clock=hand) as url:
        units, error = await watch(url, lambda units: good(units) or len(units) >= 30)
    assert error is None
    gaps = [(b.last_packet_ns - a.last_packet_ns) / 1e9 for a, b in itertools.pairwise(units)]
    stamps = [b.pts_90k - a.pts_90k for a, b in itertools.pairwise(units)]
    assert max(gaps) > 0.3 and set(stamps) == {3600}


async def test_a_clock_that_jumps_takes_the_time_stamps_along(clip: Path, tmp_path: Path) -> None:
    hand, faults = Hand(), script(tmp_path, f'[[fault]]\ndo = "clock"\nby_s = -3600\nat_s = {GOOD_FOR_S}\n')
    good = hand.after(8)

    def jumped(units: list[ReceivedUnit]) -> bool:
        return good(units) or (len(units) > 1 and units[-1].pts_90k < units[0].pts_90k)

    async with camera(clip, faults, clock=hand) as url:
        units, error = await watch(url, jumped)
    assert error is None
    stamps = [b.pts_90k - a.pts_90k for a, b in itertools.pairwise(units)]
    assert min(stamps) < -3000 * 90_000


async def test_a_camera_that_is_set_to_another_codec_and_size_hangs_up_and_comes_back_with_it(
    clip: Path, other: Path, tmp_path: Path
) -> None:
    hand = Hand()
    faults = script(tmp_path, f'[[fault]]\ndo = "switch"\nfile = "{other}"\nat_s = {GOOD_FOR_S}\nfor_s = 1.5\n')
    async with camera(clip, faults, clock=hand) as url:

        def codec() -> str:
            with RtspClient(url, USER, PASSWORD) as client:
                return client.open().codec

        assert await asyncio.to_thread(codec) == "h264"
        _, error = await watch(url, hand.after(3))
        assert isinstance(error, StreamEnded | ServerUnreachable)
        assert await asyncio.to_thread(codec) == "hevc"

        def time_goes_on(units: list[ReceivedUnit]) -> bool:
            hand.now_s = GOOD_FOR_S + (2.0 if len(units) >= 3 else 0.0)
            return False

        _, error = await watch(url, time_goes_on)
        assert isinstance(error, StreamEnded | ServerUnreachable)
        assert await asyncio.to_thread(codec) == "h264"


async def test_a_file_that_is_played_once_ends_in_silence(tmp_path: Path) -> None:
    ended = asyncio.Event()
    async with camera(make_clip(tmp_path / "short.mp4", seconds=0.4), None, ended) as url:
        units, error = await watch(url, never, STALL_S)
    assert ended.is_set() and len(units) >= 9 and isinstance(error, StreamStalled)
