"""An appliance that belongs to no cloud side: its identity, and the target that comes over its own bus."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from belvedere.chassis.edge import CommandFailed
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.secret import Secret
from belvedere.fleet import Target, TargetApplication, TargetCamera, sealing
from edge.agent.device import DeviceConfig, DeviceKeys
from edge.agent.errors import NotEnrolled
from edge.agent.local import LOCAL_DEVICE, read_target
from edge.agent.prepare import prepare

TARGET = Target(
    "anybody",
    3,
    (TargetApplication("applicationInstance-a", "a", "sha256:" + "0" * 64, camera_ids=("door", "yard")),),
    (TargetCamera("door", "rtsp://10.0.0.1/a"), TargetCamera("yard", "rtsp://10.0.0.2/b")),
)


async def test_a_local_appliance_makes_an_identity_and_a_bus_without_a_link(tmp_path: Path) -> None:
    await prepare(tmp_path, None, local=True)
    paths = EdgePaths(tmp_path)
    config = DeviceConfig.load(paths.device)
    assert config.local and config.device_id == LOCAL_DEVICE
    assert "leafnodes" not in (paths.nats / "leaf.conf").read_text()
    before = paths.bus_file.read_text()
    await prepare(tmp_path, None, local=True)
    assert paths.bus_file.read_text() == before and DeviceConfig.load(paths.device) == config


async def test_a_folder_of_an_enrolled_device_is_not_taken_for_a_local_one(tmp_path: Path) -> None:
    await prepare(tmp_path, None, local=True)
    folder = EdgePaths(tmp_path).device
    replace(DeviceConfig.load(folder), leaf_urls=("tls://cloud:7422",)).save(folder)
    with pytest.raises(NotEnrolled, match="belongs to a device of a cloud side"):
        await prepare(tmp_path, None, local=True)


def test_credentials_of_a_local_target_are_sealed_as_a_cloud_sides(tmp_path: Path) -> None:
    keys = DeviceKeys.load_or_make(tmp_path)
    target = read_target(
        {"target": TARGET.to_plain(), "credentials": {"door": {"username": "u", "password": "pass-canary"}}}, keys
    )
    assert (target.device_id, target.version, target.applications) == (LOCAL_DEVICE, 3, TARGET.applications)
    door, yard = target.cameras
    opened = sealing.open(keys.seal_private, base64.b64decode(door.sealed_credentials))
    assert (opened.username, opened.password) == (Secret("u"), Secret("pass-canary"))
    assert yard.sealed_credentials == "" and "pass-canary" not in target.to_json()


@pytest.mark.parametrize(
    "body",
    [{}, {"target": 1}, {"target": TARGET.to_plain(), "credentials": {"door": {"password": "pass-canary"}}},
     {"target": TARGET.to_plain(), "credentials": ["pass-canary"]}],
)  # fmt: skip
def test_what_is_no_target_is_refused_without_showing_a_password(tmp_path: Path, body: dict[str, object]) -> None:
    with pytest.raises(CommandFailed) as caught:
        read_target(body, DeviceKeys.load_or_make(tmp_path))
    assert "pass-canary" not in str(caught.value)
