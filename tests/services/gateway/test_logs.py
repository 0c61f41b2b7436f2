"""CloudWatch Logs through boto3: searching, retention, removal, and the limits of PutLogEvents."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.services.gateway.wire import send
from tests.support.front_door import Door

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def group(door: Door) -> str:
    name = f"/test/{uuid.uuid4().hex}"
    door.client("logs").create_log_group(logGroupName=name)
    return name


def now_ms() -> int:
    return int(time.time() * 1000)


def put(door: Door, group: str, stream: str, *events: tuple[int, str]) -> dict[str, Any]:
    logs = door.client("logs", parameter_validation=False)
    where = {"logGroupName": group, "logStreamName": stream}
    if not logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=stream)["logStreams"]:
        logs.create_log_stream(**where)
    batch = [{"timestamp": at, "message": message} for at, message in events]
    answer: dict[str, Any] = logs.put_log_events(**where, logEvents=batch)
    return answer


def code_of(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_streams_are_searched_together_in_order_of_time_over_pages(door: Door, group: str) -> None:
    start = now_ms() - 60_000
    for stream in range(3):
        events = [(start + 3 * n + stream, f"{'ERROR' if n % 2 else 'INFO'} {stream}/{n}") for n in range(20)]
        put(door, group, f"camera-{stream}", *events)
    logs = door.client("logs")
    pages = list(
        logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, filterPattern="ERROR", PaginationConfig={"PageSize": 7}
        )
    )
    found = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in found] == [f"ERROR {s}/{n}" for n in range(1, 20, 2) for s in range(3)]
    assert len(pages) >= 5 and len({event["eventId"] for event in found}) == 30
    assert found[0]["logStreamName"] == "camera-0" and found[0]["ingestionTime"] >= start

    def texts(**where: Any) -> list[str]:
        return [e["message"] for e in logs.filter_log_events(logGroupName=group, **where)["events"]]

    assert texts(logStreamNames=["camera-1"], filterPattern='"INFO 1/0"') == ["INFO 1/0"]
    assert len(texts(logStreamNamePrefix="camera-", limit=10)) == 10
    assert texts(startTime=start + 3, endTime=start + 4) == ["ERROR 0/1", "ERROR 1/1"]
    assert texts(filterPattern="?nothing ?2/19") == ["ERROR 2/19"]
    assert texts(filterPattern="INFO -0/ -1/ -2/") == []


def test_json_messages_are_searched_by_member(door: Door, group: str) -> None:
    start = now_ms()
    put(door, group, "s", (start, '{"level": "ERROR", "ms": 5}'), (start, '{"level": "INFO", "ms": 500}'), (start, "x"))
    logs = door.client("logs")

    def count(pattern: str) -> int:
        return len(logs.filter_log_events(logGroupName=group, filterPattern=pattern)["events"])

    assert [count(p) for p in ('{ $.level = "ERROR" }', "{ $.ms > 100 }", "{ $.ms > 1 && $.level = * }")] == [1, 1, 2]


def test_a_search_of_what_is_not_there_says_so(door: Door, group: str) -> None:
    logs = door.client("logs", parameter_validation=False)
    assert code_of(lambda: logs.filter_log_events(logGroupName=f"{group}-absent")) == "ResourceNotFoundException"
    where = {"logGroupName": group}
    assert code_of(lambda: logs.filter_log_events(**where, logStreamNames=["none"])) == "ResourceNotFoundException"
    for wrong in (
        {"filterPattern": "[a, b]"},
        {"filterPattern": '"open'},
        {"filterPattern": "x" * 1025},
        {"nextToken": "rubbish"},
        {"limit": 10_001},
        {"logStreamNames": ["a"], "logStreamNamePrefix": "b"},
        {"logStreamNames": [f"s{n}" for n in range(101)]},
    ):
        assert code_of(lambda wrong=wrong: logs.filter_log_events(**where, **wrong)) == "InvalidParameterException"


def test_retention_is_set_shown_and_taken_back(door: Door, group: str) -> None:
    logs = door.client("logs", parameter_validation=False)

    def shown() -> Any:
        return logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"][0].get("retentionInDays")

    logs.put_retention_policy(logGroupName=group, retentionInDays=7)
    assert shown() == 7
    logs.delete_retention_policy(logGroupName=group)
    assert shown() is None
    assert code_of(lambda: logs.put_retention_policy(logGroupName=group, retentionInDays=2)) == (
        "InvalidParameterException"
    )
    assert code_of(lambda: logs.put_retention_policy(logGroupName=f"{group}-absent", retentionInDays=7)) == (
        "ResourceNotFoundException"
    )


def test_streams_and_groups_are_removed(door: Door, group: str) -> None:
    logs = door.client("logs")
    put(door, group, "a", (now_ms(), "one"))
    put(door, group, "b", (now_ms(), "two"))
    logs.delete_log_stream(logGroupName=group, logStreamName="a")
    assert [s["logStreamName"] for s in logs.describe_log_streams(logGroupName=group)["logStreams"]] == ["b"]
    assert [e["message"] for e in logs.filter_log_events(logGroupName=group)["events"]] == ["two"]
    logs.delete_log_group(logGroupName=group)
    assert code_of(lambda: logs.describe_log_streams(logGroupName=group)) == "ResourceNotFoundException"
    assert code_of(lambda: logs.delete_log_group(logGroupName=group)) == "ResourceNotFoundException"
    logs.create_log_group(logGroupName=group)
    assert logs.filter_log_events(logGroupName=group)["events"] == []


def test_events_out_of_time_are_rejected_by_index_and_the_rest_is_stored(door: Door, group: str) -> None:
    now = now_ms()
    old = put(door, group, "s", (now - 14 * DAY_MS - HOUR_MS, "old"), (now - 14 * DAY_MS + HOUR_MS, "kept"))
    assert old["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
    new = put(door, group, "s", (now, "now"), (now + HOUR_MS, "soon"), (now + 3 * HOUR_MS, "far"))
    assert new["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 2}
    assert "rejectedLogEventsInfo" not in put(door, group, "s", (now, "fine"))
    door.client("logs").put_retention_policy(logGroupName=group, retentionInDays=1)
    expired = put(door, group, "s", (now - DAY_MS - HOUR_MS, "expired"), (now - HOUR_MS, "fresh"))
    assert expired["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
    found = door.client("logs").get_log_events(logGroupName=group, logStreamName="s", startFromHead=True)["events"]
    assert [event["message"] for event in found] == ["kept", "fresh", "now", "fine", "soon"]


def test_a_batch_beyond_the_limits_is_refused_whole(door: Door, group: str) -> None:
    now = now_ms()
    put(door, group, "s", (now, "x" * (1_048_576 - 26)))
    put(door, group, "s", (now, "x" + "\x01" * (1_048_576 - 27)))
    batches: list[list[tuple[int, str]]] = [
        [(now, "x" * (1_048_576 - 25))],
        [(now, "x" * 500_000), (now, "ä" * 274_300)],
        [(now, "later"), (now - 1, "earlier")],
        [(now - DAY_MS - 1, "a"), (now, "b")],
        [(now, "")],
        [],
        [(-1, "x")],
        [(now, "x")] * 10_001,
    ]
    for batch in batches:
        assert code_of(lambda batch=batch: put(door, group, "s", *batch)) == "InvalidParameterException"
    found = door.client("logs").filter_log_events(logGroupName=group, filterPattern="-x")["events"]
    assert found == []


def test_batches_of_one_millisecond_are_read_on_without_a_gap(door: Door, group: str) -> None:
    now, logs = now_ms(), door.client("logs")
    put(door, group, "s", *[(now, f"a{n}") for n in range(5)])
    where = {"logGroupName": group, "logStreamName": "s", "startFromHead": True}
    first = logs.get_log_events(**where)
    put(door, group, "s", *[(now, f"b{n}") for n in range(5)])
    second = logs.get_log_events(**where, nextToken=first["nextForwardToken"])
    assert [event["message"] for event in second["events"]] == [f"b{n}" for n in range(5)]
    back = logs.get_log_events(**where, nextToken=second["nextBackwardToken"])
    assert [event["message"] for event in back["events"]] == [f"a{n}" for n in range(5)]
    for token in ("rubbish", "f/1", "f/1/2/99999999999999999999"):
        assert code_of(lambda token=token: logs.get_log_events(**where, nextToken=token)) == "InvalidParameterException"


def test_lists_tell_upper_from_lower_case_and_take_a_part_of_the_name(door: Door) -> None:
    logs, name = door.client("logs"), uuid.uuid4().hex
    for group in (f"Case-{name}", f"case-{name}"):
        logs.create_log_group(logGroupName=group)
    assert [g["logGroupName"] for g in logs.describe_log_groups(logGroupNamePrefix=f"case-{name}")["logGroups"]] == [
        f"case-{name}"
    ]
    by_part = logs.describe_log_groups(logGroupNamePattern=name[4:20])["logGroups"]
    assert [g["logGroupName"] for g in by_part] == [f"Case-{name}", f"case-{name}"]
    put(door, f"case-{name}", "new", (now_ms(), "x"))
    put(door, f"case-{name}", "old", (now_ms() - 5000, "x"))
    newest = logs.describe_log_streams(logGroupName=f"case-{name}", orderBy="LastEventTime", descending=True, limit=1)
    assert [s["logStreamName"] for s in newest["logStreams"]] == ["new"] and newest["nextToken"]
    ordered = {"logGroupName": f"case-{name}", "orderBy": "LastEventTime", "logStreamNamePrefix": "n"}
    assert code_of(lambda: logs.describe_log_streams(**ordered)) == "InvalidParameterException"


def test_what_is_not_served_names_the_operation(door: Door) -> None:
    with pytest.raises(ClientError, match="CreateExportTask") as caught:
        door.client("logs").create_export_task(logGroupName="g", fromTime=0, to=1, destination="bucket")
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


@pytest.mark.parametrize("service", ["logs", "monitoring"])
def test_ten_megabytes_are_a_client_error(door: Door, service: str) -> None:
    target = "Logs_20140328.PutLogEvents" if service == "logs" else "GraniteServiceVersion20100801.PutMetricData"
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"}
    answer = send(door, "POST", "/", body=b'{"a": "' + b"x" * (10 << 20) + b'"}', headers=headers, service=service)
    assert answer.status == 413 and answer.json["__type"] == "RequestEntityTooLargeException"
