"""Sandboxes by runc: what an appliance uses as root, where the kernel keeps every limit; and without root, where control
groups were delegated.

A start: a bundle is written (oci.py), the keeper makes the container (keeper.py); while it waits, the listening sockets are
made in its network namespace (gate.py); then the keeper is told to start it. The order, the limits and the watch are
bubblewrap's; only what makes the namespaces differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from belvedere.chassis.logs import get_logger
from edge.supervisor.cgroups import Groups
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.limits import NICE, cores
from edge.supervisor.sandbox import keeper, oci
from edge.supervisor.sandbox.base import OnDropped, OnLine, Running, Sandbox, SandboxSpec, ignore_dropped
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.layout import Mount
from edge.supervisor.sandbox.running import MAKE_TIMEOUT_S, ProcessRunning, first_status, through_the_gate
from edge.supervisor.spec import Limits

log = get_logger(__name__)

INIT_PROGRAMS = ("/usr/bin/tini-static", "/usr/bin/docker-init", "/usr/libexec/docker/docker-init")
"""The same program, statically linked, by whoever installed it."""
DELETE_TIMEOUT_S = 10.0
"""For `runc delete` of what a killed supervisor left."""

_COMPLAINT = "[FATAL tini "
_FAILED = " failed: "
_NOT_EXECUTED = (126, 127)


class Runc(Sandbox):
    """Makes sandboxes with runc. `folder` holds bundles and runc's own state; `base` is what bare archives run on."""

    name = "runc"

    def __init__(
        self,
        base: HostBase,
        folder: Path,
        *,
        program: str = "",
        memory_check_s: float = 0.1,
        groups: Groups | None = None,
    ) -> None:
        """`groups`: where control groups may be made; None: limits are watched."""
        self._base = base
        self._folder = folder
        self._wanted = program
        self._memory_check_s = memory_check_s
        self._groups = groups
        self._kernel = oci.Kernel(groups is not None, groups is not None and groups.swap, os.geteuid(), os.getegid())
        self._started = 0
        self._alive: set[str] = set()
        """Containers of ours."""
        self._tried = False

    @functools.cached_property
    def _programs(self) -> tuple[Path, Path]:
        """runc and tini."""
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
        runc = shutil.which(self._wanted or "runc", path=path)
        init = next((Path(program) for program in INIT_PROGRAMS if os.access(program, os.X_OK)), None)
        if runc is None or init is None:
            missing = self._wanted or "runc" if runc is None else "tini"
            raise SandboxUnavailable(f"{missing} is not there: install the system packages runc and tini")
        return Path(runc), init

    @property
    def _state(self) -> Path:
        return self._folder / "state"

    async def prepare(self) -> None:
        """Takes away what a killed supervisor left, and tries a container."""
        await asyncio.to_thread(self._base.prepare)
        await asyncio.to_thread(lambda: self._folder.mkdir(mode=0o700, parents=True, exist_ok=True))
        runc, _ = self._programs
        for left in await asyncio.to_thread(self._left):
            await self._delete(runc, left)
        empty = self._folder / "empty"
        await asyncio.to_thread(lambda: empty.mkdir(exist_ok=True))
        said: list[str] = []
        self._tried = True
        try:
            spec = SandboxSpec("trial", empty, ("true",), {"PATH": self._base.search_path}, limits=Limits(memory_mb=64))
            running = await self.start(spec, lambda _, line: said.append(line))
            async with asyncio.timeout(MAKE_TIMEOUT_S):
                end = await running.wait()
        except TimeoutError:
            self._tried = False
            await running.stop(0)
            raise SandboxUnavailable(f"{runc} does not run a container within {MAKE_TIMEOUT_S:.0f} s") from None
        except SandboxUnavailable:
            self._tried = False
            raise
        if end.code != 0:
            self._tried = False
            raise SandboxUnavailable(f"{runc} can't run a container here: {end.describe()} {' '.join(said)}")

    def _left(self) -> list[str]:
        found = [entry.name for entry in self._state.iterdir()] if self._state.is_dir() else []
        return [name for name in found if name not in self._alive]

    async def _delete(self, runc: Path, name: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(str(runc), "--root", str(self._state), "delete", "--force", name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DELETE_TIMEOUT_S):
                _, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            errors = b"timed out"
        if process.returncode != 0:
            log.warning(
                "a container that was left stays", container=name, error=errors.decode(errors="replace").strip()
            )
        await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)

    async def start(self, spec: SandboxSpec, on_line: OnLine, on_dropped: OnDropped = ignore_dropped) -> Running:
        if not self._tried:
            await self.prepare()
        runc, init_program = self._programs
        self._started += 1
        name = uuid.uuid4().hex
        bundle = self._folder / name
        await asyncio.to_thread(self._write, bundle, spec, init_program, name)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            status_read, status_write = os.pipe()
            ours.callback(os.close, status_read)
            theirs.callback(os.close, status_write)
            go_read, go_write = os.pipe()
            theirs.callback(os.close, go_read)
            ours.callback(os.close, go_write)
            arguments = (runc, self._state, bundle, name, bundle / "runc.log", status_write, go_read)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", keeper.__file__, *map(str, arguments)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(status_write, go_read),
                start_new_session=True,
            )
            theirs.close()
            ours.pop_all()
            ours.callback(os.close, go_write)
            running = _Container(process, spec, on_line, on_dropped, status_read, bundle)
            self._alive.add(name)
            running.ended.add_done_callback(lambda _: self._alive.discard(name))
            try:
                made = await first_status(status_read)
                if made is None or "error" in made:
                    said = made["error"] if made is not None else "its keeper ended"
                    raise SandboxUnavailable(f"runc can't make a container: {said}")
                first = int(made["child-pid"])
                running.adopt(first)
                if self._groups is not None:
                    running.group = self._groups.group(name)
                elif (chosen := cores(spec.limits, self._started)) is not None:
                    os.sched_setaffinity(first, chosen)
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, first, max(NICE, os.getpriority(os.PRIO_PROCESS, first)))
                running.listeners = await through_the_gate(first, go_write, spec.ports)
                running.watch(self._memory_check_s)
            except BaseException:
                running.kill()
                await running.wait()
                self._tried = False  # something of it may be left
                raise
        return running

    def _write(self, bundle: Path, spec: SandboxSpec, init: Path, name: str) -> None:
        mounts = [*self._base.root(spec)]
        mounts = list(_with_submounts(mounts))
        oci.make_skeleton(bundle / "rootfs", mounts)
        group = self._groups.path(name) if self._groups is not None else f"/belvedere-{name}"
        document: dict[str, Any] = oci.configuration(spec, mounts, init, self._kernel, group)
        (bundle / "config.json").write_text(json.dumps(document))


