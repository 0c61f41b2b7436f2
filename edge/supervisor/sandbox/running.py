"""What sandboxes have in common once they are made: a process whose end is ours to see, the sandbox's first process and
the application's, output, limits, and the way through the gate.

Knows no particular kind of sandbox; those say how one is ended and what its exit code means.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from belvedere.chassis.logs import get_logger
from edge.supervisor.cgroups import Group
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.limits import Hits, LimitHit, LimitWatch, children
from edge.supervisor.sandbox import gate
from edge.supervisor.sandbox.base import Exit, OnDropped, OnLine, Running, SandboxSpec
from edge.supervisor.sandbox.output import Output

log = get_logger(__name__)

MAKE_TIMEOUT_S = 10.0
"""For the namespaces to be made: 3 ms (bubblewrap) or 60 ms (runc) on an idle machine. Then SandboxUnavailable."""
HELPER_TIMEOUT_S = 10.0
"""For the listening sockets and the first sign of the application: 20 ms on an idle machine."""
KILL_TIMEOUT_S = 5.0
"""For the last process of a killed sandbox to be gone."""
STATUS_BYTES = 1 << 16
SOCKETS_MADE = 32
"""At once: to make one takes 20 ms, to make more hardly longer."""
_SIGNALLED = 128
"""As a shell does, both kinds end with 128 + the signal that ended the application."""


class ProcessRunning(Running, abc.ABC):
    """A sandbox by means of a process of ours (`process`), which says on `status_fd` what it has made."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        spec: SandboxSpec,
        on_line: OnLine,
        on_dropped: OnDropped,
        status_fd: int,
    ) -> None:
        self.listeners: dict[int, socket.socket] = {}
        self.init: int | None = None
        """The first process in the sandbox; the application is its first child. None: it was never made."""
        self.group: Group | None = None
        self._init_fd: int | None = None
        """Its pidfd: a number alone may be another process's by the time that we look."""
        self._process = process
        self._status_fd = status_fd
        self._spec = spec
        self._on_line = on_line
        self._on_dropped = on_dropped
        self._complaint: str | None = None
        self._heard = False
        self._watch: LimitWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._over: LimitHit | None = None
        self._sockets: list[socket.socket] = []
        self._making = asyncio.Lock()
        self.ended = asyncio.create_task(self._run(), name=f"sandbox {spec.name}")
        """Its whole life."""

    @property
    def pid(self) -> int | None:
        inside = children(self.init) if self.init is not None else []
        return inside[0] if inside else None

    @property
    def hits(self) -> Hits:
        return self._watch.hits if self._watch is not None else Hits()

    def adopt(self, init: int) -> None:
        """Takes note of the sandbox's first process."""
        self.init = init
        with contextlib.suppress(ProcessLookupError):  # it has ended and is gone already
            self._init_fd = os.pidfd_open(init)

    def watch(self, every_s: float) -> None:
        """Begins to watch its limits."""
        assert self.init is not None
        folders = [bind.source for bind in self._spec.binds if bind.writable]
        self._watch = LimitWatch(self.init, self._spec.limits, self.group, folders, every_s)
        self._watching = asyncio.create_task(self._watch_limits(self._watch), name=f"limits of {self._spec.name}")

    async def _watch_limits(self, watch: LimitWatch) -> None:
        self._over = await watch.run()
        self.kill()

    async def _run(self) -> Exit:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None
        out = Output(lambda line: self._line("stdout", line), self._on_dropped)
        err = Output(lambda line: self._line("stderr", line), self._on_dropped)
        await asyncio.gather(out.read(stdout), err.read(stderr))
        await self.before_end()
        code = await self._process.wait()
        if self._init_fd is not None:
            # Who made it may end before what it made. The first process of a namespace ends last of all in it.
            await _gone(self._init_fd, self._spec.name)
            os.close(self._init_fd)
        if self._watching is not None:
            self._watching.cancel()
        if self.group is not None:
            self.group.remove()
        for sock in self._sockets:
            sock.close()
        number = code - _SIGNALLED if _SIGNALLED < code <= _SIGNALLED + signal.SIGRTMAX else -code if code < 0 else None
        refused = self.refusal(code)
        os.close(self._status_fd)
        return Exit(None if number else code, number, self._over, refused)

    async def socket(self) -> socket.socket:
        async with self._making:
            if not self._sockets:
                if self.init is None or self.ended.done():
                    raise SandboxUnavailable("the sandbox has ended")
                self._sockets = await sockets_inside(self.init, SOCKETS_MADE)
            return self._sockets.pop()

    async def before_end(self) -> None:
        """The application's output has ended; nothing of it is taken away yet."""
        if self._watch is not None and self._over is None:
            self._over = await self._watch.look_back()

    @abc.abstractmethod
    def refusal(self, code: int) -> str | None:
        """Why the entry could not be executed, where that is what `code` says."""

    @abc.abstractmethod
    def complaint(self, line: str) -> str | None:
        """What the sandbox itself says in this first line of stderr; None: it is the application's."""

    def _line(self, name: str, line: str) -> None:
        # What the sandbox says itself, it says before the application could say anything.
        if not self._heard and name == "stderr":
            self._complaint = self.complaint(line)
        self._heard = True
        self._on_line(name, line)

    async def wait(self) -> Exit:
        return await asyncio.shield(self.ended)

    @abc.abstractmethod
    def kill(self) -> None:
        """SIGKILL to everything in it."""

    async def stop(self, grace_s: float) -> Exit:
        inside = children(self.init) if self.init is not None else []
        if inside and not self.ended.done():
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


async def first_status(fd: int) -> dict[str, Any] | None:
    """The first line of status; None: it ended without one."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    text = b""
    try:
        async with asyncio.timeout(MAKE_TIMEOUT_S):
            while not text.endswith(b"\n"):  # it is written in pieces
                await ready.wait()
                ready.clear()
                piece = os.read(fd, STATUS_BYTES)
                if not piece:
                    return None
                text += piece
    except TimeoutError:
        raise SandboxUnavailable(f"no namespaces were made within {MAKE_TIMEOUT_S:.0f} s") from None
    finally:
        loop.remove_reader(fd)
    found: dict[str, Any] = json.loads(text.partition(b"\n")[0])
    return found


async def through_the_gate(init: int, go_fd: int, ports: Sequence[int]) -> dict[int, socket.socket]:
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
                await readable(ours)
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


async def readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


async def sockets_inside(init: int, count: int) -> list[socket.socket]:
    """TCP sockets of the network that this process is in. Raises SandboxUnavailable."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        helper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", gate.__file__, str(init), f"sockets:{count}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs.fileno(),
            stderr=asyncio.subprocess.PIPE,
        )
        theirs.close()
        try:
            async with asyncio.timeout(HELPER_TIMEOUT_S):
                _, errors = await helper.communicate()
        except TimeoutError:
            helper.kill()
            await helper.wait()
            errors = b"timed out"
        if helper.returncode != 0:
            reason = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise SandboxUnavailable(f"no way into the sandbox could be made: {reason}")
        _, fds, _, _ = socket.recv_fds(ours, 64, count)
        return [socket.socket(fileno=fd) for fd in fds]
