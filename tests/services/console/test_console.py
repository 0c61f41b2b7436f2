"""The console over real services: its login, its JSON, and its page in a real browser with a real display behind it."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
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
    identity_pb2,
    identity_pb2_grpc,
    logs_metrics_pb2,
    logs_metrics_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from edge.display.wanted import Wanted
from tests.edge.display.conftest import CAMERA, Shown, output, running
from tests.support import graphs
from tests.support.browser import live_page
from tests.support.cloud import RunningCloud, running_cloud
from tests.support.fleet import Device, eventually
from tests.support.models import tiny_tensorflow_bytes
from tests.support.registering import Uploader
from tests.support.showing import Showing

SERVICES = ["identity", "registry", "packages", "deployments", "logs_metrics", "console"]
PAGE_TIMEOUT_MS = 30_000
ADDRESSES = [
    "/api/overview",
    "/api/devices/device-x",
    "/api/applications/x",
    "/api/logs?group=g&stream=s",
    "/api/logs/streams?device=d",
    "/api/metrics/list",
    "/api/metrics?namespace=n&name=m",
]


@dataclass
class Console:
    """The console of a running cloud, and a browser's memory."""

    cloud: RunningCloud
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.cloud.runtime.ports.console}"

    async def link(self, user: str = "admin") -> str:
        """A fresh login link."""
        identity = identity_pb2_grpc.IdentityServiceStub(self.cloud.channel)
        made = await identity.CreateLoginToken(identity_pb2.CreateLoginTokenRequest(user_name=user))
        return f"{self.url}/login?token={made.token}"

    async def get(self, path: str, status: int = 200, **parameters: str) -> Any:
        async with self.http.get(self.url + path, params=parameters) as answer:
            assert answer.status == status, await answer.text()
            assert answer.content_type == "application/json"
            return await answer.json()


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of a bare address
    async with (
        running_cloud(tmp_path / "cloud", SERVICES) as cloud,
        aiohttp.ClientSession(cookie_jar=jar) as http,
    ):
        with cloud.caller():
            yield Console(cloud, http)


async def log_in(console: Console, user: str = "admin") -> None:
    async with console.http.get(await console.link(user)) as answer:
        assert answer.status == 200


async def user(console: Console, name: str, *statements: dict[str, Any], policy: str = "") -> None:
    """A user with a policy of these statements, or one that is always there."""
    identity = identity_pb2_grpc.IdentityServiceStub(console.cloud.channel)
    await identity.CreateUser(identity_pb2.CreateUserRequest(user_name=name))
    if statements:
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        request = identity_pb2.CreatePolicyRequest(policy_name=name, policy_document=document)
        policy = (await identity.CreatePolicy(request)).policy.arn
    if policy:
        await identity.AttachPolicy(identity_pb2.AttachPolicyRequest(policy_arn=policy, user_name=name))


async def test_nothing_is_told_without_a_session(console: Console) -> None:
    for address in ADDRESSES:
        error = (await console.get(address, 401))["error"]
        assert error["code"] == "NoSession"
        assert "belvedere console" in error["message"]
    async with console.http.get(console.url + "/") as page:
        assert page.status == 401
        assert "log in" in await page.text()


async def test_a_login_link_works_once_and_its_cookie_is_for_this_site_only(console: Console) -> None:
    link = await console.link()
    async with console.http.get(link) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="))
    assert (await console.get("/api/overview"))["account"] == "123456789012"
    async with aiohttp.ClientSession() as somebody, somebody.get(link) as answer:
        assert answer.status == 401
        assert "Set-Cookie" not in answer.headers
    async with console.http.post(console.url + "/logout") as answer:
        assert answer.status == 200
    await console.get("/api/overview", 401)