class _Container(ProcessRunning):
    def __init__(
        self,
        process: asyncio.subprocess.Process,
        spec: SandboxSpec,
        on_line: OnLine,
        on_dropped: OnDropped,
        status_fd: int,
        bundle: Path,
    ) -> None:
        self._bundle = bundle
        super().__init__(process, spec, on_line, on_dropped, status_fd)

    async def before_end(self) -> None:
        await super().before_end()
        # The keeper waits for this to take the container away.
        self._let_go()
        await self._process.wait()
        await asyncio.to_thread(shutil.rmtree, self._bundle, ignore_errors=True)

    def refusal(self, code: int) -> str | None:
        return self._complaint if code in _NOT_EXECUTED else None

    def complaint(self, line: str) -> str | None:
        if not line.startswith(_COMPLAINT) or _FAILED not in line:
            return None
        # [FATAL tini (7)] exec python2.6 failed: No such file or directory
        entry, _, problem = line.partition("] exec ")[2].rpartition(_FAILED)
        return f"{entry}: {problem}"

    def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                if self.init is not None:
                    os.kill(self.init, signal.SIGKILL)
                else:
                    # runc itself hangs, and its keeper waits for it.
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._let_go()

    def _let_go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def _with_submounts(mounts: Sequence[Mount]) -> Iterator[Mount]:
    """File systems that are mounted below what is bound come with it, and not read-only: each is bound again."""
    table = Path("/proc/self/mountinfo").read_text()
    points = [line.split(" ")[4].encode().decode("unicode_escape") for line in table.splitlines()]
    for mount in mounts:
        yield mount
        if mount.kind == "read" and mount.source != "/":
            for point in points:
                if point.startswith(mount.source + "/"):
                    yield Mount("read", mount.target + point.removeprefix(mount.source), point)
