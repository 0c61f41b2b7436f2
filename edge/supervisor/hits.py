"""How often an application reached each of its limits, over all its runs, and in words: for its log, its status and, by way
of the appliance's report, for the API.

A limit that ends an application is counted by its end. One that leaves it running (a refused process, a used-up share of
the cpu, a full /tmp) is counted once a minute at most while it lasts: the counters that rise with it say nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, get_args

from edge.supervisor.limits import Hits, LimitName
from edge.supervisor.sandbox import Running
from edge.supervisor.spec import Limits

LOOK_S = 1.0
CPU_LOOK_S = 5.0
"""A share of the cpu is looked at over so long: a moment's burst is what a share is for."""
TOLD_EVERY_S = 60.0
"""Of one limit, at most, in one run."""
THROTTLED_SHARE = 0.25
"""Of the time; below, a share of the cpu does what it is for."""

Tell = Callable[[LimitName, str], None]


class Tally:
    """Of one application."""

    def __init__(self) -> None:
        self._times: dict[LimitName, int] = dict.fromkeys(get_args(LimitName), 0)
        self._messages: dict[LimitName, str] = {}

    def add(self, limit: LimitName, message: str) -> None:
        """It was reached once more."""
        self._times[limit] += 1
        self._messages[limit] = message

    def status(self) -> dict[str, Any]:
        """As in supervisor.status: all limits, since a counter has to begin at 0; words of those that were reached."""
        return {"limit_hits": dict(self._times), "limit_messages": dict(self._messages)}


class HitWatch:
    """What leaves one run of an application running, told as it is reached."""

    def __init__(self, running: Running, limits: Limits, tell: Tell) -> None:
        self._running = running
        self._limits = limits
        self._tell = tell
        self._seen = Hits()
        self._cpu_seen_ms = 0
        self._cpu_looked_s = asyncio.get_running_loop().time()
        self._silent_until: dict[LimitName, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Tells what was reached since the last look. Also for after its end."""
        hits, limits, now = self._running.hits, self._limits, asyncio.get_running_loop().time()
        if hits.pids > self._seen.pids:
            self._told(
                "pids", now, f"it is not given more than {limits.pids} processes and threads: raise pids or start fewer"
            )
        if hits.tmp_full > self._seen.tmp_full:
            self._told("disk_mb", now, f"its /tmp is full ({limits.disk_mb} MB): raise disk_mb or delete there")
        self._seen = hits
        if (window_s := now - self._cpu_looked_s) >= CPU_LOOK_S:
            waited_s = (hits.cpu_throttled_ms - self._cpu_seen_ms) / 1000
            if waited_s > THROTTLED_SHARE * window_s:
                self._told(
                    "cpu",
                    now,
                    f"its share of the cpu, {limits.cpu:g} cores, was used up for {waited_s:.1f} of {window_s:.0f} s: "
                    "raise cpu or compute less",
                )
            self._cpu_seen_ms, self._cpu_looked_s = hits.cpu_throttled_ms, now

    def _told(self, limit: LimitName, now: float, message: str) -> None:
        if now >= self._silent_until.get(limit, 0.0):
            self._silent_until[limit] = now + TOLD_EVERY_S
            self._tell(limit, message)
