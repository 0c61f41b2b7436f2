"""Application instances over real gRPC, NATS, SQLite and blobs, with devices that really enrolled."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume, publish_stored
from belvedere.bus.kv import KeyValue
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.secret import Secret
from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    NodeStatus,
    Reason,
    ReasonCode,
    ReportedApplication,
    ReportedNode,
    sealing,
)
from belvedere.graph import ResolvedGraph
from belvedere.v1 import deployments_pb2 as pb
from belvedere.v1 import deployments_pb2_grpc, packages_pb2, packages_pb2_grpc, registry_pb2, registry_pb2_grpc
from tests.support import graphs
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.fleet import Device, eventually
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader

SERVICES = ["identity", "registry", "packages", "deployments"]
D = DeviceReportedStatus


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, SERVICES) as running:
        with running.caller():
            uploader = Uploader(running)
            await uploader.register(graphs.code_package(), b"code")
            await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
            await uploader.camera("north", "rtsp://10.0.0.1/n", "u", "pass-canary")
            await uploader.camera("south", "rtsp://10.0.0.2/s")
            yield running


@pytest.fixture
async def device(cloud: RunningCloud) -> Device:
    found = await Device.provision(cloud, "yard")
    await found.enrol()
    return found


def stub(cloud: RunningCloud) -> deployments_pb2_grpc.DeploymentsServiceAsyncStub:
    return deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel)


async def deploy(cloud: RunningCloud, device_id: str, *cameras: str, replaces: str = "", name: str = "counter") -> str:
    request = pb.CreateApplicationInstanceRequest(
        name=name,
        default_runtime_context_device=device_id,
        manifest_payload=pb.ManifestPayload(payload_data=json.dumps(graphs.manifest())),
        manifest_overrides_payload=pb.ManifestOverridesPayload(
            payload_data=json.dumps(graphs.overrides(*(cameras or ("north",))))
        ),
        tags={"client": "test"},
    )
    if replaces:
        request.application_instance_id_to_replace = replaces
    return (await stub(cloud).CreateApplicationInstance(request)).application_instance_id


async def describe(cloud: RunningCloud, instance_id: str) -> pb.DescribeApplicationInstanceResponse:
    return await stub(cloud).DescribeApplicationInstance(
        pb.DescribeApplicationInstanceRequest(application_instance_id=instance_id)
    )


async def status(cloud: RunningCloud, instance_id: str) -> str:
    found = (await describe(cloud, instance_id)).status
    return pb.ApplicationInstanceStatus.Name(found).removeprefix("APPLICATION_INSTANCE_STATUS_")


async def until(cloud: RunningCloud, instance_id: str, wanted: str) -> pb.DescribeApplicationInstanceResponse:
    async def reached() -> bool:
        return await status(cloud, instance_id) == wanted

    await eventually(reached, f"{wanted} of {instance_id}")
    return await describe(cloud, instance_id)


async def nodes(cloud: RunningCloud, instance_id: str) -> dict[str, str]:
    answer = await stub(cloud).ListApplicationInstanceNodeInstances(
        pb.ListApplicationInstanceNodeInstancesRequest(application_instance_id=instance_id)
    )
    return {
        item.node_instance_id: pb.NodeInstanceStatus.Name(item.current_status).removeprefix("NODE_INSTANCE_STATUS_")
        for item in answer.node_instances
    }


async def remove(cloud: RunningCloud, instance_id: str) -> None:
    await stub(cloud).RemoveApplicationInstance(
        pb.RemoveApplicationInstanceRequest(application_instance_id=instance_id)
    )


def says(
    instance_id: str, state: DeviceReportedStatus, health: Health = Health.RUNNING, reason: Reason | None = None
) -> ReportedApplication:
    parts = (ReportedNode("code_node", NodeStatus.RUNNING), ReportedNode("north", NodeStatus.RUNNING))
    return ReportedApplication(instance_id, state, health, reason, parts if state is D.RUNNING else ())


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


async def test_restarts_are_told_with_the_last_error(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    error = Reason(ReasonCode.APP_EXITED, "ended with exit code 1: KeyError")
    await device.report(ReportedApplication(instance_id, D.RUNNING, Health.RUNNING, None, restarts=2, last_error=error))
    found = await until(cloud, instance_id, "DEPLOYMENT_SUCCEEDED")
    assert found.status_description == (
        "Application deployed successfully. Restarted 2 times; the last time: ended with exit code 1: KeyError"
    )


async def test_documents_that_give_no_graph_name_every_place(cloud: RunningCloud, device: Device) -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    manifest["nodeGraph"]["packages"][1]["name"] = "123456789012::absent"
    overrides["nodeGraphOverrides"]["packages"][0]["version"] = "2.0"
    with pytest.raises(Invalid) as caught:
        await stub(cloud).CreateApplicationInstance(
            pb.CreateApplicationInstanceRequest(
                default_runtime_context_device=device.device_id,
                manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
                manifest_overrides_payload=pb.ManifestOverridesPayload(payload_data=json.dumps(overrides)),
            )
        )
    assert dict(caught.value.fields) == {
        "packages[1]": "No registered package version found for accountId:123456789012, packageName:absent, "
        "packageVersion:1.0",
        "overrides.packages[0]": "No registered package version found for accountId:123456789012, packageName:north, "
        "packageVersion:2.0",
        "nodes[2].interface": 'no package "123456789012::person_detector" in packages',
    }


async def test_a_device_that_is_not_there_is_refused(cloud: RunningCloud) -> None:
    with pytest.raises(Invalid, match="no device 'device-absent'"):
        await deploy(cloud, "device-absent")


async def test_cameras_are_paused_and_resumed(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id, "north", "south")

    async def signal(name: str, value: pb.NodeSignalValue.ValueType) -> None:
        await stub(cloud).SignalApplicationInstanceNodeInstances(
            pb.SignalApplicationInstanceNodeInstancesRequest(
                application_instance_id=instance_id,
                node_signals=[pb.NodeSignal(node_instance_id=name, signal=value)],
            )
        )

    await signal("south", pb.NODE_SIGNAL_VALUE_PAUSE)
    assert (await device.target()).applications[0].paused == ("south",)
    assert (await nodes(cloud, instance_id))["south"] == "PAUSED"
    await signal("south", pb.NODE_SIGNAL_VALUE_RESUME)
    assert (await device.target()).applications[0].paused == ()
    with pytest.raises(Invalid, match="only cameras can be paused"):
        await signal("code_node", pb.NODE_SIGNAL_VALUE_PAUSE)


async def test_a_package_in_use_can_not_be_withdrawn(cloud: RunningCloud, device: Device) -> None:
    packages = packages_pb2_grpc.PackagesServiceStub(cloud.channel)
    instance_id = await deploy(cloud, device.device_id)
    name = "packageName/people_counter_code"
    version = await packages.DescribePackageVersion(
        packages_pb2.DescribePackageVersionRequest(package_id=name, package_version="1.0")
    )
    with pytest.raises(Conflict, match=instance_id):
        await packages.DeregisterPackageVersion(
            packages_pb2.DeregisterPackageVersionRequest(
                package_id=name, package_version="1.0", patch_version=version.patch_version
            )
        )
    with pytest.raises(Conflict, match=instance_id):
        await packages.DeletePackage(packages_pb2.DeletePackageRequest(package_id=name, force_delete=True))
    used = await stub(cloud).ListApplicationInstanceDependencies(
        pb.ListApplicationInstanceDependenciesRequest(application_instance_id=instance_id)
    )
    assert [item.name for item in used.package_objects] == ["people_counter_code", "person_detector", "north"]


async def test_new_credentials_of_a_camera_reach_what_runs(cloud: RunningCloud, device: Device) -> None:
    await deploy(cloud, device.device_id)
    await Uploader(cloud).camera("north", "rtsp://10.0.0.1/n", "u", "right")

    async def arrived() -> bool:
        (camera,) = (await device.target()).cameras
        opened = sealing.open(device.private_key, base64.b64decode(camera.sealed_credentials))
        return opened.password == Secret("right")

    await eventually(arrived, "the new password in the target")


async def test_a_deleted_device_takes_its_applications_along(cloud: RunningCloud, device: Device) -> None:
    instance_id = await deploy(cloud, device.device_id)
    registry = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
    await registry.DeleteDevice(registry_pb2.DeleteDeviceRequest(device_id=device.device_id))
    found = await until(cloud, instance_id, "REMOVAL_SUCCEEDED")
    assert found.status_description == "The device was deleted."


async def test_a_camera_package_without_an_address_fails_and_says_so(cloud: RunningCloud, device: Device) -> None:
    await Uploader(cloud).register(graphs.camera_package("bare"))
    instance_id = await deploy(cloud, device.device_id, "bare")
    found = await describe(cloud, instance_id)
    assert found.status == pb.APPLICATION_INSTANCE_STATUS_DEPLOYMENT_FAILED
    assert found.status_description.startswith("Camera bare 1.0")
    assert (await device.target()).applications == ()
    await remove(cloud, instance_id)
    assert await status(cloud, instance_id) == "REMOVAL_SUCCEEDED"


async def test_a_camera_package_of_the_aws_template_brings_its_address(cloud: RunningCloud, device: Device) -> None:
    package = graphs.camera_package("gate")
    ports = package["nodePackage"]["interfaces"][0]["inputs"]
    for port, value in zip(ports, ["admin", "123456", "rtsp://10.0.0.212:554/stream0"], strict=True):
        port["default"] = value
    await Uploader(cloud).register(package)
    await deploy(cloud, device.device_id, "gate")
    (camera,) = (await device.target()).cameras
    opened = sealing.open(device.private_key, base64.b64decode(camera.sealed_credentials))
    assert (camera.stream_url, opened.password) == ("rtsp://10.0.0.212:554/stream0", Secret("123456"))


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


async def test_a_second_code_node_and_values_between_nodes_are_refused_by_name(
    cloud: RunningCloud, device: Device
) -> None:
    manifest = graphs.manifest()
    inner = manifest["nodeGraph"]
    inner["nodes"].append({"name": "second", "interface": f"{graphs.ACCOUNT}::people_counter_code.code_interface"})
    inner["edges"].append({"producer": "detector.video_out", "consumer": "second.title"})
    with pytest.raises(Invalid) as caught:
        await stub(cloud).CreateApplicationInstance(
            pb.CreateApplicationInstanceRequest(
                default_runtime_context_device=device.device_id,
                manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
                manifest_overrides_payload=pb.ManifestOverridesPayload(
                    payload_data=json.dumps(graphs.overrides("north"))
                ),
            )
        )
    fields = dict(caught.value.fields)
    assert fields["nodes[6]"].startswith('"second" is the second business logic node after "code_node"')
    assert fields["edges[4]"] == "detector.video_out is media, but second.title takes string"


async def test_a_port_that_another_application_of_the_device_has_is_refused_with_everything_else(
    cloud: RunningCloud, device: Device
) -> None:
    def request(
        name: str, replaces: str = "", extra: dict[str, str] | None = None
    ) -> pb.CreateApplicationInstanceRequest:
        manifest, overrides = graphs.manifest(), graphs.overrides("north")
        manifest["nodeGraph"]["edges"] += [extra] if extra else []
        rule = {"node": "code_node", "containerPort": 8080, "hostPort": 8001}
        overrides["nodeGraphOverrides"]["networkRoutingRules"] = [rule]
        made = pb.CreateApplicationInstanceRequest(
            name=name,
            default_runtime_context_device=device.device_id,
            manifest_payload=pb.ManifestPayload(payload_data=json.dumps(manifest)),
            manifest_overrides_payload=pb.ManifestOverridesPayload(payload_data=json.dumps(overrides)),
        )
        if replaces:
            made.application_instance_id_to_replace = replaces
        return made

    first = (await stub(cloud).CreateApplicationInstance(request("door"))).application_instance_id
    with pytest.raises(Invalid) as caught:
        wrong = {"producer": "nobody", "consumer": "code_node.title"}
        await stub(cloud).CreateApplicationInstance(request("yard", extra=wrong))
    assert list(caught.value.fields) == [
        ("edges[4].producer", 'no node "nobody" in nodes'),
        (
            "overrides.networkRoutingRules[0].hostPort",
            f'8001 is taken on this device by application "door" ({first}): choose another',
        ),
    ]
    second = (await stub(cloud).CreateApplicationInstance(request("door", replaces=first))).application_instance_id
    await remove(cloud, second)
    await stub(cloud).CreateApplicationInstance(request("yard"))
