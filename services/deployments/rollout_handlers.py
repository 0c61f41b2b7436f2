"""RolloutService: checks, rows and messages. What becomes of a rollout is `rollouts`' business."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import grpc
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import outbox
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.ids import new_id
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.tags import check_tags
from belvedere.v1 import identity_pb2, registry_pb2, registry_pb2_grpc, rollouts_pb2_grpc
from belvedere.v1 import rollouts_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.deployments import events, rollout_rules, rollout_store, rules, wire
from services.deployments.resolving import Resolver
from services.deployments.rollout_rules import DELIVER_TIMEOUT_S, DEVICES_MAX, Gate, RolloutStatus, Statistic
from services.deployments.rollout_store import RolloutDeviceRow, RolloutRow
from services.deployments.rollouts import Rollouts

ROLE_USER = "panorama.amazonaws.com"
CHECKED_MAX = 50
"""So many different overrides are resolved before a rollout begins; of further ones each device tells."""
ROLLOUT = "ROLLOUT"


class RolloutHandlers(rollouts_pb2_grpc.RolloutServiceServicer):
    """RolloutService."""

    def __init__(
        self,
        database: Database,
        resolver: Resolver,
        rollouts: Rollouts,
        channel: Callable[[], grpc.aio.Channel],
        clock: Callable[[], datetime],
    ) -> None:
        self._database, self._resolver, self._rollouts = database, resolver, rollouts
        self._channel, self._clock = channel, clock

    async def CreateRollout(self, request: pb.CreateRolloutRequest, context: Any) -> pb.CreateRolloutResponse:
        who = caller()
        gates, phases = [_gate(gate) for gate in request.gates], [_phase(phase) for phase in request.phases]
        timeout_s = request.deliver_timeout_seconds or DELIVER_TIMEOUT_S
        rollout_rules.check_plan(phases, gates, request.max_failures, timeout_s)
        if not request.name:
            raise Invalid("name is missing: the application's", fields=[("name", "is missing")])
        if not request.device_tags:
            raise Invalid(
                "device_tags are missing: which devices?", fields=[("device_tags", "at least one tag and its value")]
            )
        rules.check_request(
            request.name, request.runtime_role_arn, request.manifest_payload, request.manifest_overrides_payload,
            who.account,
        )  # fmt: skip
        tags = check_tags(request.tags)
        async with self._database.session(read_only=True) as session:
            before = await rollout_store.by_token(session, who.account, who.region, request.client_token)
        if before is not None:
            return pb.CreateRolloutResponse(rollout_id=before.rollout_id)
        if request.runtime_role_arn:
            await IdentityServiceStub(self._channel()).PassRole(
                identity_pb2.PassRoleRequest(role_arn=request.runtime_role_arn, service=ROLE_USER)
            )
        devices = await self._selected(dict(request.device_tags))
        overrides = self._overrides(request, devices)
        for text in list(dict.fromkeys(overrides))[:CHECKED_MAX]:
            await self._resolver.resolve(request.manifest_payload, text, who.account)
        now = self._clock()
        plan = rollout_rules.phases_of(phases, len(devices))
        row = RolloutRow(
            rollout_id=new_id("rollout"),
            account=who.account,
            region=who.region,
            client_token=request.client_token,
            name=request.name,
            description=request.description,
            device_tags=dict(request.device_tags),
            manifest=request.manifest_payload,
            role_arn=request.runtime_role_arn,
            phases=[[phase.upto, phase.wait_s] for phase in plan],
            gates=[asdict(gate) for gate in gates],
            max_failures=request.max_failures,
            deliver_timeout_s=timeout_s,
            status=RolloutStatus.IN_PROGRESS.value,
            created=now,
            updated=now,
            tags=tags,
        )
        async with self._database.session() as session, session.begin():
            await _check_free(session, [device.device_id for device in devices], request.name)
            session.add(row)
            await session.flush()
            for position, (device, text) in enumerate(zip(devices, overrides, strict=True)):
                session.add(
                    RolloutDeviceRow(
                        rollout_id=row.rollout_id,
                        position=position,
                        device_id=device.device_id,
                        device_name=device.name,
                        phase=rollout_rules.phase_of(position, plan),
                        overrides=text,
                        updated=now,
                    )
                )
            outbox.add(session, events.rollout(events.ROLLOUT_CREATED, row))
        self._rollouts.wake()
        return pb.CreateRolloutResponse(rollout_id=row.rollout_id)

    async def DescribeRollout(self, request: pb.DescribeRolloutRequest, context: Any) -> pb.DescribeRolloutResponse:
        async with self._database.session(read_only=True) as session:
            row = await _found(session, request.rollout_id)
            devices = await rollout_store.devices(session, row.rollout_id)
        return pb.DescribeRolloutResponse(
            rollout=_summary(row, Counter(device.status for device in devices)),
            description=row.description,
            device_tags=row.device_tags,
            phases=[pb.RolloutPhase(count=upto, wait_seconds=wait_s) for upto, wait_s in row.phases],
            gates=[_gate_message(gate) for gate in row.gate_list],
            max_failures=row.max_failures,
            deliver_timeout_seconds=row.deliver_timeout_s,
            devices=[_device(device) for device in devices],
            tags=row.tags,
        )

    async def ListRollouts(self, request: pb.ListRolloutsRequest, context: Any) -> pb.ListRolloutsResponse:
        who, size = caller(), page_size(request.max_results or None)
        after = decode_token(request.next_token, "ListRollouts")
        async with self._database.session(read_only=True) as session:
            found = await rollout_store.list_rollouts(session, who.account, who.region, after, size + 1)
            rows, more = cut(found, size)
            devices = await rollout_store.counts(session, [row.rollout_id for row in rows])
        token = ""
        if more:
            cursor = {"created": rows[-1].created.isoformat(), "rollout_id": rows[-1].rollout_id}
            token = encode_token(cursor, "ListRollouts")
        items = [_summary(row, devices[row.rollout_id]) for row in rows]
        return pb.ListRolloutsResponse(rollouts=items, next_token=token)

    async def PauseRollout(self, request: pb.PauseRolloutRequest, context: Any) -> pb.PauseRolloutResponse:
        await self._change(request.rollout_id, {RolloutStatus.IN_PROGRESS}, RolloutStatus.PAUSED)
        return pb.PauseRolloutResponse()

    async def ResumeRollout(self, request: pb.ResumeRolloutRequest, context: Any) -> pb.ResumeRolloutResponse:
        await self._change(request.rollout_id, {RolloutStatus.PAUSED}, RolloutStatus.IN_PROGRESS)
        return pb.ResumeRolloutResponse()

    async def CancelRollout(self, request: pb.CancelRolloutRequest, context: Any) -> pb.CancelRolloutResponse:
        running = {RolloutStatus.IN_PROGRESS, RolloutStatus.PAUSED}
        await self._change(request.rollout_id, running, RolloutStatus.ROLLING_BACK, cancelled=True, keep=request.keep)
        return pb.CancelRolloutResponse()

    async def _change(
        self, rollout_id: str, allowed: set[RolloutStatus], status: RolloutStatus, *, cancelled: bool = False,
        keep: bool = False,
    ) -> None:  # fmt: skip
        now = self._clock()
        async with self._database.session() as session, session.begin():
            row = await _found(session, rollout_id)
            if row.status not in allowed:
                raise Conflict(ROLLOUT, rollout_id, f"{rollout_id} is {row.status}.")
            row.status, row.cancelled, row.updated = status.value, cancelled, now
            row.revision += 1
            if keep:
                for device in await rollout_store.devices(session, rollout_id):
                    if device.status == rollout_rules.DeviceStatus.PENDING:
                        device.status, device.updated = rollout_rules.DeviceStatus.SKIPPED, now
                    elif device.status in rollout_rules.BEGUN:
                        device.description = f"{rollout_rules.CANCELLED}: it keeps what it has."
                        device.status, device.updated = rollout_rules.DeviceStatus.SUCCEEDED, now
                row.status = RolloutStatus.CANCELLED.value
            outbox.add(session, events.rollout(events.ROLLOUT_CHANGED, row))
        self._rollouts.wake()

    async def _selected(self, wanted: dict[str, str]) -> list[registry_pb2.Device]:
        """The devices with these tags: those that are online first, then by name."""
        stub, found, token = registry_pb2_grpc.RegistryServiceStub(self._channel()), [], None
        while True:
            page = await stub.ListDevices(registry_pb2.ListDevicesRequest(next_token=token))
            found += [device for device in page.devices if wanted.items() <= dict(device.tags).items()]
            if not page.next_token:
                break
            token = page.next_token
        if not found:
            text = "no device has " + " and ".join(f"{key}={value}" for key, value in sorted(wanted.items()))
            raise Invalid(f"device_tags: {text}", fields=[("device_tags", text)])
        if len(found) > DEVICES_MAX:
            raise Invalid(f"device_tags: {len(found)} devices, at most {DEVICES_MAX} in one rollout")
        online = registry_pb2.DEVICE_AGGREGATED_STATUS_ONLINE
        return sorted(found, key=lambda device: (device.device_aggregated_status != online, device.name))

    @staticmethod
    def _overrides(request: pb.CreateRolloutRequest, devices: Sequence[registry_pb2.Device]) -> list[str]:
        """Of each device. Raises Invalid naming all that lack something."""
        strangers = set(request.device_overrides) - {device.device_id for device in devices}
        problems = [f"device_overrides: {device_id} is not among the devices" for device_id in sorted(strangers)]
        texts: list[str] = []
        for device in devices:
            template = request.device_overrides.get(device.device_id, request.manifest_overrides_payload)
            try:
                texts.append(rollout_rules.filled(template, device.device_id, device.name, dict(device.tags)))
            except Invalid as error:
                problems.append(error.message)
        if problems:
            raise Invalid("; ".join(problems[:10]), fields=[("manifest_overrides_payload", text) for text in problems])
        return texts


async def _found(session: AsyncSession, rollout_id: str) -> RolloutRow:
    who = caller()
    row = await rollout_store.find(session, who.account, who.region, rollout_id)
    if row is None:
        raise NotFound(ROLLOUT, rollout_id)
    return row


async def _check_free(session: AsyncSession, device_ids: Sequence[str], name: str) -> None:
    busy = await rollout_store.busy_devices(session, device_ids, name)
    if busy:
        device, rollout_id = busy[0]
        raise Conflict(
            ROLLOUT, rollout_id, f"{device} is in rollout {rollout_id} of the same application: end that one first."
        )


def _phase(phase: pb.RolloutPhase) -> tuple[int, bool, int]:
    percent = phase.WhichOneof("upto") != "count"
    return phase.percent if percent else phase.count, percent, phase.wait_seconds


def _gate(gate: pb.RolloutGate) -> Gate:
    if gate.comparison == pb.ROLLOUT_COMPARISON_UNSPECIFIED:
        raise Invalid("gates: comparison is AT_LEAST or AT_MOST", fields=[("gates", "comparison is missing")])
    statistic = gate.statistic or pb.ROLLOUT_STATISTIC_AVERAGE
    return Gate(
        gate.metric,
        Statistic(pb.RolloutStatistic.Name(statistic).removeprefix("ROLLOUT_STATISTIC_")),
        gate.comparison == pb.ROLLOUT_COMPARISON_AT_LEAST,
        gate.threshold,
        gate.window_seconds,
    )


def _gate_message(gate: Gate) -> pb.RolloutGate:
    comparison = pb.ROLLOUT_COMPARISON_AT_LEAST if gate.at_least else pb.ROLLOUT_COMPARISON_AT_MOST
    return pb.RolloutGate(
        metric=gate.metric,
        statistic=pb.RolloutStatistic.Value(f"ROLLOUT_STATISTIC_{gate.statistic}"),
        comparison=comparison,
        threshold=gate.threshold,
        window_seconds=gate.window_s,
    )


def _summary(row: RolloutRow, devices: Mapping[str, int]) -> pb.Rollout:
    return pb.Rollout(
        rollout_id=row.rollout_id,
        name=row.name,
        status=pb.RolloutStatus.Value(f"ROLLOUT_STATUS_{row.status}"),
        status_description=row.status_description,
        phase=row.phase,
        phases=len(row.phases),
        devices=devices,
        created_time=wire.timestamp(row.created),
        last_updated_time=wire.timestamp(row.updated),
    )


def _device(row: RolloutDeviceRow) -> pb.RolloutDevice:
    return pb.RolloutDevice(
        device_id=row.device_id,
        device_name=row.device_name,
        phase=row.phase,
        status=pb.RolloutDeviceStatus.Value(f"ROLLOUT_DEVICE_STATUS_{row.status}"),
        description=row.description,
        application_instance_id=row.instance_id,
        previous_application_instance_id=row.previous_id,
        last_updated_time=wire.timestamp(row.updated),
    )
