"""Runs services as tasks of one process: the embedded cloud.

    async with Cloud(data, SERVICES, port=None) as cloud:      # all is up here
        await cloud.stop.wait()
    cloud.failed                                               # None, or what went wrong

Must not know what a service does: it imports `services.<name>.service` by name and uses what `create(runtime)` gives
back (`belvedere.chassis.service`). Start: lock, ports, hub, bus, blobs, create, migrations, gRPC server, tasks, ready
hooks, health SERVING. A replica joins the hub that another process runs, instead of starting one. Stop: the same backwards, each step with a limit of its own; a task that fails or a hub that ends
stops everything.
"""

import asyncio
import fcntl
import importlib
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from belvedere.blobs import BlobStore
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.hub import Hub, HubConfig
from belvedere.chassis import rpc, settings
from belvedere.chassis.gate import BearerGate
from belvedere.chassis.grpc_server import GrpcServer, ServerError, Tls
from belvedere.chassis.local import LocalChannel, Methods, collect
from belvedere.chassis.logs import get_logger
from belvedere.chassis.outbox import Relay
from belvedere.chassis.paths import CloudPaths, remove_run_dir
from belvedere.chassis.runtime import CloudSettings, Ports, Runtime
from belvedere.chassis.service import AtHand, Service
from belvedere.chassis.stop import Tasks, within
from services import ports

log = get_logger(__name__)

SERVICES = ("identity", "registry", "packages", "deployments", "device_jobs", "logs_metrics", "gateway", "console")
"""All of them, in the order of their start: who is asked by others comes first."""
HUB = "hub"
"""Instead of services: a process that runs the message hub and nothing else, for replicas to join."""
REPLICA = re.compile(r"[A-Za-z0-9_-]{0,32}")
LISTENERS = {"gateway": "gateway", "console": "console", "devices": "registry"}
"""Which service listens on which port; leaf and hub are the hub's."""

READY_TIMEOUT_S = 30.0
"""For all ready hooks together."""
TASKS_STOP_TIMEOUT_S = 2.5
"""For the tasks of one service."""
GRPC_STOP_TIMEOUT_S = 1.5
CLOSE_TIMEOUT_S = 1.0
"""For the close hooks of one service, the databases, the bus: each."""
HUB_STOP_TIMEOUT_S = 2.0
"""A hub that takes longer is killed by the kernel when this process ends."""


class StartError(Exception):
    """The cloud side cannot start; the message says why and what to do."""


