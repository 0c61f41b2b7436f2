"""The agent at work: its place on the local bus, its commands, and the tasks that make it one.

edge.agent.overview       what every process of the appliance said last, and what the processes use
edge.agent.credentials    {"instance_id"} → role credentials, asked from the cloud for the supervisor
edge.agent.target         where there is no cloud side (edge.agent.local): the target
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from belvedere import __version__, processes
from belvedere.bus import leaf, subjects
from belvedere.bus.errors import BusError
from belvedere.chassis.edge import CommandFailed, EdgeProcess
from belvedere.chassis.logs import get_logger
from belvedere.chassis.settings import load
from edge.agent.assets import AssetStore
from edge.agent.device import CA, DeviceConfig, DeviceKeys
from edge.agent.executors import Executors
from edge.agent.exporter import Exporter
from edge.agent.figures import figures
from edge.agent.forward import Forwarder, ensure_local_streams, message_ids
from edge.agent.jobs import Jobs
from edge.agent.lease import Lease
from edge.agent.link import Link
from edge.agent.local import read_target
from edge.agent.loop import KINDS, Loop
from edge.agent.settings import AgentSettings
from edge.agent.stages import Before, Sample, changes, samples
from edge.agent.standing import Standing

log = get_logger(__name__)

REBOOT_EXIT_CODE = 75
"""Tells the runner to start the whole appliance anew."""


class Agent:
    """One appliance's agent."""

    def __init__(self, me: EdgeProcess) -> None:
        settings = load(AgentSettings, env="BELVEDERE_AGENT_")
        folder = me.paths.device
        self.reboot_wanted = False
        self._me = me
        self._settings = settings
        self._config = DeviceConfig.load(folder)
        keys = self._keys = DeviceKeys.load_or_make(folder)
        self._link = Link(me.bus, self._config.device_id, check_s=settings.link_check_s)
        self._lease = Lease(me.bus, self._config, keys, folder)
        self._standing = Standing(self._config, keys, folder, check_s=settings.deleted_check_s)
        assets = AssetStore(
            me.paths.assets,
            limit_bytes=settings.asset_cache_mb << 20,
            base_url=self._config.device_url,
            ca_file=folder / CA,
            sign=lambda method, path: keys.authorization(self._config.device_id, method, path),
        )
        executors = Executors(me.request, assets, me.paths, self._config, keys)
        jobs = Jobs(folder / "jobs.json", __version__, self._reboot)
        self._loop = Loop(self._link, executors, jobs, me.paths.state_file, settings, __version__)
        self._last: dict[str, dict[str, Any]] = {process: {} for process in KINDS}
        self._exporter = Exporter(self._samples, settings.metrics_host, settings.metrics_port)
        self._forwarders = [
            Forwarder(
                me.bus,
                message_ids(folder / "forward.id"),
                stream,
                subject(self._config.device_id),
                window=settings.log_window,
                link_up=self._link.up,
            )
            for stream, subject in (
                (subjects.EDGE_LOGS_STREAM, subjects.up_logs),
                (subjects.EDGE_METRICS_STREAM, subjects.up_metrics),
            )
        ]

    async def run(self) -> None:
        """Until the process is told to stop."""
        me = self._me
        await ensure_local_streams(me.bus)
        for process in KINDS:
            await me.on_status(process, self._status_taker(process))
        await me.command("overview", self._overview)
        await me.command("credentials", self._credentials)
        if self._config.local:
            await me.command("target", self._take_local_target)
        elif self._standing.deleted:
            log.error("this device was deleted in the cloud: nothing runs here", device_id=self._config.device_id)
            self._loop.end()
        else:
            self._loop.restore()
        me.tasks.start("loop", self._loop.run())
        me.tasks.start("deliveries", self._loop.run_deliveries())
        if not self._config.local and not self._standing.deleted:
            self._begin_link(me)
        if self._settings.metrics_host:
            await self._exporter.start()
        self._loop.wake()
        try:
            await me.stop.wait()
        finally:
            await self._exporter.close()

    def _begin_link(self, me: EdgeProcess) -> None:
        """Everything that speaks with the cloud side."""
        me.tasks.start("reports", self._loop.run_reports())
        me.tasks.start("link", self._link.run(self._loop.take_target))
        me.tasks.start(
            "lease", self._lease.keep(self._settings.lease_renewal_fraction, self._link.up, self._renew_leaf)
        )
        me.tasks.start("standing", self._standing.watch(self._link.up, self._loop.end))
        me.tasks.start("device-active", self._device_active())
        me.tasks.start("figures", self._figures())
        me.tasks.start("stages", self._stages())
        me.tasks.start("asset-check", self._loop.run_asset_checks())
        for forwarder in self._forwarders:
            me.tasks.start("forwarder", forwarder.run())

    async def _take_local_target(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer is what who started it can't know: the key of the video."""
        await self._loop.take_target(read_target(body, self._keys))
        return {"viewer_key": self._config.viewer_key}

    def _status_taker(self, process: str) -> Callable[[dict[str, Any]], Awaitable[None]]:
        async def take(body: dict[str, Any]) -> None:
            self._last[process] = body
            await self._loop.take_status(process, body)

        return take

    async def _overview(self, _: dict[str, Any]) -> dict[str, Any]:
        uses = await asyncio.to_thread(processes.tree, os.getppid())
        running = {
            row["pid"]: row["instance_id"] for row in self._last["supervisor"].get("applications", ()) if row["pid"]
        }
        owners = processes.families(uses, running, "edge.supervisor")
        return {
            "device_id": self._config.device_id,
            "device_name": self._config.device_name,
            "link_up": self._link.up.is_set(),
            "deleted": self._standing.deleted,
            "target_version": self._loop.target.version,
            "reported": self._loop.reported().to_plain(),
            "metrics_url": self._exporter.url,
            "fetched_bytes": self._loop.fetched_bytes,
            "forwarded": [asdict(forwarder.stats) for forwarder in self._forwarders],
            "processes": [{**asdict(use), "instance_id": owners.get(use.pid)} for use in uses],
            "names": {
                "applications": {app.instance_id: app.name for app in self._loop.target.applications},
                "models": self._loop.model_names(),
            },
            **self._last,
        }

    async def _credentials(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._link.credentials(str(body.get("instance_id", "")))
        except BusError as error:
            raise CommandFailed("UNAVAILABLE", f"the cloud side cannot be asked for credentials: {error}") from error
        if "error" in answer:
            raise CommandFailed("REFUSED", str(answer["error"]))
        return answer

    async def _device_active(self) -> None:
        """The metric behind AWS's own alarm template: 1 a minute while the device is on."""
        dimensions = {"DeviceName": self._config.device_name, "DeviceId": self._config.device_id}
        while True:
            self._me.metric("DeviceActive", 1.0, unit="Count", dimensions=dimensions)
            await asyncio.sleep(self._settings.device_active_s)

    async def _figures(self) -> None:
        """How well each application sees (`figures`)."""
        clock = asyncio.get_running_loop().time
        before, at = self._loop.statuses, clock()
        while True:
            await asyncio.sleep(self._settings.figures_s)
            now, moment = self._loop.statuses, clock()
            for figure in figures(self._loop.target, before, now, moment - at):
                self._me.metric(figure.name, figure.value, unit=figure.unit, dimensions=figure.dimensions)
            before, at = now, moment

    def _samples(self) -> list[Sample]:
        names = {app.instance_id: app.name for app in self._loop.target.applications}
        return samples(self._last, names)

    async def _stages(self) -> None:
        """What each stage of the data plane measures, to the cloud side's metrics."""
        device = {"DeviceId": self._config.device_id}
        before: Before = {}
        while True:
            data, before = changes(self._samples(), before)
            for datum in data:
                self._me.metric(datum.name, datum.value, unit=datum.unit, dimensions={**device, **datum.dimensions})
            await asyncio.sleep(self._settings.stages_s)

    async def _renew_leaf(self, creds_file: Path) -> None:
        """A new credentials path in the configuration and a reload: the way that keeps local clients connected."""
        await leaf.use_credentials(self._me.paths.nats, creds_file)

    def _reboot(self) -> None:
        self.reboot_wanted = True
        os.kill(os.getpid(), signal.SIGTERM)
