"""The cameras of an application: addresses, credentials, pausing."""

from __future__ import annotations

import base64

import pytest

from belvedere.chassis.errors import Invalid
from belvedere.chassis.secret import Secret
from belvedere.fleet import sealing
from belvedere.v1 import deployments_pb2 as pb
from tests.support import graphs
from tests.support.cloud import RunningCloud
from tests.support.deploying import deploy, describe, nodes, remove, status, stub
from tests.support.fleet import Device, eventually
from tests.support.registering import Uploader


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


async def test_new_credentials_of_a_camera_reach_what_runs(cloud: RunningCloud, device: Device) -> None:
    await deploy(cloud, device.device_id)
    await Uploader(cloud).camera("north", "rtsp://10.0.0.1/n", "u", "right")

    async def arrived() -> bool:
        (camera,) = (await device.target()).cameras
        opened = sealing.open(device.private_key, base64.b64decode(camera.sealed_credentials))
        return opened.password == Secret("right")

    await eventually(arrived, "the new password in the target")


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
