"""The live page in a real browser, over a real display: video, states, logs, metrics, what is wrong."""

from __future__ import annotations

import asyncio
import io
import json
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from belvedere.bus import subjects
from belvedere.bus.kv import KeyValue
from belvedere.fleet import (
    DeviceReportedStatus,
    Health,
    Reason,
    ReasonCode,
    Reported,
    ReportedApplication,
    ReportedVideo,
)
from belvedere.v1 import (
    deployments_pb2,
    deployments_pb2_grpc,
)
from edge.display.wanted import Wanted
from tests.edge.display.conftest import CAMERA, Shown, output, running
from tests.support import graphs
from tests.support.browser import live_page, page_beside
from tests.support.cloud import RunningCloud
from tests.support.console import Console, log_in, write_log, write_metric
from tests.support.fleet import Device, eventually
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader
from tests.support.showing import Showing

pytestmark = pytest.mark.timeout(300)
"""Its tests start a browser, a cloud and a display."""
PAGE_TIMEOUT_MS = 60_000
PLAYS = (
    "() => document.getElementById('video-state')?.textContent === '' "
    "&& document.getElementById('video').currentTime > 0.5"
)
TRIES_AGAIN = "() => document.getElementById('video-state').textContent.includes('trying again')"


@pytest.mark.debian
async def test_the_page_plays_the_annotated_video_and_shows_states_logs_and_metrics(
    console: Console, tmp_path: Path
) -> None:
    cloud = console.cloud
    device = await Device.provision(cloud, "lobby")
    viewer_key = (await device.enrol())["viewer_key"]
    instance = await deploy(cloud, device)
    await write_log(cloud, f"/aws/panorama/devices/{device.device_id}/applications/counter", "7 people in frame 12")
    await write_metric(cloud, "PeopleCounter", "People", 7)
    async with running(tmp_path / "edge") as shown:
        wanted = Wanted.from_json({"outputs": [output(instance, "counter")], "viewer_key": viewer_key})
        await shown.display.apply(wanted)
        with Showing(shown.paths, CAMERA, instance) as app:
            app.rects = [(0.25, 0.25, 0.75, 0.5)]
            await report(cloud, device, shown, instance, DeviceReportedStatus.RUNNING, Health.RUNNING, None)
            await eventually(lambda: video_is_known(console), "the video of the device")
            seen = await asyncio.to_thread(look, await console.link())
    assert seen["title"] == "counter"
    assert (seen["status"], seen["health"]) == ("deployment succeeded", "running")
    assert "7 people in frame 12" in seen["lines"]
    assert seen["metric"] == "7"
    assert seen["device"] == "lobby"
    assert seen["problems"] == []
    red = red_box(seen["picture"])
    # The picture fills the element's width: 16 to 9, as the camera's.
    assert np.allclose(red, (0.25, 0.25, 0.75, 0.5), atol=0.02), red


@pytest.mark.debian
async def test_a_page_opened_before_the_video_plays_it_and_goes_on_after_the_display_was_away(
    console: Console, tmp_path: Path
) -> None:
    device = await Device.provision(console.cloud, "lobby")
    viewer_key = (await device.enrol())["viewer_key"]
    instance = await deploy(console.cloud, device)
    wanted = Wanted.from_json({"outputs": [output(instance, "counter")], "viewer_key": viewer_key})
    async with page_beside(await console.link()) as page:
        await asyncio.to_thread(page.wait_for_selector, "#applications button", timeout=PAGE_TIMEOUT_MS)
        for _ in range(2):  # the second time the display has been away
            async with running(tmp_path / "edge") as shown:
                await shown.display.apply(wanted)
                with Showing(shown.paths, CAMERA, instance):
                    await report(
                        console.cloud, device, shown, instance, DeviceReportedStatus.RUNNING, Health.RUNNING, None
                    )
                    await asyncio.to_thread(page.wait_for_function, PLAYS, timeout=PAGE_TIMEOUT_MS)
            await asyncio.to_thread(page.wait_for_function, TRIES_AGAIN, timeout=PAGE_TIMEOUT_MS)


