"""B10: how long an application is away: from `kill -9` until it runs again, and from the limit of a hang until it has been
noticed, dumped, ended and runs again. "Runs" is the supervisor's word for it: a frame taken and a picture put.

A real supervisor process, bus and sandbox; the camera is a writer of numbers, 25 a second. Limit: the same program, with
the same packages, started from a shell until it has its first frame's worth of imports behind it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from belvedere.chassis.paths import EdgePaths
from tests.bench.result import LIMIT, Line, Report, spread
from tests.edge.supervisor.appliance import Appliance, running_appliance
from tests.edge.supervisor.archives import app_spec
from tests.edge.supervisor.frames import MEDIA, Frames

ROUNDS = 9
HANGS = 3
HUNG_AFTER_S = 2.0
SETTLE_S = 1.5
RESTART_REACH_S, HANG_REACH_S = 1.0, 3.0
APP = """
import os, panoramasdk, time
node = panoramasdk.node()
hang = "/opt/aws/panorama/storage/hang"
while True:
    streams = node.inputs.video_in.get()
    node.outputs.video_out.put(streams)
    if os.path.exists(hang):
        os.remove(hang)
        time.sleep(3600)
"""
INSTANCE = "applicationInstance-1"


def b10(folder: Path) -> Report:
    """One line a way to be gone."""
    settings = {"HUNG_AFTER_S": str(HUNG_AFTER_S), "HEALTHY_AFTER_S": "0.2"}
    os.environ.update({f"BELVEDERE_SUPERVISOR_{name}": value for name, value in settings.items()})
    try:
        killed, hung = asyncio.run(_rounds(folder))
    finally:
        for name in settings:
            del os.environ[f"BELVEDERE_SUPERVISOR_{name}"]
    bare = statistics.median(_bare_start() for _ in range(ROUNDS))
    away = Line(
        "B10", "kill -9 of an application until it runs again", "s", statistics.median(killed), limit=bare,
        ratios={LIMIT: statistics.median(killed) / bare}, spread=spread(killed), reach=f"≤ {RESTART_REACH_S:g} s",
    )  # fmt: skip
    noticed = Line(
        "B10", f"a hang: beyond its limit of {HUNG_AFTER_S:g} s until it runs again", "s", statistics.median(hung),
        spread=spread(hung), reach=f"≤ {HANG_REACH_S:g} s",
    )  # fmt: skip
    return Report(
        [away, noticed], [f"B10: the slowest restart took {max(killed):.2f} s, the slowest hang {max(hung):.2f} s"]
    )


async def _rounds(folder: Path) -> tuple[list[float], list[float]]:
    outputs = {"video_out": {"type": "media", "connected": False}}
    async with running_appliance(folder) as appliance, Frames(folder):
        spec = app_spec(folder, APP, inputs={"video_in": MEDIA}, outputs=outputs)
        await appliance.apply(spec)
        return [await _killed(appliance) for _ in range(ROUNDS)], [await _hung(appliance) for _ in range(HANGS)]


async def _running(appliance: Appliance, restarts: int = 0) -> dict[str, Any]:
    return await appliance.app(lambda app: app["state"] == "running" and app["restarts"] >= restarts)


async def _settled(appliance: Appliance) -> dict[str, Any]:
    """It has run for long enough that its restart does not wait, and its status is of now."""
    await _running(appliance)
    await asyncio.sleep(SETTLE_S)
    return await _running(appliance)


async def _killed(appliance: Appliance) -> float:
    before = await _settled(appliance)
    began = time.monotonic()
    os.kill(before["pid"], signal.SIGKILL)
    await _running(appliance, before["restarts"] + 1)
    return time.monotonic() - began


async def _hung(appliance: Appliance) -> float:
    before = await _settled(appliance)
    hang = EdgePaths(appliance.data).storage(INSTANCE) / "hang"
    hang.touch()
    while hang.exists():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.005)
    began = time.monotonic()
    await _running(appliance, before["restarts"] + 1)
    return time.monotonic() - began - HUNG_AFTER_S


def _bare_start() -> float:
    began = time.monotonic()
    libs = str(Path(__file__).resolve().parents[2] / "libs")
    subprocess.run(
        [sys.executable, "-c", "import numpy, panoramasdk"], check=True, env={**os.environ, "PYTHONPATH": libs}
    )
    return time.monotonic() - began
