"""What became of the cores, on this machine, whoever else is at work on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from edge.inference import cores
from edge.inference.cores import Cores, core_count

ENOUGH_S = 0.5
pytestmark = pytest.mark.skipif(not cores.STAT.exists(), reason="Linux only")


def spent(until_own_s: float) -> Cores:
    """At work until this process has used so much."""
    before, began = Cores.now(), time.process_time()
    while time.process_time() - began < until_own_s:
        pass
    return Cores.now() - before


def test_what_this_process_uses_is_its_own() -> None:
    found = spent(ENOUGH_S)
    assert found.own_s == pytest.approx(ENOUGH_S, abs=0.1)


def test_what_others_use_is_told_apart() -> None:
    # On every core, for as long as it takes: each ends with its parent's end of the pipe.
    command = [
        sys.executable,
        "-c",
        "import sys, threading\nthreading.Thread(target=sys.stdin.read).start()\nprint(flush=True)\n"
        "while threading.active_count() > 1: pass",
    ]
    burning = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(core_count())]
    try:
        for process in burning:
            assert process.stdout is not None and process.stdout.readline()
        found = spent(ENOUGH_S)
    finally:
        for process in burning:
            process.communicate()
    # One of theirs shares a core with us, the others have theirs for themselves.
    assert found.others_share > 0.5 * (1 - 1 / core_count())
    assert found.idle_s < found.others_s


def test_all_seconds_of_the_cores_are_accounted_for() -> None:
    before, began = Cores.now(), time.monotonic()
    spent(ENOUGH_S)
    found, wall = Cores.now() - before, time.monotonic() - began
    # In hundredths of a second for each core, at both ends.
    assert found.own_s + found.idle_s + found.others_s == pytest.approx(
        wall * core_count(), rel=0.1, abs=0.04 * core_count()
    )


def test_where_nothing_is_counted_what_is_not_ours_is_idle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    monkeypatch.setattr(cores, "STAT", type(cores.STAT)(tmp_path) / "none")
    found = spent(0.05)
    assert (found.others_s, found.others_share) == (0.0, 0.0) and found.own_s >= 0.05


def test_nothing_has_no_share() -> None:
    assert Cores().others_share == 0.0
