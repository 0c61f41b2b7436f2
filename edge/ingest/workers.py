"""The processes of all cameras: one a camera that is wanted and not paused, kept as the wanted set says.

Must not know the bus, nor how frames are made.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from belvedere.chassis.logs import get_logger
from belvedere.chassis.process import Child
from belvedere.chassis.secret import Secret
from edge.ingest.backoff import Backoff
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus, RingCounts
from edge.ingest.worker import STOP_TIMEOUT_S, WorkerConfig, reason

log = get_logger(__name__)

# SIGTERM to SIGKILL for a worker: its own orderly end, and the interpreter's.
WORKER_GRACE_S = STOP_TIMEOUT_S + 0.5
# A worker that lived this long was a good one: its next end is a first one again.
HEALTHY_S = 30.0
EMPTY_ROW: dict[str, Any] = CameraStatus(lambda: None).row(RingCounts())


@dataclass(frozen=True, slots=True)
class WantedCamera:
    """One camera of `ingest.apply`."""

    camera_id: str
    url: str
    username: str
    password: Secret[str]
    paused: bool

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> WantedCamera:
        """Raises ValueError, with the field's name and never its value, for a row that is none."""
        texts: dict[str, str] = {}
        for name in ("camera_id", "url", "username", "password"):
            value = row.get(name, "")
            if not isinstance(value, str):
                raise ValueError(f"cameras[].{name}: must be a string")
            texts[name] = value
        camera_id = texts["camera_id"]
        if not camera_id or camera_id.startswith(".") or "/" in camera_id or "\0" in camera_id:
            raise ValueError("cameras[].camera_id: must be a name without a slash, and not begin with a dot")
        paused = row.get("paused", False)
        if not isinstance(paused, bool):
            raise ValueError("cameras[].paused: must be true or false")
        return cls(camera_id, texts["url"], texts["username"], Secret(texts["password"]), paused)


@dataclass(slots=True)
class _Kept:
    """A wanted camera and what keeps it running."""

    wanted: WantedCamera
    task: asyncio.Task[None] | None = None
    row: dict[str, Any] = field(default_factory=lambda: dict(EMPTY_ROW))


class Workers:
    """Keeps the processes. `changed` is called whenever a row changes its state or reason, and at the wanted set's
    changes.
    """

    def __init__(self, socket_path: Callable[[str], Path], settings: Settings, changed: Callable[[], None]) -> None:
        self._socket_path = socket_path
        self._settings = settings
        self._changed = changed
        self._kept: dict[str, _Kept] = {}
        self._lock = asyncio.Lock()

    async def apply(self, cameras: list[WantedCamera]) -> None:
        """Make the wanted set so: cameras that are in it as before are left alone."""
        wanted = {camera.camera_id: camera for camera in cameras}
        async with self._lock:
            ended = [kept for camera_id, kept in self._kept.items() if kept.wanted != wanted.get(camera_id)]
            await asyncio.gather(*(self._end(kept) for kept in ended))
            for kept in ended:
                del self._kept[kept.wanted.camera_id]
            begun = [camera for camera_id, camera in wanted.items() if camera_id not in self._kept]
            for camera in begun:
                self._kept[camera.camera_id] = self._begin(camera)
        if ended or begun:
            log.info("cameras applied", cameras=sorted(wanted), ended=len(ended), begun=len(begun))
            self._changed()

    async def close(self) -> None:
        """End all processes in order."""
        await self.apply([])

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `ingest.status`."""
        now_ns = time.monotonic_ns()
        rows = []
        for camera_id, kept in sorted(self._kept.items()):
            row = {"camera_id": camera_id, **kept.row}
            last_frame_ns = row.pop("last_frame_ns")
            row["last_frame_age_ms"] = None if last_frame_ns is None else round((now_ns - last_frame_ns) / 1e6, 1)
            rows.append(row)
        return rows

    def _begin(self, camera: WantedCamera) -> _Kept:
        kept = _Kept(camera)
        if camera.paused:
            kept.row["state"] = "paused"
        else:
            kept.task = asyncio.create_task(self._keep(kept), name=f"camera {camera.camera_id}")
        return kept

    async def _end(self, kept: _Kept) -> None:
        if kept.task is not None:
            kept.task.cancel()
            await asyncio.wait([kept.task])

    async def _keep(self, kept: _Kept) -> None:
        """Run the worker, again and again, until cancelled."""
        backoff = Backoff()
        while True:
            began = time.monotonic()
            code = await self._run_once(kept)
            if time.monotonic() - began > HEALTHY_S:
                backoff.reset()
            wait_s = backoff.next_s(self._settings.worker_restart_max_s)
            camera_id = kept.wanted.camera_id
            log.error("camera process ended", camera_id=camera_id, exit_code=code, restart_in_s=round(wait_s, 1))
            message = f"its process on the appliance ended (exit code {code}); starting it again"
            kept.row = {**EMPTY_ROW, "reason": reason(camera_id, "connecting", message)}
            self._changed()
            await asyncio.sleep(wait_s)

    async def _run_once(self, kept: _Kept) -> int | None:
        wanted = kept.wanted
        config = WorkerConfig(
            camera_id=wanted.camera_id,
            url=wanted.url,
            username=wanted.username,
            password=wanted.password,
            socket_path=self._socket_path(wanted.camera_id),
            settings=self._settings,
        )
        child = await Child.start(
            f"camera {wanted.camera_id}",
            [sys.executable, "-m", "edge.ingest.worker"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        stdin, stdout = child.process.stdin, child.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(config.to_line())
            await stdin.drain()
            while line := await stdout.readline():
                self._heard(kept, line)
        except (BrokenPipeError, ConnectionResetError) as error:
            log.warning("camera process does not listen", camera_id=wanted.camera_id, error=type(error).__name__)
        finally:
            # Also where the task is cancelled: the process must not outlive its place in the wanted set.
            code = await asyncio.shield(child.stop(WORKER_GRACE_S))
        return code

    def _heard(self, kept: _Kept, line: bytes) -> None:
        row = json.loads(line)
        news = (row["state"], row["reason"]) != (kept.row["state"], kept.row["reason"])
        kept.row = row
        if news:
            log.info("camera state", camera_id=kept.wanted.camera_id, state=row["state"], reason=row["reason"])
            self._changed()
