"""Which camera stands for which node of the graph, and what a scenario asks and how it is judged. Nothing runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from belvedere.chassis.secret import Secret
from belvedere.cli.app_test import Outcome, junit
from belvedere.cli.errors import CliError
from belvedere.cli.run.cameras import Camera, choose, faults_for
from belvedere.cli.run.figures import Figures, Quantiles, Results
from belvedere.cli.run.scenario import Expectation, ScenarioInvalid, judge, load_scenarios

FIGURES = Figures(
    started_s=1.0,
    seconds=10.0,
    frames_decoded=100,
    frames_taken=80,
    frames_put=80,
    fps=8.0,
    calls=80,
    call_errors=0,
    restarts=0,
    latency_app_ms=Quantiles(5.0, 20.0),
    latency_display_ms=Quantiles(),
    infer_ms=Quantiles(10.0, 12.0),
    results=Results(80, 160, 70, 80, ("People: 2", "People: 3")),
)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[str, str]:
    made = tmp_path / "a clip.mp4", tmp_path / "b.mp4"
    for path in made:
        path.touch()
    return str(made[0]), str(made[1])


def nodes_of(cameras: tuple[Camera, ...]) -> dict[str, tuple[str, ...]]:
    return {camera.name: camera.nodes for camera in cameras}


def test_cameras_find_their_nodes(clips: tuple[str, str]) -> None:
    a, b = clips
    both = ("entrance", "exit")
    assert nodes_of(choose([a], ["entrance"])) == {"a_clip": ("entrance",)}
    assert nodes_of(choose([a], both)) == {"a_clip": both}
    assert nodes_of(choose([a, b], both)) == {"a_clip": ("entrance",), "b": ("exit",)}
    assert nodes_of(choose([f"exit={a}", b], both)) == {"a_clip": ("exit",), "b": ("entrance",)}
    assert nodes_of(choose([a, b], ["entrance"])) == {"a_clip": ("entrance",), "b": ("entrance",)}
    assert nodes_of(choose([f"exit={a}", f"entrance={a}"], both)) == {"a_clip": ("exit",), "a_clip_2": ("entrance",)}
    assert choose([], []) == ()


def test_a_real_camera_is_one_however_often_it_is_used_and_its_password_shows_nowhere() -> None:
    url = "rtsp://admin:pass-canary@10.0.0.7:554/stream?x=1"
    (camera,) = choose([f"entrance={url}", f"exit={url}"], ["entrance", "exit"])
    assert (camera.nodes, camera.url, camera.username) == (
        ("entrance", "exit"),
        "rtsp://10.0.0.7:554/stream?x=1",
        "admin",
    )
    assert camera.password == Secret("pass-canary") and "pass-canary" not in repr(camera)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ([], "no camera for entrance, exit: say --camera entrance=FILE|URL"),
        (["{a}", "{a}", "{a}"], "3 cameras for the camera nodes entrance, exit"),
        (["entrance={a}"], "no camera for exit"),
        (["gate={a}"], "the graph has no camera node gate; it has: entrance, exit"),
        (["entrance={a}", "exit={a}", "{a}"], "every camera node of the graph has its camera already"),
        (["absent.mp4"], "no video at absent.mp4"),
        (["http://camera/"], "must begin with rtsp:// or rtsps://"),
    ],
)
def test_cameras_that_do_not_fit_are_told_with_what_there_is(
    clips: tuple[str, str], choices: list[str], says: str
) -> None:
    with pytest.raises(CliError) as caught:
        choose([choice.format(a=clips[0]) for choice in choices], ["entrance", "exit"])
    assert says in str(caught.value)


def test_faults_want_a_file_and_know_cameras_by_name_and_by_node(clips: tuple[str, str], tmp_path: Path) -> None:
    script = tmp_path / "faults.toml"
    script.write_text('[[fault]]\ndo = "drop"\ncamera = "exit"\n[[fault]]\ndo = "drop"\ncamera = "b"\n')
    assert (
        len(faults_for(script, choose([f"entrance={clips[0]}", f"exit={clips[1]}"], ["entrance", "exit"])).faults) == 2
    )
    with pytest.raises(CliError, match="--fault needs a camera that is a file"):
        faults_for(script, choose(["rtsp://10.0.0.1/a"], ["exit"]))


def test_what_is_as_expected_passes_and_each_thing_that_is_not_is_named() -> None:
    lines = ["starting", "counted 3"]
    good = Expectation(
        frames=80,
        pictures=80,
        fps=7.5,
        latency_ms=20,
        boxes=160,
        boxes_mean=(1, 3),
        labels=(r"People: \d",),
        log=("counted",),
    )
    assert judge(good, FIGURES, lines) == []
    bad = Expectation(
        frames=81, pictures=81, fps=9, latency_ms=10, boxes=161, boxes_mean=(3, 4), labels=("Cars",), log=("Cars",),
        no_log=("count",),
    )  # fmt: skip
    found = judge(bad, replace(FIGURES, restarts=1, call_errors=2), lines)
    assert [text.partition(":")[0] for text in found] == [
        "frames taken", "pictures put", "frames a second", "boxes", "restarts", "failed model calls",
        "latency camera to application, p99 ms", "boxes a picture", "no label is like 'Cars'; the last",
        "no line of the log is like 'Cars'", "a line of the log is like 'count'",
    ]  # fmt: skip
    assert judge(Expectation(latency_ms=50), replace(FIGURES, latency_app_ms=Quantiles()), []) != []
    assert judge(Expectation(), FIGURES, ["Traceback (most recent call last):"]) != []


def test_a_scenario_is_read_and_other_files_are_left_alone(clips: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[run]\nframes = 5\nparameters = {fast = true, site = "lab"}\nfault = "faults.toml"\n'
        '[run.cameras]\nentrance = "a clip.mp4"\nexit = ["b.mp4", "rtsp://10.0.0.1/x"]\n[expect]\nlabels = "a"\n'
    )
    (tmp_path / "faults.toml").write_text('[[fault]]\ndo = "drop"\n')
    (scenario,) = load_scenarios(tmp_path)
    assert scenario.cameras == (f"entrance={clips[0]}", f"exit={clips[1]}", "exit=rtsp://10.0.0.1/x")
    assert (scenario.frames, scenario.seconds, scenario.values) == (5, None, ("fast=true", "site=lab"))
    assert scenario.fault == tmp_path / "faults.toml" and scenario.expect.labels == ("a",)


def test_everything_wrong_in_scenarios_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        '[run]\nframes = -1\nseconds = 3\nonce = true\ncamera = "x.mp4"\nfault = "f"\n[expect]\nlabels = ["("]\n'
        "boxes_mean = 3\nspeed = 1\n[other]\n"
    )
    (tmp_path / "b.toml").write_text("[run")
    with pytest.raises(ScenarioInvalid) as caught:
        load_scenarios(tmp_path)
    found = "\n".join(caught.value.problems)
    for text in (
        "expect.speed: is not known", "other: is not known", "run.frames: must be a whole number", "say one of seconds",
        "x.mp4 is not there", "run.fault", "expect.boxes_mean", "expect.labels: '(' is no regular expression", "is not TOML",
    ):  # fmt: skip
        assert text in found, found


def test_build_servers_can_read_the_results() -> None:
    outcomes = [
        Outcome("good", 1.5, (), FIGURES, ("line",)),
        Outcome("bad", 2.0, ("boxes: 0, at least 1 wanted",), FIGURES, ("\x1b[31mred",)),
    ]
    text = junit(outcomes).decode()
    assert '<testsuite name="belvedere" tests="2" failures="1" time="3.500">' in text
    assert '<failure message="boxes: 0, at least 1 wanted">' in text and "\x1b" not in text
