"""An appliance of one's own, without a cloud side: started, told what to run, listened to, stopped.

    async with Engine(folder) as engine:
        await engine.begin()
        await engine.apply(application, cameras)
        await engine.until(lambda: engine.application(instance_id).get("state") == "running", timeout_s=30)

It runs the appliance's own processes (`python -m edge --local`) and speaks with them over their bus. Must not know
application folders.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.process import Child
from belvedere.chassis.secret import Secret
from belvedere.cli.errors import CliError
from belvedere.cli.run.cameras import Camera
from belvedere.fleet import DesiredState, Target, TargetApplication, TargetCamera
from belvedere.graph import ResolvedGraph

LOCAL_DEVICE = "device-local"
"""As edge.agent.local names it."""
START_TIMEOUT_S = 120.0
"""Two seconds on an idle machine."""
ATTEMPT_TIMEOUT_S = 2.0
RETRY_S = 0.05
STOP_GRACE_S = 8.0
"""The appliance stops its processes in order, the applications first."""
LAST_WORDS = 12
KINDS = {
    "ingest": ("cameras", "camera_id"),
    "inference": ("models", "model_id"),
    "supervisor": ("applications", "instance_id"),
    "display": ("outputs", "instance_id"),
}
QUICK_START = {"BELVEDERE_INFERENCE_TRIAL_S": "0"}
"""Models are not measured for the best size of batches: that takes seconds, and this appliance lives for minutes."""
MODELS = "cache"
"""Where edge.inference keeps what it has converted, below the data folder."""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class LocalApplication:
    """One application as it is to run."""

    instance_id: str
    name: str
    graph: ResolvedGraph
    files: Mapping[str, Path]
    cameras: Mapping[str, str]
    """camera_id → name of the camera."""
    replaces: str | None = None


class Engine:
    """A local appliance in `data`; an async context manager."""

    def __init__(self, data: Path) -> None:
        self.on_log: Callable[[str, str, str], None] | None = None
        """Hears what applications write: (instance id, stream, line)."""
        self.paths = EdgePaths(data)
        self.viewer_key = ""
        """base64; once something was applied."""
        self.rows: dict[str, dict[str, Row]] = {kind: {} for kind, _ in KINDS.values()}
        """What each process said last: `cameras`, `models`, `applications`, `outputs`, by id."""
        self._child: Child | None = None
        self._bus: Bus | None = None
        self._changed = asyncio.Event()
        self._ended: asyncio.Task[int] | None = None
        self._version = 0

    @property
    def pid(self) -> int:
        """Of the appliance's first process."""
        assert self._child is not None
        return self._child.pid

    async def __aenter__(self) -> Engine:
        return self

    async def begin(self) -> None:
        """Starts it; nothing where it runs already. Raises CliError where it does not come up."""
        if self._child is not None:
            return
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        _share_models(self.paths.data / MODELS)
        self.paths.bus_file.unlink(missing_ok=True)  # of an earlier run: its port may be another's by now
        self._child = await Child.start(
            "appliance",
            [sys.executable, "-m", "edge", "--data", str(self.paths.data), "--local"],
            env={**QUICK_START, **os.environ},
            log_file=self.paths.logs / "edge.log",
        )
        self._ended = asyncio.create_task(self._child.wait())
        self._bus = await self._connected()
        for process, (kind, key) in KINDS.items():
            await self._bus.subscribe(subjects.edge_status(process), self._status_taker(kind, key))
        await self._bus.subscribe("edge.log.app.>", self._take_log)

    async def __aexit__(self, *_: object) -> None:
        if self._bus is not None:
            await self._bus.close()
        if self._child is not None:
            await self._child.stop(STOP_GRACE_S)
        if self._ended is not None:
            self._ended.cancel()
            await asyncio.wait([self._ended])

    # -- what it is told --------------------------------------------------------------------------------------------

    async def apply(
        self,
        application: LocalApplication | None,
        cameras: Sequence[Camera],
        *,
        until_then: LocalApplication | None = None,
    ) -> None:
        """What is to run, and with which cameras; `until_then` runs until `application`, which replaces it, delivers.
        Raises CliError."""
        self._version += 1
        wanted = [item for item in (until_then, application) if item is not None]
        for item in wanted:
            await asyncio.to_thread(self._store, item)
        by_name = {name: camera for camera in cameras for name in (camera.name, *camera.nodes)}
        used = {camera_id: by_name[name] for item in wanted for camera_id, name in item.cameras.items()}
        target = Target(
            LOCAL_DEVICE,
            self._version,
            tuple(
                _target(item, DesiredState.REMOVED if item is until_then else DesiredState.RUNNING) for item in wanted
            ),
            tuple(TargetCamera(camera_id, camera.url) for camera_id, camera in used.items()),
        )
        credentials = {
            camera_id: {"username": camera.username, "password": camera.password.reveal()}
            for camera_id, camera in used.items()
            if camera.username
        }
        answer = await self._tell("target", {"target": target.to_plain(), "credentials": credentials})
        self.viewer_key = str(answer.get("viewer_key", ""))

    # -- what it says -----------------------------------------------------------------------------------------------

    def application(self, instance_id: str) -> Row:
        """The supervisor's row; empty where there is none."""
        return self.rows["applications"].get(instance_id, {})

    def output(self, instance_id: str) -> Row:
        """The display's row; empty where there is none."""
        return self.rows["outputs"].get(instance_id, {})

    async def change(self, timeout_s: float) -> bool:
        """Waits for the next status; False where none came. Raises CliError where the appliance has ended."""
        assert self._ended is not None
        self._changed.clear()
        waiting = asyncio.create_task(self._changed.wait())
        try:
            done, _ = await asyncio.wait({waiting, self._ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._ended.done():
            raise self._gone()
        return bool(done)

    async def until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until that is so; False where it was not in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not reached():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not (await self.change(left) or reached()):
                return reached()
        return True

    # -- inside -----------------------------------------------------------------------------------------------------

    def _store(self, application: LocalApplication) -> None:
        """Puts the graph and its files into the appliance's store, where it would have fetched them to."""
        folder = self.paths.assets / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        graph = folder / application.graph.digest().removeprefix("sha256:")
        _write(graph, lambda part: part.write_text(application.graph.to_json()))
        for digest, file in application.files.items():
            _write(folder / digest.removeprefix("sha256:"), lambda part, file=file: _place(file, part))  # type: ignore[misc]

    async def _connected(self) -> Bus:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while True:
            try:
                document = json.loads(self.paths.bus_file.read_text())
                credentials = Credentials(Secret(str(document["nkey_seed"])))
                return await Bus.connect(str(document["url"]), credentials, "run", timeout_s=ATTEMPT_TIMEOUT_S)
            except (FileNotFoundError, BusError) as error:
                self._check_alive()
                if asyncio.get_running_loop().time() > deadline:
                    raise CliError(
                        f"the appliance did not start within {START_TIMEOUT_S:.0f} s: {self._words()}"
                    ) from error
                await asyncio.sleep(RETRY_S)

    async def _tell(self, command: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks the agent; until it is there, again and again."""
        assert self._bus is not None
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while True:
            try:
                answer = await self._bus.request(
                    subjects.edge_command("agent", command), body, timeout_s=ATTEMPT_TIMEOUT_S
                )
                break
            except BusError as error:
                self._check_alive()
                if asyncio.get_running_loop().time() > deadline:
                    raise CliError(f"the appliance's agent does not answer: {self._words()}") from error
                await asyncio.sleep(RETRY_S)
        document: dict[str, Any] = answer.json()
        if "error" in document:
            raise CliError(f"the appliance refuses: {document['error'].get('message')}")
        return document

    def _status_taker(self, kind: str, key: str) -> Any:
        async def take(message: Message) -> None:
            self.rows[kind] = {str(row[key]): row for row in message.json().get(kind, ())}
            self._changed.set()

        return take

    async def _take_log(self, message: Message) -> None:
        instance_id = message.subject.split(".")[-2]
        if self.on_log is not None:
            for entry in message.json().get("entries", ()):
                self.on_log(instance_id, str(entry["stream"]), str(entry["message"]).rstrip("\n"))

    def _check_alive(self) -> None:
        if self._ended is not None and self._ended.done():
            raise self._gone()

    def _gone(self) -> CliError:
        return CliError(f"the appliance has ended by itself: {self._words()}")

    def _words(self) -> str:
        """The end of its logs."""
        lines: list[str] = []
        for log in sorted(self.paths.logs.glob("*.log"), key=lambda path: path.stat().st_mtime):
            lines += [f"{log.stem}: {line}" for line in log.read_text(errors="replace").splitlines()[-4:]]
        return "\n".join(["its last lines:", *lines[-LAST_WORDS:]]) if lines else "it has written no log"


def _target(application: LocalApplication, desired: DesiredState) -> TargetApplication:
    return TargetApplication(
        application.instance_id, application.name, application.graph.digest(), desired, application.replaces,
        camera_ids=application.graph.camera_ids,
    )  # fmt: skip


def _share_models(folder: Path) -> None:
    """What models were converted to outlives a run: the next one starts with it. Where no such place can be made, this run
    keeps its own."""
    if folder.exists() or folder.is_symlink():
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shared = home / "belvedere" / "models"
    with contextlib.suppress(OSError):
        shared.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(shared, target_is_directory=True)


def _write(final: Path, make: Callable[[Path], object]) -> None:
    if not final.exists():
        part = final.with_name(f"{final.name}.run-{os.getpid()}")
        make(part)
        part.replace(final)


def _place(file: Path, part: Path) -> None:
    with contextlib.suppress(OSError):  # another file system: a copy then
        os.link(file, part)
        return
    shutil.copyfile(file, part)
