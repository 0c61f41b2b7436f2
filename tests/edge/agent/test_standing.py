"""Whether the device still exists: the agent's question against a real registry, and against whoever else may answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from aiohttp import web
from sqlmodel import delete

from belvedere.bus.tls import prepare as make_tls
from belvedere.chassis.secret import Secret
from belvedere.v1 import registry_pb2
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from edge.agent.device import DeviceConfig, DeviceKeys
from edge.agent.enrol import Bundle, enrol
from edge.agent.standing import DELETED, Standing
from services.registry.store import DeviceRow
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.device import provision


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path / "cloud", services=["identity", "registry"]) as running:
        yield running


async def enrolled(cloud: RunningCloud, folder: Path) -> tuple[DeviceConfig, Path]:
    device = await provision(cloud, f"shop-{folder.parent.name[:40]}")
    bundle = Bundle(
        device_id=device.device_id,
        device_name="shop",
        enrol_url=device.bundle["enrol_url"],
        token=Secret(device.bundle["token"]),
        expires_at=datetime.fromisoformat(device.bundle["expires_at"]),
        ca_pem=device.ca_pem.encode(),
    )
    return await enrol(bundle, folder, serial_number="1", software_version="0.1.0"), folder


def standing(config: DeviceConfig, folder: Path) -> Standing:
    return Standing(config, DeviceKeys.load_or_make(folder), folder, check_s=0.01)


async def test_a_deleted_device_is_told_so_and_remembers_it(cloud: RunningCloud, tmp_path: Path) -> None:
    config, folder = await enrolled(cloud, tmp_path / "device")
    asked = standing(config, folder)
    assert not await asked.ask()
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with cloud.caller():
        await RegistryServiceStub(cloud.channel).DeleteDevice(
            registry_pb2.DeleteDeviceRequest(device_id=config.device_id)
        )
    ended: list[bool] = []
    async with asyncio.timeout(60):
        await asked.watch(asyncio.Event(), lambda: ended.append(asked.deleted))
    assert ended == [True]
    assert standing(config, folder).deleted
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name != DELETED} == before


async def test_a_registry_that_lost_its_rows_stops_no_appliance(cloud: RunningCloud, tmp_path: Path) -> None:
    config, folder = await enrolled(cloud, tmp_path / "device")
    async with cloud.runtime.database("registry").session() as session, session.begin():
        await session.exec(delete(DeviceRow))
    asked = standing(config, folder)
    assert not await asked.ask()
    assert not asked.deleted


DELETED_BODY = json.dumps({"error": {"code": "DEVICE_DELETED", "message": "gone"}})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, DELETED_BODY),
        (404, DELETED_BODY),
        (410, json.dumps({"error": {"code": "TOKEN_EXPIRED", "message": "x"}})),
        (410, "<html>Gone</html>"),
        (410, "[]"),
        (410, '{"error": "DEVICE_DELETED"}'),
        (401, json.dumps({"error": {"code": "UNAUTHENTICATED", "message": "x"}})),
        (503, ""),
    ],
)
async def test_no_other_answer_ends_an_appliance(cloud: RunningCloud, tmp_path: Path, status: int, body: str) -> None:
    assert not await answered(cloud, tmp_path, status, body, trusted=True)


async def test_only_a_server_that_the_bundles_ca_vouches_for_is_believed(cloud: RunningCloud, tmp_path: Path) -> None:
    assert await answered(cloud, tmp_path, 410, DELETED_BODY, trusted=True)
    assert not await answered(cloud, tmp_path / "other", 410, DELETED_BODY, trusted=False)


async def test_a_cloud_that_is_away_ends_nothing(cloud: RunningCloud, tmp_path: Path) -> None:
    config, folder = await enrolled(cloud, tmp_path / "device")
    asked = standing(replace(config, device_url="https://127.0.0.1:9"), folder)
    assert not await asked.ask()


async def answered(cloud: RunningCloud, folder: Path, status: int, body: str, *, trusted: bool) -> bool:
    """What the agent makes of this answer; from a server of the cloud's CA or of another one."""
    config, device = await enrolled(cloud, folder / "device")
    tls = cloud.runtime.hub.tls if trusted else make_tls(folder / "stranger", ("127.0.0.1",))

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    application = web.Application()
    application.add_routes([web.get("/device", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context())
        await site.start()
        port = runner.addresses[0][1]
        return await standing(replace(config, device_url=f"https://127.0.0.1:{port}"), device).ask()
    finally:
        await runner.cleanup()
