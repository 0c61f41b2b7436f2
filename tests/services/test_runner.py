"""`python -m services`: one command brings everything up, and takes all of it down."""

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from belvedere.chassis.paths import run_dir
from belvedere.cli.cloud import CloudAccess
from services import ports
from services.runner import Cloud, StartError, present
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)
"""Its tests start programs, each of which takes seconds of a busy machine."""
START_TIMEOUT_S = 120
ONLY = "identity,logs_metrics"


async def start(data: Path, *arguments: str, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "--data", str(data), *arguments),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ready(process: asyncio.subprocess.Process) -> list[str]:
    """Its lines on stdout up to `ready`."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(START_TIMEOUT_S):
        while not lines or not lines[-1].startswith("ready "):
            line = await process.stdout.readline()
            assert line, (await process.communicate())[1].decode()[-3000:]
            lines.append(line.decode().strip())
    return lines


async def test_everything_comes_up_says_so_and_goes_down_in_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await start(data, "--port", "0")
    lines = await ready(process)
    chosen = json.loads((data / "ports.json").read_text())
    assert lines == [f"console http://127.0.0.1:{chosen['console']}", f"ready http://127.0.0.1:{chosen['gateway']}"]
    channel = grpc.aio.insecure_channel(f"unix:{run_dir(data)}/grpc.sock")
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await channel.close()
    children = psutil.Process(process.pid).children(recursive=True)
    assert [child.name() for child in children] == ["nats-server"]

    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    assert not any(child.is_running() for child in children)
    assert not (data / "run").is_symlink()
    levels = [json.loads(line)["level"] for line in errors.decode().splitlines()]
    assert not {"error", "critical"} & set(levels), errors.decode()

    # Again, on the same folder: the same addresses, under the name that it is given now.
    process = await start(data, BELVEDERE_HOST_NAMES="localhost,127.0.0.1")
    lines = [line.replace("127.0.0.1", "localhost") for line in lines]
    assert await ready(process) == lines
    access = CloudAccess.load(data)
    assert [f"console {access.console_url}", f"ready {access.endpoint_url}"] == lines, "what env and console print"
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0


async def test_a_signal_while_it_starts_stops_it_cleanly(tmp_path: Path) -> None:
    process = await start(tmp_path / "data", "--port", "0", "--only", ONLY)
    lock = tmp_path / "data" / "lock"
    await until(lambda: lock.exists() and lock.read_text(), timeout_s=START_TIMEOUT_S)
    process.send_signal(signal.SIGTERM)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]


async def test_a_hub_that_dies_ends_everything_with_an_error(tmp_path: Path) -> None:
    process = await start(tmp_path / "data", "--port", "0", "--only", ONLY)
    await ready(process)
    (hub,) = psutil.Process(process.pid).children()
    hub.kill()
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "nats-server ended by itself" in errors.decode()


async def test_a_killed_runner_takes_its_hub_along_and_starts_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = await start(data, "--port", "0", "--only", ONLY)
    lines = await ready(process)
    (hub,) = psutil.Process(process.pid).children()
    process.kill()
    await process.wait()
    await until(lambda: not hub.is_running() or hub.status() == psutil.STATUS_ZOMBIE)
    process = await start(data, "--only", ONLY)
    assert await ready(process) == lines
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0


async def test_a_taken_port_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    chosen = ports.choose(tmp_path / "ports.json", 0)
    ports.keep(tmp_path / "ports.json", replace(chosen, leaf=taken.getsockname()[1]))
    process = await start(tmp_path, "--only", "logs_metrics")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert f"port {taken.getsockname()[1]} on 127.0.0.1" in errors.decode()
    taken.close()
    assert "the link of appliances" in errors.decode()
    assert "appliances of this data folder look for it" in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_first_start_that_found_a_port_taken_does_not_bind_the_next_one_to_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await start(tmp_path, "--port", str(port), "--only", "logs_metrics,gateway,identity")
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert f"port {port} on 127.0.0.1 (the AWS front door)" in errors.decode()
        assert "or give another --port" in errors.decode()
    assert not (tmp_path / "ports.json").exists()


async def test_a_data_folder_is_used_by_one_process_at_a_time(tmp_path: Path) -> None:
    async with Cloud(tmp_path, ["logs_metrics"], port=0):
        with pytest.raises(StartError, match=f"in use by process {os.getpid()}"):
            async with Cloud(tmp_path, ["logs_metrics"], port=0):
                raise AssertionError("started twice")
        assert run_dir(tmp_path).joinpath("grpc.sock").exists()


def test_services_are_started_in_their_order_and_unknown_ones_are_refused() -> None:
    assert present(["logs_metrics", "identity"]) == ["identity", "logs_metrics"]
    with pytest.raises(StartError, match="no service 'nothing'"):
        present(["nothing"])


def test_ports_are_chosen_once_and_only_those_of_people_move(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    ports.keep(file, ports.choose(file, 9000))
    assert ports.choose(file, None) == ports.choose(file, 0) == ports.Ports(9000, 9001, 9002, 9003, 9004)
    assert ports.choose(file, 9100) == ports.Ports(9100, 9101, 9002, 9003, 9004)
    with pytest.raises(ports.PortError, match="another port"):
        ports.choose(file, 9002)
    with pytest.raises(ports.PortError):
        ports.choose(tmp_path / "other.json", 65535)
    file.write_text("{")
    with pytest.raises(ports.PortError, match="damaged"):
        ports.choose(file, None)
