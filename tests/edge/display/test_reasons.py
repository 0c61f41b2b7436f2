"""Why a placard says that nothing comes."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from belvedere.bus import subjects
from belvedere.chassis.edge import ask
from belvedere.viewer import viewer_rtsp_password
from edge.display.composer import Composer, planes_of
from edge.display.reasons import reasons
from tests.edge.display.conftest import CAMERA, INSTANCE, KEY, output, running
from tests.edge.display.test_composer import composer, grey
from tests.support.edge_bus import edge_bus, edge_process

Array = npt.NDArray[Any]

REFUSED = "camera `front`: 401 from the camera: wrong user name or password"


def lines(luma: Array) -> int:
    """Lines of white text in a picture."""
    bright = (luma > 180).any(axis=1).astype(np.int8)
    return int((np.diff(bright, prepend=0) == 1).sum())


def written(made: Composer) -> int:
    return lines(planes_of(made.compose(110.0))[0])


def test_each_state_of_a_camera_has_its_sentence() -> None:
    status = {
        "cameras": [
            {"camera_id": "a", "state": "refused", "reason": {"code": "CAMERA_UNAUTHORIZED", "message": REFUSED}},
            {"camera_id": "b", "state": "paused", "reason": None},
            {"camera_id": "c", "state": "not_found", "reason": None},
            {"camera_id": "d", "state": "streaming", "reason": None},
        ]
    }
    assert reasons(status) == {
        "a": REFUSED,
        "b": "the camera is paused",
        "c": "the camera is not found",
        "d": "the camera delivers, the application shows nothing of it",
    }
    assert reasons({}) == {}


def test_a_placard_has_the_reason_below_the_age_and_only_on_the_stream_it_belongs_to() -> None:
    made = composer(front=grey(640, 360), back=grey(640, 360))
    assert written(made) == 1
    made.explain({"front": REFUSED})
    luma = planes_of(made.compose(110.0))[0]
    assert (lines(luma[:, :640]), lines(luma[:, 640:])) == (2, 1)
    made.update("front", grey(640, 360), (), (), 110.0)
    assert planes_of(made.compose(110.1))[0][:, :640].max() == 128, "a live picture says nothing"


def test_the_streams_of_a_second_node_have_the_cameras_reason_too() -> None:
    made = Composer("app", stale_s=1.0)
    made.update("second/front", grey(640, 360), (), (), 100.0)
    made.explain({"front": REFUSED})
    assert written(made) == 2


def test_before_any_picture_the_reasons_are_said() -> None:
    made = Composer("app", stale_s=1.0)
    assert written(made) == 1
    made.explain({"front": REFUSED, "back": REFUSED})
    assert written(made) == 2, "each reason once"


@pytest.mark.parametrize("reason", ["", " ", "x" * 5000, "two\nlines\x00and \N{PILE OF POO}", "word " * 100])
@pytest.mark.parametrize("size", [(64, 48), (640, 360)])
def test_no_reason_breaks_a_picture(reason: str, size: tuple[int, int]) -> None:
    made = composer(front=grey(*size))
    made.explain({"front": reason})
    assert made.compose(110.0).width == size[0]


async def test_an_output_hears_of_its_own_cameras_also_when_it_is_wanted_later(tmp_path: Path) -> None:
    async with running(tmp_path) as shown:
        shown.display.explain({CAMERA: REFUSED, "other": "nothing"})
        await shown.apply(output() | {"streams": {"front": CAMERA}})
        made = shown.display._videos[INSTANCE]._composer
        made.update("front", grey(640, 360), (), (), 100.0)
        assert written(made) == 2
        shown.display.explain({"other": "nothing"})
        assert written(made) == 1


async def test_what_ingest_says_on_the_bus_stands_on_the_placard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_DISPLAY_RTSP_PORT", "0")
    monkeypatch.setenv("BELVEDERE_DISPLAY_HTTP_PORT", "0")
    wanted = {
        "outputs": [output() | {"streams": {"front": CAMERA}}],
        "viewer_key": base64.b64encode(KEY).decode(),
    }
    status = {"cameras": [{"camera_id": CAMERA, "state": "refused", "reason": {"code": "X", "message": REFUSED}}]}
    async with edge_bus(tmp_path) as bus, edge_process("display", tmp_path, bus) as process:
        await ask(tmp_path, "display", "apply", wanted, timeout_s=60)
        found = await process.status(lambda status: status["outputs"])
        await bus.publish(subjects.edge_status("ingest"), status)
        url = found["outputs"][0]["rtsp_url"].replace("rtsp://", f"rtsp://viewer:{viewer_rtsp_password(KEY)}@")

        def see() -> bool:
            with av.open(url, options={"rtsp_transport": "tcp"}, timeout=30) as container:
                return any(lines(frame.to_ndarray(format="gray")) == 2 for frame in container.decode(video=0))

        async with asyncio.timeout(60):
            assert await asyncio.to_thread(see)
