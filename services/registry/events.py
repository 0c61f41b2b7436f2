"""What the registry publishes: `belvedere.events.registry.device.…`, data: deviceId name.

registry.device.provisioned   there is a device, its appliance has not come yet
registry.device.enrolled      its appliance has taken its identity: its public keys are known
registry.device.online        it is connected and alive
registry.device.offline       it is not
registry.device.deleted       it is gone, its credentials are worth nothing

It consumes device_jobs.job.{created,changed}: a device's newest job is part of its description.

On the bus it hears `up.<id>.heartbeat`, `up.<id>.lease`, the bucket `reported` and the system account's events: presence.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.following import follow
from belvedere.chassis.database import Database
from belvedere.chassis.logs import get_logger
from belvedere.v1 import common_pb2
from services.registry.store import DeviceRow

SOURCE = "/belvedere/registry"
DURABLE = "registry"
JOB_CREATED = "device_jobs.job.created"
KINDS = frozenset(common_pb2.JobType.keys())
PROGRESS = frozenset(common_pb2.UpdateProgress.keys())

log = get_logger(__name__)


def device(happened: str, row: DeviceRow) -> Event:
    """`happened`: provisioned, enrolled, online, offline, deleted."""
    data = {"deviceId": row.device_id, "name": row.name}
    return Event(f"registry.device.{happened}", SOURCE, row.device_id, row.account, row.region, data)


class Jobs:
    """Keeps each device's newest job in its row."""

    def __init__(self, database: Database, bus: Bus, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock

    async def follow(self) -> None:
        """Until cancelled."""
        await follow(self._bus, DURABLE, subjects.events("device_jobs"), self._take)

    async def _take(self, event: Event) -> None:
        job = {name: str(event.data.get(name) or "") for name in ("jobId", "jobType", "imageVersion", "status")}
        if f"JOB_TYPE_{job['jobType']}" not in KINDS or f"UPDATE_PROGRESS_{job['status']}" not in PROGRESS:
            raise InvalidDocument(f"a job of an unknown type or status: {job}")
        async with self._database.session() as session, session.begin():
            row = await session.get(DeviceRow, str(event.data.get("deviceId", "")))
            if row is None:
                return
            newest = row.latest_job is None or row.latest_job["jobId"] == job["jobId"] or event.type == JOB_CREATED
            if newest and row.latest_job != job:
                row.latest_job, row.updated = job, self._clock()
                session.add(row)
