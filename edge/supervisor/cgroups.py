"""Control groups: where they may be made, and one for a sandbox: its limits, kept by the kernel, and how often each was
reached.

Version 1 (and hybrids of both) as root; version 2 as root, or as any user in a group that was delegated to him (a
systemd user scope, a unit with Delegate=yes). Where there are none, limits.py watches instead. Knows no sandbox.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from belvedere.chassis.logs import get_logger
from edge.supervisor.spec import Limits

log = get_logger(__name__)

NEEDED = ("memory", "pids", "cpu")
PREFIX = "belvedere-"
CPU_PERIOD_US = 100_000
SHARES_PER_CORE = 1024
WEIGHT_PER_CORE = 100
"""The kernel's defaults for one group: who has more cores has more of a busy machine."""

_PROC = Path("/proc/self")
_DELEGATED = ("user.delegate", "trusted.delegate")
"""Extended attributes that systemd puts on what it delegates."""


@dataclass(frozen=True)
class Counters:
    """What a group has come to."""

    memory_mb: int = 0
    oom_kills: int = 0
    """Processes that the kernel ended for the group's memory."""
    forks_refused: int = 0
    throttled_ms: int = 0
    """Time that its processes waited though there was a core, because the share was used up."""


@dataclass(frozen=True)
class Groups:
    """Where groups may be made: a parent folder by controller; one for all in version 2."""

    parents: Mapping[str, Path]
    unified: bool
    owner: str
    """Whose they are: several appliances on one machine take away only what is their own."""

    @property
    def _prefix(self) -> str:
        return f"{PREFIX}{self.owner}-"

    @property
    def swap(self) -> bool:
        """Whether swap is counted."""
        name = "memory.swap.max" if self.unified else "memory.memsw.limit_in_bytes"
        # Version 2 has the file in every group but the first.
        return self.unified or (self.parents["memory"] / name).exists()

    def path(self, name: str) -> str:
        """A group's name as runc takes it: from the mount point on."""
        if not self.unified:
            return f"/{self._prefix}{name}"
        return "/" + str(self.parents["memory"].relative_to(_mounted("cgroup2") or "/") / f"{self._prefix}{name}")

    def group(self, name: str) -> Group:
        """The group of that name, made or not."""
        return Group({what: parent / f"{self._prefix}{name}" for what, parent in self.parents.items()}, self.unified)

    def sweep(self) -> None:
        """Takes away the empty groups that a killed supervisor left; before any is made."""
        for parent in {*self.parents.values(), *(_hierarchies() if not self.unified else ())}:
            for left in parent.glob(f"{self._prefix}*"):
                try:
                    left.rmdir()
                except OSError as error:
                    log.warning("a control group stays", folder=str(left), error=str(error))


def find(owner: str) -> Groups | str:
    """Where `owner`'s may be made; or, in words, why nowhere (blocking)."""
    version1 = _version1()
    if set(NEEDED) <= set(version1):
        groups = Groups({name: version1[name] for name in NEEDED}, unified=False, owner=owner)
    else:
        parent = _version2()
        if isinstance(parent, str):
            return parent
        groups = Groups(dict.fromkeys(NEEDED, parent), unified=True, owner=owner)
    trial = groups.group(f"trial-{os.getpid()}")
    try:
        trial.make(Limits(cpu=1.0))
    except OSError as error:
        return f"control groups can't be made here: {error}"
    finally:
        trial.remove()
    return groups


