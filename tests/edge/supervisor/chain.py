"""An appliance whose every part between a camera and an application is real: a camera's process, `edge.ingest`, `.inference`,
`.display`, `.supervisor` and its sandboxes (only the agent is not there), and an innocent application on it, whose frames
are counted while others run beside it.

Frames are counted by what is on them: the clip numbers its pictures, so that a frame counts as lost wherever between camera
and application it was lost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from belvedere.chassis.edge import ask
from belvedere.chassis.paths import EdgePaths
from tests.edge.supervisor.appliance import WAIT_S, Appliance, running_appliance
from tests.edge.supervisor.archives import app_spec
from tests.edge.supervisor.frames import CAMERA, MEDIA
from tests.support.clips import SQUARE_STEP, make_clip, square
from tests.support.edge_bus import RunningProcess, edge_process
from tests.support.models import tiny_onnx
from tests.support.waiting import until
from tests.support.whole import Running, command

INNOCENT, HOSTILE = "innocent", "hostile"
FPS = 10
WIDTH, HEIGHT = 320, 256
NUMBERS = 32
"""Pictures of the clip, each with its square elsewhere: what their numbers are modulo."""
RUN = 20
"""So many of the camera's frames in a row, and none of them lost, are what the innocent one has to get."""
LOST_SHARE, STRETCH = 0.05, 100
"""Of the camera's frames from the other one's beginning on, or of the last so many. It is none on an idle machine; one that does
other things besides this test loses a few now and then, also for an application that is alone, and then none for a while. So
where it is more, it is looked at for longer: what the other one does goes on.
"""
UNPACK_ENTRIES, UNPACK_MB = 20_000, 64
"""Of one archive: reached within seconds."""
LIMITS = {"memory_mb": 160, "cpu": 0.0, "pids": 40, "disk_mb": 32}
MODEL = {"model_id": "net-FP32", "inputs": [{"name": "x", "shape": [1, 3], "dtype": "float32"}]}

DECENT = f"""
import numpy, panoramasdk
node = panoramasdk.node()
with open("/opt/aws/panorama/storage/frames", "a", buffering=1) as out:
    while True:
        streams = node.inputs.video_in.get()
        assert node.call({{"x": numpy.ones((1, 3), "float32")}}, "net") is not None
        for stream in streams:
            if not stream.is_cached:
                bright = stream.image[{HEIGHT} // 2, :, 1] > 180
                out.write(f"{{round(int(bright.argmax()) / {SQUARE_STEP}) % {NUMBERS}}}\\n")
        node.outputs.video_out.put(streams)
"""


