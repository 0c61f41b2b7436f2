"""Online, offline, reports, deletion: over a real hub and a real leaf."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from belvedere import viewer
from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume, publish_stored
from belvedere.bus.kv import KeyValue, get_target, put_reported
from belvedere.fleet import NetworkConnection, Reported, ReportedInterface, ReportedNetworking, ReportedVideo
from belvedere.v1 import common_pb2
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry import store
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.database import assert_migrations_match
from tests.support.device import TestDevice, provision
from tests.support.fleet import eventually

ONLINE, OFFLINE = pb.DEVICE_AGGREGATED_STATUS_ONLINE, pb.DEVICE_AGGREGATED_STATUS_OFFLINE


async def becomes(
    device: TestDevice, status: pb.DeviceAggregatedStatus.ValueType, timeout_s: float = 30.0
) -> pb.DescribeDeviceResponse:
    """Its description, the first time that it has the status."""

    async def there() -> pb.DescribeDeviceResponse | None:
        found = await device.describe()
        return found if found.device_aggregated_status == status else None

    found = await eventually(there, f"the status {status}", timeout_s)
    assert found is not None
    return found


@asynccontextmanager
async def heard(device: TestDevice, bus: Bus) -> AsyncIterator[None]:
    """Heartbeats, again and again: a single one counts for a short time only."""

    async def beats() -> None:
        while True:
            await device.beat(bus)
            await asyncio.sleep(0.1)

    beating = asyncio.create_task(beats())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def happened(bus: Bus, device_id: str, count: int) -> list[str]:
    types: list[str] = []
    async with asyncio.timeout(30):
        async for message in consume(bus, subjects.EVENTS_STREAM, filter_subject=subjects.events("registry")):
            await message.ack()
            event = Event.from_json(message.data)
            if event.subject == device_id:
                types.append(event.type)
            if len(types) == count:
                break
    return types


async def test_a_device_is_online_while_it_is_heard(cloud: RunningCloud, tmp_path: Path) -> None:
    device = await provision(cloud, "one")
    await device.enrol()
    async with device.leaf(tmp_path / "leaf") as bus:
        async with heard(device, bus):
            found = await becomes(device, ONLINE)
        assert found.device_connection_status == pb.DEVICE_CONNECTION_STATUS_ONLINE
        assert found.provisioning_status == pb.DEVICE_STATUS_SUCCEEDED
        # Linked but silent: its agent is dead.
        await becomes(device, OFFLINE)
        async with heard(device, bus):
            await becomes(device, ONLINE)
    types = await happened(cloud.runtime.bus, device.device_id, 5)
    assert [name.rsplit(".", 1)[1] for name in types] == ["provisioned", "enrolled", "online", "offline", "online"]


async def test_a_device_that_is_heard_is_online_whatever_a_replica_said_that_heard_nobody(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    device = await provision(cloud, "one")
    await device.enrol()
    async with device.leaf(tmp_path / "leaf") as bus, heard(device, bus):
        await becomes(device, ONLINE)
        # For how long it is OFFLINE nobody knows: it may be put right a moment later.
        async with cloud.runtime.database("registry").session() as session, session.begin():
            row = await session.get_one(store.DeviceRow, device.device_id)
            row.connected = False
        await becomes(device, ONLINE)


async def test_a_device_whose_link_is_gone_is_offline_before_its_silence_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_REGISTRY_HEARTBEAT_SILENCE_S", "90")
    async with running_cloud(tmp_path / "cloud", services=["registry"]) as cloud:
        device = await provision(cloud, "one")
        await device.enrol()
        async with device.leaf(tmp_path / "leaf") as bus, heard(device, bus):
            await becomes(device, ONLINE)
        await becomes(device, OFFLINE, timeout_s=45)


async def test_what_a_device_reports_is_what_the_api_says(
    cloud: RunningCloud, registry: RegistryServiceStub, tmp_path: Path
) -> None:
    device = await provision(cloud, "one")
    identity = await device.enrol()
    reported = Reported(
        "device-somebody-else",
        target_version=0,
        reported_at_ms=int(datetime.now(UTC).timestamp() * 1000),
        software_version="1.2.3",
        networking=ReportedNetworking(
            ethernet0=ReportedInterface(NetworkConnection.CONNECTED, "192.168.0.7/24", "8c:0f:5f:60:f5:f4")
        ),
        video=(ReportedVideo("instance-1", "out", "rtsp://192.168.0.7:8554/a", "ws://192.168.0.7:8555/v/instance-1"),),
    )
    async with device.leaf(tmp_path / "leaf") as bus:
        await put_reported(bus, reported.to_json().encode())

        async def told() -> bool:
            return (await device.describe()).current_software == "1.2.3"

        await eventually(told, "what it reports")
    status = (await device.describe()).current_networking_status
    assert status.ethernet0_status.ip_address == "192.168.0.7/24"
    assert status.ethernet0_status.connection_status == pb.NETWORK_CONNECTION_STATUS_CONNECTED
    assert not status.HasField("ethernet1_status")
    request = pb.CreateViewerCredentialsRequest(device_id=device.device_id)
    credentials = await registry.CreateViewerCredentials(request)
    key = base64.b64decode(identity["viewer_key"])
    assert credentials.rtsp_username == "viewer"
    assert credentials.rtsp_password == viewer.viewer_rtsp_password(key)
    output = credentials.outputs[0]
    url, _, token = output.websocket_url.partition("?token=")
    assert url == "ws://192.168.0.7:8555/v/instance-1" and token == credentials.websocket_token
    viewer.check_viewer_token(key, token, "instance-1", time.time())
    with pytest.raises(viewer.ViewerTokenExpired):
        viewer.check_viewer_token(key, token, "instance-1", time.time() + 3601)


async def test_a_report_that_cannot_be_read_changes_nothing_and_the_next_one_counts(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    device = await provision(cloud, "one")
    await device.enrol()
    good = Reported(device.device_id, target_version=0, reported_at_ms=1_700_000_000_000, software_version="2.0")
    async with device.leaf(tmp_path / "leaf") as bus:
        for bad in (b"", b"{", b"[]", b'{"schema": 1}', b"\xff"):
            await put_reported(bus, bad)
        await put_reported(bus, good.to_json().encode())

        async def told() -> bool:
            return (await device.describe()).current_software == "2.0"

        await eventually(told, "what it reports")


async def test_a_deleted_device_is_cut_off_at_once_and_others_are_not(
    cloud: RunningCloud, registry: RegistryServiceStub, tmp_path: Path
) -> None:
    device, other = await provision(cloud, "one"), await provision(cloud, "two")
    await device.enrol()
    await other.enrol()
    targets = KeyValue(cloud.runtime.bus, "target")
    await targets.put(device.device_id, b"{}")
    async with device.leaf(tmp_path / "a") as bus, other.leaf(tmp_path / "b") as other_bus:
        assert await get_target(bus) is not None
        await registry.DeleteDevice(pb.DeleteDeviceRequest(device_id=device.device_id))
        async with asyncio.timeout(30):  # a lease ends after many minutes
            while True:
                try:
                    await get_target(bus, timeout_s=0.2)
                except BusError:
                    break
        assert await get_target(other_bus) is None
        assert await targets.get(device.device_id) is None
        # Its credentials are still in its file, and not yet past their time.
        async with device.leaf(tmp_path / "again", wait=False) as again:
            trying_until = time.monotonic() + 4  # a leaf tries again every 3 s
            while time.monotonic() < trying_until:
                with pytest.raises(BusError):
                    await get_target(again, timeout_s=0.3)
                await asyncio.sleep(0.1)
        async with heard(other, other_bus):
            await becomes(other, ONLINE)


async def test_after_a_restart_of_the_cloud_everything_is_as_it_was(tmp_path: Path) -> None:
    async with running_cloud(tmp_path / "cloud", services=["registry"]) as cloud:
        device, waiting = await provision(cloud, "one"), await provision(cloud, "two")
        viewer_key = (await device.enrol())["viewer_key"]
        async with device.leaf(tmp_path / "leaf") as bus, heard(device, bus):
            await becomes(device, ONLINE)
        await KeyValue(cloud.runtime.bus, "target").put(device.device_id, b'{"a": 1}')
    # As if the hub had lost its accounts: the registry puts them back.
    for file in (tmp_path / "cloud" / "nats" / "accounts").iterdir():
        file.unlink()
    async with running_cloud(tmp_path / "cloud", services=["registry"]) as cloud:
        device.cloud = waiting.cloud = cloud
        found = await device.describe()
        assert (found.name, found.provisioning_status) == ("one", pb.DEVICE_STATUS_SUCCEEDED)
        async with device.leaf(tmp_path / "leaf") as bus, heard(device, bus):
            await becomes(device, ONLINE)
            assert await get_target(bus) == (b'{"a": 1}', 1)
        assert (await waiting.enrol())["viewer_key"] != viewer_key


async def test_the_newest_job_is_part_of_the_devices_description(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")

    async def say(happened: str, job_id: str, kind: str, status: str, image: str | None = None) -> None:
        data = {"jobId": job_id, "deviceId": device.device_id, "jobType": kind, "imageVersion": image, "status": status}
        event = Event(f"device_jobs.job.{happened}", "/belvedere/device_jobs", job_id, ACCOUNT, REGION, data)
        await publish_stored(cloud.runtime.bus, event.nats_subject, event.to_json(), msg_id=event.id)

    await cloud.runtime.bus.publish("belvedere.events.device_jobs.job.created", b"{")
    await say("created", "job-1", "OTA", "PENDING", "2.0.0")
    await say("created", "job-2", "REBOOT", "PENDING")
    await say("changed", "job-1", "OTA", "COMPLETED", "2.0.0")
    await say("changed", "job-2", "NONSENSE", "PENDING")
    await say("changed", "job-2", "REBOOT", "COMPLETED")

    async def told() -> bool:
        return (await device.describe()).latest_device_job.status == common_pb2.UPDATE_PROGRESS_COMPLETED

    await eventually(told, "the job")
    latest = (await device.describe()).latest_device_job
    assert latest.job_type == common_pb2.JOB_TYPE_REBOOT and not latest.HasField("image_version")


async def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    await assert_migrations_match(tmp_path, Path(store.__file__).parent / "migrations", store.Row)