@pytest.mark.debian
async def test_the_page_says_what_is_wrong_and_where(console: Console, tmp_path: Path) -> None:
    device = await Device.provision(console.cloud, "lobby")
    await device.enrol()
    instance = await deploy(console.cloud, device)
    reason = Reason(ReasonCode.CAMERA_UNAUTHORIZED, "camera `north`: 401 from the camera: wrong user name or password")
    await report(console.cloud, device, None, instance, DeviceReportedStatus.LAUNCH_ERROR, Health.ERROR, reason)
    await log_in(console)
    await eventually(lambda: reason_is_shown(console), "the reason in the overview")
    text = await asyncio.to_thread(body_text, await console.link(), "wrong user name")
    assert "deployment error" in text
    assert reason.message in text


async def deploy(cloud: RunningCloud, device: Device) -> str:
    uploader = Uploader(cloud)
    await uploader.register(graphs.code_package(), b"code")
    await uploader.register(graphs.model_package(), tiny_tensorflow_bytes())
    await uploader.camera("north", "rtsp://10.0.0.1/n", "u", "p")
    made = await deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel).CreateApplicationInstance(
        deployments_pb2.CreateApplicationInstanceRequest(
            name="counter",
            default_runtime_context_device=device.device_id,
            manifest_payload=deployments_pb2.ManifestPayload(payload_data=json.dumps(graphs.manifest())),
            manifest_overrides_payload=deployments_pb2.ManifestOverridesPayload(
                payload_data=json.dumps(graphs.overrides("north"))
            ),
        )
    )
    return made.application_instance_id


async def report(
    cloud: RunningCloud,
    device: Device,
    shown: Shown | None,
    instance: str,
    state: DeviceReportedStatus,
    health: Health,
    reason: Reason | None,
) -> None:
    """What the appliance's agent would say."""

    async def targeted() -> bool:
        return any(application.instance_id == instance for application in (await device.target()).applications)

    await eventually(targeted, "the target")
    video: tuple[ReportedVideo, ...] = ()
    if shown is not None:
        row = shown.row(instance)
        video = (ReportedVideo(instance, "people", str(row["rtsp_url"]), str(row["websocket_url"])),)
    document = Reported(
        device_id=device.device_id,
        target_version=(await device.target()).version,
        reported_at_ms=int(time.time() * 1000),
        software_version="0.1.0",
        applications=(ReportedApplication(instance_id=instance, state=state, health=health, reason=reason),),
        video=video,
    )
    await KeyValue(cloud.runtime.bus, subjects.REPORTED_BUCKET).put(device.device_id, document.to_json().encode())


async def video_is_known(console: Console) -> bool:
    if not console.http.cookie_jar:
        await log_in(console)
    overview = await console.get("/api/overview")
    if not overview["applications"] or overview["applications"][0]["status"] != "DEPLOYMENT_SUCCEEDED":
        return False
    return bool((await console.get(f"/api/applications/{overview['applications'][0]['id']}"))["videos"])


async def reason_is_shown(console: Console) -> bool:
    applications = (await console.get("/api/overview"))["applications"]
    return bool(applications) and "wrong user name" in (applications[0]["reason"] or "")


def look(link: str) -> dict[str, Any]:
    """What a person sees who opens the link, once the video plays and everything is there."""
    with live_page(link, 1200, 1300) as page:
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        playing = "() => document.getElementById('video')?.currentTime > 1"
        page.wait_for_function(playing, timeout=PAGE_TIMEOUT_MS)
        page.wait_for_selector("#lines time", timeout=PAGE_TIMEOUT_MS)
        page.wait_for_selector("#chart .curve", state="attached", timeout=PAGE_TIMEOUT_MS)
        page.wait_for_selector("#device dd", timeout=PAGE_TIMEOUT_MS)
        before = page.evaluate("document.getElementById('video').currentTime")
        page.wait_for_function(f"() => document.getElementById('video').currentTime > {before} + 0.3")
        return {
            "title": page.inner_text("#title"),
            "status": page.inner_text("#status"),
            "health": page.inner_text("#health"),
            "lines": page.inner_text("#lines"),
            "metric": page.inner_text("#metric-now"),
            "device": page.inner_text("#device dd"),
            "picture": page.locator("#video").screenshot(),
            "problems": problems,
        }


def body_text(link: str, awaited: str) -> str:
    with live_page(link) as page:
        page.wait_for_selector(f"text={awaited}", timeout=PAGE_TIMEOUT_MS)
        return page.inner_text("body")


def red_box(png: bytes) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is red, as parts of the picture."""
    with av.open(io.BytesIO(png)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    mask = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100) & (pixels[:, :, 2] < 100)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    assert rows.size, "no box in the picture"
    return columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height
