"""The life of one application: unpack, start, watch, restart with backoff, stop.

    starting ──first frames (and first picture, where somebody waits for it)──► running
       │  └─ nothing for NO_OUTPUT_S: still starting, with a reason                │
       └──────────── it ended, or could not start ──► failed ◄─────────────────────┘
    failed ──after the backoff it is started again; failed until it delivers──► running
    running ──asks for no frame while there are some──► its stacks into the log, killed ──► failed
    any ──stop──► stopped

Knows its sandbox only by the seam, and nothing of the other applications.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from belvedere.fleet import Reason, ReasonCode
from edge.supervisor import environment, hang
from edge.supervisor.control import AppStats, ControlServer, remove_socket_folder
from edge.supervisor.errors import ArchiveRefused, StartFailed, SupervisorError
from edge.supervisor.hits import HitWatch, Tally
from edge.supervisor.limits import LimitName
from edge.supervisor.logs import CONSOLE, AppLog, FolderTail, RateLimit
from edge.supervisor.ports import Claim
from edge.supervisor.sandbox import Exit, Running
from edge.supervisor.spec import AppSpec
from edge.supervisor.surroundings import Surroundings, sandbox_spec, ways_out

log = get_logger(__name__)

State = Literal["starting", "running", "failed", "stopped"]

MESSAGE_MAX = 255
"""Of a reason: the API's StatusDescription takes no more."""


