"""Rollouts at work: looks at their devices, asks the rules, does what they say, looks again.

Everything is in the database before it is done, and everything can be done twice: a service that dies in the midst of
a rollout goes on where it was. Replicas may look at the same rollout: who has read an older revision writes nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import outbox
from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.database import Database
from belvedere.chassis.errors import BelvedereError, Conflict, Invalid, NotFound
from belvedere.chassis.logs import get_logger
from belvedere.v1 import logs_metrics_pb2, logs_metrics_pb2_grpc, registry_pb2, registry_pb2_grpc
from services.deployments import events, rollout_rules, rollout_store, store
from services.deployments.creating import Creator, Wish
from services.deployments.deployer import NOT_NOW, Deployer
from services.deployments.rollback import Rollback
from services.deployments.rollout_rules import Device, DeviceStatus, Gate, Samples
from services.deployments.rollout_store import RolloutDeviceRow, RolloutRow
from services.deployments.store import Brief, InstanceRow

NAMESPACE = "PanoramaDeviceMetrics"
METRICS_GRACE_S = 30.0
"""How long after its window a metric may come."""
FINE_WINDOW_S = 1200
"""Up to this window, metrics are asked for by the second; beyond, by the minute: 1,440 points are the most there are."""
LOOKED_AT = frozenset({DeviceStatus.DEPLOYING, DeviceStatus.VERIFYING, DeviceStatus.OFFLINE})
"""Whether these are online matters."""

log = get_logger(__name__)


class Begun(Exception):
    """Somebody else has begun the device."""


class Rollouts:
    """Runs for as long as the service."""

    def __init__(
        self,
        database: Database,
        creator: Creator,
        deployer: Deployer,
        channel: Callable[[], grpc.aio.Channel],
        clock: Callable[[], datetime],
        tick_s: float,
    ) -> None:
        self._database, self._creator, self._deployer = database, creator, deployer
        self._channel, self._clock, self._tick_s = channel, clock, tick_s
        self._rollback = Rollback(database, creator, deployer, self._online, clock)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something has changed: looks at once."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            async with self._database.session(read_only=True) as session:
                rows = await rollout_store.under_way(session)
            for row in rows:
                try:
                    await self.step(row.rollout_id)
                except NOT_NOW as error:
                    log.warning("a rollout waits", rollout_id=row.rollout_id, error=str(error))
            try:
                async with asyncio.timeout(self._tick_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self, rollout_id: str) -> None:
        """One look at a rollout."""
        async with self._database.session(read_only=True) as session:
            rollout = await session.get_one(RolloutRow, rollout_id)
            rows = await rollout_store.devices(session, rollout_id)
            instances = await store.briefs(session, [row.instance_id for row in rows if row.instance_id])
        who = Caller(rollout.account, rollout.region, service_principal("deployments"), new_request_id())
        with acting_as(who):
            seen = [await self._seen(rollout, row, instances.get(row.instance_id)) for row in rows]
            progress, devices, begin = rollout_rules.next_progress(rollout.plan, rollout.progress, seen, self._clock())
            if not await self._write(rollout, rows, seen, progress, devices):
                return
            for row, device in zip(rows, devices, strict=True):
                if device.device_id in begin:
                    await self._begin(who, rollout, row)
                elif device.status is DeviceStatus.ROLLING_BACK:
                    await self._rollback.step(who, rollout, row.position)

    async def _seen(self, rollout: RolloutRow, row: RolloutDeviceRow, instance: Brief | None) -> Device:
        device = Device(
            device_id=row.device_id,
            name=row.device_name,
            phase=row.phase,
            status=DeviceStatus(row.status),
            description=row.description,
            failed=row.failed,
            begun=row.begun,
            delivered=row.delivered,
            online=row.status not in LOOKED_AT or await self._online(row.device_id),
        )
        if instance is not None:
            text = instance.description
            device = replace(device, instance=instance.status, instance_text=text, health=instance.health)
        if instance is not None and rollout_rules.measurable(rollout.plan, device, self._clock()):
            device = replace(device, gates=await self._gates(rollout, row, instance))
        return device

    async def _online(self, device_id: str) -> bool:
        stub = registry_pb2_grpc.RegistryServiceStub(self._channel())
        try:
            found = await stub.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=device_id))
        except NotFound:
            return False
        return found.device_connection_status == registry_pb2.DEVICE_CONNECTION_STATUS_ONLINE

    async def _gates(self, rollout: RolloutRow, row: RolloutDeviceRow, instance: Brief) -> str | None:
        assert row.delivered is not None
        now = self._clock()
        for gate in rollout.gate_list:
            samples = await self._samples(gate, rollout.name, instance, row.delivered, now)
            late = now > row.delivered + timedelta(seconds=rollout.plan.window_s + METRICS_GRACE_S)
            if not samples.count and not late:
                return None
            if failure := rollout_rules.gate_failure(gate, samples):
                return failure
        return ""

    async def _samples(self, gate: Gate, name: str, instance: Brief, start: datetime, end: datetime) -> Samples:
        """The metric from `start` to `end`, a gate's window at most."""
        start = max(start, end - timedelta(seconds=gate.window_s + METRICS_GRACE_S))
        period_s = 1 if gate.window_s <= FINE_WINDOW_S else 60
        request = logs_metrics_pb2.GetMetricStatisticsRequest(
            metric=logs_metrics_pb2.Metric(
                namespace=NAMESPACE,
                name=gate.metric,
                dimensions={
                    "ApplicationInstanceName": name,
                    "ApplicationInstanceId": instance.instance_id,
                },
            ),
            start=_second(math.floor(start.timestamp() / period_s) * period_s),
            end=_second(math.ceil(end.timestamp() / period_s) * period_s),
            period_seconds=period_s,
        )
        stub = logs_metrics_pb2_grpc.MetricsServiceStub(self._channel())
        points = (await stub.GetMetricStatistics(request)).datapoints
        return Samples(
            sum(point.sum for point in points),
            sum(point.sample_count for point in points),
            min((point.minimum for point in points), default=math.inf),
            max((point.maximum for point in points), default=-math.inf),
        )

    async def _write(
        self,
        rollout: RolloutRow,
        rows: Sequence[RolloutDeviceRow],
        seen: Sequence[Device],
        progress: rollout_rules.Progress,
        devices: Sequence[Device],
    ) -> bool:
        """False: somebody else has changed it meanwhile."""
        changed = [
            (row, device)
            for row, before, device in zip(rows, seen, devices, strict=True)
            if device != before
        ]  # fmt: skip
        if not changed and progress == rollout.progress:
            return True
        now = self._clock()
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(RolloutRow, rollout.rollout_id)
            if fresh.revision != rollout.revision:
                return False
            told = (fresh.status, fresh.phase)
            fresh.take(progress, now)
            if (fresh.status, fresh.phase) != told:
                outbox.add(session, events.rollout(events.ROLLOUT_CHANGED, fresh))
            for row, device in changed:
                at = await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))
                at.status, at.failed = device.status, device.failed
                at.description = rollout_rules.shortened(device.description)
                at.begun, at.delivered, at.updated = device.begun, device.delivered, now
                if device.status != row.status:
                    outbox.add(session, events.rollout_device(fresh, at))
        return True

    async def _begin(self, who: Caller, rollout: RolloutRow, row: RolloutDeviceRow) -> None:
        """Deploys to a device; what can't be deployed there has failed, and the device is as it was."""
        async with self._database.session(read_only=True) as session:
            previous = await store.running(session, row.device_id, rollout.name)
            overrides = (await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))).overrides

        async def also(session: AsyncSession, instance: InstanceRow) -> None:
            fresh = await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))
            if fresh.instance_id:
                raise Begun
            fresh.instance_id, fresh.previous_id = instance.instance_id, instance.replaces
            fresh.status, fresh.begun, fresh.updated = DeviceStatus.DEPLOYING, self._clock(), self._clock()
            outbox.add(session, events.rollout_device(rollout, fresh))

        wish = Wish(
            device_id=row.device_id,
            device_name=row.device_name,
            manifest=rollout.manifest,
            overrides=overrides,
            name=rollout.name,
            description=rollout.description,
            role_arn=rollout.role_arn,
            replaces=previous.instance_id if previous is not None else "",
            tags=rollout.tags,
        )
        try:
            instance = await self._creator.create(who, wish, also)
        except Begun:
            return
        except (Invalid, NotFound, Conflict) as error:
            await self._not_deployable(rollout, row, error)
            return
        self.wake()
        await self._deployer.settle(instance.instance_id)

    async def _not_deployable(self, rollout: RolloutRow, row: RolloutDeviceRow, error: BelvedereError) -> None:
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(RolloutDeviceRow, (row.rollout_id, row.position))
            fresh.status, fresh.failed, fresh.updated = DeviceStatus.ROLLED_BACK, True, self._clock()
            fresh.description = rollout_rules.shortened(f"can't be deployed here: {error.message}")
            outbox.add(session, events.rollout_device(rollout, fresh))
        self.wake()


def _second(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)
