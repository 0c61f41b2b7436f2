"""When it can be said that an application hangs."""

from __future__ import annotations

import pytest

from edge.supervisor.control import AppStats
from edge.supervisor.hang import hangs
from edge.supervisor.settings import Settings
from edge.supervisor.spec import AppSpec

SETTINGS = Settings(hung_after_s=60, start_hung_after_s=600)
TAKEN = AppStats(hello=True, frames_taken=5)
STREAM = {"camera_id": "front", "stream_id": "front", "stream_uri": ""}


def spec(*, cameras: bool = True, paused: tuple[str, ...] = ()) -> AppSpec:
    inputs = {"video_in": {"type": "media", "streams": [STREAM]}} if cameras else {}
    plain = {"instance_id": "i", "name": "n", "node": "c", "rootfs": "/x", "entry": {}, "inputs": inputs}
    return AppSpec.from_plain({**plain, "paused": list(paused)}, "spec")


@pytest.mark.parametrize(
    ("delivers", "idle_s", "hung"), [(True, 60, False), (True, 61, True), (False, 61, False), (False, 601, True)]
)
def test_before_its_first_delivery_it_has_longer(delivers: bool, idle_s: float, hung: bool) -> None:
    said = hangs(spec(), TAKEN, delivers=delivers, idle_s=idle_s, settings=SETTINGS)
    assert (said is not None) is hung
    assert said is None or "asked for no frame" in said


def test_one_without_cameras_or_with_all_of_them_paused_has_nothing_to_ask_for() -> None:
    for one in (spec(cameras=False), spec(paused=("front",))):
        assert hangs(one, TAKEN, delivers=True, idle_s=9999, settings=SETTINGS) is None


def test_one_that_never_asked_is_told_so() -> None:
    said = hangs(spec(), AppStats(), delivers=False, idle_s=601, settings=SETTINGS)
    assert said == "hung: it has not asked for its first frame in 600 s"
