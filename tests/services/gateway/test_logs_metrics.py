"""Logs and CloudWatch through boto3, and in the protocols that boto3 no longer or not yet speaks."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import cbor2
import pytest
from botocore.exceptions import ClientError

from tests.services.gateway.wire import send
from tests.support.front_door import Door

CBOR = {"smithy-protocol": "rpc-v2-cbor", "Content-Type": "application/cbor", "Accept": "application/cbor"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
NOW = datetime.now(UTC).replace(second=0, microsecond=0)


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def code_of(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_log_events_come_back_in_order_and_by_token(door: Door, name: str) -> None:
    logs, group, start = door.client("logs"), f"/aws/panorama/{name}", int(time.time() * 1000) - 5000
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="occ_log")
    events = [{"timestamp": start + index // 2, "message": f"line {index} ä"} for index in range(10)]
    logs.put_log_events(logGroupName=group, logStreamName="occ_log", logEvents=events)
    where = {"logGroupName": group, "logStreamName": "occ_log", "startFromHead": True, "limit": 6}
    first = logs.get_log_events(**where)
    second = logs.get_log_events(**where, nextToken=first["nextForwardToken"])
    assert [event["message"] for page in (first, second) for event in page["events"]] == [e["message"] for e in events]
    end = logs.get_log_events(**where, nextToken=second["nextForwardToken"])
    assert (end["events"], end["nextForwardToken"]) == ([], second["nextForwardToken"])
    found = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert [entry["logGroupName"] for entry in found] == [group]
    by_arn = logs.describe_log_streams(logGroupIdentifier=found[0]["logGroupArn"])["logStreams"]
    assert [entry["logStreamName"] for entry in by_arn] == ["occ_log"]
    assert by_arn[0]["firstEventTimestamp"] == start


def test_logs_answer_mistakes_in_their_own_words(door: Door, name: str) -> None:
    logs = door.client("logs", parameter_validation=False)
    missing = {"logGroupName": name, "logStreamName": "s"}
    assert code_of(lambda: logs.get_log_events(**missing)) == "ResourceNotFoundException"
    logs.create_log_group(logGroupName=name)
    assert code_of(lambda: logs.create_log_group(logGroupName=name)) == "ResourceAlreadyExistsException"
    assert code_of(lambda: logs.create_log_group(logGroupName="bad name")) == "InvalidParameterException"
    assert code_of(lambda: logs.create_log_group()) == "InvalidParameterException"
    assert code_of(lambda: logs.put_log_events(**missing, logEvents=[])) == "InvalidParameterException"
    assert code_of(lambda: logs.describe_log_streams()) == "InvalidParameterException"
    both = {"logGroupNamePattern": "x", "logGroupNamePrefix": "x"}
    assert code_of(lambda: logs.describe_log_groups(**both)) == "InvalidParameterException"
    assert code_of(lambda: logs.start_query(startTime=1, endTime=2, queryString="x")) == "UnknownOperationException"


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 50_000, b'{"logGroupName": {"a": 1}}', b"\xff\xfe"])
def test_broken_json_is_a_client_error(door: Door, body: bytes) -> None:
    target = {"X-Amz-Target": "Logs_20140328.CreateLogGroup", "Content-Type": "application/x-amz-json-1.1"}
    answer = send(door, "POST", "/", body=body, headers=target, service="logs")
    assert answer.status == 400 and answer.json["__type"] in ("SerializationException", "InvalidParameterException")


def sums(door: Door, name: str, statistics: tuple[str, ...] = ("Sum",), **where: Any) -> list[dict[str, Any]]:
    answer = door.client("cloudwatch").get_metric_statistics(
        Namespace="Test",
        MetricName=name,
        StartTime=NOW - timedelta(hours=2),
        EndTime=NOW + timedelta(hours=1),
        Period=60,
        Statistics=list(statistics),
        **where,
    )
    return sorted(answer["Datapoints"], key=lambda point: point["Timestamp"])


def test_values_counts_and_statistics_add_up(door: Door, name: str) -> None:
    where = [{"Name": "Camera", "Value": "south"}]
    base = {"MetricName": name, "Dimensions": where, "Timestamp": NOW, "Unit": "Count"}
    door.client("cloudwatch").put_metric_data(
        Namespace="Test",
        MetricData=[
            base | {"Value": 4},
            base | {"Values": [1, 2], "Counts": [3, 1]},
            base | {"Values": [10.5]},
            base | {"StatisticValues": {"SampleCount": 2, "Sum": 5, "Minimum": -1, "Maximum": 6}},
        ],
    )
    every = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
    (point,) = sums(door, name, every, Dimensions=where)
    assert {key: point[key] for key in every} == {
        "SampleCount": 8,
        "Average": 3.0625,
        "Sum": 24.5,
        "Minimum": -1,
        "Maximum": 10.5,
    }
    assert (point["Timestamp"], point["Unit"]) == (NOW, "Count")
    assert sums(door, name) == []
    data = door.client("cloudwatch").get_metric_data(
        MetricDataQueries=[
            {
                "Id": "q1",
                "MetricStat": {
                    "Metric": {"Namespace": "Test", "MetricName": name, "Dimensions": where},
                    "Period": 60,
                    "Stat": "Average",
                },
            }
        ],
        StartTime=NOW - timedelta(hours=1),
        EndTime=NOW + timedelta(hours=1),
    )["MetricDataResults"]
    assert [(d["Id"], d["Timestamps"], d["Values"], d["StatusCode"]) for d in data] == [
        ("q1", [NOW], [3.0625], "Complete")
    ]


def test_metrics_are_listed_by_dimension_with_and_without_a_value(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch")
    for value in ("south", "north"):
        datum = {"MetricName": name, "Value": 1, "Dimensions": [{"Name": "Camera", "Value": value}]}
        cloudwatch.put_metric_data(Namespace="Test", MetricData=[datum])
    cloudwatch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": name, "Value": 1}])

    def listed(**dimension: str) -> int:
        where = {"Dimensions": [dimension]} if dimension else {}
        return len(cloudwatch.list_metrics(Namespace="Test", MetricName=name, **where)["Metrics"])

    assert (listed(), listed(Name="Camera"), listed(Name="Camera", Value="south"), listed(Name="Else")) == (3, 2, 1, 0)


def test_a_large_batch_arrives_compressed(door: Door, name: str) -> None:
    client = door.client("cloudwatch")
    encodings: list[object] = []
    client.meta.events.register(
        "before-send", lambda request, **_: encodings.append(request.headers.get("Content-Encoding"))
    )
    data = [
        {
            "MetricName": name,
            "Value": index,
            "Timestamp": NOW,
            "Dimensions": [{"Name": "Index", "Value": str(index % 10)}],
        }
        for index in range(500)
    ]
    client.put_metric_data(Namespace="Test", MetricData=data)
    assert encodings == [b"gzip"] or encodings == ["gzip"]
    (point,) = sums(door, name, ("SampleCount",), Dimensions=[{"Name": "Index", "Value": "3"}])
    assert point["SampleCount"] == 50


def test_a_bomb_of_gzip_is_refused(door: Door) -> None:
    import gzip

    headers = {"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData", "Content-Encoding": "gzip"}
    answer = send(door, "POST", "/", body=gzip.compress(b" " * (50 << 20)), headers=headers, service="monitoring")
    assert answer.status == 413


def test_the_query_protocol_of_older_clients_works(door: Door, name: str) -> None:
    fields = {
        "Action": "PutMetricData",
        "Version": "2010-08-01",
        "Namespace": "Test",
        "MetricData.member.1.MetricName": name,
        "MetricData.member.1.Value": "2.5",
        "MetricData.member.1.Timestamp": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "MetricData.member.1.Dimensions.member.1.Name": "Camera",
        "MetricData.member.1.Dimensions.member.1.Value": "ä&=",
    }
    put = send(door, "POST", "/", body=urlencode(fields).encode(), headers=FORM, service="monitoring")
    assert put.status == 200 and put.xml["RequestId"] == put.headers["x-amzn-requestid"]
    assert sums(door, name, Dimensions=[{"Name": "Camera", "Value": "ä&="}])[0]["Sum"] == 2.5
    asked = {"Action": "ListMetrics", "Namespace": "Test", "MetricName": name}
    listed = send(door, "POST", "/", body=urlencode(asked).encode(), headers=FORM, service="monitoring")
    assert (listed.xml["MetricName"], listed.xml["Value"]) == (name, "ä&=")
    for changed, code in [
        ({"MetricData.member.1.Value": "many"}, "InvalidParameterValue"),
        ({"Namespace": ""}, "InvalidParameterValue"),
        ({"Action": "PutDashboard"}, "InvalidAction"),
        ({"MetricData.member.1.MetricName": None}, "MissingParameter"),
    ]:
        body = urlencode({k: v for k, v in (fields | changed).items() if v is not None}).encode()
        assert send(door, "POST", "/", body=body, headers=FORM, service="monitoring").xml["Code"] == code


def test_the_cbor_protocol_of_other_sdks_works(door: Door, name: str) -> None:
    def call(operation: str, values: object) -> Any:
        path = f"/service/GraniteServiceVersion20100801/operation/{operation}"
        return send(
            door, "POST", path, body=cbor2.dumps(values, datetime_as_timestamp=True), headers=CBOR, service="monitoring"
        )

    datum = {"MetricName": name, "Value": 1.5, "Timestamp": NOW}
    assert call("PutMetricData", {"Namespace": "Test", "MetricData": [datum]}).status == 200
    window = {"StartTime": NOW - timedelta(hours=1), "EndTime": NOW + timedelta(hours=1), "Period": 60}
    asked = {"Namespace": "Test", "MetricName": name, "Statistics": ["Sum"], **window}
    answer = call("GetMetricStatistics", asked)
    assert answer.headers["smithy-protocol"] == "rpc-v2-cbor"
    assert cbor2.loads(answer.body)["Datapoints"] == [{"Timestamp": NOW, "Sum": 1.5, "Unit": "None"}]
    for operation, values, code in [
        (
            "PutMetricData",
            {"Namespace": "Test", "MetricData": [{"MetricName": name}]},
            "InvalidParameterValueException",
        ),
        ("PutMetricData", {}, "MissingRequiredParameterException"),
        ("PutMetricData", [], "SerializationException"),
        ("Nothing", {}, "UnknownOperationException"),
    ]:
        refused = call(operation, values)
        assert refused.status == 400 and cbor2.loads(refused.body)["__type"] == code


@pytest.mark.parametrize(
    "body", [b"\xff", b"\x9b" + b"\xff" * 8, b"\x81" * 5000, b"\xd8\x1c\x81\xd8\x1d\x00", b"\xc1\x63abc"]
)
def test_broken_cbor_is_a_client_error(door: Door, body: bytes) -> None:
    path = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
    answer = send(door, "POST", path, body=body, headers=CBOR, service="monitoring")
    assert answer.status == 400 and cbor2.loads(answer.body)["__type"] == "SerializationException"


def test_errors_reach_clients_that_came_from_the_query_protocol(door: Door) -> None:
    client = door.client("cloudwatch", parameter_validation=False)
    assert code_of(lambda: client.put_metric_data(Namespace="Test", MetricData=[{"Value": 1}])) == "MissingParameter"
    assert code_of(lambda: client.list_dashboards()) == "InvalidAction"
    two = {"MetricName": "m", "Value": 1, "Values": [1]}
    assert code_of(lambda: client.put_metric_data(Namespace="Test", MetricData=[two])) == "InvalidParameterValue"


def test_json_numbers_beyond_reason_are_refused(door: Door) -> None:
    target = {
        "X-Amz-Target": "GraniteServiceVersion20100801.PutMetricData",
        "Content-Type": "application/x-amz-json-1.0",
    }
    for value in ("1e999", "NaN", "9" * 400, '"1"', "true"):
        body = b'{"Namespace": "T", "MetricData": [{"MetricName": "m", "Value": %s}]}' % value.encode()
        answer = send(door, "POST", "/", body=body, headers=target, service="monitoring")
        assert answer.status == 400, value
        assert json.loads(answer.body)["message"]
