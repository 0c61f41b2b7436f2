"""What the supervisor answers on the local bus: the whole wanted set in `apply`, the state of every application in
its status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from belvedere.chassis.edge import CommandFailed, EdgeProcess, device_log_group
from belvedere.chassis.logs import get_logger
from belvedere.chassis.settings import load
from edge.supervisor import environment, sdk
from edge.supervisor.application import Application, Surroundings
from edge.supervisor.control import remove_socket_folder
from edge.supervisor.errors import SandboxUnavailable, SpecInvalid
from edge.supervisor.relay import Ask
from edge.supervisor.rootfs import RootfsStore
from edge.supervisor.sandbox.bwrap import Bubblewrap
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.layout import is_bare
from edge.supervisor.settings import Settings
from edge.supervisor.spec import AppSpec, Limits, read_apply

log = get_logger(__name__)

CREDENTIALS_TIMEOUT_S = 10.0
"""For the agent to ask the cloud side."""


class Supervisor:
    """The applications of one appliance."""

    def __init__(self, around: Surroundings, publish: Callable[[Mapping[str, Any]], None]) -> None:
        self._around = around
        self._publish = publish
        self._limits = Limits(memory_mb=around.settings.memory_mb)
        self._applications: dict[str, Application] = {}
        self._ending: dict[asyncio.Task[None], Application] = {}
        self._swept = False

    async def apply(self, body: Mapping[str, Any]) -> None:
        """Makes the wanted set so: idempotent, at once; starting and stopping go on behind. Raises SpecInvalid."""
        wanted = {spec.instance_id: spec for spec in read_apply(body, self._limits)}
        ending: dict[str, asyncio.Task[None]] = {}
        for instance_id, application in list(self._applications.items()):
            if wanted.get(instance_id) != application.spec:
                del self._applications[instance_id]
                ending[instance_id] = self._end(application)
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

    def status(self) -> dict[str, Any]:
        """As in supervisor.status."""
        return {"applications": [application.status() for application in self._applications.values()]}

    def changed(self) -> None:
        """Tells it."""
        self._publish(self.status())

    async def stop(self) -> None:
        """Ends every application, all at the same time."""
        applications = [*self._applications.values(), *self._ending.values()]
        self._applications = {}
        grace_s = self._around.settings.shutdown_grace_s
        await asyncio.gather(*(application.stop(grace_s) for application in applications))

    def _end(self, application: Application) -> asyncio.Task[None]:
        task = asyncio.create_task(self._ended(application), name=f"ending {application.spec.instance_id}")
        self._ending[task] = application
        task.add_done_callback(self._ending.pop)
        return task

    async def _ended(self, application: Application) -> None:
        await application.stop()
        await self._sweep(besides=application)
        self.changed()

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
    sandbox = Bubblewrap(base, program=settings.bwrap, memory_check_s=settings.memory_check_s)
    installed = await asyncio.to_thread(sdk.install, data / "sdk" / "packages")
    try:
        await sandbox.prepare()
    except SandboxUnavailable as error:
        # Each application will say so too, and tries again by itself.
        log.error("no sandbox can be made", error=str(error))
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

    around = Surroundings(
        paths=me.paths,
        settings=settings,
        sandbox=sandbox,
        rootfs=RootfsStore(me.paths.rootfs),
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
    try:
        await me.stop.wait()
    finally:
        await supervisor.stop()


def _remove_old_sockets(folder: Path) -> None:
    """What a supervisor that was killed left behind."""
    if folder.is_dir():
        for old in folder.iterdir():
            remove_socket_folder(old)
