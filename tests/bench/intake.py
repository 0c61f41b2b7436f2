"""F4: entries a second that PutMetricData and PutLogEvents store, 100 a call, through AWS's own client.

An answer comes after the commit: what is counted is stored. The cloud side has both cores, as its users have; boto3 shares
them with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import machine, servers
from tests.bench.result import Line, Report, spread

ROUNDS = 7
CALLS = 20
"""A round."""
ENTRIES = 100
REACH = 2000
GROUP, STREAM = "/bench/f4", "stream"


def f4(folder: Path) -> Report:
    """Both, one client after the other's answer."""
    with servers.ours(folder, cores=machine.cores()) as server:
        logs, metrics = server.client("logs"), server.client("cloudwatch")
        logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
        lines = [
            _line("PutMetricData", lambda number: _put_metrics(metrics, number)),
            _line("PutLogEvents", lambda number: _put_logs(logs, number)),
        ]
        stored = _stored(logs)
        expected = (ROUNDS + 1) * CALLS * ENTRIES
        if stored != expected:
            raise AssertionError(f"{stored} log events are stored, {expected} were sent")
    return Report(lines)


def _line(what: str, put: Callable[[int], None]) -> Line:
    rates = []
    number = 0
    for turn in range(ROUNDS + 1):
        started = time.perf_counter()
        for _ in range(CALLS):
            put(number)
            number += 1
        if turn:  # the first is warm-up
            rates.append(CALLS * ENTRIES / (time.perf_counter() - started))
    rates.sort()
    middle = rates[len(rates) // 2]
    return Line(
        "F4", f"{what}, {ENTRIES} a call, boto3, stored", "1/s", middle, spread=spread(rates), reach=f"≥ {REACH}"
    )


def _put_metrics(client: Any, number: int) -> None:
    now = datetime.now(UTC)
    data = [
        {
            "MetricName": f"Fps{entry % 10}",
            "Dimensions": [{"Name": "Device", "Value": f"device-{entry // 10}"}],
            "Timestamp": now,
            "Value": float(number + entry),
            "Unit": "Count",
        }
        for entry in range(ENTRIES)
    ]
    client.put_metric_data(Namespace="Bench", MetricData=data)


def _put_logs(client: Any, number: int) -> None:
    now = int(time.time() * 1000)
    events = [
        {"timestamp": now, "message": f"call {number} entry {entry}: frame decoded in 4.2 ms, 3 persons"}
        for entry in range(ENTRIES)
    ]
    client.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=events)


def _stored(client: Any) -> int:
    found = 0
    token: dict[str, str] = {}
    while True:
        answer = client.get_log_events(logGroupName=GROUP, logStreamName=STREAM, startFromHead=True, **token)
        if not answer["events"]:
            return found
        found += len(answer["events"])
        token = {"nextToken": answer["nextForwardToken"]}