async def test_every_answer_forbids_what_the_page_does_not_need(console: Console) -> None:
    for path in ("/", "/static/app.js", "/api/overview", "/nowhere"):
        async with console.http.get(console.url + path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
    async with console.http.get(console.url + "/static/..%2fservice.py") as answer:
        assert answer.status == 404


async def test_who_has_no_policy_sees_nothing_and_is_told_why(console: Console) -> None:
    device = await Device.provision(console.cloud, "yard")
    await write_log(console.cloud, "/aws/panorama/devices/d", "secret")
    await user(console, "stranger")
    await log_in(console, "stranger")
    overview = await console.get("/api/overview")
    assert (overview["devices"], overview["applications"]) == ([], [])
    assert "user/stranger is not authorized to perform: panorama:ListDevices" in overview["errors"]["devices"]
    for address in (*ADDRESSES[1:], f"/api/devices/{device.device_id}"):
        error = (await console.get(address, 403))["error"]
        assert error["code"] == "Denied" and "user/stranger is not authorized" in error["message"]
    identity = identity_pb2_grpc.IdentityServiceStub(console.cloud.channel)
    trail = await identity.ListAuditEntries(identity_pb2.ListAuditEntriesRequest(denied_only=True))
    lines = {(e.principal.rpartition("/")[2], e.action, e.source_address) for e in trail.entries}
    assert ("stranger", "panorama:ListDevices", "127.0.0.1") in lines
    assert ("stranger", "logs:GetLogEvents", "127.0.0.1") in lines


async def test_who_may_read_sees_everything(console: Console) -> None:
    device = await Device.provision(console.cloud, "yard")
    await user(console, "reader", policy="arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly")
    await log_in(console, "reader")
    overview = await console.get("/api/overview")
    assert ([shown["id"] for shown in overview["devices"]], overview["errors"]) == ([device.device_id], {})
    assert (await console.get(f"/api/devices/{device.device_id}"))["videos_error"] is None


async def test_tags_and_addresses_decide_here_as_everywhere(console: Console) -> None:
    registry = registry_pb2_grpc.RegistryServiceStub(console.cloud.channel)
    ids = [
        (await registry.ProvisionDevice(registry_pb2.ProvisionDeviceRequest(name=site, tags={"Site": site}))).device_id
        for site in ("north", "south")
    ]
    everything = {"Effect": "Allow", "Action": "panorama:*", "Resource": "*"}
    south = {"StringEquals": {"aws:ResourceTag/Site": "south"}, "IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}
    await user(console, "northerner", everything, {**everything, "Effect": "Deny", "Condition": south})
    await log_in(console, "northerner")
    await console.get(f"/api/devices/{ids[0]}")
    error = (await console.get(f"/api/devices/{ids[1]}", 403))["error"]
    assert error["message"].endswith("with an explicit deny in an identity-based policy")


async def test_wrong_questions_get_typed_errors(console: Console) -> None:
    await log_in(console)
    assert (await console.get("/api/devices/device-none", 404))["error"]["code"] == "NotFound"
    missing = (await console.get("/api/logs", 400))["error"]
    assert (missing["code"], missing["fields"][0]["path"]) == ("Invalid", "group")
    for path in ("/api/metrics?namespace=n&name=m&minutes=0", "/api/metrics?namespace=n&name=m&dimensions=[1]"):
        assert (await console.get(path, 400))["error"]["code"] == "Invalid"
    assert (await console.get("/nowhere", 404))["error"]["message"]


async def test_logs_are_read_on_from_where_they_ended(console: Console) -> None:
    await log_in(console)
    group = "/aws/panorama/devices/device-d/applications/counter"
    await write_log(console.cloud, group, "one")
    streams = (await console.get("/api/logs/streams", device="device-d"))["streams"]
    assert [(stream["group"], stream["stream"]) for stream in streams] == [(group, "console_output")]
    first = await console.get("/api/logs", group=group, stream="console_output")
    assert [event["message"] for event in first["events"]] == ["one"]
    await write_log(console.cloud, group, "two", create=False)
    second = await console.get("/api/logs", group=group, stream="console_output", token=first["token"])
    assert [event["message"] for event in second["events"]] == ["two"]


async def test_metrics_of_applications_come_before_those_of_the_appliance(console: Console) -> None:
    await log_in(console)
    await write_metric(console.cloud, "PanoramaDeviceMetrics", "DeviceActive", 1, DeviceId="device-d")
    await write_metric(console.cloud, "PanoramaDeviceMetrics", "DeviceActive", 1, DeviceId="device-other")
    await write_metric(console.cloud, "Other", "Cars", 1)
    await write_metric(console.cloud, "PeopleCounter", "People", 7)
    listed = (await console.get("/api/metrics/list", device="device-d"))["metrics"]
    assert [metric["name"] for metric in listed] == ["People", "Cars", "DeviceActive"]
    shown = await console.get("/api/metrics", namespace="PeopleCounter", name="People", minutes="2")
    assert [point["average"] for point in shown["points"]] == [7]


async def test_a_service_that_is_away_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        running_cloud(tmp_path, ["identity", "registry", "logs_metrics", "console"]) as cloud,
        aiohttp.ClientSession(cookie_jar=jar) as http,
    ):
        with cloud.caller():
            console = Console(cloud, http)
            await log_in(console)
            device = await Device.provision(cloud, "yard")
            overview = await console.get("/api/overview")
            assert [shown["id"] for shown in overview["devices"]] == [device.device_id]
            assert set(overview["errors"]) == {"applications"}


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
    step, advance = asyncio.Event(), threading.Event()
    watching = asyncio.create_task(
        asyncio.to_thread(watch, await console.link(), step, asyncio.get_running_loop(), advance)
    )
    await step.wait()
    for _ in range(2):  # the second time the display has been away
        step.clear()
        async with running(tmp_path / "edge") as shown:
            await shown.display.apply(wanted)
            with Showing(shown.paths, CAMERA, instance):
                await report(console.cloud, device, shown, instance, DeviceReportedStatus.RUNNING, Health.RUNNING, None)
                advance.set()
                await asyncio.wait({watching, asyncio.ensure_future(step.wait())}, return_when="FIRST_COMPLETED")
                if watching.done():
                    break
    await watching


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


async def write_log(cloud: RunningCloud, group: str, message: str, *, create: bool = True) -> None:
    logs = logs_metrics_pb2_grpc.LogsServiceStub(cloud.channel)
    if create:
        await logs.CreateLogGroup(logs_metrics_pb2.CreateLogGroupRequest(group=group))
        await logs.CreateLogStream(logs_metrics_pb2.CreateLogStreamRequest(group=group, stream="console_output"))
    event = logs_metrics_pb2.LogEvent(timestamp_ms=int(time.time() * 1000), message=message)
    await logs.PutLogEvents(logs_metrics_pb2.PutLogEventsRequest(group=group, stream="console_output", events=[event]))


async def write_metric(cloud: RunningCloud, namespace: str, name: str, value: float, **dimensions: str) -> None:
    datum = logs_metrics_pb2.MetricDatum(
        name=name, dimensions=dimensions, sum=value, minimum=value, maximum=value, sample_count=1
    )
    await logs_metrics_pb2_grpc.MetricsServiceStub(cloud.channel).PutMetricData(
        logs_metrics_pb2.PutMetricDataRequest(namespace=namespace, data=[datum])
    )


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


def watch(link: str, step: asyncio.Event, loop: asyncio.AbstractEventLoop, advance: threading.Event) -> None:
    """Opens the page, then twice: waits for `advance`, sees the video play, says so through `step`."""
    with live_page(link) as page:
        page.wait_for_selector("#applications button", timeout=PAGE_TIMEOUT_MS)
        loop.call_soon_threadsafe(step.set)
        for first in (True, False):
            assert advance.wait(PAGE_TIMEOUT_MS / 1000)
            advance.clear()
            page.wait_for_function(
                "() => document.getElementById('video-state')?.textContent === '' "
                "&& document.getElementById('video').currentTime > 0.5",
                timeout=PAGE_TIMEOUT_MS,
            )
            loop.call_soon_threadsafe(step.set)
            if first:
                page.wait_for_function(
                    "() => document.getElementById('video-state').textContent.includes('trying again')",
                    timeout=PAGE_TIMEOUT_MS,
                )


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
