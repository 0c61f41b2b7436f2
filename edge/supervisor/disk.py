"""How much an application has on the disk: its folders, and what it has deleted and still holds open.

The kernel bounds one file (RLIMIT_FSIZE) and /tmp; the sum is watched, since no file system quota can be had without
privilege and on every file system. A look costs as much as there are files, so looks come the rarer the more there are.
Must not know what the files are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

LOOK_S = 0.25
"""Between two looks, at least: at 1 GB/s it can overshoot by 250 MB."""
COST_SHARE = 0.05
"""Of a core that looking may take."""
FILES_PER_MB = 64
"""Entries that count as a megabyte each so many: empty files fill a disk's tables too."""
OVER_S = 30.0
"""One that starts with too much has so long to delete some."""
BLOCK_BYTES = 512

_PROC = Path("/proc")


def used_mb(folders: Iterable[Path]) -> int:
    """What lies in these folders (blocking)."""
    size = entries = 0
    pending = [str(folder) for folder in folders]
    while pending:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
            os.scandir(pending.pop()) as it,
        ):
            for entry in it:
                entries += 1
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * BLOCK_BYTES
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
    return (size >> 20) + entries // FILES_PER_MB


def held_mb(pids: Iterable[int], device: int) -> int:
    """Of files on this device that have no name any more and are open in these processes (blocking)."""
    seen: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for opened in (_PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    status = opened.stat()
                    if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                        seen[status.st_ino] = status.st_blocks * BLOCK_BYTES
    return sum(seen.values()) >> 20


class DiskWatch:
    """The sum of some folders against a limit."""

    def __init__(self, folders: Iterable[Path], limit_mb: int) -> None:
        self._folders = tuple(folders)
        self._limit_mb = limit_mb
        self._next = 0.0
        self._over_since: float | None = None
        self._began_over = True

    async def look(self, pids: list[int], *, last: bool = False) -> int | None:
        """What is used, once that is too much; None else, or where it is not yet time to look again. `last`: it has ended,
        by itself maybe because a write failed: who began below the limit is looked at whatever the time."""
        began = time.monotonic()
        if not self._folders or (began < self._next and not last) or (last and self._began_over):
            return None
        used = await asyncio.to_thread(self._measure, pids)
        now = time.monotonic()
        self._next = now + max(LOOK_S, (now - began) / COST_SHARE)
        if used <= self._limit_mb:
            self._began_over = False
            return None
        if self._began_over and used < 2 * self._limit_mb:
            # It found it so. It may be about to delete something.
            self._over_since = self._over_since if self._over_since is not None else now
            return used if now - self._over_since > OVER_S else None
        return used

    def _measure(self, pids: list[int]) -> int:
        return used_mb(self._folders) + held_mb(pids, self._folders[0].stat().st_dev)
