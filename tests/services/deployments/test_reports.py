"""What a device says of its applications, and what becomes of it in the API."""

from __future__ import annotations

from pathlib import Path

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import publish_stored
from belvedere.bus.kv import KeyValue
from belvedere.fleet import Health, Reason, ReasonCode, ReportedApplication
from belvedere.v1 import deployments_pb2 as pb
from tests.support import graphs
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.deploying import SERVICES, D, deploy, describe, says, status, until
from tests.support.fleet import Device, eventually
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader


async def test_a_reason_reaches_the_status_and_recovery_clears_it(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    reason = Reason(ReasonCode.APP_START_FAILED, "app.py raised at import: NameError")
    await device.report(says(instance_id, D.LAUNCH_ERROR, Health.ERROR, reason))
    found = await until(cloud, instance_id, "DEPLOYMENT_ERROR")
    assert found.status_description == reason.message
    assert found.health_status == pb.APPLICATION_INSTANCE_HEALTH_STATUS_ERROR
    await device.report(says(instance_id, D.RUNNING))
    assert (await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")).status_description.startswith(
        "Application deployed"
    )


async def test_restarts_are_told_with_the_last_error(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    error = Reason(ReasonCode.APP_EXITED, "ended with exit code 1: KeyError")
    await device.report(ReportedApplication(instance_id, D.RUNNING, Health.RUNNING, None, restarts=2, last_error=error))
    found = await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")
    assert found.status_description == (
        "Application deployed successfully. Restarted 2 times; the last time: ended with exit code 1: KeyError"
    )


async def test_health_is_not_known_while_a_device_is_away(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    await device.report(says(instance_id, D.RUNNING))
    await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")

    async def happened(word: str) -> None:
        event = Event(f"registry.device.{word}", "/belvedere/registry", device.device_id, ACCOUNT, REGION)
        await publish_stored(cloud.runtime.bus, event.nats_subject, event.to_json(), msg_id=event.id)

    async def health_is(health: pb.ApplicationInstanceHealthStatus.ValueType) -> bool:
        return (await describe(cloud, instance_id)).health_status == health

    await happened("offline")
    await eventually(lambda: health_is(pb.APPLICATION_INSTANCE_HEALTH_STATUS_NOT_AVAILABLE), "health unknown")
    assert await status(cloud, instance_id) == "DEPLOYMENT_SUCCEEDED"
    await happened("online")
    await eventually(lambda: health_is(pb.APPLICATION_INSTANCE_HEALTH_STATUS_RUNNING), "health known again")


async def test_a_report_that_can_not_be_read_disturbs_no_other(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    bucket = KeyValue(cloud.runtime.bus, subjects.REPORTED_BUCKET)
    await bucket.put("device-broken", b"nonsense")
    await bucket.put(
        "device-liar", b'{"device_id": "x", "target_version": 1, "reported_at_ms": 1, "software_version": ""}'
    )
    await device.report(says(instance_id, D.RUNNING))
    await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")


async def test_what_a_device_said_while_the_cloud_was_away_is_heard(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            uploader = Uploader(cloud)
            await uploader.register(graphs.code_package(), b"code")
            await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            await uploader.camera("north", "rtsp://10.0.0.1/n")
            device = await Device.provision(cloud, "yard")
            await device.enrol()
            instance_id = await deploy(cloud, device.device_id)
    async with running_cloud(tmp_path, ["identity", "registry"]) as cloud:
        device.cloud = cloud
        await device.report(says(instance_id, D.RUNNING))
    async with running_cloud(tmp_path, SERVICES) as cloud:
        with cloud.caller():
            await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")
