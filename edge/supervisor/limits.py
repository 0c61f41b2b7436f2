"""Bounds that hold without privilege: resource limits of the kernel, and a watch over the memory of a process tree.

The kernel's own limits on memory count address space, of which numpy and OpenBLAS reserve much and use little; so
memory is measured as it is used and a tree that uses too much is killed. Must not know what the processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import resource
from pathlib import Path

from edge.supervisor.spec import Limits

OPEN_FILES = 4096
"""Descriptors of one process."""
OOM_SCORE_ADJ = 600
"""If the whole machine runs out of memory, the kernel takes an application before anything of the appliance."""

_PROC = Path("/proc")
_COUNTED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
"""What the kernel can't take back: not the pages of program files."""
_UPPER_BOUND = ("RssAnon:", "RssShmem:", "VmSwap:")


def bound(pid: int, limits: Limits) -> None:
    """Sets the resource limits of a process, which its children inherit."""
    disk = limits.disk_mb << 20
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: disk,
    }
    if _counts_processes_by_namespace():
        wanted[resource.RLIMIT_NPROC] = limits.pids
    for what, value in wanted.items():
        hard = resource.prlimit(pid, what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.prlimit(pid, what, (value, value))
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


def _sum(path: Path, fields: tuple[str, ...]) -> int:
    try:
        text = path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended meanwhile
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(fields))


async def watch_memory(pid: int, limit_mb: int, every_s: float) -> int:
    """Returns, in MB, what the descendants of `pid` use once that is more than the limit. Never otherwise."""
    while True:
        used = used_bytes(tree(pid), limit_mb << 20)
        if used > limit_mb << 20:
            return -(-used // (1 << 20))
        await asyncio.sleep(every_s)
