"""A sandbox as runc is told of it: the configuration of an OCI bundle, and the skeleton of its root. The configuration
is pure; the skeleton writes below the bundle only.

Every file and folder is bound from where it lies, so an image needs no copy. The application is not the first process
of its namespace (the kernel spares that one most signals, and it would have to collect orphans): tini is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.supervisor.limits import DEV_SHM_MB, OOM_SCORE_ADJ, resource_limits
from edge.supervisor.sandbox import seccomp
from edge.supervisor.sandbox.base import SandboxSpec
from edge.supervisor.sandbox.layout import MASKED_PROC, READ_ONLY_PROC, Mount

INIT_TARGET = "/run/.init"
CPU_PERIOD_US = 100_000
SHARES_PER_CORE = 1024
"""cpu.shares, or cpu.weight by runc's conversion: who has more cores has more of a busy machine."""

_DEV = ("nosuid", "noexec", "strictatime", "mode=755", "size=64k", "ro")
_KEPT_FLAGS = (
    (os.ST_NOEXEC, "noexec"),
    (os.ST_NOATIME, "noatime"),
    (os.ST_NODIRATIME, "nodiratime"),
    (os.ST_RELATIME, "relatime"),
)
"""Of the file system that is bound: in a user namespace none of these may be dropped, so each is said again."""


@dataclass(frozen=True)
class Kernel:
    """What the machine gives."""

    groups: bool
    """Whether control groups can be made; else nothing is said of resources."""
    swap: bool
    """Whether they count swap."""
    uid: int
    gid: int
    """The supervisor's, which is root's in the sandbox."""


def configuration(spec: SandboxSpec, mounts: Sequence[Mount], init: Path, kernel: Kernel, group: str) -> dict[str, Any]:
    """config.json. `group`: the path of its control group below where they are mounted."""
    limits = spec.limits
    rlimits = resource_limits(limits)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")],
        "uidMappings": [{"containerID": 0, "hostID": kernel.uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": kernel.gid, "size": 1}],
        "maskedPaths": list(MASKED_PROC),
        "readonlyPaths": list(READ_ONLY_PROC),
        "rootfsPropagation": "private",
    }
    if kernel.groups:
        linux["cgroupsPath"] = group
        linux["resources"] = _resources(spec, kernel)
    if (machine := seccomp.here()) is not None:
        linux["seccomp"] = seccomp.oci(machine)
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": True},
        "hostname": spec.name[:64],
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [INIT_TARGET, "--", *spec.argv],
            "env": [f"{name}={value}" for name, value in spec.environment.items()],
            "cwd": "/",
            "capabilities": {name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")},
            "noNewPrivileges": True,
            "oomScoreAdj": OOM_SCORE_ADJ,
            "rlimits": [{"type": name, "hard": value, "soft": value} for name, value in rlimits.items()],
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": list(_DEV)},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            _tmpfs("/dev/shm", DEV_SHM_MB, "1777"),
            _tmpfs("/tmp", limits.disk_mb, "1777"),
            *(_bind(mount) for mount in mounts if mount.kind in ("read", "write")),
            _bind(Mount("read", INIT_TARGET, str(init))),
        ],
        "linux": linux,
    }


def _resources(spec: SandboxSpec, kernel: Kernel) -> dict[str, Any]:
    limits = spec.limits
    memory = limits.memory_mb << 20
    resources: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": memory, **({"swap": memory} if kernel.swap else {})},
        "pids": {"limit": limits.pids},
        "cpu": {"shares": SHARES_PER_CORE},
    }
    if limits.cpu > 0:
        shares = max(2, round(limits.cpu * SHARES_PER_CORE))
        quota = max(1000, round(limits.cpu * CPU_PERIOD_US))
        resources["cpu"] = {"shares": shares, "quota": quota, "period": CPU_PERIOD_US}
    return resources


def _tmpfs(target: str, size_mb: int, mode: str) -> dict[str, Any]:
    options = ["nosuid", "nodev", f"mode={mode}", f"size={size_mb}m"]
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(mount: Mount) -> dict[str, Any]:
    flags = os.statvfs(mount.source).f_flag
    kept = [name for flag, name in _KEPT_FLAGS if flags & flag]
    options = ["rbind", "nosuid", "nodev", *kept, "rw" if mount.kind == "write" else "ro", "rprivate"]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}


def make_skeleton(root: Path, mounts: Sequence[Mount]) -> None:
    """The root as empty folders, empty files and links, for everything to be bound to."""
    root.mkdir(parents=True)
    for target in ("/proc", "/dev", "/tmp", "/run"):
        (root / target[1:]).mkdir()
    (root / INIT_TARGET[1:]).touch()
    for mount in mounts:
        path = root / mount.target[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if mount.kind == "link":
            path.symlink_to(mount.source)
        elif mount.kind == "folder" or Path(mount.source).is_dir():
            path.mkdir(exist_ok=True)
        else:
            path.touch()