class Cloud:
    """The services of one process; an async context manager. Not for use twice."""

    def __init__(
        self,
        data: Path,
        services: Sequence[str] = SERVICES,
        *,
        port: int | None = None,
        stop: asyncio.Event | None = None,
        cloud_settings: CloudSettings | None = None,
        replica: str = "",
    ) -> None:
        """`port`: see services.ports. `stop`: set it to end everything; it is set when something fails. `replica`: a name
        for this process, where another one runs the hub of the same data folder."""
        if not REPLICA.fullmatch(replica):
            raise StartError(f"{replica[:40]!r} can't be the name of a replica: up to 32 letters, digits, - and _.")
        self.paths = CloudPaths(data, replica)
        self._replica = replica
        self.stop = stop or asyncio.Event()
        self.settings = cloud_settings or settings.load(CloudSettings, "BELVEDERE_")
        self._names = tuple(services)
        self._port = port
        self.public: GrpcServer | None = None
        """gRPC over TCP, where `grpc_port` is set; `.port` is where."""
        self._stack = AsyncExitStack()
        self._groups: list[Tasks] = []
        self._runtime: Runtime | None = None

    @property
    def runtime(self) -> Runtime:
        """What the services were given."""
        if self._runtime is None:
            raise RuntimeError("the cloud has not started")
        return self._runtime

    @property
    def failed(self) -> tuple[str, BaseException] | None:
        """The first task that failed, with its error."""
        return next((group.failed for group in self._groups if group.failed), None)

    async def __aenter__(self) -> "Cloud":
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        await self._stack.aclose()

    async def _start(self) -> None:
        self.paths.prepare()
        self._lock()
        self._stack.callback(remove_run_dir, self.paths.own)
        ports, announced = self._ports()
        hub, bus = await self._start_bus(ports)
        methods: Methods = {}
        at_hand: dict[str, AtHand] = {}
        runtime = Runtime(
            data=self.paths.data,
            bus=bus,
            blobs=BlobStore.at(self.paths.blobs),
            hub=hub,
            ports=ports,
            announced=announced,
            replica=self._replica,
            open_channel=lambda: LocalChannel(methods, rpc.open_channel(f"unix:{self.paths.grpc_socket}"), at_hand),
            cloud=self.settings,
            stop=self.stop,
        )
        self._runtime = runtime
        self._on_stop("databases", CLOSE_TIMEOUT_S, runtime.close)
        services = [_create(name, runtime) for name in self._names]
        methods.update(collect(services))
        for service in services:
            at_hand.update(service.at_hand)
        await _migrate(services, runtime)

        own = self._group("cloud")
        own.start("hub", _watch(hub))
        for database in runtime.databases:
            own.start(f"{database.name} outbox", Relay(database, bus).run())
        server = GrpcServer(f"unix:{self.paths.grpc_socket}")
        for service in services:
            server.add(service)
        try:
            await server.start()
        except ServerError as error:
            raise StartError(str(error)) from error
        self._on_stop("gRPC", GRPC_STOP_TIMEOUT_S, server.stop)
        await self._open_public(services, runtime, hub)
        for service in services:
            for close in service.close:
                self._on_stop(f"{service.name} close", CLOSE_TIMEOUT_S, close)
            group = self._group(service.name)
            for task in service.tasks:
                group.start(f"{service.name} {getattr(task, '__name__', 'task')}", _run(task))
        await self._until_ready(services)
        for each in (server, self.public) if self.public else (server,):
            await each.serving(True)
        log.info("ready", services=self._names, ports=vars(ports))

    async def _open_public(self, services: Sequence[Service], runtime: Runtime, hub: Hub) -> None:
        """The same services over TCP, behind the gate, where a port is set."""
        port = self.settings.grpc_port
        if port is None:
            return
        gate = BearerGate(runtime.channel(), account=self.settings.account, region=self.settings.region)
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self.public = GrpcServer(f"{host}:{port}", gate=gate, tls=Tls(hub.tls.key, hub.tls.certificate))
        for service in services:
            self.public.add(service)
        try:
            await self.public.start()
        except ServerError as error:
            raise StartError(f"{error}: set BELVEDERE_GRPC_PORT to another port.") from error
        self._on_stop("public gRPC", GRPC_STOP_TIMEOUT_S, self.public.stop)
        log.info("gRPC is open to holders of tokens", port=self.public.port)

    def _lock(self) -> None:
        file: IO[str] = self._stack.enter_context(self.paths.lock_file.open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            raise StartError(
                f"{self.paths.own} is in use by process {holder or '(unknown)'}: stop it, or use another data folder."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()

    def _ports(self) -> tuple[Ports, Ports]:
        """Those to listen at, and those to tell."""
        if self._replica and self.settings.database_url is None:
            raise StartError(
                "replicas share one PostgreSQL: set BELVEDERE_DATABASE_URL for all of them, and for the hub's."
            )
        try:
            if self._replica:
                return ports.beside(self.paths.ports_file, self.settings.host, self._port)
            chosen = ports.choose(self.paths.ports_file, self._port)
            own = [port for port, service in LISTENERS.items() if service in self._names]
            kept = self.paths.ports_file.exists()
            ports.check_free(self.settings.host, chosen, [*own, "leaf", "hub"], kept=kept)
            ports.keep(self.paths.ports_file, chosen)
            self.paths.host_file.write_text(self.settings.url_host + "\n")
        except ports.PortError as error:
            raise StartError(str(error)) from error
        return chosen, chosen

    async def _start_bus(self, chosen: Ports) -> tuple[Hub, Bus]:
        config = HubConfig(
            self.paths.data, chosen.hub, chosen.leaf, self.settings.host, host_names=self.settings.host_names
        )
        try:
            hub = Hub.join(config) if self._replica else await Hub.start(config)
            self._on_stop("hub", HUB_STOP_TIMEOUT_S, hub.stop)
            bus = await Bus.connect(hub.url, hub.services_credentials(), "services")
        except BusError as error:
            raise StartError(f"the message hub does not start: {error}") from error
        self._on_stop("bus", CLOSE_TIMEOUT_S, bus.close)
        return hub, bus

    async def _until_ready(self, services: Sequence[Service]) -> None:
        """All ready hooks; StartError where one fails or takes too long, or where a task fails meanwhile."""
        hooks = [asyncio.ensure_future(_run(hook)) for service in services for hook in service.ready]
        stopped = asyncio.ensure_future(self.stop.wait())
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                all_ready = asyncio.gather(*hooks)
                watched: set[asyncio.Future[Any]] = {all_ready, stopped}
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                if self.failed:
                    name, error = self.failed
                    raise StartError(f"{name} failed: {error}") from error
                if all_ready.done():
                    await all_ready
        except TimeoutError as error:
            raise StartError(f"not everything was ready within {READY_TIMEOUT_S:g} s; the log says what was") from error
        finally:
            for future in (*hooks, stopped):
                future.cancel()
            await asyncio.gather(*hooks, stopped, return_exceptions=True)

    def _group(self, name: str) -> Tasks:
        group = Tasks(self.stop)
        self._groups.append(group)
        self._on_stop(f"{name} tasks", TASKS_STOP_TIMEOUT_S, group.close)
        return group

    def _on_stop(self, what: str, timeout_s: float, work: Callable[[], Awaitable[Any]]) -> None:
        async def step() -> None:
            await within(what, timeout_s, work())

        self._stack.push_async_callback(step)


def present(wanted: Iterable[str] = SERVICES) -> list[str]:
    """Those of `wanted` whose folder is there, in the order of SERVICES; of HUB alone none. Raises StartError for a name
    that is no service."""
    wanted = list(wanted)
    if wanted == [HUB]:
        return []
    for name in wanted:
        if name not in SERVICES:
            raise StartError(f"there is no service {name!r}: {', '.join(SERVICES)} are known.")
    folder = Path(__file__).parent
    return [name for name in SERVICES if name in wanted and (folder / name / "service.py").exists()]


def _create(name: str, runtime: Runtime) -> Service:
    service = importlib.import_module(f"services.{name}.service").create(runtime)
    if not isinstance(service, Service):
        raise StartError(f"services.{name}.service.create gave {type(service).__name__}, a Service is needed")
    return service


async def _migrate(services: Sequence[Service], runtime: Runtime) -> None:
    folders = {service.name: service.migrations for service in services}
    for name, folder in folders.items():
        if folder is not None:
            await runtime.database(name).migrate(folder)
    for database in runtime.databases:
        if folders.get(database.name) is None:
            await database.migrate(None)


async def _watch(hub: Hub) -> None:
    code = await hub.wait()
    raise StartError(f"the hub's nats-server ended by itself with code {code}: its log says why")


async def _run(task: Callable[[], Awaitable[Any]]) -> Any:
    return await task()
