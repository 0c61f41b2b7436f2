"""What is mounted where to make an unpacked archive the root of a sandbox.

The root itself is made afresh, empty; every top-level entry of the archive is bound into it, read-only, and links are
made again. So a mount point of ours never lies inside the archive's own folders, where a link of the archive could
lead it elsewhere. Where one of our targets lies below a folder of the archive, that folder is made and its entries
are bound one by one.

Reads folder listings; changes nothing; knows no particular kind of sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ALWAYS_OURS = ("/proc", "/dev", "/sys", "/tmp", "/run")
"""Made by the sandbox; what an archive has there is not shown."""

MASKED_PROC = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
)
"""What the kernel tells of the whole machine there, and no application needs."""

READ_ONLY_PROC = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What a process of root's may write there without any capability: the kernel's settings are the whole machine's."""

HOSTS = "# made by Belvedere\n127.0.0.1 localhost\n"


@dataclass(frozen=True)
class Mount:
    """One step in making the root. `folder`: made empty; `link`: a symbolic link to `source`; `read`, `write`:
    `source` is bound."""

    kind: Literal["folder", "link", "read", "write"]
    target: str
    source: str = ""


def is_bare(rootfs: Path) -> bool:
    """Whether the archive brings no system of its own, only application files."""
    return not any(os.path.lexists(rootfs / name) for name in ("usr", "bin"))


def root_mounts(rootfs: Path, ours: Collection[str]) -> Iterator[Mount]:
    """The archive's entries, without those at or below the targets in `ours`."""
    yield from _entries(rootfs, "", frozenset(ours) | frozenset(ALWAYS_OURS))


def _entries(folder: Path, prefix: str, ours: frozenset[str]) -> Iterator[Mount]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        target = f"{prefix}/{entry.name}"
        if target in ours:
            continue
        if any(own.startswith(target + "/") for own in ours):
            if entry.is_dir(follow_symlinks=False):
                yield Mount("folder", target)
                yield from _entries(Path(entry.path), target, ours)
        elif entry.is_symlink():
            yield Mount("link", target, str(Path(entry.path).readlink()))
        else:
            yield Mount("read", target, entry.path)
