"""What the device_jobs service publishes; it consumes registry.device.deleted.

device_jobs.job.created · changed      data: jobId deviceId jobType imageVersion status
"""

from __future__ import annotations

from belvedere.bus.event import Event
from services.device_jobs.store import JobRow

SOURCE = "/belvedere/device_jobs"
CREATED, CHANGED = "device_jobs.job.created", "device_jobs.job.changed"


def job(type: str, row: JobRow) -> Event:
    """An event about a job."""
    data = {
        "jobId": row.job_id,
        "deviceId": row.device_id,
        "jobType": row.kind,
        "imageVersion": row.image_version,
        "status": row.status,
    }
    return Event(type, SOURCE, row.job_id, row.account, row.region, data)
