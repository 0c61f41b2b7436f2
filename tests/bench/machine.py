"""The machine under a benchmark: which core runs what, CPU time and memory of a process, how loaded it all is."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from belvedere import processes


def cores() -> list[int]:
    """Those this process may use."""
    return sorted(os.sched_getaffinity(0))


SERVER_CORE = cores()[0]
CLIENT_CORE = cores()[-1]
"""The same one where there is one only."""


@contextlib.contextmanager
def on(*wanted: int) -> Iterator[None]:
    """This thread, and the processes that it starts inside, run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(wanted))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all below it, since they started."""
    return sum(process.cpu_seconds for process in processes.tree(pid))


def resident_mb(pid: int) -> float:
    """RSS of one process, in MB."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def described() -> str:
    """One line for the head of a report."""
    memory = psutil.virtual_memory().total / (1 << 30)
    load = os.getloadavg()[0]
    return f"{len(cores())} cores ({_model()}), {memory:.0f} GiB, Python {platform.python_version()}, load {load:.1f}"


def _model() -> str:
    with Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
