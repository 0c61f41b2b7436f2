"""CloudWatch's alarms and pages of metric data through boto3, and alarms in the other two protocols."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import cbor2
import pytest
from botocore.exceptions import ClientError

from belvedere.chassis.context import caller
from services.gateway.cloudwatch import service as front
from services.gateway.errors import AuthError, AuthKind
from services.gateway.message import Call, Facts
from services.gateway.sigv4 import HttpRequest
from tests.services.gateway.wire import send
from tests.support.cloud import RunningCloud
from tests.support.front_door import Door

CBOR = {"smithy-protocol": "rpc-v2-cbor", "Content-Type": "application/cbor"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
NOW = datetime.now(UTC).replace(second=0, microsecond=0)
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def alarm(name: str, **changed: Any) -> dict[str, Any]:
    """AWS's template for a device, as its CloudFormation resource spells it."""
    return {
        "AlarmName": name,
        "Namespace": "PanoramaDeviceMetrics",
        "MetricName": "DeviceActive",
        "Dimensions": [{"Name": "DeviceId", "Value": name}, {"Name": "DeviceName", "Value": "south"}],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 5,
        "DatapointsToAlarm": 5,
        "Threshold": 1,
        "ComparisonOperator": "LessThanThreshold",
        "TreatMissingData": "breaching",
        "AlarmActions": [TOPIC],
    } | changed


def code_of(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500
    return str(caught.value.response["Error"]["Code"])


def test_an_alarm_comes_back_as_it_was_put(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch")
    given = alarm(name, AlarmDescription="silent", Unit="Count", OKActions=[TOPIC], ActionsEnabled=False)
    cloudwatch.put_metric_alarm(**given)
    answer = cloudwatch.describe_alarms(AlarmNames=[name])
    (found,) = answer["MetricAlarms"]
    assert answer["CompositeAlarms"] == []
    assert {key: found[key] for key in given} == given
    assert found["AlarmArn"] == f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"
    assert found["StateValue"] in ("INSUFFICIENT_DATA", "ALARM")
    assert abs(found["AlarmConfigurationUpdatedTimestamp"] - datetime.now(UTC)) < timedelta(minutes=1)
    cloudwatch.delete_alarms(AlarmNames=[name])
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"] == []
    assert code_of(lambda: cloudwatch.delete_alarms(AlarmNames=[name])) == "ResourceNotFound"


def test_a_state_that_is_set_is_listed_and_in_the_history(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch")
    # Without data and with these treated as good it is OK or not evaluated yet: ALARM is ours alone, until the next
    # evaluation.
    cloudwatch.put_metric_alarm(**alarm(name, TreatMissingData="ignore"))
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="tried", StateReasonData='{"by": "me"}')
    (found,) = cloudwatch.describe_alarms(AlarmNamePrefix=name[:20], StateValue="ALARM")["MetricAlarms"]
    assert (found["StateReason"], found["StateReasonData"]) == ("tried", '{"by": "me"}')
    assert cloudwatch.describe_alarms(AlarmNamePrefix=name, StateValue="OK")["MetricAlarms"] == []
    items = cloudwatch.describe_alarm_history(AlarmName=name, ScanBy="TimestampAscending")["AlarmHistoryItems"]
    assert [(item["HistoryItemType"], item["HistorySummary"]) for item in items] == [
        ("ConfigurationUpdate", f'Alarm "{name}" created'),
        ("StateUpdate", "Alarm updated from INSUFFICIENT_DATA to ALARM"),
    ]
    paged = cloudwatch.get_paginator("describe_alarm_history").paginate(
        AlarmName=name, PaginationConfig={"PageSize": 1}
    )
    assert [page["AlarmHistoryItems"][0]["HistoryItemType"] for page in paged] == ["StateUpdate", "ConfigurationUpdate"]
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="")
    wait = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]
    assert wait["StateValue"] == "OK"
    cloudwatch.delete_alarms(AlarmNames=[name])


