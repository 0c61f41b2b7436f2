"""The loop: look, plan, do, look again; ends when there is nothing to do, and wakes with every change.

Here is what the pure plan is not: what is known is kept, steps are given to the executors, failures wait for their next
try, and reports go up. One change wakes one turn; turns never overlap.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from belvedere.bus.errors import BusError
from belvedere.chassis.edge import EdgeError
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DocumentError, Reason, ReasonCode, Reported, ReportedJob, SealError, Target
from belvedere.graph import ResolvedGraph, ResolvedGraphError
from edge.agent.deliveries import Deliveries
from edge.agent.device import write_private
from edge.agent.errors import AssetError
from edge.agent.executors import Executors
from edge.agent.idle import when_idle
from edge.agent.jobs import Jobs
from edge.agent.link import Link, now_ms
from edge.agent.network import networking
from edge.agent.plan import (
    ApplyApplications,
    ApplyCameras,
    ApplyModels,
    ApplyOutputs,
    Current,
    FetchAsset,
    FetchGraph,
    RunJob,
    Step,
    live,
    model_names,
    plan,
)
from edge.agent.report import Statuses, delivered, report
from edge.agent.settings import AgentSettings

log = get_logger(__name__)

KINDS = {"ingest": "cameras", "inference": "models", "supervisor": "applications", "display": "outputs"}
"""What each process's status lists."""
KEYS = {"cameras": "camera_id", "models": "model_id", "applications": "instance_id", "outputs": "instance_id"}
MAX_TURNS = 100
"""Turns in a row after which the loop lets a moment pass: a plan that never ends is a bug, not a busy loop."""
DELIVERIES_EVERY_S = 0.5
"""Between two looks at replacements that have not delivered."""


