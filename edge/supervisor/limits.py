"""Limits of a sandbox: what the kernel can keep for any user, and a watch over the rest.

With control groups (cgroups.py) the kernel keeps memory, processes and cpu, and the watch only asks whether one was
reached. Without, memory is measured as it is used (the kernel's own limits count address space, of which numpy and
OpenBLAS reserve much and use little) and a tree that uses too much is killed. The disk is watched either way (disk.py).
Must not know what the processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from belvedere.fleet import ReasonCode
from edge.supervisor.cgroups import Group
from edge.supervisor.disk import DiskWatch
from edge.supervisor.spec import Limits

DEV_SHM_MB = 64
"""Of /dev/shm in a sandbox."""
OPEN_FILES = 4096
"""Descriptors of one process."""
NICE = 5
"""On a busy machine cameras, models and display come before applications."""
OOM_SCORE_ADJ = 600
"""If the whole machine runs out of memory, the kernel takes an application before anything of the appliance."""

_PROC = Path("/proc")
_COUNTED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
"""What the kernel can't take back: not the pages of program files."""
_UPPER_BOUND = ("RssAnon:", "RssShmem:", "VmSwap:")


LimitName = Literal["memory_mb", "cpu", "pids", "disk_mb"]
"""As in a package's requirements and AppSpec."""


@dataclass(frozen=True)
class LimitHit:
    """Why a sandbox was ended."""

    limit: Literal["memory_mb", "pids", "disk_mb"]
    used: int
    allowed: int

    @property
    def code(self) -> ReasonCode:
        """As it is reported."""
        memory = self.limit == "memory_mb"
        return ReasonCode.APP_OUT_OF_MEMORY if memory else ReasonCode.APP_LIMIT_REACHED

    def describe(self) -> str:
        """In words, with what to do."""
        match self.limit:
            case "memory_mb":
                return f"used {self.used} MB of its {self.allowed} MB: raise memory_mb{_SAID} or keep fewer frames and tensors"
            case "disk_mb":
                return f"keeps {self.used} MB of its {self.allowed} MB on the disk: raise disk_mb{_SAID} or delete from its storage and logs"
            case "pids":
                return f"had {self.used} of its {self.allowed} processes and threads: raise pids{_SAID} or start fewer"


@dataclass(frozen=True)
class Hits:
    """Limits that were reached and leave an application running."""

    pids: int = 0
    """Processes or threads that it was not given."""
    cpu_throttled_ms: int = 0
    """Time for which it had used up its share of the cpu: as the kernel counts it, or where the share is whole cores, time
    in which it used all of them."""
    tmp_full: int = 0
    """How often its /tmp has become full."""


CPU_LOOK_S = 1.0
"""Where a share of the cpu is whole cores, it is looked at so often whether all of it is used."""
CPU_USED_UP = 0.95
"""Of such a share: who uses more would use more still."""
FILE_OVER_MB = 1
"""One file may be larger by this than all files together: so that the watch over the disk sees who fills it with one."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SAID = " (package requirements or BELVEDERE_SUPERVISOR_*)"


def resource_limits(limits: Limits) -> dict[str, int]:
    """What the kernel keeps for each process, by the name of its resource limit."""
    return {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_FSIZE": limits.disk_mb + FILE_OVER_MB << 20,
        "RLIMIT_NPROC": limits.pids,
    }


def bound(pid: int, limits: Limits) -> None:
    """Sets the resource limits of a process, which its children inherit."""
    wanted = {getattr(resource, name): value for name, value in resource_limits(limits).items()}
    if not _counts_processes_by_namespace():
        del wanted[resource.RLIMIT_NPROC]
    for what, value in wanted.items():
        hard = resource.prlimit(pid, what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, what, (value, value))
    os.setpriority(os.PRIO_PROCESS, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, pid)))
    # More is always allowed; refused only in containers that hide it, where the outer limit holds.
    with contextlib.suppress(PermissionError):
        (_PROC / str(pid) / "oom_score_adj").write_text(str(OOM_SCORE_ADJ))


def cores(limits: Limits, first: int) -> set[int] | None:
    """The cores that an application may use, from the `first`-th on; None: all."""
    usable = sorted(os.sched_getaffinity(0))
    count = max(1, round(limits.cpu + 0.49))
    if limits.cpu <= 0 or count >= len(usable):
        return None
    return {usable[(first + number) % len(usable)] for number in range(count)}


def _counts_processes_by_namespace() -> bool:
    """Before Linux 5.14, RLIMIT_NPROC counted every process of the user, those of the appliance too."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)


