"""Enrolment and lease, the agent's own code against a real registry over real HTTPS and a real leaf."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from belvedere.chassis.paths import EdgePaths
from belvedere.v1 import registry_pb2
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from edge.agent.device import DeviceConfig, DeviceKeys
from edge.agent.enrol import Bundle, enrol
from edge.agent.errors import BundleError, EnrolmentError, LeaseRefused, NotEnrolled
from edge.agent.lease import Lease
from edge.agent.prepare import prepare
from tests.support.cloud import RunningCloud, running_cloud


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path / "cloud", services=["identity", "registry"]) as running:
        yield running


async def bundle_file(cloud: RunningCloud, folder: Path, name: str = "shop") -> Path:
    with cloud.caller():
        answer = await RegistryServiceStub(cloud.channel).ProvisionDevice(
            registry_pb2.ProvisionDeviceRequest(name=name)
        )
    path = folder / f"{name}.zip"
    path.write_bytes(base64.b64decode(answer.certificates))
    return path


async def enrolled(cloud: RunningCloud, folder: Path) -> tuple[DeviceConfig, Path]:
    bundle = Bundle.load(await bundle_file(cloud, folder))
    device = folder / "device"
    return await enrol(bundle, device, serial_number="1", software_version="0.1.0"), device


async def test_a_bundle_becomes_an_identity_with_keys_that_only_the_appliance_has(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    config, folder = await enrolled(cloud, tmp_path)
    assert DeviceConfig.load(folder) == config
    assert (folder.stat().st_mode & 0o777) == 0o700
    assert all((file.stat().st_mode & 0o077) == 0 for file in folder.iterdir())
    assert DeviceKeys.load_or_make(folder).nats_public_key.startswith("U")
    with cloud.caller():
        keys = await RegistryServiceStub(cloud.channel).GetDeviceKeys(
            registry_pb2.GetDeviceKeysRequest(device_id=config.device_id)
        )
    assert keys.seal_public_key == DeviceKeys.load_or_make(folder).seal_public_key


async def test_starting_again_with_the_same_bundle_is_harmless(cloud: RunningCloud, tmp_path: Path) -> None:
    path = await bundle_file(cloud, tmp_path)
    await prepare(tmp_path / "edge", path)
    before = json.loads(EdgePaths(tmp_path / "edge").bus_file.read_text())
    await prepare(tmp_path / "edge", path)
    assert json.loads(EdgePaths(tmp_path / "edge").bus_file.read_text()) == before


async def test_another_devices_bundle_does_not_take_over_a_data_folder(cloud: RunningCloud, tmp_path: Path) -> None:
    _, folder = await enrolled(cloud, tmp_path)
    other = Bundle.load(await bundle_file(cloud, tmp_path, "other"))
    with pytest.raises(EnrolmentError, match="use another folder"):
        await enrol(other, folder, serial_number="1", software_version="0.1.0")


async def test_a_bundle_that_was_used_is_refused_elsewhere_with_the_registrys_words(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    path = await bundle_file(cloud, tmp_path)
    await enrol(Bundle.load(path), tmp_path / "first", serial_number="1", software_version="0.1.0")
    with pytest.raises(EnrolmentError, match="enrolment refused"):
        await enrol(Bundle.load(path), tmp_path / "second", serial_number="1", software_version="0.1.0")


async def test_an_expired_bundle_is_not_even_sent(cloud: RunningCloud, tmp_path: Path) -> None:
    bundle = replace(
        Bundle.load(await bundle_file(cloud, tmp_path)), expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    with pytest.raises(EnrolmentError, match="expired"):
        await enrol(bundle, tmp_path / "device", serial_number="1", software_version="0.1.0")


async def test_a_cloud_that_is_away_is_told_with_its_address(cloud: RunningCloud, tmp_path: Path) -> None:
    bundle = replace(Bundle.load(await bundle_file(cloud, tmp_path)), enrol_url="https://127.0.0.1:9/enrol")
    with pytest.raises(EnrolmentError, match=r"no answer from https://127\.0\.0\.1:9/enrol"):
        await enrol(bundle, tmp_path / "device", serial_number="1", software_version="0.1.0")


async def test_an_appliance_without_identity_and_bundle_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="--bundle"):
        await prepare(tmp_path, None)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bundle.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError):
        Bundle.load(path)


@pytest.mark.parametrize("config", ["{}", "[]", "no json", json.dumps({"device_id": "x" * 100_000})])
def test_a_bundle_with_something_else_inside_is_refused(tmp_path: Path, config: str) -> None:
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("ca.pem", "")
    with pytest.raises(BundleError):
        Bundle.load(path)


async def test_a_lease_that_ended_while_the_appliance_was_off_is_renewed_over_https(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    config, folder = await enrolled(cloud, tmp_path)
    gone = replace(config, lease_expires=(datetime.now(UTC) - timedelta(days=30)).isoformat())
    lease = Lease(cloud.runtime.bus, gone, DeviceKeys.load_or_make(folder), folder)
    file = await lease.renew()
    assert file.name == "device.2.creds"
    assert "BEGIN NATS USER JWT" in file.read_text()
    assert lease.left_s > 0
    assert DeviceConfig.load(folder).creds_generation == 2


async def test_a_renewed_lease_brings_the_gateways_present_address(cloud: RunningCloud, tmp_path: Path) -> None:
    config, folder = await enrolled(cloud, tmp_path)
    ended = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    moved = replace(config, lease_expires=ended, gateway_url="http://127.0.0.1:9")
    await Lease(cloud.runtime.bus, moved, DeviceKeys.load_or_make(folder), folder).renew()
    assert DeviceConfig.load(folder).gateway_url == config.gateway_url


async def test_a_lease_that_nobody_renews_is_an_error_that_names_the_address(
    cloud: RunningCloud, tmp_path: Path
) -> None:
    config, folder = await enrolled(cloud, tmp_path)
    gone = replace(config, lease_expires="2020-01-01T00:00:00+00:00", device_url="https://127.0.0.1:9")
    with pytest.raises(LeaseRefused, match=r"127\.0\.0\.1:9 does not answer"):
        await Lease(cloud.runtime.bus, gone, DeviceKeys.load_or_make(folder), folder).renew()