def test_alarms_are_listed_a_page_at_a_time(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch")
    names = [f"{name}-{index}" for index in range(5)]
    for each in names:
        cloudwatch.put_metric_alarm(**alarm(each))
    pages = list(
        cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=name, PaginationConfig={"PageSize": 2})
    )
    assert [[a["AlarmName"] for a in page["MetricAlarms"]] for page in pages] == [names[:2], names[2:4], names[4:]]
    assert cloudwatch.describe_alarms(AlarmNamePrefix=name, AlarmTypes=["CompositeAlarm"])["MetricAlarms"] == []
    assert len(cloudwatch.describe_alarms(AlarmNamePrefix=name, ActionPrefix="arn:aws:sns")["MetricAlarms"]) == 5
    assert cloudwatch.describe_alarms(AlarmNamePrefix=name, ActionPrefix="arn:aws:ssm")["MetricAlarms"] == []
    cloudwatch.delete_alarms(AlarmNames=names)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"AlarmName": ""}, "InvalidParameterValue"),
    ({"AlarmName": None}, "MissingParameter"),
    ({"Statistic": None}, "MissingParameter"),
    ({"Threshold": None}, "MissingParameter"),
    ({"Period": 45}, "InvalidParameterValue"),
    ({"EvaluationPeriods": 0}, "InvalidParameterValue"),
    ({"EvaluationPeriods": 2000}, "InvalidParameterValue"),
    ({"DatapointsToAlarm": 6}, "InvalidParameterValue"),
    ({"ComparisonOperator": "About"}, "InvalidParameterValue"),
    ({"ComparisonOperator": "GreaterThanUpperThreshold"}, "InvalidParameterValue"),
    ({"TreatMissingData": "maybe"}, "InvalidParameterValue"),
    ({"ExtendedStatistic": "p90"}, "InvalidParameterValue"),
    ({"Metrics": [{"Id": "a", "Expression": "1"}]}, "InvalidParameterValue"),
    ({"Tags": [{"Key": "a", "Value": "b"}]}, "InvalidParameterValue"),
    ({"AlarmActions": ["a"] * 6}, "InvalidParameterValue"),
    ({"Dimensions": [{"Name": "a", "Value": "b"}] * 2}, "InvalidParameterValue"),
]


@pytest.mark.parametrize(("changed", "code"), WRONG)
def test_an_alarm_that_cannot_be_is_refused_and_not_made(
    door: Door, name: str, changed: dict[str, Any], code: str
) -> None:
    cloudwatch = door.client("cloudwatch", parameter_validation=False)
    values = {key: value for key, value in alarm(name, **changed).items() if value is not None}
    assert code_of(lambda: cloudwatch.put_metric_alarm(**values)) == code
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"] == []


