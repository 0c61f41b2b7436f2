"""Limits that were reached and leave an application running, told in its log: a refused process, a used-up share of the
cpu. Those that end it are told by its reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.supervisor.sandbox import Running
from edge.supervisor.spec import Limits

LOOK_S = 5.0
TOLD_EVERY_S = 60.0
"""Of one limit, at most: the counters in its status go on."""
THROTTLED_SHARE = 0.25
"""Of the time; below, a share of the cpu does what it is for."""


async def tell_hits(running: Running, limits: Limits, note: Callable[[str], None]) -> None:
    """Until cancelled."""
    loop = asyncio.get_running_loop()
    seen = running.hits
    silent_until = {"pids": 0.0, "cpu": 0.0}
    while True:
        await asyncio.sleep(LOOK_S)
        hits, now = running.hits, loop.time()
        waited_s = (hits.cpu_throttled_ms - seen.cpu_throttled_ms) / 1000
        if hits.pids > seen.pids and now >= silent_until["pids"]:
            silent_until["pids"] = now + TOLD_EVERY_S
            note(f"it is not given more than {limits.pids} processes and threads: raise pids or start fewer")
        if waited_s > THROTTLED_SHARE * LOOK_S and now >= silent_until["cpu"]:
            silent_until["cpu"] = now + TOLD_EVERY_S
            note(
                f"it waited {waited_s:.1f} of {LOOK_S:.0f} s for the cpu: its share is {limits.cpu:g} cores, raise cpu"
            )
        seen = hits
