"""`belvedere app watch` against a real cloud side, with a device that reports video."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from belvedere.cli.account import Account
from belvedere.cli.main import main
from belvedere.fleet import ReportedVideo
from belvedere.v1 import registry_pb2, registry_pb2_grpc
from belvedere.viewer import check_viewer_token, viewer_rtsp_password
from tests.support.cloud import RunningCloud
from tests.support.fleet import Device, eventually
from tests.support.folders import FRAMES_THROUGH, application_folder
from tests.support.front_door import Door, front_door


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    services = ["identity", "registry", "packages", "deployments", "logs_metrics", "gateway"]
    with front_door(tmp_path_factory.mktemp("cloud"), services) as running:
        yield running


async def make_device(cloud: RunningCloud) -> tuple[Device, bytes]:
    device = await Device.provision(cloud, "shop")
    return device, base64.b64decode((await device.enrol())["viewer_key"])


def test_who_owns_the_cloud_side_is_told_where_a_deployed_applications_video_is_and_what_opens_it(
    door: Door, account: Account, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch(instance: str) -> tuple[int, list[list[str]], str]:
        capsys.readouterr()
        code = main(["app", "watch", instance, "--data", str(door.cloud.runtime.data)])
        told = capsys.readouterr()
        return code, [line.split() for line in told.out.splitlines() if "[info" not in line], told.err

    account.register_camera("front", "rtsp://10.0.0.1/front", "", "")
    app = application_folder(tmp_path / "app", "counter", FRAMES_THROUGH, cameras=["front"])
    account.register_packages(app)
    device, viewer_key = door.call(make_device)
    instance_id = account.deploy("counter", device.device_id, app, None).instance_id

    code, told, error = watch("counter")
    assert (code, told) == (2, []) and f"reports no video of counter ({instance_id})" in error
    code, told, error = watch("nobody")
    assert (code, told) == (2, []) and 'no application instance is named "nobody"' in error

    async def show(cloud: RunningCloud) -> None:
        video = ReportedVideo(instance_id, "counter", "rtsp://10.0.0.9:8554/counter", "ws://10.0.0.9:8555/v/x")
        await device.report(video=(video,))
        registry = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
        request = registry_pb2.CreateViewerCredentialsRequest(device_id=device.device_id)

        async def known() -> bool:
            return bool((await registry.CreateViewerCredentials(request)).outputs)

        await eventually(known, "the video is known")

    door.call(show)
    for named in ("counter", instance_id):
        code, (video, websocket, browser), error = watch(named)
        assert (code, error) == (0, "")
        assert video == ["video", f"rtsp://viewer:{viewer_rtsp_password(viewer_key)}@10.0.0.9:8554/counter"]
        address, _, token = websocket[1].partition("?token=")
        assert address == "ws://10.0.0.9:8555/v/x"
        check_viewer_token(viewer_key, token, instance_id, time.time())
        assert browser[1].startswith(f"http://127.0.0.1:{door.cloud.runtime.ports.console}/login?token=")
