"""An application that hangs: when that can be said of it, and how its last words are had.

It hangs when new frames have lain there for too long while it asked for nothing: it was neither in get, put nor call, in
any thread; or when its SDK, whose own thread speaks once a second, has gone silent. Before it has delivered for the first
time it has longer: models load, at the start or with the first frame. It is not our matter whether a camera delivers, and a model's answer is inference's.

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
LAST_WORDS_S = 5.0
"""For an aborted process to write its stacks: milliseconds on an idle machine, and seconds on one that is so busy that
applications hang."""
STACK_MARK = "(most recent call first)"
"""In each thread's first line of what Python writes."""


def hangs(spec: AppSpec, stats: AppStats, *, delivers: bool, idle_s: float, settings: Settings) -> str | None:
    """That it hangs, in words; None while it does not. Pure."""
    limit_s = settings.hung_after_s if delivers else settings.start_hung_after_s
    nothing_to_ask_for = not set(spec.camera_ids) - set(spec.paused)
    if nothing_to_ask_for or idle_s <= limit_s:
        return None
    if stats.frames_taken:
        return f"hung: it has asked for no frame in {limit_s:g} s while its cameras deliver"
    return f"hung: it has not asked for its first frame in {limit_s:g} s"


async def last_words(running: Running, control: ControlServer) -> None:
    """Aborts the application, so that its stacks reach its log; returns when it has ended, or a moment later."""
    if not control.abort():
        # It has not made its node: only its first process is known.
        pid = running.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGABRT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_S):
            await running.wait()