class Application:
    """One application instance with one description of it; a changed description is another Application."""

    def __init__(self, spec: AppSpec, around: Surroundings, on_change: Callable[[], None]) -> None:
        settings = around.settings
        self.spec = spec
        self.state: State = "starting"
        self.reason: Reason | None = None
        self.last_error: Reason | None = None
        """Why it last ended or could not start; stays when it runs again."""
        self.restarts = 0
        self.first_output_at_ms: int | None = None
        self.log = AppLog(
            lambda stream, message: around.send_log(spec, stream, message),
            RateLimit(settings.log_lines_per_s, settings.log_burst_lines),
            RateLimit(settings.log_bytes_per_s, settings.log_burst_bytes),
        )
        self.rootfs: Path | None = None
        """Its unpacked archive, while it is used."""
        self._around = around
        self._on_change = on_change
        self._stats = AppStats()
        self._running: Running | None = None
        self._claims: list[Claim] = []
        self._tally = Tally()
        self._control: ControlServer | None = None
        self._hang = ""
        """What was wrong, where it was ended because it hung."""
        self._stacks_seen = False
        self._errors = 0
        self._stop = asyncio.Event()
        self._grace_s = settings.stop_grace_s
        self._life: asyncio.Task[None] | None = None
        self._last_error_line = ""

    def start(self, after: asyncio.Future[Any] | None = None) -> None:
        """Begins its life; `after` the end of the one it takes the place of."""
        self._life = asyncio.create_task(self._live(after), name=f"application {self.spec.instance_id}")

    def pause(self, camera_ids: tuple[str, ...]) -> None:
        """These cameras, and no others, deliver nothing to it from now on. It goes on running."""
        self.spec = replace(self.spec, paused=camera_ids)
        if self._control is not None:
            self._write_app_file(self._around.paths.app_run(self.spec.instance_id))
            self._control.pause(camera_ids)

    def take_errors(self) -> int:
        """Errors since this was last asked: ends that nobody wanted, starts that failed; one while it does not work."""
        errors, self._errors = self._errors, 0
        return max(errors, 1 if self.reason is not None else 0)

    async def stop(self, grace_s: float | None = None) -> None:
        """Ends it: SIGTERM, after the grace SIGKILL. Returns when nothing of it is left.

        With `grace_s`, no longer than that, even where a longer stop has begun already.
        """
        if grace_s is not None:
            self._grace_s = grace_s
        self._stop.set()
        if self._life is None:
            return
        done, _ = await asyncio.wait([self._life], timeout=grace_s)
        if not done:
            if self._running is not None:
                await self._running.stop(0)
            await asyncio.wait([self._life])

    def status(self) -> dict[str, Any]:
        """As in supervisor.status (docs/architecture.md §3)."""
        stats = self._stats
        return {
            "instance_id": self.spec.instance_id,
            "state": self.state,
            "reason": self.reason.to_plain() if self.reason else None,
            "last_error": self.last_error.to_plain() if self.last_error else None,
            "restarts": self.restarts,
            "frames_taken": stats.frames_taken,
            "frames_put": stats.frames_put,
            "calls": stats.calls,
            "latency_app_ms": dict(stats.latency_app_ms),
            "first_output_at_ms": self.first_output_at_ms,
            "pid": self._running.pid if self._running else None,
            "log_lines_dropped": self.log.dropped,
            "sandbox": self._around.sandbox.name,
            **self._tally.status(),
            "ports": [claim.row() for claim in self._claims],
        }

    async def _live(self, after: asyncio.Future[Any] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        try:
            await self._keep_running()
        except Exception:
            log.exception("the supervisor failed at an application", instance_id=self.spec.instance_id)
            self._fail(ReasonCode.APPLIANCE_ERROR, "the appliance failed at this application: its log has the details")
        else:
            self._become("stopped", None)

    async def _keep_running(self) -> None:
        settings = self._around.settings
        backoff_s = 0.0
        while not self._stop.is_set():
            began = time.monotonic()
            retry = await self._attempt()
            if self._stop.is_set():
                break
            if not retry:
                await self._stop.wait()
                break
            if time.monotonic() - began >= settings.healthy_after_s:
                backoff_s = 0.0
            when = f"in {backoff_s:g} s" if backoff_s else "at once"
            self.log.note(CONSOLE, f"{self._reason_text()}; starting again {when}")
            if backoff_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s):
                        await self._stop.wait()
            backoff_s = min(max(2 * backoff_s, settings.restart_min_s), settings.restart_max_s)
            self.restarts += 1

    async def _attempt(self) -> bool:
        """One run of it. Returns whether trying again may help."""
        try:
            # The stop waits until a large image is unpacked; a small one takes milliseconds.
            self.rootfs = await asyncio.to_thread(self._around.rootfs.ready, Path(self.spec.rootfs))
            if not self._stop.is_set():
                await self._run(self.rootfs)
        except ArchiveRefused as error:
            self._fail(error.code, str(error))
            self.log.note(CONSOLE, str(error))
            return False
        except SupervisorError as error:
            self._fail(error.code, str(error))
        except OSError as error:
            log.exception("an application can't be started", instance_id=self.spec.instance_id)
            self._fail(ReasonCode.APPLIANCE_ERROR, f"the appliance can't start the application: {error}")
        finally:
            self.rootfs = None
        return True

    async def _run(self, rootfs: Path) -> None:
        """From the sandbox's start to its end."""
        around, spec = self._around, self.spec
        folder = around.paths.app_run(spec.instance_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_app_file(folder)
        self._stats = AppStats()
        self._last_error_line = self._hang = ""
        self._stacks_seen = False
        token = Secret(secrets.token_urlsafe(32)) if spec.has_role else None
        storage = await asyncio.to_thread(around.storage.ready, spec.instance_id, spec.replaces)
        made = sandbox_spec(around, spec, rootfs, storage, token)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(remove_socket_folder, folder)
            control = ControlServer(folder / "control.sock", self._on_stats, self.spec.paused)
            control.start()
            stack.push_async_callback(control.close)
            tail = FolderTail(
                around.paths.app_logs(spec.instance_id),
                lambda line: self.log.line(spec.node, line),
                lambda text: self.log.note(spec.node, text),
                lambda count: self.log.missed(spec.node, count),
            )
            for port in spec.ports:
                claim = await around.ports.claim(
                    spec.instance_id, port, around.settings.inbound_connections, spec.replaces
                )
                stack.push_async_callback(claim.close)
                self._claims.append(claim)
            stack.callback(self._claims.clear)
            running = await around.sandbox.start(made, self._on_line, self._on_dropped)
            stack.push_async_callback(running.stop, 0)  # whatever happens below; nothing where it has ended
            for server, listener in ways_out(around, spec, running, token):
                await server.start(listener)
                stack.push_async_callback(server.close)
            for claim in self._claims:
                claim.open(running.socket)
            self._running, self._control = running, control
            hits = HitWatch(running, spec.limits, self._on_hit)
            self._on_change()
            beside = [
                asyncio.create_task(tail.run()),
                asyncio.create_task(self._watch_output()),
                asyncio.create_task(self._watch_hanging(running, control)),
                asyncio.create_task(hits.run()),
            ]
            try:
                end = await self._until_end(running)
            finally:
                hits.look()
                self._running = self._control = None
                for task in beside:
                    task.cancel()
                for ended in await asyncio.gather(*beside, return_exceptions=True):
                    if isinstance(ended, Exception):
                        log.error("a watch over an application failed", instance_id=spec.instance_id, exc_info=ended)
                tail.hand_on(await asyncio.to_thread(tail.read, last=True))
                self.log.end()
        if end.over is not None:
            self._tally.add(end.over.limit, end.over.describe())
        if not self._stop.is_set():
            self._fail(*self._judge(end))

    async def _until_end(self, running: Running) -> Exit:
        ended = asyncio.create_task(running.wait())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            return await (running.stop(self._grace_s) if self._stop.is_set() else ended)
        finally:
            for task in (ended, stopped):
                task.cancel()

    def _write_app_file(self, folder: Path) -> None:
        # In place: the file itself is bound into the sandbox.
        (folder / "app.json").write_text(self.spec.app_json())

    async def _watch_output(self) -> None:
        await asyncio.sleep(self._around.settings.no_output_s)
        if self._delivers(self._stats):
            return
        if not self._stats.hello:
            missing = "has not made its panoramasdk.node"
        elif self.spec.has_media_in and not self._stats.frames_taken:
            missing = "has not got a frame from its cameras"
        else:
            missing = "has taken frames and put none to its output"
        message = f"the application {missing} in {self._around.settings.no_output_s:g} s"
        if self.state == "starting":
            self.reason = self._reason(ReasonCode.APP_NO_OUTPUT, message)
            self._on_change()
        self.log.note(CONSOLE, message)

    async def _watch_hanging(self, running: Running, control: ControlServer) -> None:
        while True:
            await asyncio.sleep(hang.LOOK_EVERY_S)
            message = hang.hangs(
                self.spec,
                self._stats,
                delivers=self._delivers(self._stats),
                idle_s=control.idle_s(),
                settings=self._around.settings,
            )
            if message is not None:
                break
        self._hang = message
        self.log.note(CONSOLE, f"{message}; what its threads were doing:")
        await hang.last_words(running, control)
        if not self._stacks_seen:
            self.log.note(CONSOLE, "that can't be had: it is not Python, or it takes SIGABRT for something else")
        await running.stop(0)

    def _delivers(self, stats: AppStats) -> bool:
        return (
            stats.hello
            and (stats.frames_taken > 0 or not self.spec.has_media_in)
            and (stats.frames_put > 0 or not self.spec.has_media_out)
        )

    def _on_stats(self, stats: AppStats) -> None:
        self._stats = stats
        if self.first_output_at_ms is None:
            self.first_output_at_ms = stats.first_output_unix_ms
        if self._delivers(stats) and self.state != "running" and not self._stop.is_set():
            self._become("running", None)
        else:
            self._on_change()

    def _on_line(self, source: str, line: str) -> None:
        is_stack = line.startswith((" ", "\t", "Extension modules:")) or hang.STACK_MARK in line
        self._stacks_seen |= hang.STACK_MARK in line
        if source == "stderr" and line.strip() and not is_stack:
            # Of a traceback, the lines in between are indented: the last that is not says what it was.
            self._last_error_line = line
        self.log.line(CONSOLE, line)

    def _on_dropped(self, count: int) -> None:
        self.log.missed(CONSOLE, count)

    def _on_hit(self, limit: LimitName, message: str) -> None:
        self._tally.add(limit, message)
        self.log.note(CONSOLE, message)
        self._on_change()

    def _judge(self, end: Exit) -> tuple[ReasonCode, str]:
        """Why it ended, in a code and words."""
        if self._hang:
            return ReasonCode.APP_HUNG, f"{self._hang}; its log says what its threads were doing"
        if end.over is not None:
            return end.over.code, end.over.describe()
        if end.refused is not None:
            refusal = StartFailed(" ".join(environment.command_line(self.spec)), end.refused)
            return refusal.code, str(refusal)
        if end.code == 0:
            return (
                ReasonCode.APP_EXITED,
                "the application ended by itself (exit code 0): it is to run until it is stopped",
            )
        return ReasonCode.APP_EXITED, ": ".join(part for part in (end.describe(), self._last_error_line) if part)

    def _fail(self, code: ReasonCode, message: str) -> None:
        self._errors += 1
        self.last_error = self._reason(code, message)
        self._become("failed", self.last_error)

    def _reason(self, code: ReasonCode, message: str) -> Reason:
        return Reason(code=code, message=message[:MESSAGE_MAX], node=self.spec.node)

    def _reason_text(self) -> str:
        return self.reason.message if self.reason else "it ended"

    def _become(self, state: State, reason: Reason | None) -> None:
        if (state, reason) != (self.state, self.reason):
            details: Mapping[str, Any] = {"reason": reason.message} if reason else {}
            log.info("application", instance_id=self.spec.instance_id, state=state, **details)
        self.state, self.reason = state, reason
        self._on_change()
