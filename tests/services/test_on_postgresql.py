"""All services on PostgreSQL, through the front door: the tour of the Panorama API and the neighbours that its clients call.

A part that is always run; `make test DATABASE=postgresql` runs every suite there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from belvedere import awsmodel
from belvedere.chassis.errors import Invalid
from belvedere.v1 import identity_pb2, registry_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from tests.support import databases
from tests.support.clients import Clients
from tests.support.cloud import ACCOUNT, ADMIN, RunningCloud
from tests.support.front_door import Door, front_door
from tests.support.postgres import Postgres

pytestmark = pytest.mark.timeout(300)
"""Its tour asks for everything, in a program of its own."""
TOUR = Path(__file__).parents[1] / "peers" / "panorama_tour.py"
NOW = int(time.time())


@pytest.fixture(scope="module")
def door(postgresql: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    before, databases.server = databases.server, postgresql
    try:
        with front_door(tmp_path_factory.mktemp("cloud")) as running:
            yield running
    finally:
        databases.server = before


def test_every_operation_of_the_panorama_api_succeeds_and_none_breaks(door: Door, tmp_path: Path) -> None:
    done = Clients(Path(sys.prefix)).run(door, ["python", str(TOUR)], cwd=tmp_path)
    told: list[Any] = json.loads(done.stdout)
    assert [entry for entry in told if entry[1] >= 500] == []
    succeeded = {operation.replace("_", "") for operation, status, _ in told if status == 200}
    assert succeeded == {name.lower() for name in awsmodel.panorama().operations}


def test_logs_metrics_and_alarms(door: Door) -> None:
    logs, cloudwatch = door.client("logs"), door.client("cloudwatch")
    where = {"logGroupName": "/shop", "logStreamName": "s"}
    logs.create_log_group(logGroupName="/shop")
    logs.create_log_stream(**where)
    for n in range(3):
        logs.put_log_events(**where, logEvents=[{"timestamp": NOW * 1000 + n, "message": f"line {n}"}])
    logs.put_retention_policy(logGroupName="/shop", retentionInDays=1)
    page = logs.get_log_events(**where, startFromHead=True, limit=2)
    rest = logs.get_log_events(**where, nextToken=page["nextForwardToken"])
    assert [event["message"] for event in page["events"] + rest["events"]] == ["line 0", "line 1", "line 2"]
    assert len(logs.filter_log_events(logGroupName="/shop", filterPattern='"line 1"')["events"]) == 1
    metric = {"Namespace": "Shop", "MetricName": "People"}
    for value in (1.0, 3.0):
        data = [{"MetricName": "People", "Value": value, "Timestamp": NOW}]
        cloudwatch.put_metric_data(Namespace="Shop", MetricData=data)
    window = {"StartTime": NOW - 600, "EndTime": NOW + 60, "Period": 60}
    (point,) = cloudwatch.get_metric_statistics(**metric, **window, Statistics=["Average"])["Datapoints"]
    assert point["Average"] == 2.0
    rule = {"Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 1.0}
    cloudwatch.put_metric_alarm(AlarmName="a", ComparisonOperator="GreaterThanThreshold", **metric, **rule)
    cloudwatch.set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="r")
    assert cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"][0]["AlarmName"] == "a"


def test_objects_are_listed_by_the_bytes_of_their_keys(door: Door) -> None:
    s3 = door.client("s3")
    s3.create_bucket(Bucket="sorted")
    keys = ["B", "a", "Z/1", "Z/2", "~", "é", "a-b", "ab", "😀"]
    for key in keys:
        s3.put_object(Bucket="sorted", Key=key, Body=key.encode())
    found = s3.list_objects_v2(Bucket="sorted")["Contents"]
    assert [entry["Key"] for entry in found] == sorted(keys, key=str.encode)
    folders = s3.list_objects_v2(Bucket="sorted", Delimiter="/")
    assert [entry["Prefix"] for entry in folders["CommonPrefixes"]] == ["Z/"]


def test_what_postgresql_cannot_hold_is_refused_and_the_audit_trail_goes_on(door: Door) -> None:
    """It has no NUL in texts, as gRPC has: a line about one must not keep later ones from being written."""

    async def ask(cloud: RunningCloud) -> list[str]:
        identity = IdentityServiceStub(cloud.channel)
        who = identity_pb2.Principal(account_id=ACCOUNT, arn=ADMIN, user_id="AIDA")
        for resource in ("a\0b", "later"):
            request = identity_pb2.AuthorizeRequest(principal=who, action="panorama:DescribeDevice", resource=resource)
            await identity.Authorize(request)
        with pytest.raises(Invalid, match="NUL"):
            await RegistryServiceStub(cloud.channel).ProvisionDevice(
                registry_pb2.ProvisionDeviceRequest(name="nul", description="a\0b")
            )
        trail = await identity.ListAuditEntries(identity_pb2.ListAuditEntriesRequest())
        return [entry.resource for entry in trail.entries]

    found = door.call(ask)
    assert {"a\ufffdb", "later"} <= set(found)
