"""What an appliance tells of its applications' sight."""

from __future__ import annotations

from belvedere.fleet import DesiredState, Target, TargetApplication
from edge.agent.figures import figures
from edge.agent.report import Statuses

DIGEST = "sha256:" + "a" * 64


def app(instance_id: str, desired: DesiredState = DesiredState.RUNNING) -> TargetApplication:
    return TargetApplication(instance_id, "counter", DIGEST, desired, camera_ids=("door",))


def statuses(taken: int, put: int, camera_dropped: int, display_dropped: int, count: int = 5) -> Statuses:
    latency = {"p50": 20.0, "p99": 80.0, "count": count}
    row = {"frames_taken": taken, "frames_put": put, "latency_app_ms": latency}
    return Statuses(
        cameras={"door": {"frames_dropped": camera_dropped}},
        applications={"one": row, "gone": row},
        outputs={"one": {"frames_dropped": display_dropped}},
    )


TARGET = Target("device-1", applications=(app("one"), app("gone", DesiredState.REMOVED), app("absent")))


def test_rates_and_drops_are_those_since_the_last_look() -> None:
    found = list(figures(TARGET, statuses(100, 50, 3, 1), statuses(240, 90, 7, 2), 10.0))
    assert {figure.name: figure.value for figure in found} == {
        "FrameRate": 14.0, "ResultRate": 4.0, "DroppedFrames": 5.0, "Latency": 80.0,
    }  # fmt: skip
    assert {tuple(figure.dimensions.values()) for figure in found} == {("counter", "one")}


def test_counters_that_began_anew_count_from_nothing_and_no_latency_is_no_figure() -> None:
    found = {
        figure.name: figure.value
        for figure in figures(TARGET, statuses(100, 50, 3, 1), statuses(20, 0, 0, 0, count=0), 10.0)
    }
    assert found == {"FrameRate": 2.0, "ResultRate": 0.0, "DroppedFrames": 0.0}


def test_nothing_is_said_of_what_was_not_there_before() -> None:
    assert not list(figures(TARGET, Statuses(), statuses(1, 1, 0, 0), 10.0))
