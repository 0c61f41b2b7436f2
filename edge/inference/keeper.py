"""Keeps the worker process running, tells it the wanted set, and finds out which model brings it down.

Must not know the bus, nor how models are computed.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from belvedere.chassis.logs import get_logger
from belvedere.chassis.process import Child
from edge.inference import board
from edge.inference.blame import Blame
from edge.inference.figures import Figures
from edge.inference.settings import Settings
from edge.inference.watch import LOADING
from edge.inference.worker import HUNG_EXIT, LOST_EXIT, WorkerConfig

log = get_logger(__name__)

# SIGTERM to SIGKILL for the worker.
WORKER_GRACE_S = 1.5
RESTART_FIRST_S = 0.5
# A worker that lived this long was a good one: its next end is a first one again.
HEALTHY_S = 30.0
# How often a load is looked at that may take too long.
LOOK_S = 1.0
# Longest status line: some 400 bytes a model.
LINE_BYTES_MAX = 1 << 20

Row = Mapping[str, Any]


class Keeper:
    """The worker of one appliance. `changed` is called when a status comes."""

    def __init__(
        self, socket_path: Path, cameras: Path, cache: Path, settings: Settings, changed: Callable[[], None]
    ) -> None:
        self._config = WorkerConfig(socket_path, cameras, cache, settings)
        self._settings = settings
        self._changed = changed
        self._wanted: Sequence[Row] = []
        self._clients: Sequence[str] = []
        self._rows: dict[str, Row] = {}
        self._loading: str | None = None
        self._loading_since = 0.0
        self._hung: str | None = None
        self._blame = Blame()
        self._heard_at = 0.0
        self._stdin: asyncio.StreamWriter | None = None
        self._failures = 0

    async def apply(self, models: Sequence[Row], clients: Sequence[str] = ()) -> None:
        """The whole wanted set, rows and clients as in `inference.apply`. Idempotent."""
        self._clients = clients
        if models == self._wanted:
            # Said again all the same: a model that failed is tried again when its file has changed.
            await self._tell()
            return
        log.info("models applied", models=sorted(str(row["model_id"]) for row in models))
        # A model that is taken back and asked for anew gets a fresh chance.
        self._blame.keep(row["model_id"] for row in models)
        self._wanted = models
        await self._tell()
        self._changed()

    def loading(self) -> str | None:
        """The model that is being loaded at this moment."""
        return self._loading

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `inference.status`."""
        return [self._row(row["model_id"]) for row in sorted(self._wanted, key=lambda row: str(row["model_id"]))]

    async def run(self) -> None:
        """Keep the worker running until cancelled."""
        while True:
            began = time.monotonic()
            code = await self._run_once()
            self._loading, self._rows = None, {}
            hung, self._hung = self._hung, None
            loading, computing = self._at_work()
            suspects: Sequence[str] = []
            if code == HUNG_EXIT and hung is not None:
                self._blame.hung(hung)
            elif code != 0:
                suspects = self._blame.died(loading, computing, _how(code), time.monotonic())
            self._failures = 1 if time.monotonic() - began > HEALTHY_S else self._failures + 1
            wait_s = self._wait_s()
            log.error(
                "inference process ended",
                exit_code=code,
                hung=hung,
                loading=loading,
                suspects=list(suspects),
                computed_apart=list(self._blame.apart),
                restart_in_s=round(wait_s, 1),
            )
            self._changed()
            await asyncio.sleep(wait_s)

    def _wait_s(self) -> float:
        if self._failures <= 1:
            return 0.0
        wait_s = RESTART_FIRST_S * 2.0 ** min(self._failures - 2, 16)
        return min(self._settings.worker_restart_max_s, wait_s) * random.uniform(0.75, 1.0)

    def _at_work(self) -> tuple[str | None, list[str]]:
        """What the process was loading, and what it was computing, when it ended."""
        shown = board.names(self._config.board_path)
        ids = [str(row["model_id"]) for row in self._wanted]
        loading = next((one for one in ids if board.cut(LOADING + one) in shown), None)
        return loading, [one for one in ids if board.cut(one) in shown]

    async def _run_once(self) -> int | None:
        # One that ends before it has made its own must not be judged by its predecessor's.
        self._config.board_path.unlink(missing_ok=True)
        child = await Child.start(
            "inference worker",
            [sys.executable, "-m", "edge.inference.worker"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.process.stdin is not None and child.process.stdout is not None
        self._heard_at = time.monotonic()
        watching = asyncio.create_task(self._watch(child))
        try:
            self._stdin = child.process.stdin
            self._stdin.write(self._config.to_line())
            await self._tell()
            async for line in _lines(child.process.stdout):
                self._take_in(json.loads(line))
                self._changed()
        except (BrokenPipeError, ConnectionResetError) as error:
            log.warning("inference process does not listen", error=type(error).__name__)
        finally:
            self._stdin = None
            watching.cancel()
            # Also where this task is cancelled: the process must not outlive it.
            code = await asyncio.shield(child.stop(WORKER_GRACE_S))
        return code

    def _take_in(self, status: Row) -> None:
        self._heard_at = time.monotonic()
        self._rows = {row["model_id"]: row for row in status["models"]}
        if status["loading"] != self._loading:
            self._loading, self._loading_since = status["loading"], self._heard_at
        self._hung = status.get("hung")

    async def _watch(self, child: Child) -> None:
        """Kill a process that is stuck: one that says nothing, or loads one model for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if self._blame.calm(now):
                await self._tell()
            # Some libraries keep all of Python waiting while they read a model.
            limit_s = self._settings.silence_s if self._loading is None else self._settings.load_limit_s
            if now - self._heard_at > limit_s:
                log.error("inference process says nothing: it is killed", silent_s=round(now - self._heard_at))
                child.signal(signal.SIGKILL)
                return
            if self._loading is not None and now - self._loading_since > self._settings.load_limit_s:
                log.error("model loads for too long: the process is killed", model_id=self._loading)
                child.signal(signal.SIGKILL)
                return

    async def _tell(self) -> None:
        if self._stdin is None:
            return  # It is told when it starts.
        models = [row for row in self._wanted if self._blame.given_up(row["model_id"]) is None]
        told = {"models": models, "clients": list(self._clients), "apart": list(self._blame.apart)}
        try:
            self._stdin.write(json.dumps(told).encode() + b"\n")
            await self._stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            log.debug("inference process is ending; its successor is told")

    def _row(self, model_id: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "model_id": model_id,
            "state": "loading",
            "reason": None,
            **Figures().row(),
            "queued": 0,
            "queue_age_ms": None,
            "backend": None,
            "batch": None,
            "gives_nan": False,
        }
        given_up = self._blame.given_up(model_id)
        if given_up is not None:
            code, message = given_up
            return {**row, "state": "failed", "reason": {"code": str(code), "message": message}}
        return {**row, **self._rows.get(model_id, {})}


def _how(code: int | None) -> str:
    """A process's end, for people."""
    if code is not None and code < 0:
        try:
            return f"last by {signal.Signals(-code).name}"
        except ValueError:
            pass  # A real-time signal has no name.
    return "last by a fault of the GPU" if code == LOST_EXIT else f"last with exit code {code}"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, longer than asyncio's own limit of 64 KiB."""
    rest = b""
    while data := await stream.read(65536):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > LINE_BYTES_MAX:
            raise ValueError(f"a status line of the inference process is longer than {LINE_BYTES_MAX} bytes")