class Loop:
    """Brings the appliance to its target."""

    def __init__(
        self, link: Link, executors: Executors, jobs: Jobs, state_file: Path, settings: AgentSettings, software: str
    ) -> None:
        self.target = Target(device_id=link.device_id)
        self.statuses = Statuses()
        self._current = Current()
        self._failures: dict[str, Reason] = {}
        self._pauses: dict[str, float] = {}
        self._link = link
        self._executors = executors
        self._jobs = jobs
        self._state_file = state_file
        self._settings = settings
        self._software = software
        self._wake = asyncio.Event()
        self._report_wake = asyncio.Event()
        self._fetches: set[asyncio.Task[None]] = set()
        self._fetch_slots = asyncio.Semaphore(settings.fetch_parallel)
        self._archives: dict[str, str] = {}
        self._deliveries = Deliveries(settings.delivery_limit_s)
        self._ended = False
        executors.assets.in_use = self._needed

    # -- what changes -----------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """The state of the last run, so that an appliance without a link comes back to what it was."""
        self._current = replace(
            self._current,
            assets=self._executors.assets.verified(),
            jobs=frozenset(job.job_id for job in self._jobs.all()),
        )
        try:
            state = json.loads(self._state_file.read_text())
            self.target = Target.from_plain(state["target"])
            given_up = {key: Reason.from_plain(value) for key, value in state.get("given_up", {}).items()}
            self._current = replace(
                self._current, delivered=frozenset(state["delivered"]), given_up=given_up, graphs=self._kept_graphs()
            )
        except FileNotFoundError:
            return
        except (ValueError, KeyError, DocumentError) as error:
            log.error("the kept state cannot be read; waiting for the cloud's target", reason=str(error))
            return
        self._wake.set()

    def _kept_graphs(self) -> dict[str, ResolvedGraph]:
        """Those of the target that are here: what runs must not stop because nobody has read them yet."""
        graphs = {}
        for digest in {app.graph_digest for app in self.target.applications} & self._current.assets:
            try:
                graphs[digest] = ResolvedGraph.from_json(self._executors.assets.path(digest).read_bytes())
            except (OSError, AssetError, ResolvedGraphError) as error:
                log.warning("a graph can't be read; it is fetched again", digest=digest, reason=str(error))
        return graphs

    async def take_target(self, target: Target) -> None:
        """A new target from the cloud."""
        if self._ended:
            return
        log.info("target", version=target.version, applications=len(target.applications))
        self.target = target
        ids = {app.instance_id for app in target.applications}
        given_up = {key: reason for key, reason in self._current.given_up.items() if key in ids}
        self._current = replace(self._current, delivered=self._current.delivered & ids, given_up=given_up)
        self._keep()
        self._wake.set()

    def end(self) -> None:
        """The device was deleted: nothing is to run here any more. What is kept stays: storage, logs, the last target."""
        self._ended = True
        self.target = Target(device_id=self._link.device_id)
        self.wake()

    async def take_status(self, process: str, body: Mapping[str, Any]) -> None:
        """What an edge process says of itself."""
        kind = KINDS[process]
        rows = {str(row[KEYS[kind]]): row for row in body.get(kind, ())}
        before: Mapping[str, Any] = getattr(self.statuses, kind)
        self.statuses = replace(self.statuses, **{kind: rows})
        applied = getattr(self._current, kind)
        has_other = applied is not None and {getattr(item, KEYS[kind]) for item in applied} != {
            key for key, row in rows.items() if row.get("state") != "stopping"
        }
        if has_other and not self._executors.settling(process):
            # It has less or more than we gave it: it has started anew, and is told again.
            self._current = replace(self._current, **_untold(kind))
            self._wake.set()
        fresh = delivered(self.statuses) - self._current.delivered if kind == "applications" else frozenset()
        if fresh:
            self._current = replace(self._current, delivered=self._current.delivered | fresh)
            self._keep()
            self._wake.set()
        if _signature(before) != _signature(rows):
            self._report_wake.set()

    def wake(self) -> None:
        """Something that plan or report depends on has changed."""
        self._wake.set()
        self._report_wake.set()

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            for _ in range(MAX_TURNS):
                self._wake.clear()
                steps = plan(self.target, self._current)
                for step in steps:
                    await self._do(step)
                if not self._wake.is_set():
                    break
            else:
                log.error(
                    "the plan does not end", steps=[type(step).__name__ for step in plan(self.target, self._current)]
                )
                await asyncio.sleep(self._settings.retry_min_s)
            self._report_wake.set()
            if not self._fetches and not self._ended:
                self._executors.assets.trim(self._needed())

    async def _do(self, step: Step) -> None:
        try:
            match step:
                case FetchGraph(digest) | FetchAsset(digest):
                    self._begin_fetch(digest, graph=isinstance(step, FetchGraph))
                case ApplyCameras(cameras):
                    await self._executors.apply_cameras(cameras)
                    self._current = replace(self._current, cameras=cameras)
                case ApplyModels(models):
                    await self._executors.apply_models(models)
                    self._current = replace(self._current, models=models)
                case ApplyApplications(applications, keep):
                    await self._executors.apply_applications(applications, keep)
                    self._archives.update({app.instance_id: app.archive for app in applications})
                    self._executors.assets.changed()
                    self._current = replace(self._current, applications=applications, keep=keep)
                case ApplyOutputs(outputs):
                    await self._executors.apply_outputs(outputs)
                    self._current = replace(self._current, outputs=outputs)
                case RunJob(job):
                    self._current = replace(self._current, jobs=self._current.jobs | {job.job_id})
                    await self._jobs.begin(job)
        except (BusError, EdgeError, SealError) as error:
            log.warning("a step did not succeed; it is tried again", step=type(step).__name__, reason=str(error))
            self._later(type(step).__name__, self._wake.set)

    def _begin_fetch(self, digest: str, *, graph: bool) -> None:
        self._current = replace(self._current, busy=self._current.busy | {digest})
        task = asyncio.create_task(self._fetch(digest, graph=graph), name=f"fetch {digest[:19]}")
        self._fetches.add(task)
        task.add_done_callback(self._fetches.discard)

    async def _fetch(self, digest: str, *, graph: bool) -> None:
        try:
            async with self._fetch_slots:
                assets = self._executors.assets
                path = await (assets.fetch_document(digest) if graph else assets.fetch(digest))
                assets.changed()
            if graph:
                resolved = ResolvedGraph.from_json(await asyncio.to_thread(path.read_bytes))
                self._current = replace(self._current, graphs={**self._current.graphs, digest: resolved})
            else:
                self._current = replace(self._current, assets=self._current.assets | {digest})
            self._failures.pop(digest, None)
            self._pauses.pop(digest, None)
            self._free(digest)
        except (AssetError, ResolvedGraphError) as error:
            invalid = isinstance(error, ResolvedGraphError) or error.invalid
            code = ReasonCode.ASSET_INVALID if invalid else ReasonCode.ASSET_UNAVAILABLE
            self._failures[digest] = Reason(code, str(error))
            log.warning("an asset is not here yet", digest=digest, reason=str(error))
            self._report_wake.set()
            self._later(digest, lambda: self._free(digest))

    def _free(self, digest: str) -> None:
        self._current = replace(self._current, busy=self._current.busy - {digest})
        self.wake()

    def _later(self, key: str, then: Any) -> None:
        """Calls `then` after a pause that doubles with each failure of `key`."""
        pause = self._pauses.get(key, self._settings.retry_min_s)
        self._pauses[key] = min(pause * 2, self._settings.retry_max_s)
        asyncio.get_running_loop().call_later(pause, then)

    @property
    def fetched_bytes(self) -> int:
        """Of assets, over the network, since the start."""
        return self._executors.assets.fetched_bytes

    def model_names(self) -> dict[str, list[str]]:
        """The names by which applications call each model, by its id."""
        return model_names(self.target, self._current)

    async def run_asset_checks(self) -> None:
        """For ever, and seldom: what the disk has spoilt is fetched again."""
        await asyncio.sleep(self._settings.asset_check_delay_s)
        while True:
            damaged = await when_idle(self._executors.assets.check)
            if damaged:
                self._current = replace(self._current, assets=self._current.assets - frozenset(damaged))
                self.wake()
            await asyncio.sleep(self._settings.asset_check_s)

    def _needed(self) -> set[str]:
        needed = {app.graph_digest for app in live(self.target, self._current)}
        for graph in (self._current.graphs.get(digest) for digest in set(needed)):
            if graph is not None:
                needed.update(asset.digest for asset in graph.assets)
        # What is still stopping has its files until it has stopped.
        wanted = {app.instance_id for app in self._current.applications or ()}
        self._archives = {
            instance_id: archive
            for instance_id, archive in self._archives.items()
            if instance_id in wanted or instance_id in self.statuses.applications
        }
        return needed | set(self._archives.values())

    async def run_deliveries(self) -> None:
        """Gives replacements up that do not deliver in their time."""
        while True:
            await asyncio.sleep(DELIVERIES_EVERY_S)
            now_s = asyncio.get_running_loop().time()
            overdue = self._deliveries.overdue(self.target, self.reported(), self._current.given_up, now_s)
            if overdue:
                for instance_id, reason in overdue.items():
                    log.warning("a replacement is given up", instance_id=instance_id, reason=reason.message)
                self._current = replace(self._current, given_up={**self._current.given_up, **overdue})
                self._keep()
                self.wake()

    # -- reporting --------------------------------------------------------------------------------------------------

    async def run_reports(self) -> None:
        """Reports every change at once, but not more often than `report_s`, and again after a lost link."""
        last: Reported | None = None
        while True:
            await self._link.up.wait()
            reported = self.reported()
            if last is None or replace(reported, reported_at_ms=last.reported_at_ms) != last:
                try:
                    await self._link.report(reported)
                    last = reported
                except BusError as error:
                    log.debug("not reported yet", reason=str(error))
                    await asyncio.sleep(self._settings.retry_min_s)
                    continue
            self._report_wake.clear()
            try:
                async with asyncio.timeout(self._settings.report_s):
                    await self._report_wake.wait()
            except TimeoutError:
                continue

    def reported(self) -> Reported:
        """The document as of now."""
        jobs: tuple[ReportedJob, ...] = self._jobs.all()
        return report(
            self.target,
            self._current,
            self.statuses,
            failures=self._failures,
            jobs=jobs,
            networking=networking(),
            reported_at_ms=now_ms(),
            software_version=self._software,
        )

    def _keep(self) -> None:
        if self._ended:
            return
        state = {
            "target": self.target.to_plain(),
            "delivered": sorted(self._current.delivered),
            "given_up": {key: reason.to_plain() for key, reason in self._current.given_up.items()},
        }
        write_private(self._state_file, json.dumps(state).encode())


def _untold(kind: str) -> dict[str, Any]:
    return {kind: None}


def _signature(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What of a status is worth a report at once: states and reasons, not counters."""
    return {
        key: (row.get("state"), json.dumps(row.get("reason")), row.get("restarts"), row.get("rtsp_url"))
        for key, row in rows.items()
    }
