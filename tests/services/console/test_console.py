"""The console over real services: its login, who sees what, its JSON."""

from __future__ import annotations

from pathlib import Path

import aiohttp

from belvedere.v1 import (
    identity_pb2,
    identity_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tests.support.cloud import running_cloud
from tests.support.console import Console, log_in, user, write_log, write_metric
from tests.support.fleet import Device

ADDRESSES = [
    "/api/overview",
    "/api/devices/device-x",
    "/api/applications/x",
    "/api/logs?group=g&stream=s",
    "/api/logs/streams?device=d",
    "/api/metrics/list",
    "/api/metrics?namespace=n&name=m",
]


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


async def test_every_question_of_a_page_a_login_and_who_is_not_logged_in_leave_a_line_each(console: Console) -> None:
    identity = identity_pb2_grpc.IdentityServiceStub(console.cloud.channel)

    async def lines() -> list[tuple[str, str, str, bool, str]]:
        """Who, what, on what, allowed or not, from where; of what came through the console's door."""
        trail = await identity.ListAuditEntries(identity_pb2.ListAuditEntriesRequest())
        found = [entry for entry in reversed(trail.entries) if entry.source_address]
        assert len({entry.request_id for entry in found}) == len(found)
        return [(e.principal, e.action, e.resource, e.allowed, e.source_address) for e in found]

    ada, here = "arn:aws:iam::123456789012:user/ada", "127.0.0.1"
    await console.get("/api/overview", 401)
    assert await lines() == [("unproven", "console:GET", "/api/overview", False, here)]
    await user(console, "ada", policy="arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly")
    await log_in(console, "ada")
    async with console.http.get(console.url + "/login?token=made-up") as answer:
        assert answer.status == 401
    logged_in = [(ada, "signin:ConsoleLogin", "*", True, here), ("unproven", "signin:ConsoleLogin", "*", False, here)]
    assert (await lines())[1:] == logged_in
    for _ in range(2):
        await console.get("/api/overview")
    seen = (await lines())[3:]
    overview = ["panorama:ListApplicationInstances", "panorama:ListDevices"] * 2
    assert sorted(action for _, action, *_ in seen) == sorted(overview)
    assert {(who, what, allowed, source) for who, _, what, allowed, source in seen} == {(ada, "*", True, here)}
