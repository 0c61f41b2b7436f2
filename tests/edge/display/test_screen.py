"""The screen at the appliance: real SDL on a real X server without a monitor; connectors as files, as the kernel shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edge.display.connectors import connected
from edge.display.ownership import Candidate, owner
from edge.display.sdl import placed
from edge.display.settings import Settings
from tests.edge.display.conftest import INSTANCE, Shown, output, running
from tests.support.screens import FakeScreen, screen
from tests.support.showing import Showing
from tests.support.waiting import until

WAIT_S = 60.0
OTHER = "applicationInstance-bbbbbbbbbbbbbbbbbbbbbbbbbb"
SIDE_CAMERA = "side-1.0-0123abcd"


def plug(drm: Path, state: str, connector: str = "card0-HDMI-A-1") -> None:
    (drm / connector).mkdir(parents=True, exist_ok=True)
    (drm / connector / "status").write_text(state + "\n")


def is_red(shown: FakeScreen, left: float, top: float, right: float, bottom: float) -> bool:
    """Whether the frame of a red box is there: pixels on each of its sides."""
    picture = shown.pixels().astype(int)
    red = (picture[:, :, 0] > 150) & (picture[:, :, 1] < 90) & (picture[:, :, 2] < 90)
    x0, x1 = int(left * shown.width), int(right * shown.width)
    y0, y1 = int(top * shown.height), int(bottom * shown.height)
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    sides = (red[y0 - 4 : y0 + 5, middle_x], red[y1 - 5 : y1 + 5, middle_x],
             red[middle_y, x0 - 4 : x0 + 5], red[middle_y, x1 - 5 : x1 + 5])  # fmt: skip
    return all(side.any() for side in sides)


def state(shown: Shown) -> str:
    return str(shown.display.screen_status()["state"])


def screen_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    running = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if any("edge.display.sdl" in word for word in _words(child))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []  # it ended just now


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeScreen]:
    with screen(tmp_path, 640, 360) as shown:
        for name, value in shown.environment.items():
            monkeypatch.setenv(name, value)
        yield shown


@pytest.mark.debian
async def test_a_screen_that_is_plugged_in_shows_the_boxes_and_is_let_go_when_it_is_pulled_out(
    tmp_path: Path, monitor: FakeScreen
) -> None:
    drm = tmp_path / "drm"
    plug(drm, "disconnected")
    async with running(tmp_path / "data", drm_folder=str(drm)) as shown:
        await shown.apply(output())
        with Showing(shown.paths, "front-1.0-0123abcd", INSTANCE) as app:
            app.rects = [(0.25, 0.25, 0.75, 0.75)]
            await until(lambda: shown.row()["frames_received"] > 5)
            assert (state(shown), screen_processes(), shown.row()["frames_displayed"]) == ("no_screen", [], 0)
            plug(drm, "connected")
            await until(lambda: state(shown) == "showing", WAIT_S)
            shown.display.choose_screen()
            await until(lambda: is_red(monitor, 0.25, 0.25, 0.75, 0.75), WAIT_S)
            status = shown.display.screen_status()
            assert (status["driver"], status["width"], status["height"]) == ("x11", 640, 360)
            assert status["connectors"] == ["card0-HDMI-A-1"] and status["instance_id"] == INSTANCE
            assert shown.row()["encoder_starts"] == 0, "what is on the screen is not encoded"
            plug(drm, "disconnected")
            await until(lambda: state(shown) == "no_screen" and not screen_processes(), WAIT_S)
            shown.display.choose_screen()
            assert shown.display.screen_status()["instance_id"] is None
            await until(lambda: not shown.display._videos[INSTANCE].encoding)


@pytest.mark.debian
async def test_a_screen_process_that_dies_is_started_again_and_the_pictures_come_back(
    tmp_path: Path, monitor: FakeScreen
) -> None:
    async with running(tmp_path / "data", screen="on") as shown:
        await shown.apply(output())
        with Showing(shown.paths, "front-1.0-0123abcd", INSTANCE) as app:
            app.rects = [(0.25, 0.25, 0.75, 0.75)]
            await until(lambda: state(shown) == "showing", WAIT_S)
            (process,) = screen_processes()
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: state(shown) == "failed", WAIT_S)
            assert "has ended" in shown.display.screen_status()["reason"]
            app.rects = [(0.1, 0.1, 0.4, 0.4)]
            await until(lambda: state(shown) == "showing", WAIT_S)
            shown.display.choose_screen()
            await until(lambda: is_red(monitor, 0.1, 0.1, 0.4, 0.4), WAIT_S)


@pytest.mark.debian
async def test_the_last_application_started_has_the_screen_and_the_one_before_gets_it_back(
    tmp_path: Path, monitor: FakeScreen
) -> None:
    async with running(tmp_path / "data", screen="on") as shown:
        first, second = output(), output(OTHER, "second", SIDE_CAMERA)
        await shown.apply(first)
        with Showing(shown.paths, "front-1.0-0123abcd", INSTANCE) as app:
            app.rects = [(0.25, 0.25, 0.75, 0.75)]
            await until(lambda: state(shown) == "showing", WAIT_S)
            await shown.apply(first, second)
            assert shown.display.screen_status()["instance_id"] == INSTANCE, "the new one has no picture yet"
            with Showing(shown.paths, SIDE_CAMERA, OTHER) as other:
                other.rects = [(0.1, 0.1, 0.4, 0.4)]
                await until(lambda: shown.row(OTHER)["frames_received"] > 0)
                shown.display.choose_screen()
                assert shown.display.screen_status()["instance_id"] == OTHER
                await until(lambda: is_red(monitor, 0.1, 0.1, 0.4, 0.4), WAIT_S)
            await shown.apply(first)
            assert shown.display.screen_status()["instance_id"] == INSTANCE
            await until(lambda: is_red(monitor, 0.25, 0.25, 0.75, 0.75), WAIT_S)


async def test_a_machine_whose_screen_can_not_be_used_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "kmsdrm")
    async with running(tmp_path, screen="on") as shown:
        await until(lambda: state(shown) == "failed" and shown.display.screen_status()["reason"], WAIT_S)
        assert "there is no screen that SDL can use: " in shown.display.screen_status()["reason"]


async def test_a_screen_that_a_desktop_has_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    plug(tmp_path / "drm", "connected")
    async with running(tmp_path / "data", drm_folder=str(tmp_path / "drm")) as shown:
        await until(lambda: shown.display.screen_status()["reason"])
        status = shown.display.screen_status()
        assert (status["state"], screen_processes()) == ("no_screen", [])
        assert "a desktop has the screen; BELVEDERE_DISPLAY_SCREEN=on" in status["reason"]


def test_who_has_the_screen() -> None:
    def of(*rows: tuple[str, float | None], present: str | None = None) -> str | None:
        return owner([Candidate(name, age) for name, age in rows], present, hold_s=10)

    assert of() is None
    assert of(("a", None)) == "a", "a placard is better than nothing"
    assert of(("a", 0.1), ("b", None)) == "a", "the last started takes it with its first picture"
    assert of(("a", 0.1), ("b", 0.2), present="a") == "b"
    assert of(("a", 0.1), ("b", 11), present="b") == "a", "one that shows nothing any more gives it back"
    assert of(("a", 20), ("b", 11), present="a") == "a", "where all are dead, it does not move"
    assert of(("a", 20), present="gone") == "a"


def test_connectors_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    assert connected(tmp_path / "absent") == []
    plug(tmp_path, "connected", "card1-HDMI-A-2")
    plug(tmp_path, "disconnected", "card1-DP-1")
    plug(tmp_path, "connected", "card1-Writeback-1")
    (tmp_path / "card1").mkdir()
    (tmp_path / "version").write_text("drm")
    assert connected(tmp_path) == ["card1-HDMI-A-2"]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BELVEDERE_DISPLAY_SCREEN.*auto, on or off"):
        Settings(screen="maybe")


def test_a_picture_fills_the_screen_in_its_own_proportions() -> None:
    assert placed(640, 360, 1920, 1080) == (0, 0, 1920, 1080)
    assert placed(640, 480, 1920, 1080) == (240, 0, 1440, 1080)
    assert placed(1920, 1080, 1280, 1024) == (0, 152, 1280, 720)
