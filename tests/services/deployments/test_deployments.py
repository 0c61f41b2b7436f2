"""Application instances over real gRPC, NATS, SQLite and blobs, with devices that really enrolled: made, replaced, removed."""

from __future__ import annotations

import base64
import json

import pytest

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.secret import Secret
from belvedere.fleet import DesiredState, Health, Reason, ReasonCode, ReportedApplication, sealing
from belvedere.graph import ResolvedGraph
from belvedere.v1 import deployments_pb2 as pb
from belvedere.v1 import registry_pb2, registry_pb2_grpc
from tests.support import graphs
from tests.support.cloud import RunningCloud
from tests.support.deploying import D, deploy, describe, nodes, remove, says, status, stub, until
from tests.support.fleet import Device


async def test_an_application_is_deployed_runs_and_is_removed(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    assert instance_id.startswith("applicationInstance-")
    assert await status(cloud, instance_id) == "DEPLOYMENT_REQUESTED"

    target = await device.target()
    (application,) = target.applications
    assert (application.instance_id, application.name, application.desired) == (
        instance_id,
        "counter",
        DesiredState.RUNNING,
    )
    graph = ResolvedGraph.from_json(await cloud.runtime.blobs.read(application.graph_digest))
    assert graph.digest() == application.graph_digest
    (camera,) = target.cameras
    assert camera.camera_id == graph.cameras[0].camera_id == application.camera_ids[0]
    opened = sealing.open(device.private_key, base64.b64decode(camera.sealed_credentials))
    assert (camera.stream_url, opened.password) == ("rtsp://10.0.0.1/n", Secret("pass-canary"))

    await device.report(says(instance_id, D.INSTALL_IN_PROGRESS, Health.NOT_AVAILABLE))
    await until(cloud, instance_id, "DEPLOYMENT_IN_PROGRESS")
    assert set((await nodes(cloud, instance_id)).values()) == {"NOT_AVAILABLE"}
    await device.report(says(instance_id, D.RUNNING))
    found = await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")
    assert found.status_description == "Application deployed successfully."
    assert found.health_status == pb.APPLICATION_INSTANCE_HEALTH_STATUS_RUNNING
    assert found.default_runtime_context_device_name == "yard"
    assert found.arn.endswith(f":applicationInstance/{instance_id}")
    (context,) = found.runtime_context_states
    assert context.device_reported_status == pb.DEVICE_REPORTED_STATUS_RUNNING
    assert await nodes(cloud, instance_id) == {
        "code_node": "RUNNING",
        "detector": "NOT_AVAILABLE",
        "north": "RUNNING",
        "output": "NOT_AVAILABLE",
    }

    await remove(cloud, instance_id)
    assert await status(cloud, instance_id) == "REMOVAL_REQUESTED"
    assert (await device.target()).applications[0].desired is DesiredState.REMOVED
    with pytest.raises(Conflict):
        await remove(cloud, instance_id)
    await device.report(says(instance_id, D.STOPPING))
    await until(cloud, instance_id, "REMOVAL_IN_PROGRESS")
    await device.report()
    await until(cloud, instance_id, "REMOVAL_SUCCEEDED")
    target = await device.target()
    assert (target.applications, target.cameras) == ((), ())

    listed = await stub(cloud).ListApplicationInstances(
        pb.ListApplicationInstancesRequest(status_filter=pb.STATUS_FILTER_REMOVAL_SUCCEEDED)
    )
    assert [item.application_instance_id for item in listed.application_instances] == [instance_id]

    kinds: list[str] = []
    async for message in consume(
        cloud.runtime.bus, subjects.EVENTS_STREAM, filter_subject=subjects.events("deployments"), ack=False
    ):
        kinds.append(Event.from_json(message.data).type.rsplit(".", 1)[1])
        assert b"canary" not in message.data
        if kinds[-1] == "removed":
            break
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("created", "removed", {"changed"})


async def test_an_application_waits_for_its_devices_enrolment(cloud: RunningCloud) -> None:
    device = await Device.provision(cloud, "later")
    instance_id = await deploy(cloud, device.device_id)
    waiting = await describe(cloud, instance_id)
    assert waiting.status == pb.APPLICATION_INSTANCE_STATUS_DEPLOYMENT_PENDING
    assert "not enrolled yet" in waiting.status_description
    assert (await device.target()).applications == ()
    await device.enrol()
    assert not (await until(cloud, instance_id, "DEPLOYMENT_REQUESTED")).status_description
    assert (await device.target()).applications[0].instance_id == instance_id


async def test_what_never_reached_the_device_is_removed_at_once(cloud: RunningCloud) -> None:
    device = await Device.provision(cloud, "never")
    instance_id = await deploy(cloud, device.device_id)
    await remove(cloud, instance_id)
    assert await status(cloud, instance_id) == "REMOVAL_SUCCEEDED"


async def test_a_replacement_takes_over(cloud: RunningCloud, device: Device) -> None:
    old = await deploy(cloud, device.device_id)
    await device.report(says(old, D.RUNNING))
    await until(cloud, old, "DEPLOYMENT_SUCCEEDED")
    new = await deploy(cloud, device.device_id, "north", "south", replaces=old)
    target = await device.target()
    assert [(item.instance_id, item.desired, item.replaces) for item in target.applications] == [
        (old, DesiredState.REMOVED, None),
        (new, DesiredState.RUNNING, old),
    ]
    assert await status(cloud, old) == "REMOVAL_REQUESTED"
    await device.report(says(old, D.RUNNING), says(new, D.STARTING))
    await until(cloud, new, "DEPLOYMENT_IN_PROGRESS")
    assert await status(cloud, old) == "REMOVAL_REQUESTED"
    await device.report(says(new, D.RUNNING))
    await until(cloud, old, "REMOVAL_SUCCEEDED")
    await until(cloud, new, "DEPLOYMENT_SUCCEEDED")
    assert [item.instance_id for item in (await device.target()).applications] == [new]
    assert (await describe(cloud, new)).application_instance_id_to_replace == old
    with pytest.raises(Invalid, match="REMOVAL_SUCCEEDED"):
        await deploy(cloud, device.device_id, replaces=old)


async def test_a_replacement_that_gives_up_fails_and_the_old_one_stays(cloud: RunningCloud, device: Device) -> None:
    old = await deploy(cloud, device.device_id)
    await device.report(says(old, D.RUNNING))
    await until(cloud, old, "DEPLOYMENT_SUCCEEDED")
    new = await deploy(cloud, device.device_id, "north", "south", replaces=old)
    reason = Reason(ReasonCode.APP_START_FAILED, "app.py raised at import: NameError")
    gave_up = ReportedApplication(new, D.LAUNCH_ERROR, Health.ERROR, reason, gave_up=True)
    await device.report(says(old, D.REMOVAL_IN_PROGRESS), gave_up)
    failed = await until(cloud, new, "DEPLOYMENT_FAILED")
    assert failed.status_description == f"It did not deliver in time, what it was to replace runs on: {reason.message}"
    target = await device.target()
    assert [(item.instance_id, item.desired) for item in target.applications] == [(old, DesiredState.RUNNING)]
    assert len(target.cameras) == 1
    assert await status(cloud, old) == "DEPLOYMENT_SUCCEEDED"
    # The same report once more, then what the device says of the new target.
    await device.report(says(old, D.REMOVAL_IN_PROGRESS), gave_up, version=target.version - 1)
    await device.report(says(old, D.RUNNING))
    await until(cloud, old, "DEPLOYMENT_SUCCEEDED")
    assert (await device.target()).version == target.version
    # It can be replaced again, and what failed can be cleared away.
    third = await deploy(cloud, device.device_id, replaces=old)
    await device.report(says(third, D.RUNNING))
    await until(cloud, old, "REMOVAL_SUCCEEDED")
    await remove(cloud, new)
    assert await status(cloud, new) == "REMOVAL_SUCCEEDED"


async def test_two_changes_in_a_row_end_in_the_last_and_what_runs_runs_until_then(
    cloud: RunningCloud, device: Device
) -> None:
    first = await deploy(cloud, device.device_id)
    await device.report(says(first, D.RUNNING))
    await until(cloud, first, "DEPLOYMENT_SUCCEEDED")
    second = await deploy(cloud, device.device_id, "south", replaces=first)
    third = await deploy(cloud, device.device_id, "north", replaces=second)
    wanted = {item.instance_id: (item.desired, item.replaces) for item in (await device.target()).applications}
    # The second never delivered: it goes at once, and the first is what the third takes the place of.
    assert wanted == {
        first: (DesiredState.REMOVED, None),
        second: (DesiredState.REMOVED, first),
        third: (DesiredState.RUNNING, first),
    }
    await device.report(says(first, D.RUNNING), says(third, D.STARTING))
    await until(cloud, second, "REMOVAL_SUCCEEDED")
    await device.report(says(third, D.RUNNING))
    await until(cloud, first, "REMOVAL_SUCCEEDED")
    await until(cloud, third, "DEPLOYMENT_SUCCEEDED")
    assert [item.instance_id for item in (await device.target()).applications] == [third]


async def test_a_deleted_device_takes_its_applications_along(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    registry = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
    await registry.DeleteDevice(registry_pb2.DeleteDeviceRequest(device_id=device.device_id))
    found = await until(cloud, instance_id, "REMOVAL_SUCCEEDED")
    assert found.status_description == "The device was deleted."


async def test_another_account_sees_no_instance(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    with cloud.caller(account="999999999999"):
        with pytest.raises(NotFound):
            await describe(cloud, instance_id)
        with pytest.raises(NotFound):
            await remove(cloud, instance_id)
        listed = await stub(cloud).ListApplicationInstances(pb.ListApplicationInstancesRequest())
        assert not listed.application_instances


async def test_instances_come_in_pages_with_their_documents_and_tags(cloud: RunningCloud, device: Device) -> None:
    made = [await deploy(cloud, device.device_id, name=f"app{number}") for number in range(3)]
    first = await stub(cloud).ListApplicationInstances(
        pb.ListApplicationInstancesRequest(max_results=2, status_filter=pb.STATUS_FILTER_PROCESSING_DEPLOYMENT)
    )
    second = await stub(cloud).ListApplicationInstances(
        pb.ListApplicationInstancesRequest(
            max_results=2, status_filter=pb.STATUS_FILTER_PROCESSING_DEPLOYMENT, next_token=first.next_token
        )
    )
    items = [*first.application_instances, *second.application_instances]
    assert [item.application_instance_id for item in items] == made[::-1]
    request = pb.UntagApplicationInstanceRequest(application_instance_id=made[0], tag_keys=["client"])
    await stub(cloud).UntagApplicationInstance(request)
    await stub(cloud).TagApplicationInstance(
        pb.TagApplicationInstanceRequest(application_instance_id=made[0], tags={"a": "b"})
    )
    assert dict((await describe(cloud, made[0])).tags) == {"a": "b"}
    details = await stub(cloud).DescribeApplicationInstanceDetails(
        pb.DescribeApplicationInstanceDetailsRequest(application_instance_id=made[0])
    )
    assert json.loads(details.manifest_payload.payload_data) == graphs.manifest()