def children(pid: int) -> list[int]:
    """Direct children, in the order in which they were made. Empty where there is no such process."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def tree(pid: int) -> list[int]:
    """All descendants, without the process itself."""
    found: list[int] = []
    pending = children(pid)
    while pending:
        child = pending.pop()
        found.append(child)
        pending += children(child)
    return found


def used_bytes(pids: list[int], enough: int) -> int:
    """Memory of some processes together; measured exactly only where a cheap upper bound exceeds `enough`."""
    upper = sum(_sum(_PROC / str(pid) / "status", _UPPER_BOUND) for pid in pids)
    if upper <= enough:
        return upper
    return sum(_sum(_PROC / str(pid) / "smaps_rollup", _COUNTED) for pid in pids)


def in_memory_files(init: int, tmp_mb: int) -> int:
    """Bytes of the files in a sandbox's /tmp and /dev/shm: they are memory, and no process's."""
    return _used_in(init, "tmp", tmp_mb) + _used_in(init, "dev/shm", DEV_SHM_MB)


def _used_in(init: int, name: str, size_mb: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        found = os.statvfs(_PROC / str(init) / "root" / name)
        # While the sandbox is being made, its root is still the machine's.
        if found.f_blocks * found.f_frsize == size_mb << 20:
            return (found.f_blocks - found.f_bfree) * found.f_frsize
    return 0


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of some processes together, with those of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # After the name, which may hold anything: state is the 3rd field, utime stime cutime cstime the 14th to 17th.
            after = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, after[11:15]))
    return ticks / _TICKS_PER_S


def threads(pids: list[int]) -> int:
    """Threads of some processes together."""
    found = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += sum(1 for _ in (_PROC / str(pid) / "task").iterdir())
    return found


def _sum(path: Path, fields: tuple[str, ...]) -> int:
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended meanwhile
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(fields))


class LimitWatch:
    """One sandbox against its limits: what the kernel counts (`group`), and what is to be looked at."""

    def __init__(self, init: int, limits: Limits, group: Group | None, folders: Iterable[Path], every_s: float) -> None:
        """`init`: the sandbox's first process. `folders`: where it may write on the disk."""
        self.hits = Hits()
        self._init = init
        self._limits = limits
        self._group = group
        self._disk = DiskWatch(folders, limits.disk_mb)
        self._every_s = every_s
        self._tmp_full = False
        self._cores = len(cores(limits, 0) or ()) if group is None else 0
        """Of a share that is kept by affinity; 0: it is not."""
        self._cpu_used_s = 0.0
        self._cpu_looked_s = time.monotonic()

    async def run(self) -> LimitHit:
        """Returns once it is to be ended for what it uses. Never otherwise."""
        while True:
            hit = self.look() or await self._look_at_disk()
            if hit is not None:
                return hit
            await asyncio.sleep(self._every_s)

    async def look_back(self) -> LimitHit | None:
        """A last look, after its end and before its group and its files are gone."""
        return (self.look() if self._group is not None else None) or await self._look_at_disk(last=True)

    def look(self) -> LimitHit | None:
        """One look at memory, processes and cpu."""
        limits = self._limits
        if self._group is not None:
            counters = self._group.counters()
            self.hits = replace(
                self.hits,
                pids=max(self.hits.pids, counters.forks_refused),
                cpu_throttled_ms=max(self.hits.cpu_throttled_ms, counters.throttled_ms),
            )
            # The kernel has ended one of its processes: what is left would go on maimed.
            return LimitHit("memory_mb", limits.memory_mb, limits.memory_mb) if counters.oom_kills else None
        inside = tree(self._init)
        used = used_bytes(inside, limits.memory_mb << 20) + in_memory_files(self._init, limits.disk_mb)
        if used > limits.memory_mb << 20:
            return LimitHit("memory_mb", -(-used // (1 << 20)), limits.memory_mb)
        count = threads(inside)
        if count > limits.pids:
            return LimitHit("pids", count, limits.pids)
        if count >= limits.pids - 1:  # one is the sandbox's own
            self.hits = replace(self.hits, pids=self.hits.pids + 1)
        if self._cores:
            self._look_at_cpu([self._init, *inside])
        return None

    def _look_at_cpu(self, pids: list[int]) -> None:
        now = time.monotonic()
        if now - self._cpu_looked_s < CPU_LOOK_S:
            return
        used_s = cpu_seconds(pids)
        passed_s = now - self._cpu_looked_s
        if used_s - self._cpu_used_s >= CPU_USED_UP * self._cores * passed_s:
            self.hits = replace(self.hits, cpu_throttled_ms=self.hits.cpu_throttled_ms + round(1000 * passed_s))
        self._cpu_used_s, self._cpu_looked_s = used_s, now

    async def _look_at_disk(self, last: bool = False) -> LimitHit | None:
        tmp_full = _used_in(self._init, "tmp", self._limits.disk_mb) >= self._limits.disk_mb << 20
        if tmp_full and not self._tmp_full:
            self.hits = replace(self.hits, tmp_full=self.hits.tmp_full + 1)
        self._tmp_full = tmp_full
        used = await self._disk.look(tree(self._init), last=last)
        return None if used is None else LimitHit("disk_mb", used, self._limits.disk_mb)