def _mounts() -> Iterator[tuple[str, Path, list[str]]]:
    """(kind of file system, where, its options)"""
    for line in (_PROC / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        yield kind, Path(before.split(" ")[4]), options.split(",")


def _hierarchies() -> list[Path]:
    """All that are mounted: on a machine with version 1, runc makes a group in every one, also in that of version 2 beside
    them, which keeps nothing there."""
    return [where for kind, where, _ in _mounts() if kind in ("cgroup", "cgroup2")]


def _version1() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for kind, where, options in _mounts():
        if kind == "cgroup":
            found |= {name: where for name in options if name in NEEDED}
    return found


def _mounted(kind: str) -> Path | None:
    return next((where for found, where, _ in _mounts() if found == kind), None)


def _version2() -> Path | str:
    top = _mounted("cgroup2")
    if top is None:
        return "no control groups are mounted"
    own = next(line for line in (_PROC / "cgroup").read_text().splitlines() if line.startswith("0::"))[3:]
    parent = top if os.geteuid() == 0 else top / own.lstrip("/")
    if missing := sorted(set(NEEDED) - set((parent / "cgroup.controllers").read_text().split())):
        return f"the control group {own} was not given the controllers {' '.join(missing)}"
    try:
        _enable(parent)
    except OSError as error:
        return f"no control groups can be made below {own}: {error}"
    return parent


def _enable(parent: Path) -> None:
    """Gives a group's children the controllers."""
    if set(NEEDED) <= set((parent / "cgroup.subtree_control").read_text().split()):
        return
    wanted = " ".join(f"+{name}" for name in NEEDED)
    try:
        (parent / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        # A group with processes may have no children with controllers: what is in it moves one down, where the group
        # is wholly ours.
        if error.errno != errno.EBUSY or not _is_delegated(parent):
            raise
        leaf = parent / f"{PREFIX}appliance"
        leaf.mkdir(exist_ok=True)
        for pid in (parent / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
        (parent / "cgroup.subtree_control").write_text(wanted)


def _is_delegated(folder: Path) -> bool:
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


class Group:
    """One group."""

    def __init__(self, folders: Mapping[str, Path], unified: bool) -> None:
        self._folders = folders
        self._unified = unified

    def make(self, limits: Limits) -> None:
        """Makes it with these limits. Raises OSError."""
        for folder in set(self._folders.values()):
            folder.mkdir(exist_ok=True)
        memory = limits.memory_mb << 20
        quota = round(limits.cpu * CPU_PERIOD_US)
        self._write("pids", "pids.max", limits.pids)
        if self._unified:
            self._write("memory", "memory.max", memory)
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                self._write("memory", "memory.swap.max", 0)
            if limits.cpu > 0:
                self._write("cpu", "cpu.max", f"{max(1000, quota)} {CPU_PERIOD_US}")
                self._write("cpu", "cpu.weight", min(10_000, max(1, round(limits.cpu * WEIGHT_PER_CORE))))
            return
        self._write("memory", "memory.limit_in_bytes", memory)
        with contextlib.suppress(FileNotFoundError):
            self._write("memory", "memory.memsw.limit_in_bytes", memory)
        if limits.cpu > 0:
            self._write("cpu", "cpu.cfs_period_us", CPU_PERIOD_US)
            self._write("cpu", "cpu.cfs_quota_us", max(1000, quota))
            self._write("cpu", "cpu.shares", max(2, round(limits.cpu * SHARES_PER_CORE)))

    def add(self, pid: int) -> None:
        """Takes a process in; its children follow."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    def counters(self) -> Counters:
        """What it has come to; all zero once it is gone."""
        memory, pids = self._folders["memory"], self._folders["pids"]
        used = "memory.current" if self._unified else "memory.usage_in_bytes"
        oom = "memory.events" if self._unified else "memory.oom_control"
        cpu = _pairs(self._folders["cpu"] / "cpu.stat")
        throttled_ms = cpu.get("throttled_usec", 0) // 1000 + cpu.get("throttled_time", 0) // 1_000_000
        return Counters(
            memory_mb=_number(memory / used) >> 20,
            oom_kills=_pairs(memory / oom).get("oom_kill", 0),
            forks_refused=_pairs(pids / "pids.events").get("max", 0),
            throttled_ms=throttled_ms,
        )

    def remove(self) -> None:
        """Takes it away; nothing where processes are left in it."""
        for folder in set(self._folders.values()):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("a control group stays", folder=str(folder), error=str(error))

    def _write(self, controller: str, name: str, value: int | str) -> None:
        (self._folders[controller] / name).write_text(str(value))


def _number(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError, OSError):
        return int(path.read_text())
    return 0


def _pairs(path: Path) -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError, OSError):
        return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
    return {}
