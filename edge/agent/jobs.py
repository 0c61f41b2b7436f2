"""Device jobs on the appliance: begun once, remembered across the restart that they cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from belvedere.chassis.logs import get_logger
from belvedere.fleet import JobKind, JobProgress, Reason, ReasonCode, ReportedJob, TargetJob
from edge.agent.device import write_private

log = get_logger(__name__)

KEEP = 50
"""Jobs remembered; older ones are long reported."""


class Jobs:
    """What became of each job, kept in one file."""

    def __init__(self, file: Path, software_version: str, reboot: Callable[[], None]) -> None:
        self._file = file
        self._software_version = software_version
        self._reboot = reboot
        self._jobs = self._load()
        self._finish_reboots()

    def all(self) -> tuple[ReportedJob, ...]:
        return tuple(self._jobs)

    async def begin(self, job: TargetJob) -> None:
        """Does a job. A reboot ends this process, and counts as done when it has started again."""
        log.info("job", job_id=job.job_id, kind=str(job.kind))
        match job.kind:
            case JobKind.REBOOT:
                self._set(ReportedJob(job.job_id, JobProgress.REBOOTING))
                self._reboot()
            case JobKind.OTA if job.image_version == self._software_version:
                self._set(ReportedJob(job.job_id, JobProgress.COMPLETED))
            case JobKind.OTA:
                message = f"version {job.image_version} is not available to this appliance, which runs {self._software_version}"
                self._set(ReportedJob(job.job_id, JobProgress.FAILED, Reason(ReasonCode.APPLIANCE_ERROR, message)))

    def _finish_reboots(self) -> None:
        for job in self._jobs:
            if job.status is JobProgress.REBOOTING:
                self._set(ReportedJob(job.job_id, JobProgress.COMPLETED))

    def _set(self, job: ReportedJob) -> None:
        self._jobs = [*(other for other in self._jobs if other.job_id != job.job_id), job][-KEEP:]
        write_private(self._file, json.dumps([item.to_plain() for item in self._jobs]).encode())

    def _load(self) -> list[ReportedJob]:
        if not self._file.exists():
            return []
        return [ReportedJob.from_plain(item) for item in json.loads(self._file.read_text())]