class Site:
    """The appliance and its camera."""

    def __init__(self, appliance: Appliance, ingest: RunningProcess) -> None:
        self.appliance = appliance
        self.ingest = ingest
        self.innocent = self.spec(DECENT, INNOCENT)
        self._known = 0
        """Frames of the innocent one when the other began."""

    def spec(self, code: str, instance_id: str = HOSTILE, **changes: Any) -> dict[str, Any]:
        ports = {
            "inputs": {"video_in": MEDIA},
            "outputs": {"video_out": {"type": "media", "connected": True}},
            "models": {"net": MODEL},
        }
        return app_spec(self.appliance.data, textwrap.dedent(code), instance_id, **{**ports, **changes})

    def begin(self) -> None:
        """From here on frames are counted."""
        self._known = len(self.numbers())

    async def beside(self, code: str, **changes: Any) -> None:
        """Lets it run beside the innocent one."""
        self.begin()
        await self.appliance.apply(self.innocent, self.spec(code, **{"limits": LIMITS, **changes}))

    async def hostile(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Its status, once it is so."""
        return await self.appliance.app(lambda app: bool(wanted(app)), HOSTILE)

    async def fails(self, code: str) -> str:
        """The reason's message."""
        found = await self.hostile(lambda app: app["last_error"] and app["last_error"]["code"] == code)
        return str(found["last_error"]["message"])

    def numbers(self) -> list[int]:
        """Of the frames that the innocent one has got so far."""
        file = EdgePaths(self.appliance.data).storage(INNOCENT) / "frames"
        text = file.read_text() if file.exists() else ""
        return [int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    async def innocent_goes_on(self) -> None:
        """It gets what the camera sends, every frame, and nobody has touched it."""

        def row() -> dict[str, Any]:
            rows = self.appliance.process.statuses[-1]["applications"]
            return next(app for app in rows if app["instance_id"] == INNOCENT)

        before, at = row(), len(self.numbers())
        whole: list[int] = []

        def undisturbed() -> bool:
            numbers = self.numbers()
            whole[:] = steps(numbers[self._known :])
            lately = whole[-STRETCH:]
            return longest_run(steps(numbers[at:])) >= RUN and sum(lately) - len(lately) <= LOST_SHARE * sum(lately)

        try:
            await until(undisturbed, WAIT_S)
        except TimeoutError:
            pytest.fail(f"from one frame to the next since the other one began, where 1 is none lost: {whole}")
        after = row()
        assert (after["state"], after["restarts"], after["reason"]) == ("running", 0, None)
        assert after["pid"] == before["pid"]
        [camera] = self.ingest.statuses[-1]["cameras"]
        assert (camera["state"], camera["reconnects"], camera["drops"]["no_slot"]) == ("streaming", 0, 0)

    async def gone(self) -> None:
        """Only the innocent one is left."""
        await self.appliance.apply(self.innocent, keep=[INNOCENT])
        await self.appliance.process.status(
            lambda status: [app["instance_id"] for app in status["applications"]] == [INNOCENT], WAIT_S
        )


def steps(numbers: list[int]) -> list[int]:
    """From each frame to the next: 1 where none was lost between them."""
    return [(after - before) % NUMBERS for before, after in itertools.pairwise(numbers)]


def longest_run(steps: list[int]) -> int:
    """Frames in a row."""
    return max(
        (sum(1 for _ in run) for whole, run in itertools.groupby(steps, lambda step: step == 1) if whole), default=0
    )


@contextlib.asynccontextmanager
async def running_site(data: Path) -> AsyncIterator[Site]:
    """The appliance in `data`, its innocent application running."""
    clip = make_clip(data / "clip.mp4", width=WIDTH, height=HEIGHT, fps=FPS, seconds=NUMBERS / FPS)
    assert len({square(number, WIDTH, HEIGHT)[0] for number in range(NUMBERS)}) == NUMBERS
    async with contextlib.AsyncExitStack() as stack:
        env = stack.enter_context(pytest.MonkeyPatch.context())
        env.setenv("BELVEDERE_SUPERVISOR_STOP_GRACE_S", "0.5")
        env.setenv("BELVEDERE_SUPERVISOR_UNPACK_ENTRIES", str(UNPACK_ENTRIES))
        env.setenv("BELVEDERE_SUPERVISOR_UNPACK_MB", str(UNPACK_MB))
        env.setenv("BELVEDERE_DISPLAY_RTSP_PORT", "0")
        env.setenv("BELVEDERE_DISPLAY_HTTP_PORT", "0")
        (secret := data / "password").write_text("secret")
        arguments = command("camera", "serve", clip, "--port", 0, "--username", "me", "--password-file", secret)
        serve = Running("camera", data / "logs", arguments, {})
        stack.callback(serve.stop)
        appliance = await stack.enter_async_context(running_appliance(data))
        started = {}
        for name in ("ingest", "inference", "display"):
            started[name] = await stack.enter_async_context(edge_process(name, data, appliance.bus))
        both = [INNOCENT, HOSTILE]
        url = (await asyncio.to_thread(serve.line, "rtsp://")).split()[-1]
        camera = {"camera_id": CAMERA, "url": url, "username": "me", "password": "secret", "paused": False}
        model = {**MODEL, "path": str(tiny_onnx(data / "net.onnx")), "framework": "ONNX", "precision": "FP32"}
        outputs = [{"instance_id": each, "application": each, "node": "screen", "cameras": [CAMERA]} for each in both]
        viewer_key = base64.b64encode(bytes(32)).decode()
        await ask(data, "ingest", "apply", {"cameras": [camera]})
        await ask(data, "inference", "apply", {"models": [model], "clients": both})
        await ask(data, "display", "apply", {"outputs": outputs, "viewer_key": viewer_key})
        site = Site(appliance, started["ingest"])
        await appliance.apply(site.innocent)
        await appliance.app(lambda app: app["state"] == "running", INNOCENT)
        await until(lambda: longest_run(steps(site.numbers())) >= RUN, WAIT_S)  # alone
        yield site
