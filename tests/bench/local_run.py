"""L1: how long a developer waits: from `belvedere run` until the application has delivered its first picture, and from a saved
change until the changed code has.

Real commands, from outside; a clip of a moving square, an application without a model. Limit of the start: Python and numpy
imported once, of which the appliance needs ten, more or less at the same time; of a swap: the same, which the new code needs.
"""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.result import LIMIT, Line, Report, spread
from tests.support.clips import make_clip
from tests.support.local_run import code_of, motion_app
from tests.support.whole import Running, command

STARTS = 5
SWAPS = 9
START_REACH_S, SWAP_REACH_S = 5.0, 1.0
FREE_PORTS = {"BELVEDERE_DISPLAY_RTSP_PORT": "0", "BELVEDERE_DISPLAY_HTTP_PORT": "0"}
_SWAPPED = re.compile(r"swapped: ([0-9.]+) s")


def l1(folder: Path) -> Report:
    """One line for the start, one for a change."""
    clip = make_clip(folder / "moving.mp4", fps=30, seconds=4.0, keyframe_every_s=0.2)
    app = motion_app(folder / "watch").root
    starts = [_start(folder, app, clip) for _ in range(STARTS)]
    swaps = _swaps(folder, app, clip)
    bare = statistics.median(_bare() for _ in range(STARTS))
    return Report(
        [
            Line("L1", "belvedere run: from the command to the first delivery", "s", statistics.median(starts), limit=bare,
                 ratios={LIMIT: statistics.median(starts) / bare}, spread=spread(starts), reach=f"≤ {START_REACH_S:g} s"),
            Line("L1", "app dev: from a saved change to the new code's first frame", "s", statistics.median(swaps),
                 limit=bare, ratios={LIMIT: statistics.median(swaps) / bare}, spread=spread(swaps),
                 reach=f"≤ {SWAP_REACH_S:g} s"),
        ],
        [f"L1: the slowest start took {max(starts):.2f} s, the slowest swap {max(swaps):.2f} s"],
    )  # fmt: skip


def _start(folder: Path, app: Path, clip: Path) -> float:
    begun = time.monotonic()
    running = Running("run", folder / "logs", command("run", app, "--camera", clip), FREE_PORTS)
    try:
        running.line("video ")
        return time.monotonic() - begun
    finally:
        _end(running)


def _swaps(folder: Path, app: Path, clip: Path) -> list[float]:
    running = Running("dev", folder / "logs", command("app", "dev", app, "--camera", clip), FREE_PORTS)
    code = code_of(app)
    found: list[str] = []
    try:
        running.line("video ")
        for number in range(SWAPS):
            code.write_text(code.read_text() + f"# {number}\n")
            while len(found := _SWAPPED.findall(running.output.read_text())) <= number:
                time.sleep(0.02)
    finally:
        _end(running)
    return [float(seconds) for seconds in found]


def _end(running: Running) -> None:
    running.process.send_signal(signal.SIGINT)
    running.process.wait(30)


def _bare() -> float:
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    return time.monotonic() - begun