def test_other_mistakes_have_their_own_codes(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch", parameter_validation=False)
    state = {"AlarmName": name, "StateValue": "OK", "StateReason": "x"}
    assert code_of(lambda: cloudwatch.set_alarm_state(**state)) == "ResourceNotFound"
    assert code_of(lambda: cloudwatch.set_alarm_state(**state, StateReasonData="{")) == "InvalidFormat"
    assert code_of(lambda: cloudwatch.describe_alarms(NextToken="x")) == "InvalidNextToken"
    both = {"AlarmNames": [name], "AlarmNamePrefix": name}
    assert code_of(lambda: cloudwatch.describe_alarms(**both)) == "InvalidParameterCombination"


def test_alarms_speak_the_query_protocol(door: Door, name: str) -> None:
    def call(action: str, **fields: str) -> Any:
        body = urlencode({"Action": action, "Version": "2010-08-01"} | fields).encode()
        return send(door, "POST", "/", body=body, headers=FORM, service="monitoring")

    fields = {
        "AlarmName": name,
        "Namespace": "Test",
        "MetricName": "m",
        "Statistic": "Average",
        "Period": "60",
        "EvaluationPeriods": "1",
        "Threshold": "0.5",
        "ComparisonOperator": "GreaterThanThreshold",
        "AlarmActions.member.1": TOPIC,
        "Dimensions.member.1.Name": "Camera",
        "Dimensions.member.1.Value": "south",
    }
    assert call("PutMetricAlarm", **fields).status == 200
    found = call("DescribeAlarms", **{"AlarmNames.member.1": name}).xml
    assert (found["AlarmName"], found["Threshold"], found["ActionsEnabled"]) == (name, "0.5", "true")
    assert call("DeleteAlarms", **{"AlarmNames.member.1": name}).status == 200
    gone = call("DeleteAlarms", **{"AlarmNames.member.1": name})
    assert (gone.status, gone.xml["Code"]) == (404, "ResourceNotFound")


def test_alarms_speak_cbor(door: Door, name: str) -> None:
    def call(operation: str, values: Any) -> tuple[int, Any]:
        path = f"/service/GraniteServiceVersion20100801/operation/{operation}"
        answer = send(door, "POST", path, body=cbor2.dumps(values), headers=CBOR, service="monitoring")
        return answer.status, cbor2.loads(answer.body)

    assert call("PutMetricAlarm", alarm(name)) == (200, {})
    (found,) = call("DescribeAlarms", {"AlarmNames": [name]})[1]["MetricAlarms"]
    assert found["Threshold"] == 1.0 and isinstance(found["StateUpdatedTimestamp"], datetime)
    assert call("DeleteAlarms", {"AlarmNames": [name]})[0] == 200
    status, error = call("DeleteAlarms", {"AlarmNames": [name]})
    assert (status, error["__type"]) == (404, "ResourceNotFound")


def queried(name: str, metric: str, stat: str = "Sum", **more: Any) -> dict[str, Any]:
    what = {"Namespace": "Pages", "MetricName": metric}
    return {"Id": name, "MetricStat": {"Metric": what, "Period": 60, "Stat": stat}} | more


@pytest.mark.parametrize("scan", ["TimestampAscending", "TimestampDescending"])
def test_metric_data_of_several_queries_come_in_pages(door: Door, name: str, scan: str) -> None:
    cloudwatch = door.client("cloudwatch")
    minutes = [NOW - timedelta(minutes=n) for n in range(10, 0, -1)]
    data = [
        {"MetricName": f"{name}-{metric}", "Timestamp": at, "Value": 10 * metric + n, "Unit": unit}
        for metric in range(2)
        for n, at in enumerate(minutes)
        for unit in ("Count", "None")
    ]
    cloudwatch.put_metric_data(Namespace="Pages", MetricData=data)
    pages = list(
        cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[
                queried("a", f"{name}-0"),
                queried("hidden", f"{name}-0", ReturnData=False),
                queried("b", f"{name}-1", "Maximum", Label="most"),
                queried("none", "none"),
            ],
            StartTime=NOW - timedelta(hours=1),
            EndTime=NOW,
            ScanBy=scan,
            PaginationConfig={"PageSize": 4},
        )
    )
    assert len(pages) == 6, "five full ones, and the last query, which has nothing"
    assert all(sum(len(r["Values"]) for r in page["MetricDataResults"]) <= 4 for page in pages)
    values: dict[str, list[tuple[datetime, float]]] = {}
    for page in pages:
        for result in page["MetricDataResults"]:
            values.setdefault(result["Id"], []).extend(zip(result["Timestamps"], result["Values"], strict=True))
    expected = {
        "a": [(at, 2.0 * n) for n, at in enumerate(minutes)],
        "b": [(at, 10.0 + n) for n, at in enumerate(minutes)],
        "none": [],
    }
    if scan == "TimestampDescending":
        expected = {key: points[::-1] for key, points in expected.items()}
    assert values == expected
    labels = {r["Id"]: (r["Label"], r["StatusCode"]) for page in pages for r in page["MetricDataResults"]}
    assert labels == {"a": (f"{name}-0", "Complete"), "b": ("most", "Complete"), "none": ("none", "Complete")}


