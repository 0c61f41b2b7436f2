"""Decisions of the device_jobs service, pure: what may be started, how a job goes on. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from belvedere.chassis.errors import Invalid
from belvedere.fleet import JobKind, JobProgress, Reported

IMAGE_VERSION = "DeviceJobConfig.OTAJobConfig.ImageVersion"
DONE = frozenset({JobProgress.COMPLETED, JobProgress.FAILED})


def check_job(device_ids: Sequence[str], kind: JobKind | None, image_version: str, available: Sequence[str]) -> JobKind:
    """What is to be done. Raises Invalid where that can't be."""
    if len(device_ids) != 1:
        raise Invalid(
            f"DeviceIds names {len(device_ids)} devices: name exactly one.",
            fields=[("DeviceIds", "exactly one device")],
        )
    if kind is None:
        raise Invalid("JobType must be OTA or REBOOT.", fields=[("JobType", "OTA or REBOOT")])
    if kind is JobKind.OTA and not image_version:
        text = "is missing: an OTA job says which version to install"
        raise Invalid(f"{IMAGE_VERSION} {text}", fields=[(IMAGE_VERSION, text)])
    if kind is JobKind.OTA and image_version not in available:
        text = f"there is no version {image_version}; available: {', '.join(available)}"
        raise Invalid(f"{IMAGE_VERSION}: {text}", fields=[(IMAGE_VERSION, text)])
    return kind


def next_progress(job_id: str, progress: JobProgress, reported: Reported) -> JobProgress:
    """What a device's report makes of a job. What has ended stays as it ended."""
    job = reported.job(job_id)
    return progress if job is None or progress in DONE else job.status


def job_id(device_id: str, number: int) -> str:
    """`<device id>-<n>`."""
    return f"{device_id}-{number}"
