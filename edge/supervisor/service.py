"""What the supervisor answers on the local bus: the whole wanted set in `apply`, the state of every application in
its status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from belvedere.chassis.edge import CommandFailed, EdgeProcess, device_log_group
from belvedere.chassis.logs import get_logger
from belvedere.chassis.settings import load
from edge.supervisor import environment, sdk
from edge.supervisor.application import Application
from edge.supervisor.control import remove_socket_folder
from edge.supervisor.errors import SpecInvalid
from edge.supervisor.relay import Ask
from edge.supervisor.rootfs import RootfsStore, UnpackLimits
from edge.supervisor.sandbox.choose import choose
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.layout import is_bare
from edge.supervisor.settings import Settings
from edge.supervisor.spec import AppSpec, Limits, read_apply, read_keep
from edge.supervisor.storage import StorageStore, remove, retire_folders
from edge.supervisor.surroundings import Surroundings, socket_folders

log = get_logger(__name__)

STATUS_EVERY_S = 1.0
CREDENTIALS_TIMEOUT_S = 10.0
"""For the agent to ask the cloud side."""


class Supervisor:
    """The applications of one appliance."""

    def __init__(self, around: Surroundings, publish: Callable[[Mapping[str, Any]], None]) -> None:
        self._around = around
        self._publish = publish
        settings = around.settings
        self._limits = Limits(
            memory_mb=settings.memory_mb, cpu=settings.cpu, pids=settings.pids, disk_mb=settings.disk_mb
        )
        self._applications: dict[str, Application] = {}
        self._ending: dict[asyncio.Task[None], Application] = {}
        self._keep: frozenset[str] | None = None
        """Instances whose storage and logs stay; None: everybody's."""
        self._sweeping = asyncio.Lock()
        self._sweeps: set[asyncio.Task[None]] = set()
        self._swept = False
        self._left: set[Path] = set()
        """Socket folders of applications that have ended, to be removed."""

    async def apply(self, body: Mapping[str, Any]) -> None:
        """Makes the wanted set so: idempotent, at once; starting and stopping go on behind. Raises SpecInvalid."""
        wanted = {spec.instance_id: spec for spec in read_apply(body, self._limits)}
        self._keep = read_keep(body)
        ending: dict[str, asyncio.Task[None]] = {}
        for instance_id, application in list(self._applications.items()):
            spec = wanted.get(instance_id)
            if spec is None or replace(spec, paused=()) != replace(application.spec, paused=()):
                del self._applications[instance_id]
                ending[instance_id] = self._end(application)
            elif spec.paused != application.spec.paused:
                application.pause(spec.paused)
        for instance_id, spec in wanted.items():
            if instance_id not in self._applications:
                application = Application(spec, self._around, self.changed)
                self._applications[instance_id] = application
                application.start(after=ending.get(instance_id))
        self.changed()
        if not self._swept:
            # What the last supervisor left. From then on, each end sweeps.
            self._swept = True
            await self._sweep()
        task = asyncio.create_task(self._sweep_kept(), name="sweep storage")
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)

    def status(self) -> dict[str, Any]:
        """As in supervisor.status."""
        rows = {application.spec.instance_id: application.status() for application in self._applications.values()}
        for application in self._ending.values():
            instance_id = application.spec.instance_id
            if instance_id not in rows:
                rows[instance_id] = application.status() | {"state": "stopping"}
        return {"applications": list(rows.values())}

    def errors(self) -> Iterator[tuple[AppSpec, int]]:
        """Each application's errors since the last time this was asked."""
        for application in self._applications.values():
            yield application.spec, application.take_errors()

    def changed(self) -> None:
        """Tells it."""
        self._publish(self.status())

    def tidy(self) -> None:
        """Removes the socket folders that nobody has mounted or serves any more."""
        users = [*self._applications.values(), *self._ending.values()]
        self._left -= {folder for user in users for folder in self._socket_folders(user)}
        for folder in list(self._left):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass  # who served there has removed it
            except OSError:
                continue  # it is served there still: for another application, or not told yet
            self._left.discard(folder)

    async def stop(self) -> None:
        """Ends every application, all at the same time."""
        applications = [*self._applications.values(), *self._ending.values()]
        self._applications = {}
        grace_s = self._around.settings.shutdown_grace_s
        await asyncio.gather(*(application.stop(grace_s) for application in applications))

    def _end(self, application: Application) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ended(application), name=f"ending {application.spec.instance_id}")
        self._ending[task] = application
        return task

    async def _ended(self, application: Application) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await application.stop()
            await self._sweep(besides=application)
            await self._sweep_kept(besides=application)
        finally:
            del self._ending[task]
            self._left.update(self._socket_folders(application))
            self.tidy()
            self.changed()

    def _socket_folders(self, application: Application) -> Iterable[Path]:
        return socket_folders(self._around.paths, application.spec).values()

    async def _sweep_kept(self, besides: Application | None = None) -> None:
        """Removes the storage and the logs of instances that are gone for good."""
        async with self._sweeping:
            if self._keep is None:
                return
            users = [*self._applications.values(), *self._ending.values()]
            kept = self._keep | {user.spec.instance_id for user in users if user is not besides}
            # Until its replacement has taken it over, storage is there under the old name.
            inherited = {user.spec.replaces for user in users if user.spec.replaces and user is not besides}
            try:
                # Taken away here and now: an application that comes meanwhile would lose what it has just made.
                gone = self._around.storage.retire(kept | inherited)
                gone += retire_folders(self._around.paths.data / "applogs", kept)
                await asyncio.to_thread(remove, gone)
            except OSError as error:
                log.error("what an application left can't be removed; it is tried again", error=str(error))

    async def _sweep(self, besides: Application | None = None) -> None:
        """Removes unpacked archives that nobody uses."""
        users = [*self._applications.values(), *self._ending.values()]
        used = {Path(user.spec.rootfs) for user in users if user is not besides}
        # Taken away here and now, so that an application that comes meanwhile unpacks its own again.
        await asyncio.to_thread(self._around.rootfs.remove, self._around.rootfs.retire(used))


