"""What becomes of this machine's cores: used by this process, by others, or by nobody. Must not know what is computed.

Linux counts it for each core; elsewhere nothing is known of others, and all that this process does not use counts as idle.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
# Fields of a core's line: user nice system idle iowait irq softirq steal; the two that follow are in user and nice already.
IDLE, IOWAIT, FIELDS = 3, 4, 8


def core_count() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Cores:
    """Seconds of the cores that this process may use, as sums over all of them: a moment's counters, or what lies between two.

    Linux counts in hundredths of a second: only sums over some tenths mean something.
    """

    own_s: float = 0.0
    idle_s: float = 0.0
    others_s: float = 0.0

    @classmethod
    def now(cls) -> Cores:
        """The counters at this moment; `idle_s` and `others_s` mean something as differences only."""
        own = time.process_time()
        try:
            idle, used = _counted()
        except (OSError, ValueError, IndexError):
            return cls(own, time.monotonic() * core_count() - own, 0.0)
        return cls(own, idle, used - own)

    @property
    def others_share(self) -> float:
        """0 to 1."""
        whole = self.own_s + self.idle_s + self.others_s
        return min(1.0, max(0.0, self.others_s / whole)) if whole > 0 else 0.0

    def __sub__(self, before: Cores) -> Cores:
        return Cores(self.own_s - before.own_s, self.idle_s - before.idle_s, self.others_s - before.others_s)

    def __add__(self, more: Cores) -> Cores:
        return Cores(self.own_s + more.own_s, self.idle_s + more.idle_s, self.others_s + more.others_s)


def _counted() -> tuple[float, float]:
    """(idle, used) seconds since the start of the machine."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    hertz = os.sysconf("SC_CLK_TCK")
    idle = used = 0
    with STAT.open(encoding="ascii") as file:
        for line in file:
            name, *fields = line.split()
            if name in ours:
                ticks = [int(field) for field in fields[:FIELDS]]
                free = ticks[IDLE] + ticks[IOWAIT]
                idle += free
                used += sum(ticks) - free
    return idle / hertz, used / hertz
