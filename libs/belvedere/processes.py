"""What the processes of one side use: CPU seconds and memory of a process and all that it started.

Memory is the proportional set size (PSS), which counts a page shared by n processes as 1/n, so that the rows add up:
frames in shared memory are counted once. Linux only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessUse:
    """One process now."""

    name: str
    pid: int
    parent_pid: int
    cpu_seconds: float
    """User and system time since it started."""
    pss_mb: float


def tree(root_pid: int) -> list[ProcessUse]:
    """The process `root_pid` and its descendants, those that end meanwhile left out."""
    try:
        root = psutil.Process(root_pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    rows = []
    for process in processes:
        try:
            with process.oneshot():
                times, pid = process.cpu_times(), process.pid
                used_s = times.user + times.system
                rows.append(ProcessUse(_name(process.cmdline()), pid, process.ppid(), used_s, _pss_mb(pid)))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError):
            continue
    return rows


def families(uses: Sequence[ProcessUse], members: Mapping[int, str], parent: str) -> dict[int, str]:
    """Whose each process is, by pid. A family is a child of a process named `parent`, with all below it; `members` says
    of one process in each family, by its pid, whose it is. Processes of nobody are left out. Pure."""
    parents = {use.pid: use.parent_pid for use in uses}
    makers = {use.pid for use in uses if use.name == parent}

    def head(pid: int) -> int | None:
        for _ in uses:  # no longer than there are steps: the rows were read one after the other
            above = parents.get(pid)
            if above is None or above in makers:
                return None if above is None else pid
            pid = above
        return None

    known = {found: name for pid, name in members.items() if (found := head(pid)) is not None}
    heads = {use.pid: head(use.pid) for use in uses}
    return {pid: known[found] for pid, found in heads.items() if found in known}


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except PermissionError:  # a sandbox's processes hide their maps from a plain user: count what they hold resident
        return psutil.Process(pid).memory_info().rss / (1 << 20)
    return 0.0


def _name(command: list[str]) -> str:
    """What a person calls it: the module of `python -m`, the script, or the program."""
    if not command:
        return "?"
    for position, argument in enumerate(command[:-1]):
        if argument == "-m":
            return command[position + 1]
    program = Path(command[0]).name
    if program.startswith("python") and len(command) > 1:
        scripts = [Path(argument).name for argument in command[1:] if argument.endswith(".py")]
        return scripts[0] if scripts else program
    return program
