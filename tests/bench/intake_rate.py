"""How many entries a second PutLogEvents and PutMetricData store durably, through boto3-shaped HTTP.

    .venv/bin/python -m tests.bench.intake_rate [requests] [clients]

The embedded cloud in a process of its own, on free ports of loopback; `clients` threads here send `requests` signed
requests of 100 entries each, made by botocore before the clock starts, over kept connections. An entry counts when its
answer is there, and the answer comes after the commit. Printed: the rate, the processor time that the cloud took for an
entry, and what it found stored afterwards.
"""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.session import Session

ENTRIES = 100
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
CLOUD = """
import asyncio, pathlib, sys
from tests.support.cloud import running_cloud
async def main():
    async with running_cloud(pathlib.Path(sys.argv[1])) as cloud:
        print("ready", cloud.runtime.ports.gateway, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""
LINE = "2026-11-22 03:50:00,123 INFO camera south: 4 people in the picture, 31.7 ms for the model, frame 123456; "


@dataclass(frozen=True)
class Sent:
    """A request as botocore would put it on the wire."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Capture(Exception):
    """Ends a call before it is sent."""


def prepared(client: Any, call: Callable[[], Any]) -> Sent:
    """The signed request that a call would send."""
    seen: list[Sent] = []

    def keep(request: Any, **_: Any) -> None:
        headers = {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in request.headers.items()}
        seen.append(Sent(request.method, urlsplit(request.url).path or "/", headers, bytes(request.body)))
        raise Capture

    client.meta.events.register("before-send", keep, unique_id="keep")
    try:
        call()
    except Capture:
        pass
    finally:
        client.meta.events.unregister("before-send", unique_id="keep")
    return seen[0]


def send_all(port: int, requests: list[Sent], clients: int) -> float:
    """Seconds until every request was answered with 200."""

    def work(mine: list[Sent]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for sent in mine:
            connection.request(sent.method, sent.path, sent.body, sent.headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise AssertionError(f"{answer.status}: {body[:300]!r}")
        connection.close()

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, [requests[n::clients] for n in range(clients)]))
    return time.perf_counter() - begun


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(requests: int = 100, clients: int = 2) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["libs", "."])}
        log = (Path(folder) / "log").open("wb")
        cloud = subprocess.Popen(
            [sys.executable, "-c", CLOUD, f"{folder}/data"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        log.close()
        assert cloud.stdin and cloud.stdout
        try:
            port = next(int(line.split()[1]) for line in cloud.stdout if line.startswith(b"ready "))
            measure(port, Path(folder) / "data", cloud.pid, requests, clients)
        finally:
            cloud.stdin.close()
            cloud.wait(STOP_TIMEOUT_S)


def measure(port: int, data: Path, pid: int, requests: int, clients: int) -> None:
    admin = json.loads((data / "admin.json").read_text())
    session = boto3.Session(
        botocore_session=Session(),
        aws_access_key_id=admin["access_key_id"],
        aws_secret_access_key=admin["secret_access_key"],
        region_name="us-east-1",
    )
    options: dict[str, Any] = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "config": Config(retries={"total_max_attempts": 1}),
    }
    logs, cloudwatch = session.client("logs", **options), session.client("cloudwatch", **options)
    group, now_ms = "/bench", int(time.time() * 1000)
    logs.create_log_group(logGroupName=group)
    for client in range(clients):
        logs.create_log_stream(logGroupName=group, logStreamName=f"stream-{client}")

    def log_batch(n: int) -> Sent:
        events = [{"timestamp": now_ms + n, "message": f"{LINE}{n} {i} " * 2} for i in range(ENTRIES)]
        where = {"logGroupName": group, "logStreamName": f"stream-{n % clients}"}
        return prepared(logs, lambda: logs.put_log_events(**where, logEvents=events))

    def metric_batch(n: int) -> Sent:
        at = time.time() - n
        metrics = [
            {
                "MetricName": f"Metric{i % 10}",
                "Value": float(i + n),
                "Unit": "Count",
                "Timestamp": at,
                "Dimensions": [{"Name": "Camera", "Value": f"camera-{i // 10}"}, {"Name": "Site", "Value": "south"}],
            }
            for i in range(ENTRIES)
        ]
        return prepared(cloudwatch, lambda: cloudwatch.put_metric_data(Namespace="Bench", MetricData=metrics))

    for name, make in (("PutLogEvents", log_batch), ("PutMetricData", metric_batch)):
        batches = [make(n) for n in range(requests)]
        before = processor_s(pid)
        took = send_all(port, batches, clients)
        spent = processor_s(pid) - before
        stored = requests * ENTRIES
        print(
            f"{name}: {stored / took:,.0f} entries/s ({stored} in {took:.2f} s, {clients} clients; "
            f"{1e6 * spent / stored:,.0f} us of processor time an entry in the cloud)"
        )
    found = sum(len(page["events"]) for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group))
    counted = cloudwatch.get_metric_statistics(
        Namespace="Bench",
        MetricName="Metric0",
        Dimensions=[{"Name": "Camera", "Value": "camera-0"}, {"Name": "Site", "Value": "south"}],
        StartTime=time.time() - 3600,
        EndTime=time.time() + 60,
        Period=3600,
        Statistics=["SampleCount"],
    )["Datapoints"]
    print(f"stored: {found} log events, {sum(point['SampleCount'] for point in counted):.0f} values of one metric")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
