"""Processes that outlive those who started them: taken in by the runner, and ended.

A sandbox that is being made when its supervisor is killed waits for ever for leave to go: nobody is left to give it. As
the subreaper of everything below it the runner becomes its parent, and ends it. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection

import psutil

from belvedere.chassis.logs import get_logger

log = get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
KILL_TIMEOUT_S = 2.0


def adopt_orphans() -> None:
    """From now on this process is the parent of its descendants' orphans. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def end_orphans(own: Collection[int]) -> int:
    """Kills every child of this process that is not in `own`, with all below it; returns how many. Blocks up to
    KILL_TIMEOUT_S."""
    orphans = [child for child in psutil.Process().children() if child.pid not in own]
    family = [process for orphan in orphans for process in (orphan, *_below(orphan))]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    # What stood below them becomes a child of ours in turn, and is waited for like them.
    _, left = psutil.wait_procs(family, timeout=KILL_TIMEOUT_S)
    for process in family:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
    if family:
        log.info("ended what had outlived its parent", processes=len(family), left=len(left))
    return len(family)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
