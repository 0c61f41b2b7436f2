"""Brings wishes into targets and reports into rows: what happens beside the API's handlers.

Every step can be repeated: it looks at the row, does what is missing and writes down that it did. So a process that dies
half way, a peer that is away and an event that comes twice all end in the same place.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import grpc

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.event import Event
from belvedere.bus.kv import KeyValue
from belvedere.chassis import outbox
from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.database import Database
from belvedere.chassis.errors import BelvedereError, Conflict, Invalid, NotFound
from belvedere.chassis.logs import get_logger
from belvedere.fleet import (
    DesiredState,
    DocumentError,
    Health,
    Reported,
    Target,
    TargetApplication,
    TargetCamera,
    changing,
    with_application,
    with_camera,
    with_desired,
    without_application,
)
from belvedere.graph import CameraNode, ResolvedGraph
from belvedere.v1 import packages_pb2, packages_pb2_grpc, registry_pb2, registry_pb2_grpc
from services.deployments import events, rules, store
from services.deployments.rules import Status
from services.deployments.store import InstanceRow

log = get_logger(__name__)

DELIVERED = frozenset({Status.DEPLOYMENT_SUCCEEDED, Status.REMOVAL_IN_PROGRESS})
"""Of an instance: it has delivered."""
NOT_NOW = (BusError, BelvedereError)
"""A peer or the bus is away: the wish stays, and is tried again."""


class Deployer:
    """Writes targets, reads reports."""

    def __init__(
        self, database: Database, bus: Bus, channel: Callable[[], grpc.aio.Channel], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._channel = channel
        self._clock = clock
        self.targets = KeyValue(bus, subjects.TARGET_BUCKET)
        self.reports = KeyValue(bus, subjects.REPORTED_BUCKET)

    async def change_target(self, device_id: str, change: Callable[[Target], Target]) -> int:
        """Changes a device's target; returns the version that stands there afterwards, 0 for none."""
        entry = await self.targets.update(device_id, changing(device_id, change))
        return Target.from_json(entry.value).version if entry is not None and entry.value is not None else 0

    async def settle(self, instance_id: str) -> None:
        """Puts an instance's wish into its device's target, where it is not there yet and can be.

        Raises one of NOT_NOW where a peer or the bus is away; then it is to be called again.
        """
        async with self._database.session(read_only=True) as session:
            row = await session.get(InstanceRow, instance_id)
        if row is None:
            return
        with acting_as(self._principal(row)):
            if row.status == Status.DEPLOYMENT_PENDING:
                await self._deploy(row)
            elif row.status == Status.REMOVAL_PENDING:
                await self._remove(row)
        # A quick device has said what there is to say before its target's version was written down: it says it once.
        try:
            await self.heard_of(row.device_id)
        except DocumentError as error:
            log.error("a device's report can't be read", device_id=row.device_id, error=str(error))

    async def settle_waiting(self, device_id: str = "") -> None:
        """Settles every instance that waits; one that can't be now does not hold up the others."""
        async with self._database.session(read_only=True) as session:
            rows = await store.waiting(session, device_id)
        for row in rows:
            try:
                await self.settle(row.instance_id)
            except NOT_NOW as error:
                log.warning("an instance goes on waiting", instance_id=row.instance_id, error=str(error))

    async def _deploy(self, row: InstanceRow) -> None:
        key = await self._seal_key(row.device_id)
        if key is None:
            await self._say_waiting(row.instance_id)
            return
        graph = ResolvedGraph.from_json(row.graph)
        try:
            cameras = {node.camera_id: await self._sealed(node, key) for node in graph.cameras}
        except NotFound as error:
            # A camera package whose document names no address: waiting will not give it one.
            await self._fail(
                row.instance_id,
                f"Camera {error.resource_id} has no stream address: register it with CreateNodeFromTemplateJob, "
                "then deploy again.",
            )
            return
        before = await self._delivering(row.replaces)
        application = TargetApplication(
            instance_id=row.instance_id,
            name=row.name or row.instance_id,
            graph_digest=row.graph_digest,
            replaces=before or None,
            role_arn=row.role_arn or None,
            paused=tuple(row.paused),
            camera_ids=graph.camera_ids,
        )

        def deployed(target: Target) -> Target:
            before = target.application(row.instance_id)  # from a try that was cut short
            wanted = application if before is None else replace(application, replaces=before.replaces)
            return with_application(with_desired(target, row.replaces, DesiredState.REMOVED), wanted, cameras.values())

        version = await self.change_target(row.device_id, deployed)
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(InstanceRow, row.instance_id)
            overtaken = fresh.desired != DesiredState.RUNNING
            if not overtaken:
                state = replace(fresh.state, target_version=version)
                if state.status is Status.DEPLOYMENT_PENDING:
                    # A quick device may have reported already: then it is further than that.
                    state = replace(state, status=Status.DEPLOYMENT_REQUESTED, description="")
                fresh.take(state, self._clock())
                outbox.add(session, self._event(fresh))
                old = await session.get(InstanceRow, row.replaces) if row.replaces else None
                if old is not None and old.desired != DesiredState.REMOVED:
                    old.take(
                        replace(
                            old.state,
                            desired=DesiredState.REMOVED,
                            status=Status.REMOVAL_REQUESTED,
                            target_version=version,
                        ),
                        self._clock(),
                    )
                    outbox.add(session, self._event(old))
        if overtaken and fresh.status == Status.REMOVAL_SUCCEEDED:
            # Removed, or its device deleted, while it was being deployed: nobody looks after it in the target any more.
            await self.change_target(row.device_id, _without(row.instance_id))
        elif overtaken:
            await self._remove(fresh)

    async def wish_gone(self, instance_id: str) -> None:
        """Writes down that an instance is to go; `settle` brings it to the device. Raises Conflict where that is so
        already."""
        async with self._database.session() as session, session.begin():
            row = await session.get_one(InstanceRow, instance_id)
            if row.state.status in rules.REMOVING or row.state.status in rules.GONE:
                raise Conflict("APPLICATION_INSTANCE", instance_id, f"{instance_id} is {row.status} already.")
            row.desired, row.status = DesiredState.REMOVED.value, Status.REMOVAL_PENDING.value
            row.status_description, row.target_version, row.updated = "", None, self._clock()
            outbox.add(session, events.instance(events.CHANGED, row))

    async def _remove(self, row: InstanceRow) -> None:
        version = await self.change_target(
            row.device_id, lambda target: with_desired(target, row.instance_id, DesiredState.REMOVED)
        )
        entry = await self.targets.get(row.device_id)
        target = Target.from_json(entry.value) if entry is not None and entry.value is not None else None
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(InstanceRow, row.instance_id)
            if fresh.status != Status.REMOVAL_PENDING:
                return
            if target is None or target.application(row.instance_id) is None:
                state = replace(
                    fresh.state, status=Status.REMOVAL_SUCCEEDED, description=rules.REMOVED, health=Health.NOT_AVAILABLE,
                    device_state=None,
                )  # fmt: skip
            else:
                state = replace(fresh.state, status=Status.REMOVAL_REQUESTED, target_version=version)
            fresh.take(state, self._clock())
            outbox.add(session, self._event(fresh))

    async def _say_waiting(self, instance_id: str) -> None:
        async with self._database.session() as session, session.begin():
            row = await session.get_one(InstanceRow, instance_id)
            if row.status == Status.DEPLOYMENT_PENDING and row.status_description != rules.NOT_ENROLLED:
                row.take(replace(row.state, description=rules.NOT_ENROLLED), self._clock())
                outbox.add(session, self._event(row))

    async def _fail(self, instance_id: str, description: str) -> None:
        async with self._database.session() as session, session.begin():
            row = await session.get_one(InstanceRow, instance_id)
            if row.status == Status.DEPLOYMENT_PENDING:
                text = rules.shortened(description)
                row.take(replace(row.state, status=Status.DEPLOYMENT_FAILED, description=text), self._clock())
                outbox.add(session, self._event(row))

    async def _seal_key(self, device_id: str) -> bytes | None:
        """The device's public key; None while it is not enrolled."""
        stub = registry_pb2_grpc.RegistryServiceStub(self._channel())
        try:
            keys = await stub.GetDeviceKeys(registry_pb2.GetDeviceKeysRequest(device_id=device_id))
        except (NotFound, Conflict, Invalid):
            return None
        return keys.seal_public_key or None

    async def _sealed(self, node: CameraNode, key: bytes) -> TargetCamera:
        stub = packages_pb2_grpc.PackagesServiceStub(self._channel())
        ref = node.package
        reference = packages_pb2.PackageReference(
            owner=ref.owner, name=ref.name, version=ref.version, patch_version=ref.patch_version
        )
        camera = await stub.SealCamera(packages_pb2.SealCameraRequest(reference=reference, seal_public_key=key))
        return TargetCamera(node.camera_id, camera.stream_url, base64.b64encode(camera.sealed_credentials).decode())

    async def take_report(self, reported: Reported) -> None:
        """Brings what a device says into its instances' rows."""
        async with self._database.session(read_only=True) as session:
            rows = await store.live_on_device(session, reported.device_id)
        for row in rows:
            state = rules.next_state(row.instance_id, row.state, reported)
            nodes = _node_status(row, reported)
            if state == row.state and nodes == row.node_status:
                continue
            if state.status is Status.DEPLOYMENT_FAILED and row.state.status is not state.status:
                await self.revert(row.instance_id, state.description)
                continue
            if state.status is Status.REMOVAL_SUCCEEDED:
                with_out: Callable[[Target], Target] = _without(row.instance_id)
                await self.change_target(row.device_id, with_out)
            async with self._database.session() as session, session.begin():
                fresh = await session.get_one(InstanceRow, row.instance_id)
                state = rules.next_state(row.instance_id, fresh.state, reported)
                if state == fresh.state and nodes == fresh.node_status:
                    continue
                fresh.node_status = nodes
                fresh.reported = datetime.fromtimestamp(reported.reported_at_ms / 1000, UTC)
                fresh.take(state, self._clock())
                outbox.add(session, self._event(fresh))

    async def revert(self, instance_id: str, description: str) -> bool:
        """A deployment that failed, or is to be undone: it leaves the target, what it was to replace stays and is
        wanted again. Returns whether that still runs. The target first: who dies in between does it again."""
        async with self._database.session(read_only=True) as session:
            row = await session.get_one(InstanceRow, instance_id)
        kept: list[str] = []

        def change(target: Target) -> Target:
            application = target.application(instance_id)
            before = application.replaces if application is not None else None
            kept[:] = [before] if before and target.application(before) is not None else []
            return rules.reverted(target, instance_id)

        version = await self.change_target(row.device_id, change)
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(InstanceRow, instance_id)
            fresh.take(
                replace(fresh.state, status=Status.DEPLOYMENT_FAILED, description=rules.shortened(description)),
                self._clock(),
            )
            fresh.node_status = {}
            outbox.add(session, self._event(fresh))
            old = await session.get(InstanceRow, kept[0]) if kept else None
            if old is not None and old.status != Status.REMOVAL_SUCCEEDED:
                state = replace(old.state, desired=DesiredState.RUNNING, status=Status.DEPLOYMENT_SUCCEEDED)
                old.take(replace(state, description=rules.DEPLOYED, target_version=version), self._clock())
                outbox.add(session, self._event(old))
        return bool(kept)

    async def _delivering(self, instance_id: str) -> str:
        """What runs, and goes on until a new one delivers: the instance itself, or, while it has not delivered, what it
        was to replace; "" where that is gone. So of two changes in a row the second takes the place of what runs."""
        async with self._database.session(read_only=True) as session:
            row = await session.get(InstanceRow, instance_id) if instance_id else None
            while row is not None and row.replaces and row.status not in DELIVERED:
                older = await session.get(InstanceRow, row.replaces)
                if older is None or older.status == Status.REMOVAL_SUCCEEDED:
                    break
                row = older
        return row.instance_id if row is not None else ""

    async def health_unknown(self, device_id: str) -> None:
        """The device is not heard of: nobody knows how its applications fare."""
        async with self._database.session() as session, session.begin():
            for row in await store.live_on_device(session, device_id):
                if row.health != Health.NOT_AVAILABLE or row.node_status:
                    row.node_status = {}
                    row.take(replace(row.state, health=Health.NOT_AVAILABLE), self._clock())
                    outbox.add(session, events.instance(events.CHANGED, row))

    async def heard_of(self, device_id: str) -> None:
        """The device is back: its last report counts again."""
        entry = await self.reports.get(device_id)
        if entry is not None and entry.value is not None:
            await self.take_report(Reported.from_json(entry.value))

    async def device_deleted(self, device_id: str) -> None:
        """Its applications are gone with it."""
        await self.targets.delete(device_id)
        async with self._database.session() as session, session.begin():
            for row in await store.live_on_device(session, device_id):
                row.node_status = {}
                state = replace(
                    row.state, desired=DesiredState.REMOVED, status=Status.REMOVAL_SUCCEEDED, health=Health.NOT_AVAILABLE,
                    description="The device was deleted.", device_state=None,
                )  # fmt: skip
                row.take(state, self._clock())
                outbox.add(session, self._event(row))

    async def new_credentials(self, account: str, region: str, package: str, version: str, patch: str) -> None:
        """A camera has new credentials: every target that holds it gets them, sealed anew."""
        async with self._database.session(read_only=True) as session:
            rows = await store.package_users(session, account, region, package, version, patch)
        for device_id in dict.fromkeys(row.device_id for row in rows if row.target_version is not None):
            key = await self._seal_key(device_id)
            graphs = [ResolvedGraph.from_json(row.graph) for row in rows if row.device_id == device_id]
            nodes = {node.camera_id: node for graph in graphs for node in graph.cameras if node.package.name == package}
            for node in nodes.values():
                if key is not None:
                    camera = await self._sealed(node, key)
                    await self.change_target(device_id, _with_camera(camera))

    def _event(self, row: InstanceRow) -> Event:
        gone = row.status == Status.REMOVAL_SUCCEEDED
        return events.instance(events.REMOVED if gone else events.CHANGED, row)

    def _principal(self, row: InstanceRow) -> Caller:
        return Caller(row.account, row.region, service_principal("deployments"), new_request_id())


def _without(instance_id: str) -> Callable[[Target], Target]:
    return lambda target: without_application(target, instance_id)


def _with_camera(camera: TargetCamera) -> Callable[[Target], Target]:
    return lambda target: with_camera(target, camera)


def _node_status(row: InstanceRow, reported: Reported) -> dict[str, str]:
    statuses = rules.node_statuses(reported.application(row.instance_id))
    return {name: status.value for name, status in sorted(statuses.items())}
