"""The display on the local bus: takes `display.apply`, keeps the worker running, passes its status on.

Pictures never come near this process: whatever the worker meets, the display stays answerable.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from belvedere.chassis.edge import CommandFailed, EdgeProcess
from belvedere.chassis.logs import get_logger
from belvedere.chassis.process import Child

from .reasons import reasons
from .wanted import Wanted, WantedInvalid

log = get_logger(__name__)

RESTART_MIN_S, RESTART_MAX_S = 0.25, 10.0
HEALTHY_S = 30.0
"""A worker that lived so long starts its next backoff from the beginning."""
WORKER_GRACE_S = 2.5
MAX_LINE = 4 * 1024 * 1024


class DisplayService:
    """Holds the wanted set and the worker that follows it."""

    def __init__(self, process: EdgeProcess) -> None:
        self._process = process
        self._wanted: dict[str, Any] = {"outputs": []}
        self._reasons: dict[str, str] = {}
        self._child: Child | None = None

    async def cameras_say(self, status: dict[str, Any]) -> None:
        """An `ingest.status`: placards say why a camera shows nothing."""
        told = reasons(status)
        if told != self._reasons:
            self._reasons = told
            await self._hand_on({"reasons": told})

    async def apply(self, body: dict[str, Any]) -> None:
        """Command `apply`: the whole wanted set."""
        try:
            Wanted.from_json(body)
        except WantedInvalid as error:
            raise CommandFailed("INVALID_REQUEST", f"display.apply: {error}") from error
        self._wanted = body
        await self._hand_on(body)

    async def keep_worker(self) -> None:
        """Runs the worker, again and again, until cancelled."""
        pause_s = RESTART_MIN_S
        while True:
            started = time.monotonic()
            code = await self._run_worker()
            if time.monotonic() - started > HEALTHY_S:
                pause_s = RESTART_MIN_S
            log.error("display worker ended; starting it again", exit_code=code, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_MAX_S)

    async def _run_worker(self) -> int | None:
        child = await Child.start(
            "display worker",
            [sys.executable, "-m", "edge.display.worker", "--data", str(self._process.paths.data)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.process.stdout is not None
        self._child = child
        try:
            await self._hand_on(self._wanted)
            await self._hand_on({"reasons": self._reasons})
            while line := await child.process.stdout.readline():
                self._process.publish_status(json.loads(line))
        finally:
            self._child = None
            # Also where this task is cancelled: the worker must not outlive it.
            code = await asyncio.shield(child.stop(WORKER_GRACE_S))
        return code

    async def _hand_on(self, document: dict[str, Any]) -> None:
        """To the worker; one that starts later gets it then."""
        child = self._child
        if child is None or child.process.stdin is None:
            return
        try:
            child.process.stdin.write(json.dumps(document).encode() + b"\n")
            await child.process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.warning("display worker does not listen; it will be started again")


async def main(process: EdgeProcess) -> None:
    service = DisplayService(process)
    process.publish_status({"outputs": []})
    await process.command("apply", service.apply)
    await process.on_status("ingest", service.cameras_say)
    process.tasks.start("display worker", service.keep_worker())
    await process.stop.wait()