def test_metric_data_refuse_what_they_cannot_answer(door: Door) -> None:
    cloudwatch = door.client("cloudwatch", parameter_validation=False)
    window = {"StartTime": NOW - timedelta(hours=1), "EndTime": NOW}
    for queries in (
        [queried("a", "m"), queried("a", "m")],
        [{"Id": "a", "Expression": "m1 + m2"}],
        [queried("a", "m", "p90")],
        [queried("Upper", "m")],
        [queried(f"q{n}", "m") for n in range(501)],
    ):
        call = {"MetricDataQueries": queries, **window}
        assert code_of(lambda call=call: cloudwatch.get_metric_data(**call)) == "InvalidParameterValue"
    backwards = {"MetricDataQueries": [queried("a", "m")], "StartTime": NOW, "EndTime": NOW - timedelta(hours=1)}
    assert code_of(lambda: cloudwatch.get_metric_data(**backwards)) == "InvalidParameterValue"


def test_metrics_beyond_the_limits_are_refused_by_name_of_what_is_wrong(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch", parameter_validation=False)
    base = {"MetricName": name, "Value": 1.0}
    many = [{"Name": f"d{n}", "Value": "v"} for n in range(31)]
    for wrong in (
        [base] * 1001,
        [base | {"Dimensions": many}],
        [base | {"Dimensions": [{"Name": "", "Value": "v"}]}],
        [base | {"MetricName": "x" * 256}],
        [base | {"Unit": "Furlongs"}],
        [base | {"StorageResolution": 5}],
        [base | {"Timestamp": NOW - timedelta(days=15)}],
        [base | {"Timestamp": NOW + timedelta(hours=3)}],
        [{"MetricName": name, "Values": [1.0] * 151}],
        [{"MetricName": name, "Values": [1.0], "Counts": [1.0, 2.0]}],
        [{"MetricName": name, "StatisticValues": {"SampleCount": 0, "Sum": 1, "Minimum": 1, "Maximum": 1}}],
    ):
        call = {"Namespace": "Limits", "MetricData": wrong}
        assert code_of(lambda call=call: cloudwatch.put_metric_data(**call)) == "InvalidParameterValue"
    assert cloudwatch.list_metrics(Namespace="Limits")["Metrics"] == []


def test_metrics_are_listed_over_pages_and_by_recent_data(door: Door, name: str) -> None:
    cloudwatch = door.client("cloudwatch")
    data = [{"MetricName": f"{name}-{n}", "Value": 1, "Timestamp": NOW - timedelta(hours=4)} for n in range(501)]
    data[7]["Timestamp"] = NOW
    cloudwatch.put_metric_data(Namespace=name, MetricData=data)
    pages = list(cloudwatch.get_paginator("list_metrics").paginate(Namespace=name))
    assert [len(page["Metrics"]) for page in pages] == [500, 1]
    recent = cloudwatch.list_metrics(Namespace=name, RecentlyActive="PT3H")["Metrics"]
    assert [metric["MetricName"] for metric in recent] == [f"{name}-7"]


def test_each_alarm_of_a_deletion_is_asked_for_by_its_own_name(door: Door, name: str) -> None:
    names = [f"{name}-a", f"{name}-b", f"{name}-c"]
    for each in names:
        door.client("cloudwatch").put_metric_alarm(**alarm(each))
    asked: list[str] = []

    async def spares_c(call: Call, action: str, resource: str, facts: Facts) -> None:
        asked.append(f"{action} {resource}")
        if resource.endswith("-c"):
            raise AuthError(AuthKind.DENIED, "no")

    async def delete(cloud: RunningCloud) -> None:
        service = front.create(cloud.channel, cloud.runtime.clock)
        headers = [("x-amz-target", "GraniteServiceVersion20100801.DeleteAlarms")]
        body = json.dumps({"AlarmNames": names}).encode()
        request = HttpRequest("POST", "/", "", headers)
        call = Call(request, "id", "127.0.0.1", nothing, len(body), spares_c, caller=caller(), body=body)
        await service.handle(call)

    with pytest.raises(AuthError):
        door.call(delete)
    start = "cloudwatch:DeleteAlarms arn:aws:cloudwatch:us-east-1:123456789012:alarm:"
    assert asked == [start + each for each in names]
    assert len(door.client("cloudwatch").describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]) == 3
    door.client("cloudwatch").delete_alarms(AlarmNames=names)


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""
