"""What may be started on a device, and how a job goes on."""

import pytest

from belvedere.chassis.errors import Invalid
from belvedere.fleet import JobKind, JobProgress, Reported, ReportedJob
from services.device_jobs import rules

AVAILABLE = ("0.1.0",)


def test_a_reboot_needs_nothing_more() -> None:
    assert rules.check_job(["device-1"], JobKind.REBOOT, "", AVAILABLE) is JobKind.REBOOT


def test_an_update_goes_to_a_version_that_exists() -> None:
    assert rules.check_job(["device-1"], JobKind.OTA, "0.1.0", AVAILABLE) is JobKind.OTA
    with pytest.raises(Invalid, match="no version 9"):
        rules.check_job(["device-1"], JobKind.OTA, "9.9", AVAILABLE)
    with pytest.raises(Invalid, match="is missing"):
        rules.check_job(["device-1"], JobKind.OTA, "", AVAILABLE)


@pytest.mark.parametrize("devices", [[], ["a", "b"]])
def test_a_job_is_for_one_device(devices: list[str]) -> None:
    with pytest.raises(Invalid, match="exactly one"):
        rules.check_job(devices, JobKind.REBOOT, "", AVAILABLE)


def test_a_job_needs_a_kind() -> None:
    with pytest.raises(Invalid, match="OTA or REBOOT"):
        rules.check_job(["a"], None, "", AVAILABLE)


def report(status: JobProgress | None) -> Reported:
    return Reported("d", 1, 0, "0.1.0", jobs=() if status is None else (ReportedJob("d-0", status),))


@pytest.mark.parametrize(
    ("before", "said", "after"),
    [
        (JobProgress.PENDING, None, JobProgress.PENDING),
        (JobProgress.PENDING, JobProgress.REBOOTING, JobProgress.REBOOTING),
        (JobProgress.REBOOTING, JobProgress.COMPLETED, JobProgress.COMPLETED),
        (JobProgress.DOWNLOADING, JobProgress.FAILED, JobProgress.FAILED),
        (JobProgress.COMPLETED, JobProgress.REBOOTING, JobProgress.COMPLETED),
    ],
)
def test_a_report_moves_a_job_on(before: JobProgress, said: JobProgress | None, after: JobProgress) -> None:
    assert rules.next_progress("d-0", before, report(said)) is after
