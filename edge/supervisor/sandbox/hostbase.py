"""The appliance's own base: what a bare archive finds as its system. Programs and libraries of this machine,
read-only, and the Python environment that the appliance itself runs in, so that numpy, OpenCV and boto3 can be
imported. No home folder, no data folder, no configuration but what libraries need.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edge.supervisor.environment import DEFAULT_PATH
from edge.supervisor.sandbox.base import SandboxSpec
from edge.supervisor.sandbox.layout import HOSTS, Mount, is_bare, root_mounts

PYTHON_TARGET = "/opt/belvedere/python"
"""The virtual environment, wherever it lies on the machine."""

_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "OpenCL",
    "pki",
    "protocols",
    "services",
    "ssl",
    "timezone",
    "vulkan",
)
_MADE_ETC = {
    "hosts": HOSTS,
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


class HostBase:
    """The base. `folder` holds the few configuration files that are made for it."""

    def __init__(self, folder: Path) -> None:
        self._etc = folder / "etc"

    def prepare(self) -> None:
        """Writes those files."""
        self._etc.mkdir(parents=True, exist_ok=True)
        for name, text in _MADE_ETC.items():
            (self._etc / name).write_text(text)

    @property
    def hosts_file(self) -> Path:
        """/etc/hosts for every sandbox: it has only its loopback."""
        return self._etc / "hosts"

    def mounts(self) -> Iterator[Mount]:
        """The base as mounts."""
        for name in _SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                yield Mount("link", f"/{name}", str(path.readlink()))
            elif path.is_dir():
                yield Mount("read", f"/{name}", str(path))
        yield Mount("folder", "/etc")
        for name in _ETC:
            path = Path("/etc", name)
            if path.is_symlink():
                # /etc/localtime leads to /usr/share/zoneinfo/…
                yield Mount("link", f"/etc/{name}", str(path.readlink()))
            elif path.exists():
                yield Mount("read", f"/etc/{name}", str(path))
        for name in _MADE_ETC:
            yield Mount("read", f"/etc/{name}", str(self._etc / name))
        yield Mount("folder", "/root")
        if sys.prefix != sys.base_prefix:
            yield Mount("read", PYTHON_TARGET, sys.prefix)
        for prefix in _interpreter_prefixes():
            yield Mount("read", prefix, prefix)

    def targets(self) -> frozenset[str]:
        """Where the base is: an archive's entries there are not shown."""
        return frozenset(mount.target for mount in self.mounts() if mount.kind != "folder")

    def root(self, spec: SandboxSpec) -> Iterator[Mount]:
        """Everything that makes a sandbox's root, but what the sandbox itself makes (layout.ALWAYS_OURS)."""
        ours = {bind.target for bind in spec.binds}
        if is_bare(spec.rootfs):
            yield from self.mounts()
            ours |= self.targets()
        else:
            # An image made by `docker export` has an empty one.
            hosts = spec.rootfs / "etc" / "hosts"
            if not (spec.rootfs / "etc").is_symlink() and (hosts.is_file() and not hosts.is_symlink()):
                ours.add("/etc/hosts")
                yield Mount("folder", "/etc")
                yield Mount("read", "/etc/hosts", str(self.hosts_file))
        yield from root_mounts(spec.rootfs, ours)
        for bind in sorted(spec.binds, key=lambda bind: bind.target):
            yield Mount("write" if bind.writable else "read", bind.target, str(bind.source))

    @property
    def search_path(self) -> str:
        """PATH: the appliance's own Python first."""
        own = PYTHON_TARGET if sys.prefix != sys.base_prefix else sys.base_prefix
        return f"{own}/bin:{DEFAULT_PATH}"


def _interpreter_prefixes() -> list[str]:
    """Where the interpreter behind the virtual environment lies, if not in the system: by the name it is called, and
    by the real one."""
    found = {sys.base_prefix: None, str(Path(sys.base_prefix).resolve()): None}
    return [path for path in found if not path.startswith("/usr") and path != "/"]
