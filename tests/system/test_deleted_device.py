"""A device is deleted while its appliance runs: what it ran stops, its role opens nothing, its folder stays as it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from belvedere.chassis.edge import EdgeError, ask
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder
from tests.support.whole import CAMERA_USER, WholeSystem, run, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ASK_TIMEOUT_S = 5.0
DELETED = "this device was deleted in the cloud"


def role_session(system: WholeSystem, instance_id: str) -> Any:
    """STS as the application itself would use it."""

    def look() -> dict[str, Any] | None:
        body = {"instance_id": instance_id}
        try:
            return asyncio.run(ask(system.appliance_data, "agent", "credentials", body, timeout_s=ASK_TIMEOUT_S))
        except EdgeError:
            return None

    given = wait_for("credentials for the application", look)
    return boto3.client(
        "sts",
        endpoint_url=system.access.endpoint_url,
        region_name=system.access.region,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["Token"],
    )


def test_a_deleted_device_stops_its_applications_and_keeps_its_folder(tmp_path: Path) -> None:
    settings = {"BELVEDERE_AGENT_LINK_CHECK_S": "1", "BELVEDERE_AGENT_DELETED_CHECK_S": "1"}
    with WholeSystem(tmp_path, settings) as system:
        url = system.camera("front", make_clip(tmp_path / "clip.mp4", fps=10), "secret")
        system.account.register_camera("front", url, CAMERA_USER, "secret")
        app = application_folder(tmp_path / "apps" / "door", "door", FRAMES_THROUGH, cameras=["front"])
        instance_id = system.deploy(app)
        system.wait_running(instance_id)
        sts = role_session(system, instance_id)
        assert instance_id in sts.get_caller_identity()["Arn"]
        state = (system.appliance_data / "state.json").read_bytes()
        storage = system.appliance_data / "storage" / instance_id
        assert storage.is_dir()

        system.panorama.delete_device(DeviceId=system.device_id)
        system.wait_status(instance_id, "REMOVAL_SUCCEEDED")

        def refused() -> str | None:
            try:
                sts.get_caller_identity()
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return None

        assert wait_for("the role session is refused", refused) == "InvalidClientTokenId"
        wait_for("nothing runs", lambda: stopped(system))
        told = run("appliance", "status", "--data", system.appliance_data)
        assert DELETED in told.stdout
        assert any(DELETED in file.read_text(errors="replace") for file in (system.appliance_data / "logs").iterdir())
        assert (system.appliance_data / "state.json").read_bytes() == state
        assert storage.is_dir()

        # It knows after a start too, with nobody to ask.
        system.running("appliance").stop()
        system.running("cloud").stop()
        system.start("appliance", "appliance", "run", "--data", system.appliance_data)
        wait_for("it is up and runs nothing", lambda: stopped(system))
        assert json.loads(state) == json.loads((system.appliance_data / "state.json").read_text())


def stopped(system: WholeSystem) -> bool:
    now = system.overview()
    lists = (now["supervisor"].get("applications"), now["ingest"].get("cameras"))
    return bool(now["deleted"]) and all(rows == [] for rows in lists)