async def main(me: EdgeProcess) -> None:
    """The process, until it is stopped."""
    settings = load(Settings, env="BELVEDERE_SUPERVISOR_")
    data = me.paths.data
    base = HostBase(data / "sdk")
    sandbox = await choose(settings, base, data / "runc")
    installed = await asyncio.to_thread(sdk.install, data / "sdk" / "packages")
    await asyncio.to_thread(_remove_old_sockets, me.paths.run / "apps")

    def search_path(rootfs: Path) -> str:
        return base.search_path if is_bare(rootfs) else environment.DEFAULT_PATH

    def send_log(spec: AppSpec, stream: str, message: str) -> None:
        group = spec.log_group or f"{device_log_group(me.device_id)}/applications/{spec.instance_id}"
        me.log(message, group=group, stream=stream, instance_id=spec.instance_id)

    def credentials(instance_id: str) -> Ask:
        async def ask() -> Mapping[str, Any]:
            try:
                return await me.request("agent", "credentials", {"instance_id": instance_id}, CREDENTIALS_TIMEOUT_S)
            except CommandFailed as error:
                raise ValueError(error.message) from error

        return ask

    def gateway_url() -> str:
        return str(json.loads(me.paths.config_file.read_text())["gateway_url"])

    unpack = UnpackLimits(entries=settings.unpack_entries, total_bytes=settings.unpack_mb << 20)
    around = Surroundings(
        paths=me.paths,
        settings=settings,
        sandbox=sandbox,
        rootfs=RootfsStore(me.paths.rootfs, unpack),
        storage=StorageStore(data / "storage"),
        sdk=installed,
        search_path=search_path,
        gateway_url=gateway_url,
        send_log=send_log,
        credentials=credentials,
    )
    supervisor = Supervisor(around, me.publish_status)

    async def apply(body: dict[str, Any]) -> None:
        try:
            await supervisor.apply(body)
        except SpecInvalid as error:
            raise CommandFailed("INVALID_SPEC", str(error)) from error

    supervisor.changed()
    await me.command("apply", apply)
    me.tasks.start("status", _tell_status(supervisor))
    me.tasks.start("application errors", _tell_errors(me, supervisor, settings.errors_every_s))
    try:
        await me.stop.wait()
    finally:
        await supervisor.stop()


async def _tell_status(supervisor: Supervisor) -> None:
    """Counters rise, and others let go of folders, without anybody saying so."""
    while True:
        await asyncio.sleep(STATUS_EVERY_S)
        supervisor.tidy()
        supervisor.changed()


async def _tell_errors(me: EdgeProcess, supervisor: Supervisor, every_s: float) -> None:
    """The metric behind AWS's own alarm template: a value for every application, 0 where nothing went wrong, since the
    alarm takes silence for an error."""
    while True:
        for spec, errors in supervisor.errors():
            dimensions = {"ApplicationInstanceName": spec.name, "ApplicationInstanceId": spec.instance_id}
            me.metric("ApplicationErrors", errors, unit="Count", dimensions=dimensions)
        await asyncio.sleep(every_s)


def _remove_old_sockets(folder: Path) -> None:
    """What a supervisor that was killed left behind."""
    if folder.is_dir():
        for old in folder.iterdir():
            remove_socket_folder(old)
