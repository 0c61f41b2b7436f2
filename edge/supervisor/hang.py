"""An application that hangs: when that can be said of it, and how its last words are had.

It hangs when new frames have lain there for too long while it asked for nothing: it was neither in get, put nor call, in
any thread; or when its SDK, whose own thread speaks once a second, has gone silent. Before its first frame it has more
time: models load. It is not our matter whether a camera delivers, and a model's answer is inference's.

Python writes the stacks of all its threads to standard error when it is aborted (PYTHONFAULTHANDLER, environment.py;
the SDK sees to it where that was not heeded). Must not know what becomes of it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from edge.supervisor.control import AppStats, ControlServer
from edge.supervisor.sandbox import Running
from edge.supervisor.settings import Settings
from edge.supervisor.spec import AppSpec

LOOK_EVERY_S = 0.25
LAST_WORDS_S = 1.0
"""For an aborted process to write its stacks: milliseconds on an idle machine."""
STACK_MARK = "(most recent call first)"
"""In each thread's first line of what Python writes."""


def hangs(spec: AppSpec, stats: AppStats, idle_s: float, settings: Settings) -> str | None:
    """That it hangs, in words; None while it does not. Pure."""
    if not set(spec.camera_ids) - set(spec.paused):
        return None  # nothing there to ask for
    if stats.frames_taken and idle_s > settings.hung_after_s:
        return f"hung: it has asked for no frame in {settings.hung_after_s:g} s while its cameras deliver"
    if not stats.frames_taken and idle_s > settings.start_hung_after_s:
        return f"hung: it has not asked for its first frame in {settings.start_hung_after_s:g} s"
    return None


async def last_words(running: Running, control: ControlServer) -> None:
    """Aborts the application, so that its stacks reach its log; returns when it has ended, or a moment later."""
    if not control.abort():
        # It has not made its node: only its first process is known.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(running.pid, signal.SIGABRT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await running.wait()
