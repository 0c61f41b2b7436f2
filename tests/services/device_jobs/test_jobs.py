"""Device jobs over real gRPC, NATS and SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import belvedere
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.fleet import JobKind, JobProgress, ReportedJob, TargetJob
from belvedere.v1 import common_pb2, device_jobs_pb2_grpc, registry_pb2, registry_pb2_grpc
from belvedere.v1 import device_jobs_pb2 as pb
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.fleet import Device, eventually


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["identity", "registry", "device_jobs"]) as running:
        with running.caller():
            yield running


@pytest.fixture
async def device(cloud: RunningCloud) -> Device:
    return await Device.provision(cloud, "yard")


def stub(cloud: RunningCloud) -> device_jobs_pb2_grpc.DeviceJobsServiceAsyncStub:
    return device_jobs_pb2_grpc.DeviceJobsServiceStub(cloud.channel)


async def start(cloud: RunningCloud, device_id: str, version: str = "") -> str:
    request = pb.CreateJobForDevicesRequest(device_ids=[device_id], job_type=common_pb2.JOB_TYPE_REBOOT)
    if version:
        request.job_type = common_pb2.JOB_TYPE_OTA
        request.device_job_config.ota_job_config.image_version = version
    (job,) = (await stub(cloud).CreateJobForDevices(request)).jobs
    return job.job_id


async def until(cloud: RunningCloud, job_id: str, status: common_pb2.UpdateProgress.ValueType) -> None:
    async def reached() -> bool:
        found = await stub(cloud).DescribeDeviceJob(pb.DescribeDeviceJobRequest(job_id=job_id))
        return found.status == status

    await eventually(reached, f"{common_pb2.UpdateProgress.Name(status)} of {job_id}")


async def test_a_reboot_goes_through_the_target_and_out_of_it(cloud: RunningCloud, device: Device) -> None:
    job_id = await start(cloud, device.device_id)
    assert job_id == f"{device.device_id}-0"
    assert (await device.target()).jobs == (TargetJob(job_id, JobKind.REBOOT),)
    with pytest.raises(Conflict, match="has not ended"):
        await start(cloud, device.device_id)
    await device.report(jobs=(ReportedJob(job_id, JobProgress.REBOOTING),))
    await until(cloud, job_id, common_pb2.UPDATE_PROGRESS_REBOOTING)
    await device.report(jobs=(ReportedJob(job_id, JobProgress.COMPLETED),))
    await until(cloud, job_id, common_pb2.UPDATE_PROGRESS_COMPLETED)

    async def out() -> bool:
        return (await device.target()).jobs == ()

    await eventually(out, "the finished job out of the target")
    assert await start(cloud, device.device_id) == f"{device.device_id}-1"


async def test_an_update_goes_to_a_version_that_exists(cloud: RunningCloud, device: Device) -> None:
    with pytest.raises(Invalid, match=f"available: {belvedere.__version__}"):
        await start(cloud, device.device_id, "99.0.0")
    job_id = await start(cloud, device.device_id, belvedere.__version__)
    assert (await device.target()).jobs == (TargetJob(job_id, JobKind.OTA, belvedere.__version__),)
    found = await stub(cloud).DescribeDeviceJob(pb.DescribeDeviceJobRequest(job_id=job_id))
    assert (found.image_version, found.device_name) == (belvedere.__version__, "yard")


async def test_jobs_are_listed_by_device(cloud: RunningCloud, device: Device) -> None:
    other = await Device.provision(cloud, "gate")
    mine, others = await start(cloud, device.device_id), await start(cloud, other.device_id)
    both = await stub(cloud).ListDevicesJobs(pb.ListDevicesJobsRequest())
    assert [job.job_id for job in both.device_jobs] == [others, mine]
    one = await stub(cloud).ListDevicesJobs(pb.ListDevicesJobsRequest(device_id=device.device_id))
    assert [job.job_id for job in one.device_jobs] == [mine]
    with cloud.caller(account="999999999999"), pytest.raises(NotFound):
        await stub(cloud).DescribeDeviceJob(pb.DescribeDeviceJobRequest(job_id=mine))


async def test_a_device_that_is_not_there_is_refused(cloud: RunningCloud, device: Device) -> None:
    with pytest.raises(NotFound):
        await start(cloud, "device-absent")
    with pytest.raises(NotFound):
        await stub(cloud).ListDevicesJobs(pb.ListDevicesJobsRequest(device_id="device-absent"))
    none = await stub(cloud).ListDevicesJobs(pb.ListDevicesJobsRequest(device_id=device.device_id))
    assert not none.device_jobs


async def test_a_deleted_device_ends_its_job(cloud: RunningCloud, device: Device) -> None:
    job_id = await start(cloud, device.device_id)
    registry = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
    await registry.DeleteDevice(registry_pb2.DeleteDeviceRequest(device_id=device.device_id))
    await until(cloud, job_id, common_pb2.UPDATE_PROGRESS_FAILED)
    kept = await stub(cloud).ListDevicesJobs(pb.ListDevicesJobsRequest(device_id=device.device_id))
    assert [job.job_id for job in kept.device_jobs] == [job_id]
