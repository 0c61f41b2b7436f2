"""The device_jobs service: DeviceJobsService, and the tasks that bring jobs into targets and reports into jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.event import Event
from belvedere.bus.following import follow
from belvedere.bus.kv import KeyValue
from belvedere.chassis import outbox
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, NotFound
from belvedere.chassis.ids import arn
from belvedere.chassis.logs import get_logger
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.fleet import (
    DocumentError,
    JobKind,
    JobProgress,
    Reported,
    Target,
    TargetJob,
    changing,
    with_job,
    without_job,
)
from belvedere.v1 import common_pb2, device_jobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from belvedere.v1 import device_jobs_pb2 as pb
from services.device_jobs import events, rules, store
from services.device_jobs.settings import ENV, Settings
from services.device_jobs.store import JobRow

log = get_logger(__name__)

KINDS = {common_pb2.JOB_TYPE_OTA: JobKind.OTA, common_pb2.JOB_TYPE_REBOOT: JobKind.REBOOT}
DURABLE = "device_jobs-registry"
AGAIN_S = 2.0
"""Until an event that could not be dealt with now comes again."""


class DeviceJobsHandlers(device_jobs_pb2_grpc.DeviceJobsServiceServicer):
    """DeviceJobsService."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        settings: Settings,
        channel: Callable[[], grpc.aio.Channel],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._bus = bus
        self._settings = settings
        self._channel = channel
        self._clock = clock
        self._targets = KeyValue(bus, subjects.TARGET_BUCKET)

    async def CreateJobForDevices(
        self, request: pb.CreateJobForDevicesRequest, context: Any
    ) -> pb.CreateJobForDevicesResponse:
        """One job at a time a device. A device that is away does it when it is back."""
        who, now = caller(), self._clock()
        image = request.device_job_config.ota_job_config.image_version
        kind = rules.check_job(request.device_ids, KINDS.get(request.job_type), image, self._settings.image_versions)
        device_id = request.device_ids[0]
        registry = registry_pb2_grpc.RegistryServiceStub(self._channel())
        device = await registry.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=device_id))
        async with self._database.session() as session, session.begin():
            running = await store.unfinished(session, device_id)
            if running:
                raise Conflict(
                    "DEVICE",
                    device_id,
                    f"{running[0].job_id} ({running[0].kind}, {running[0].status}) has not ended yet.",
                )
            number = await store.next_number(session, device_id)
            row = JobRow(
                job_id=rules.job_id(device_id, number),
                account=who.account,
                region=who.region,
                device_id=device_id,
                number=number,
                device_name=device.name,
                device_type=device.type,
                kind=kind.value,
                image_version=image if kind is JobKind.OTA else "",
                status=JobProgress.PENDING.value,
                created=now,
                updated=now,
            )
            session.add(row)
            outbox.add(session, events.job(events.CREATED, row))
        await self._settle(row)
        return pb.CreateJobForDevicesResponse(jobs=[pb.Job(device_id=device_id, job_id=row.job_id)])

    async def DescribeDeviceJob(
        self, request: pb.DescribeDeviceJobRequest, context: Any
    ) -> pb.DescribeDeviceJobResponse:
        who = caller()
        async with self._database.session(read_only=True) as session:
            row = await store.find(session, who.account, who.region, request.job_id)
        if row is None:
            raise NotFound("DEVICE_JOB", request.job_id)
        return pb.DescribeDeviceJobResponse(
            created_time=_timestamp(row.created),
            device_arn=arn("panorama", row.region, row.account, f"device/{row.device_id}"),
            device_id=row.device_id,
            device_name=row.device_name,
            device_type=common_pb2.DeviceType.ValueType(row.device_type) if row.device_type else None,
            image_version=row.image_version or None,
            job_id=row.job_id,
            job_type=common_pb2.JobType.Value(f"JOB_TYPE_{row.kind}"),
            status=common_pb2.UpdateProgress.Value(f"UPDATE_PROGRESS_{row.status}"),
        )

    async def ListDevicesJobs(self, request: pb.ListDevicesJobsRequest, context: Any) -> pb.ListDevicesJobsResponse:
        who = caller()
        size = page_size(request.max_results)
        after = decode_token(request.next_token, "ListDevicesJobs", request.device_id)
        async with self._database.session(read_only=True) as session:
            found = await store.list_jobs(session, who.account, who.region, request.device_id, after, size + 1)
        if request.device_id and not found and not after:
            # Jobs outlive their device. One that has none may never have been there: the registry raises NotFound then.
            registry = registry_pb2_grpc.RegistryServiceStub(self._channel())
            await registry.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=request.device_id))
        rows, more = cut(found, size)
        token = None
        if more:
            cursor = {"created": rows[-1].created.isoformat(), "job_id": rows[-1].job_id}
            token = encode_token(cursor, "ListDevicesJobs", request.device_id)
        return pb.ListDevicesJobsResponse(
            device_jobs=[
                pb.DeviceJob(
                    created_time=_timestamp(row.created),
                    device_id=row.device_id,
                    device_name=row.device_name,
                    job_id=row.job_id,
                    job_type=common_pb2.JobType.Value(f"JOB_TYPE_{row.kind}"),
                )
                for row in rows
            ],
            next_token=token,
        )

    # Tasks

    async def settle_unsettled(self) -> None:
        """Brings into targets, or out of them, what was missed: at the start and every `retry_s`."""
        while True:
            async with self._database.session(read_only=True) as session:
                rows = await store.unsettled(session)
            for row in rows:
                await self._settle(row)
            await asyncio.sleep(self._settings.retry_s)

    async def watch_reports(self) -> None:
        """Every device's report as it stands, then every new one."""
        async for entry in KeyValue(self._bus, subjects.REPORTED_BUCKET).watch():
            if entry.value is None:
                continue
            try:
                await self._take_report(entry.key, Reported.from_json(entry.value))
            except DocumentError as error:
                log.error("a device's report can't be read", device_id=entry.key, error=str(error))

    async def registry_events(self) -> None:
        """A deleted device ends its jobs."""
        await follow(self._bus, DURABLE, subjects.event("registry.device.deleted"), self._device_deleted)

    async def _device_deleted(self, event: Event) -> None:
        async with self._database.session() as session, session.begin():
            for row in await store.unfinished(session, event.subject):
                # Its target is deleted with it.
                row.status, row.in_target = JobProgress.FAILED.value, False
                row.status_description, row.updated = "The device was deleted.", self._clock()
                outbox.add(session, events.job(events.CHANGED, row))

    async def _take_report(self, device_id: str, reported: Reported) -> None:
        async with self._database.session(read_only=True) as session:
            rows = await store.unfinished(session, device_id)
        for row in rows:
            if rules.next_progress(row.job_id, JobProgress(row.status), reported) == row.status:
                continue
            async with self._database.session() as session, session.begin():
                fresh = await session.get_one(JobRow, row.job_id)
                status = rules.next_progress(row.job_id, JobProgress(fresh.status), reported)
                if status == fresh.status:
                    continue
                said = reported.job(row.job_id)
                fresh.status, fresh.updated = status.value, self._clock()
                fresh.status_description = said.reason.message[:255] if said is not None and said.reason else ""
                outbox.add(session, events.job(events.CHANGED, fresh))
            if fresh.done:
                await self._settle(fresh)

    async def _settle(self, row: JobRow) -> None:
        """Puts an unfinished job into its device's target, takes a finished one out. Tried again if the bus is away."""
        job = TargetJob(row.job_id, JobKind(row.kind), row.image_version)

        def change(target: Target) -> Target:
            return without_job(target, row.job_id) if row.done else with_job(target, job)

        try:
            await self._targets.update(row.device_id, changing(row.device_id, change))
        except (BusError, DocumentError) as error:
            log.warning("a job waits", job_id=row.job_id, error=str(error))
            return
        async with self._database.session() as session, session.begin():
            fresh = await session.get_one(JobRow, row.job_id)
            fresh.in_target = not row.done


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def create(runtime: Runtime) -> Service:
    """The service, made of what the runtime gives."""
    settings = runtime.settings(Settings, ENV)
    database = runtime.database("device_jobs")
    handlers = DeviceJobsHandlers(database, runtime.bus, settings, runtime.channel, runtime.clock)
    return Service(
        name="device_jobs",
        servicers=[
            (device_jobs_pb2_grpc.add_DeviceJobsServiceServicer_to_server, handlers, "belvedere.v1.DeviceJobsService")
        ],
        tasks=[handlers.watch_reports, handlers.registry_events, handlers.settle_unsettled],
        migrations=Path(__file__).parent / "migrations",
    )
