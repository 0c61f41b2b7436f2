"""What an appliance has because of its applications: files, processes, shared memory, documents. To compare before with after."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CACHES = ("assets", "cache")
"""Assets and compiled models: kept up to a limit on purpose, so that what comes again is neither fetched nor made again."""
NATS = "nats"
"""The local hub's own."""
SHARED_MEMORY = "/memfd:"


@dataclass(frozen=True)
class Remains:
    """An appliance at one moment, as far as it does not change by itself."""

    files: frozenset[str]
    """Files, folders and sockets, below the data folder; without the caches."""
    processes: Counter[str]
    """How many there are of each command line."""
    shared_memory: Counter[str]
    """By name, how many descriptors of it the processes hold."""

    def more_than(self, before: Remains) -> dict[str, Any]:
        """What is here and was not; empty: nothing."""
        more = {
            "files": sorted(self.files - before.files),
            "processes": dict(self.processes - before.processes),
            "shared memory": dict(self.shared_memory - before.shared_memory),
        }
        return {what: found for what, found in more.items() if found}


def remains(data: Path, root_pid: int) -> Remains:
    """Of the appliance with that data folder and main process."""
    processes: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    root = psutil.Process(root_pid)
    for process in (root, *root.children(recursive=True)):
        try:
            processes[" ".join(process.cmdline())] += 1
            shared.update(_shared_memory(process.pid))
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue  # it ended meanwhile
    return Remains(frozenset(_files(data)), processes, shared)


def naming(data: Path, text: str) -> list[str]:
    """Files that name `text`, by name or content; without the caches, the hub's and the processes' own logs."""
    found = []
    for name in _files(data):
        path = data / name
        if text in name or (path.is_file() and not name.startswith("logs/") and text.encode() in path.read_bytes()):
            found.append(name)
    return sorted(found)


def _files(data: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(data, followlinks=True):  # `run` may be a link
        here = Path(folder).relative_to(data)
        if here == Path():
            folders[:] = [name for name in folders if name not in (*CACHES, NATS)]
        found += [str(here / name) for name in (*folders, *files)]
    return found


def _shared_memory(pid: int) -> list[str]:
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(SHARED_MEMORY):
            found.append(target)
    return found
