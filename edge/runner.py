"""Runs and watches the appliance's processes: what systemd does on a real one (deploy/).

Prepares the identity once, starts the leaf nats-server, then the edge processes; starts again what ends by itself, with
backoff; stops everything in an order in which nobody loses what it still needs. Must not know what the processes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from belvedere.bus.server import binary
from belvedere.chassis.logs import get_logger
from belvedere.chassis.paths import EdgePaths, remove_run_dir
from belvedere.chassis.process import Child
from belvedere.chassis.stop import stop_on_signals
from edge.orphans import adopt_orphans, end_orphans

log = get_logger(__name__)

REBOOT_EXIT_CODE = 75
"""With this code the agent asks for the whole appliance to start anew."""
REFUSED = 2
"""With this code the preparation ends when it has said, in one line, why there is no identity."""
RESTART_MIN_S = 0.2
RESTART_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
"""A process that ran this long starts its next backoff from the beginning."""
PREPARE_TIMEOUT_S = 60.0

AGENT = "agent"
PROCESSES = (AGENT, "ingest", "inference", "supervisor", "display")
STOP_PHASES = (
    ("supervisor", 2.5),  # applications first: they use everything else
    ("display", 1.0),
    ("inference", 1.0),
    ("ingest", 1.0),
    (AGENT, 1.0),
    ("nats-server", 1.0),
)
TOGETHER = frozenset({"display", "inference", "ingest", AGENT})
"""Stopped at the same time, after the supervisor and before the bus."""


class ApplianceError(Exception):
    """The appliance cannot start; the text says what to do."""


@dataclass(frozen=True)
class Program:
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]


async def run(data: Path, bundle: Path | None, *, local: bool = False) -> int:
    """Runs the appliance until a signal, or until the agent asks for a reboot; the exit status. `local`: one that belongs
    to no cloud side. Raises ApplianceError."""
    paths = EdgePaths(data)
    paths.prepare()
    stop = asyncio.Event()
    stop_on_signals(stop)
    adopt_orphans()
    with _only_one(paths.data), contextlib.ExitStack() as stack:
        stack.callback(remove_run_dir, paths.data)
        if await _prepare(paths, bundle, local) == REFUSED:
            return REFUSED
        programs = [Program("nats-server", (binary(), "-c", str(paths.nats / "leaf.conf")))]
        programs += [
            Program(name, (sys.executable, "-m", f"edge.{name}", "--data", str(paths.data))) for name in PROCESSES
        ]
        return await Watch(paths, programs, stop).run()


class Watch:
    """Keeps programs running until `stop`."""

    def __init__(self, paths: EdgePaths, programs: list[Program], stop: asyncio.Event) -> None:
        self._paths = paths
        self._programs = programs
        self._stop = stop
        self._children: dict[str, Child] = {}
        self._code = 0
        self._spawning = asyncio.Lock()
        """Held while a child is started: until it is noted, it looks like somebody's orphan."""

    async def run(self) -> int:
        keepers = [asyncio.create_task(self._keep(program), name=program.name) for program in self._programs]
        print("running", flush=True)
        await self._stop.wait()
        await self._stop_all()
        for keeper in keepers:
            keeper.cancel()
        for result in await asyncio.gather(*keepers, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("a keeper failed", exc_info=result)
                self._code = self._code or 1
        return self._code

    async def _keep(self, program: Program) -> None:
        pause_s = RESTART_MIN_S
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            started = loop.time()
            async with self._spawning:
                child = await Child.start(program.name, program.argv, log_file=self._paths.logs / f"{program.name}.log")
                self._children[program.name] = child
            code = await child.wait()
            if self._stop.is_set():
                return
            await self._end_orphans()
            if program.name == AGENT and code == REBOOT_EXIT_CODE:
                log.info("the agent asks for a restart of the appliance")
                self._code = REBOOT_EXIT_CODE
                self._stop.set()
                return
            if loop.time() - started > HEALTHY_AFTER_S:
                pause_s = RESTART_MIN_S
            log.error("process ended; starting it again", name=program.name, exit_code=code, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()
            pause_s = min(pause_s * 2, RESTART_MAX_S)

    async def _stop_all(self) -> None:
        grace = dict(STOP_PHASES)
        for phase in (["supervisor"], [name for name in grace if name in TOGETHER], ["nats-server"]):
            children = [self._children[name] for name in phase if name in self._children]
            await asyncio.gather(*(child.stop(grace[child.name]) for child in children))
        await self._end_orphans()

    async def _end_orphans(self) -> None:
        async with self._spawning:
            await asyncio.to_thread(end_orphans, {child.pid for child in self._children.values()})


async def _prepare(paths: EdgePaths, bundle: Path | None, local: bool) -> int:
    """0 or REFUSED; raises ApplianceError."""
    argv = [sys.executable, "-m", "edge.agent", "prepare", "--data", str(paths.data)]
    if bundle is not None:
        argv += ["--bundle", str(bundle)]
    if local:
        argv.append("--local")
    child = await Child.start("prepare", argv, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT_S):
            code = await child.wait()
    except TimeoutError:
        await child.stop()
        raise ApplianceError(
            f"enrolment took longer than {PREPARE_TIMEOUT_S:.0f} s; is the cloud side reachable?"
        ) from None
    if code not in (0, REFUSED):
        raise ApplianceError(f"the appliance's identity could not be prepared (status {code}; see the lines above)")
    return code


@contextlib.contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Holds the data folder: two appliances in one folder would spoil each other."""
    with (data / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApplianceError(f"another appliance runs in {data}") from None
        yield
