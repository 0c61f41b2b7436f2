"""The supervisor as a process, on a real bus, with real sandboxes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from belvedere.chassis.edge import CommandFailed
from belvedere.chassis.paths import EdgePaths
from tests.edge.supervisor.appliance import DELIVER, STAY, WAIT_S, Appliance
from tests.edge.supervisor.archives import app_spec
from tests.support.edge_bus import edge_bus, edge_process


async def test_an_application_runs_once_it_has_taken_frames_and_put_one(appliance: Appliance) -> None:
    code = f"""
        say(type="hello")
        say(type="stats", frames_taken=1)
        input_seen = open("/run/belvedere/app.json").read()
        print(input_seen)
        import time, os
        while not os.path.exists("/opt/aws/panorama/storage/go"):
            time.sleep(0.02)
        {DELIVER}
        {STAY.replace(chr(10), chr(10) + " " * 8)}
    """
    media = {"type": "media", "streams": [{"camera_id": "cam-1.0-abc", "stream_id": "front", "stream_uri": "rtsp://x"}]}
    spec = app_spec(
        appliance.data,
        code,
        inputs={"video_in": media, "threshold": {"type": "float32", "value": 0.5}},
        outputs={"video_out": {"type": "media", "connected": True}},
    )
    await appliance.apply(spec)
    waiting = await appliance.app(lambda app: app["frames_taken"] == 1)
    assert waiting["state"] == "starting" and waiting["reason"] is None
    (appliance.data / "storage" / "applicationInstance-1" / "go").touch()
    running = await appliance.app(lambda app: app["state"] == "running")
    assert (running["frames_taken"], running["frames_put"], running["calls"]) == (3, 2, 1)
    assert running["first_output_at_ms"] == 1700000000000
    assert psutil.Process(running["pid"]).cmdline()[-1] == "/panorama/app.py"
    told = json.loads((await appliance.line("socket_root"))["message"])
    media["streams"][0]["folder"] = "cam-1.0-abc"
    assert told["inputs"] == {"video_in": media, "threshold": {"type": "float32", "value": 0.5}}
    assert told["socket_root"] == "/run/belvedere" and "rootfs" not in told

    process = psutil.Process(running["pid"])
    await appliance.apply()
    await appliance.process.status(lambda status: status["applications"] == [])
    _, alive = await asyncio.to_thread(psutil.wait_procs, [process], WAIT_S)
    assert not alive


async def test_an_application_that_shows_nothing_is_said_to_and_recovers_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_SUPERVISOR_NO_OUTPUT_S", "0.5")
    async with edge_bus(tmp_path) as bus, edge_process("supervisor", tmp_path, bus) as process:
        appliance = Appliance(tmp_path, bus, process)
        code = """
            import os, time
            say(type="hello")
            say(type="stats", frames_taken=5)
            while not os.path.exists("/opt/aws/panorama/storage/go"):
                time.sleep(0.02)
            say(type="stats", frames_taken=6, frames_put=1)
            time.sleep(600)
        """
        await appliance.apply(app_spec(tmp_path, code, outputs={"video_out": {"type": "media", "connected": True}}))
        app = await appliance.app(lambda app: app["reason"] is not None)
        assert (app["state"], app["reason"]["code"]) == ("starting", "APP_NO_OUTPUT")
        assert "put none to its output" in app["reason"]["message"]
        (tmp_path / "storage" / "applicationInstance-1" / "go").touch()
        assert (await appliance.app(lambda app: app["state"] == "running"))["reason"] is None


async def test_what_is_applied_again_goes_on_and_what_is_changed_starts_anew(appliance: Appliance) -> None:
    code = f'say(type="hello")\n{STAY}'
    first = app_spec(appliance.data, code)
    other = app_spec(appliance.data, code, instance_id="applicationInstance-2")
    await appliance.apply(first, other)
    before = await appliance.app(lambda app: app["state"] == "running")
    beside = await appliance.app(lambda app: app["state"] == "running", "applicationInstance-2")

    await appliance.apply(first, other)
    changed = app_spec(appliance.data, "print('the new code')\n" + code)
    await appliance.apply(changed, other)
    await appliance.line("the new code")
    after = await appliance.app(lambda app: app["state"] == "running" and app["pid"] != before["pid"])
    assert after["restarts"] == 0
    same = await appliance.app(lambda app: app["state"] == "running", "applicationInstance-2")
    assert same["pid"] == beside["pid"]
    assert {path.name for path in (appliance.data / "rootfs").iterdir() if not path.name.startswith(".")} == {
        Path(changed["rootfs"]).name,
        Path(other["rootfs"]).name,
    }


async def test_an_application_that_raises_at_import_fails_with_the_exceptions_line_and_is_started_again(
    appliance: Appliance,
) -> None:
    await appliance.apply(app_spec(appliance.data, "import no_such_module"))
    message = await appliance.failed("APP_EXITED")
    assert message == "exit code 1: ModuleNotFoundError: No module named 'no_such_module'"
    assert (await appliance.app(lambda app: app["restarts"] >= 1))["state"] == "failed"
    entry = await appliance.line("Traceback")
    assert entry["stream"] == "console_output"
    assert entry["group"] == "/aws/panorama/devices/device-test/applications/applicationInstance-1"

    # Putting it right needs no restart of anything.
    await appliance.apply(app_spec(appliance.data, f'say(type="hello")\n{STAY}'))
    assert (await appliance.app(lambda app: app["state"] == "running"))["reason"] is None


async def test_an_application_that_just_ends_has_failed(appliance: Appliance) -> None:
    await appliance.apply(app_spec(appliance.data, "print('done')"))
    assert "exit code 0" in await appliance.failed("APP_EXITED")


async def test_an_entry_that_cannot_be_executed_is_named(appliance: Appliance) -> None:
    entry = {"path": "python9", "name": "/panorama/app.py"}
    await appliance.apply(app_spec(appliance.data, "", entry=entry))
    message = await appliance.failed("APP_START_FAILED")
    assert "python9 /panorama/app.py" in message and "No such file" in message


async def test_an_application_that_eats_memory_is_told_how_much_and_the_others_go_on(appliance: Appliance) -> None:
    greedy = "import time\nkept = []\nwhile True:\n    kept.append(bytearray(4 << 20))\n    time.sleep(0.02)\n"
    limits = {"memory_mb": 64, "cpu": 0.0, "pids": 64, "disk_mb": 64}
    good = app_spec(appliance.data, f'say(type="hello")\n{STAY}', instance_id="good")
    await appliance.apply(good, app_spec(appliance.data, greedy, limits=limits))
    message = await appliance.failed("APP_OUT_OF_MEMORY")
    assert "of its 64 MB: raise memory_mb" in message
    assert (await appliance.app(lambda app: app["state"] == "running", "good"))["restarts"] == 0


async def test_an_archive_that_is_none_is_refused(appliance: Appliance) -> None:
    spec = app_spec(appliance.data, "")
    Path(spec["rootfs"]).write_bytes(b"no archive at all")
    await appliance.apply(spec)
    assert "not a whole .tar.gz" in await appliance.failed("ASSET_INVALID")


async def test_a_description_that_cannot_be_read_is_refused_with_its_place(appliance: Appliance) -> None:
    spec = app_spec(appliance.data, "")
    spec["entry"] = {"path": 3}
    with pytest.raises(CommandFailed, match=r"applications\[0\]\.entry\.path"):
        await appliance.apply(spec)


async def test_log_files_arrive_in_the_stream_of_the_code_node_through_rotation(appliance: Appliance) -> None:
    code = f"""
        import logging, logging.handlers
        handler = logging.handlers.RotatingFileHandler("/opt/aws/panorama/logs/app.log", maxBytes=200, backupCount=1)
        log = logging.getLogger()
        log.addHandler(handler)
        for number in range(5):
            log.warning("line %d of the log file, with something to fill it", number)
        print("on the console")
        {STAY.replace(chr(10), chr(10) + " " * 8)}
    """
    await appliance.apply(app_spec(appliance.data, code))
    entry = await appliance.line("line 4 of the log file")
    assert entry["stream"] == "code_node"
    assert (await appliance.line("on the console"))["stream"] == "console_output"
    assert (await appliance.line("line 3 of the log file"))["sequence"] < entry["sequence"]


async def test_the_way_out_leads_to_the_gateway_with_the_roles_credentials(appliance: Appliance) -> None:
    seen: list[tuple[str, dict[str, str], str]] = []

    async def gateway(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.headers), await request.text()))
        if request.path == "/bucket/key":
            return web.Response(text="an object")
        if request.path == "/application-instances":
            return web.json_response({"ApplicationInstances": []})
        return web.Response(text='{"NextToken": null, "logGroups": []}', content_type="application/x-amz-json-1.1")

    async with http_server(gateway) as url:
        config = EdgePaths(appliance.data).config_file
        config.write_text(json.dumps({**json.loads(config.read_text()), "gateway_url": url}))

        async def credentials(message: Any) -> None:
            assert message.json() == {"instance_id": "applicationInstance-1"}
            keys = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "canary-secret", "Token": "session-token"}
            await message.respond({"ok": True, **keys, "Expiration": "2999-01-01T00:00:00Z"})

        await appliance.bus.subscribe("edge.agent.credentials", credentials)
        code = f"""
            import boto3, os, urllib.request, urllib.error
            print("groups", boto3.client("logs").describe_log_groups()["logGroups"])
            print("object", boto3.client("s3").get_object(Bucket="bucket", Key="key")["Body"].read().decode())
            asked = boto3.client("panorama").list_application_instances(StatusFilter="DEPLOYMENT_SUCCEEDED")
            print("instances", asked["ApplicationInstances"], os.environ["AppGraph_Uid"])
            print("who", boto3.Session().get_credentials().access_key, boto3.Session().region_name)
            try:
                urllib.request.urlopen("http://127.0.0.1:8701/credentials")
            except urllib.error.HTTPError as error:
                print("without token", error.code)
            {STAY.replace(chr(10), chr(10) + " " * 12)}
        """
        await appliance.apply(app_spec(appliance.data, code, has_role=True))
        await appliance.line("groups []")
        await appliance.line("object an object")
        await appliance.line("instances [] applicationInstance-1")
        await appliance.line("who ASIAEXAMPLE us-west-2")
        await appliance.line("without token 401")
    path, headers, _ = seen[0]
    assert path == "/" and headers["X-Amz-Target"].endswith("DescribeLogGroups")
    assert "ASIAEXAMPLE" in headers["Authorization"] and headers["X-Amz-Security-Token"] == "session-token"
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not any(
        "canary-secret" in text for text in [*commands, appliance.process.logs(), json.dumps(appliance.lines)]
    )


async def test_without_a_role_there_is_no_credentials_endpoint_and_without_a_gateway_a_plain_answer(
    appliance: Appliance,
) -> None:
    code = f"""
        import boto3, botocore.exceptions, os, urllib.request, urllib.error
        try:
            boto3.client("s3").get_object(Bucket="bucket", Key="key")
        except botocore.exceptions.NoCredentialsError as error:
            print("s3", error)
        print("variables", [name for name in os.environ if name.startswith("AWS_CONTAINER")])
        try:
            urllib.request.urlopen("http://127.0.0.1:8701/credentials")
        except urllib.error.URLError as error:
            print("endpoint", type(error.reason).__name__)
        try:
            urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"])
        except urllib.error.HTTPError as error:
            print("gateway", error.code, error.read().decode())
        {STAY.replace(chr(10), chr(10) + " " * 8)}
    """
    config = EdgePaths(appliance.data).config_file
    config.write_text(json.dumps({**json.loads(config.read_text()), "gateway_url": "http://127.0.0.1:9"}))
    await appliance.apply(app_spec(appliance.data, code))
    await appliance.line("s3 Unable to locate credentials")
    await appliance.line("variables []")
    await appliance.line("endpoint ConnectionRefusedError")
    assert "503" in (await appliance.line("gateway"))["message"]


async def test_nothing_of_the_appliance_or_of_other_applications_is_seen(appliance: Appliance) -> None:
    paths = EdgePaths(appliance.data)
    (paths.device / "device.nk").write_text("canary")
    url = json.loads(paths.bus_file.read_text())["url"]
    host, port = url.removeprefix("nats://").split(":")
    other = app_spec(appliance.data, f"""say(type="hello")\n{STAY}""", instance_id="other")
    code = f"""
        import os, socket
        def listed(path):
            return sorted(os.listdir(path))
        print("data", os.path.exists({str(appliance.data)!r}))
        try:
            socket.create_connection(({host!r}, {port}), timeout=2)
            print("bus open")
        except OSError as error:
            print("bus", type(error).__name__)
        print("processes", len([name for name in os.listdir("/proc") if name.isdigit()]))
        print("sockets", listed("/run/belvedere"), listed("/run/belvedere/app"))
        print("own", listed("/opt/aws/panorama"), listed("/opt/belvedere"))
        import framelink, panoramasdk
        print("sdk", panoramasdk.__file__)
        {STAY.replace(chr(10), chr(10) + " " * 8)}
    """
    await appliance.apply(other, app_spec(appliance.data, code))
    assert (await appliance.line("data"))["message"] == "data False"
    assert (await appliance.line("bus"))["message"] == "bus ConnectionRefusedError"
    assert (await appliance.line("processes"))["message"] == "processes 2"
    sockets = (await appliance.line("sockets"))["message"]
    assert sockets == "sockets ['app', 'app.json', 'display', 'inference'] ['app.json', 'control.sock']"
    assert (await appliance.line("own"))["message"] == "own ['logs', 'storage'] ['python', 'sdk']"
    assert (await appliance.line("sdk /"))["message"] == "sdk /opt/belvedere/sdk/panoramasdk/__init__.py"


async def test_an_application_that_ignores_its_stop_is_gone_all_the_same_when_the_supervisor_stops(
    tmp_path: Path,
) -> None:
    async with edge_bus(tmp_path) as bus:
        async with edge_process("supervisor", tmp_path, bus) as process:
            appliance = Appliance(tmp_path, bus, process)
            code = 'import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(type="hello")\n' + STAY
            await appliance.apply(app_spec(tmp_path, code))
            pid = (await appliance.app(lambda app: app["state"] == "running"))["pid"]
            family = psutil.Process(process.child.pid).children(recursive=True)
        assert pid in [member.pid for member in family]
        assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]
        assert list((EdgePaths(tmp_path).run / "apps").iterdir()) == []


def http_server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """An HTTP server on a free port; gives its address."""
    import contextlib

    @contextlib.asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    return serve()
