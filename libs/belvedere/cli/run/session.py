"""One application folder on a local appliance: resolved, started, swapped for its changed self, measured.

    async with LocalRun(options, say=print, on_log=…) as run:
        await run.start()
        await run.delivered(timeout_s=30)
        await run.swap()

What `belvedere run`, `belvedere app test` and `belvedere app dev` have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from belvedere.appdir import AppFolder, Choices, FolderWork, ResolvedFolder, literal_type
from belvedere.chassis.ids import new_id
from belvedere.cli.errors import CliError
from belvedere.cli.run.cameras import Camera, Playing, choose, faults_for
from belvedere.cli.run.engine import Engine, LocalApplication, Row
from belvedere.cli.run.figures import Count, Figures, figures
from belvedere.rtsp import FaultScript

INSTANCE_FILE = "instance"
"""In the data folder: the instance that ran last, so that its storage is found again."""
APPLICATION_ENDS = ("failed",)
LEAVE_TIMEOUT_S = 15.0
"""For an application that is taken off: its grace, and a little more."""


@dataclass(frozen=True)
class RunOptions:
    """What to run, with what."""

    app_dir: Path
    cameras: tuple[str, ...] = ()
    """`FILE`, `URL` or `NODE=FILE|URL`."""
    values: tuple[str, ...] = ()
    """`PARAMETER=VALUE`."""
    overrides: Path | None = None
    models: tuple[str, ...] = ()
    """`PACKAGE=FILE`."""
    fault: Path | None = None
    once: bool = False
    """Play files once."""
    data: Path | None = None
    """None: a folder that is gone afterwards."""


class LocalRun:
    """An async context manager; see the module."""

    def __init__(
        self,
        options: RunOptions,
        *,
        say: Callable[[str], None],
        on_log: Callable[[str, str], None],
        engine: Engine | None = None,
    ) -> None:
        """`engine`: one that runs already, and goes on afterwards without this application."""
        self.begun = time.monotonic()
        self.instance_id = ""
        self.playing = Playing(())
        self.resolved: ResolvedFolder | None = None
        self.swap_problem = ""
        """Why the last swap did not come about; empty where nothing had changed."""
        self._options = options
        self._say = say
        self._on_log = on_log
        self._stack = contextlib.AsyncExitStack()
        self._known: dict[str, str] = {}
        self._current: LocalApplication | None = None
        self._mine: set[str] = set()
        self._first: float | None = None
        """When the application that runs now delivered first; figures count since then."""
        self._started_s: float | None = None
        """How long the run took to its first delivery of all; a swap does not change it."""
        self._before: Count | None = None
        self._taken_at_first = 0
        self._folder = AppFolder.load(options.app_dir)
        self._guest = engine is not None
        self.data = engine.paths.data if engine is not None else data_folder(options.data)
        self.work = FolderWork(self._folder, self.data / "built", _pairs("--model", options.models))
        self.engine = engine or Engine(self.data)
        self.engine.on_log = self._hear

    @property
    def name(self) -> str:
        """The application's."""
        return self._folder.name

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """As they play."""
        return self.playing.cameras

    async def __aenter__(self) -> LocalRun:
        try:
            if not self._guest:
                self._stack.callback(tidy, self.data, self._options.data)
            cameras, self._choices, faults = await asyncio.to_thread(self._chosen)
            self.playing = Playing(cameras, faults, once=self._options.once, told=self._fault)
            self._stack.push_async_exit(self.playing)
            if self._guest:
                self._stack.push_async_callback(self._leave)
            else:
                self._stack.push_async_exit(self.engine)
            # All at the same time: each takes about a second.
            resolving = asyncio.create_task(asyncio.to_thread(self.work.resolve, self._choices))
            tasks = (resolving, asyncio.create_task(self.playing.begin()), asyncio.create_task(self.engine.begin()))
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self.resolved = resolving.result()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # -- what it does -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Tells the appliance to run it."""
        assert self.resolved is not None
        kept = self.data / INSTANCE_FILE
        again = kept.exists() and not self._guest
        self.instance_id = kept.read_text().strip() if again else new_id("applicationInstance")
        self._current = self._application(self.instance_id, self.resolved)
        self._before = Count.of(self.engine, self.instance_id)
        await self.engine.apply(self._current, self.cameras)
        kept.write_text(self.instance_id)

    async def delivered(self, timeout_s: float) -> bool:
        """Waits for its first delivery; False where it fails first, or takes too long."""
        await self.watch(lambda: self.state in ("running", *APPLICATION_ENDS) or bool(self.model_problem()), timeout_s)
        if self.state != "running":
            return False
        if self._first is None:
            self._first_delivered()
        return True

    async def swap(self, timeout_s: float) -> float | None:
        """Resolves the folder again and puts the new application in the place of the old, which runs until the new one
        delivers, and on where that does not. Returns the seconds from here to its first delivery; None: the old one runs.

        Raises FolderInvalid, with the old one running.
        """
        begun, self.swap_problem = time.monotonic(), ""
        fresh = await asyncio.to_thread(self.work.resolve, self._choices)
        assert self.resolved is not None
        if fresh.graph == self.resolved.graph:
            return None
        old, new = self._current, self._application(new_id("applicationInstance"), fresh, self.instance_id)
        assert old is not None
        before = Count.of(self.engine, new.instance_id)
        await self.engine.apply(new, self.cameras, until_then=old)
        self.instance_id = new.instance_id
        await self.watch(lambda: self.state in ("running", *APPLICATION_ENDS), timeout_s)
        if self.state != "running":
            self.swap_problem = self.problem()
            self.instance_id = old.instance_id
            await self.engine.apply(old, self.cameras)
            return None
        seconds = time.monotonic() - begun
        self._current, self.resolved = new, fresh
        (self.data / INSTANCE_FILE).write_text(new.instance_id)
        await self.engine.apply(new, self.cameras)
        self._before = before
        self._first_delivered()
        return seconds

    async def last(self, seconds: float | None) -> None:
        """Lets it run: for so long, until every file has been played where they are played once, or for ever."""
        ended = [asyncio.create_task(event.wait()) for event in self.playing.ended]
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while (deadline is None or time.monotonic() < deadline) and not (
                ended and all(task.done() for task in ended)
            ):
                left = 1.0 if deadline is None else max(min(deadline - time.monotonic(), 1.0), 0.0)
                await self.watch(lambda: False, min(left, 0.25) if ended else left)
        finally:
            for task in ended:
                task.cancel()

    async def rest(self, seconds: float) -> None:
        """Lets it run for so long, whatever happens."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await self.watch(lambda: False, left)

    # -- what it knows ----------------------------------------------------------------------------------------------

    @property
    def row(self) -> Row:
        """What the supervisor says of it."""
        return self.engine.application(self.instance_id)

    @property
    def state(self) -> str:
        """starting, running, failed …; empty before anything is known."""
        return str(self.row.get("state", ""))

    def model_problem(self) -> str:
        """Why a model can't be loaded; empty where all can."""
        failed = [row for row in self.engine.rows["models"].values() if row.get("state") == "failed"]
        return "; ".join(_because(row) for row in failed)

    def problem(self) -> str:
        """Why it does not deliver, the cause first."""
        waiting = {
            self._camera_name(camera_id): row
            for camera_id, row in self.engine.rows["cameras"].items()
            if row.get("state") != "streaming"
        }
        model = self.model_problem()
        reasons = [f"model: {model}"] if model else []
        reasons += [f"camera {name}: {why}" for name, row in waiting.items() if (why := _because(row))]
        if own := _because(self.row):
            reasons.append(own)
        # What is only not there yet is the cause where nothing else is.
        reasons = reasons or [f"camera {name}: {row.get('state')}" for name, row in waiting.items()]
        return "; ".join(reasons) or f"it is {self.state or 'not started'}"

    def figures(self) -> Figures:
        """Of the application that runs now, since its start; `started_s` is the run's, from before any swap."""
        first, before = self._first, self._before
        return figures(
            self.engine,
            self.instance_id,
            before or Count.of(self.engine, self.instance_id),
            taken_at_first=self._taken_at_first,
            started_s=self._started_s,
            seconds=0.0 if first is None else time.monotonic() - first,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _chosen(self) -> tuple[tuple[Camera, ...], Choices, FaultScript | None]:
        nodes = self.work.camera_nodes()
        cameras = choose(self._options.cameras, nodes)
        faults = faults_for(self._options.fault, cameras) if self._options.fault is not None else None
        by_node = {node: tuple(camera.name for camera in cameras if node in camera.nodes) for node in nodes}
        graph = self._folder.graph() if self._options.values else {}
        values: dict[str, tuple[str, str]] = {}
        for choice in self._options.values:
            name, equals, value = choice.partition("=")
            kind = literal_type(graph, name) if equals else None
            if kind is None:
                raise CliError(f"--override {choice}: say PARAMETER=VALUE, for a parameter of the graph")
            values[name] = (kind, value)
        return cameras, Choices(by_node, values, self._options.overrides), faults

    def _first_delivered(self) -> None:
        self._first = time.monotonic()
        if self._started_s is None:
            self._started_s = self._first - self.begun
        self._taken_at_first = Count.of(self.engine, self.instance_id).taken

    def _application(self, instance_id: str, resolved: ResolvedFolder, replaces: str | None = None) -> LocalApplication:
        self._mine.add(instance_id)
        return LocalApplication(instance_id, self.name, resolved.graph, resolved.files, resolved.cameras, replaces)

    async def watch(self, reached: Callable[[], bool], timeout_s: float) -> None:
        """Waits, and tells what changes meanwhile."""

        def look() -> bool:
            self._tell_changes()
            return reached()

        await self.engine.until(look, timeout_s)

    def _tell_changes(self) -> None:
        for camera_id, row in self.engine.rows["cameras"].items():
            size = f" {row['width']}×{row['height']} {row.get('codec')}" if row.get("width") else ""
            streams = row.get("state") == "streaming"
            self._tell_once(
                f"camera {self._camera_name(camera_id)}", f"{row.get('state')}{size if streams else ''}", row
            )
        for model in self.engine.rows["models"].values():
            self._tell_once(f"model {self._model_name(str(model['model_id']))}", str(model.get("state")), model)
        row = self.row
        if row:
            self._tell_once("application", str(row.get("state")), row)

    def _tell_once(self, what: str, state: str, row: Row) -> None:
        text = f"{state}{f': {why}' if (why := _because(row)) else ''}"
        if self._known.get(what) != text:
            self._known[what] = text
            self._say(f"{what}: {text}")

    def _camera_name(self, camera_id: str) -> str:
        return self.resolved.cameras.get(camera_id, camera_id) if self.resolved else camera_id

    def _model_name(self, model_id: str) -> str:
        models = self.resolved.graph.models if self.resolved else ()
        return next((model.name for model in models if model.model_id == model_id), model_id[:12])

    def _hear(self, instance_id: str, stream: str, line: str) -> None:
        if instance_id in self._mine:  # the last words of who was there before are not ours
            self._on_log(stream, line)

    def _fault(self, text: str) -> None:
        self._say(f"fault at camera {text}")

    async def _leave(self) -> None:
        """Takes the application off an appliance that goes on."""
        await self.engine.apply(None, ())
        await self.engine.until(lambda: not self.row, LEAVE_TIMEOUT_S)


def data_folder(wanted: Path | None) -> Path:
    """The folder of a run's state, made."""
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="belvedere-run-"))
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted.absolute()


def tidy(folder: Path, wanted: Path | None) -> None:
    """Removes it where nobody wanted it kept."""
    if wanted is None:
        shutil.rmtree(folder, ignore_errors=True)


def _because(row: Row) -> str:
    reason = row.get("reason")
    if not reason:
        return ""
    return str(reason.get("message", "")) if isinstance(reason, Mapping) else str(reason)


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals:
            raise CliError(f"{option} {text}: say PACKAGE=FILE")
        found[name] = Path(file)
    return found
