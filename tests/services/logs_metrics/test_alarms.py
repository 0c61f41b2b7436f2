"""Alarms in the embedded cloud: evaluated at times that the test says, told of through the real hub."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume
from belvedere.chassis.errors import NotFound
from belvedere.chassis.secret import Secret
from belvedere.chassis.settings import SettingError
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics import metrics
from services.logs_metrics.evaluator import Evaluator
from services.logs_metrics.metrics import NewDatum
from services.logs_metrics.notifier import Notifier
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.waiting import until

DEVICE = {"DeviceName": "south", "DeviceId": "device-a"}
APPLICATION = {"ApplicationInstanceName": "people", "ApplicationInstanceId": "applicationInstance-a"}
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
START_S = 4_000_000_020
"""A full minute of 2096."""


@pytest.fixture(autouse=True)
def only_the_test_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own evaluator lives by the clock."""
    monkeypatch.setenv("BELVEDERE_LOGS_METRICS_EVALUATE_ALARMS", "false")


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["logs_metrics"]) as running:
        with running.caller():
            yield running


def template(name: str, dimensions: dict[str, str], comparison: int, **changed: Any) -> pb.PutMetricAlarmRequest:
    """The two CloudFormation templates that AWS gave Panorama's users (panorama-contract, section 5)."""
    definition = pb.AlarmDefinition(
        name=name,
        actions_enabled=True,
        alarm_actions=[TOPIC],
        query=pb.MetricQuery(
            metric=pb.Metric(namespace="PanoramaDeviceMetrics", name=name, dimensions=dimensions),
            period_seconds=60,
            statistic=pb.STATISTIC_SUM,
        ),
        evaluation_periods=5,
        datapoints_to_alarm=5,
        threshold=1,
        comparison=comparison,  # type: ignore[arg-type]
        missing_data=pb.MISSING_DATA_BREACHING,
    )
    definition.MergeFrom(pb.AlarmDefinition(**changed))
    return pb.PutMetricAlarmRequest(definition=definition)


def device_active(**changed: Any) -> pb.PutMetricAlarmRequest:
    return template("DeviceActive", DEVICE, pb.COMPARISON_OPERATOR_LESS_THAN_THRESHOLD, **changed)


async def write(cloud: RunningCloud, name: str, dimensions: dict[str, str], minute: int, value: float) -> None:
    datum = NewDatum("PanoramaDeviceMetrics", name, dimensions, START_S + minute * 60, "Count", value, value, value, 1)
    async with cloud.runtime.database("logs_metrics").session() as session, session.begin():
        await metrics.put(session, ACCOUNT, REGION, [datum])


class Clockwork:
    """Evaluates minute after minute, as fast as it goes."""

    def __init__(self, cloud: RunningCloud) -> None:
        self.evaluator = Evaluator(cloud.runtime.database("logs_metrics"), cloud.runtime.clock)
        self.alarms = pb_grpc.AlarmsServiceStub(cloud.channel)

    async def state(self, minute: int, name: str) -> str:
        """The state after the evaluation a moment after `minute` began."""
        await self.evaluator.evaluate((START_S + minute * 60) * 1000 + 1500)
        (alarm,) = (await self.alarms.DescribeAlarms(pb.DescribeAlarmsRequest(names=[name]))).alarms
        return pb.AlarmState.Name(alarm.state).removeprefix("ALARM_STATE_")


async def test_a_device_that_falls_silent_alarms_after_five_minutes_and_recovers(cloud: RunningCloud) -> None:
    at = Clockwork(cloud)
    await at.alarms.PutMetricAlarm(device_active())
    for minute in range(8):
        await write(cloud, "DeviceActive", DEVICE, minute, 1)
    states = [await at.state(minute, "DeviceActive") for minute in range(8, 14)]
    # Silent from minute 8 on. Two more minutes than five are looked at, so that late data raise no alarm: with the
    # minutes 6 and 7 out of five the missing ones count, and one good minute among them keeps it quiet.
    assert states == ["OK"] * 6
    assert [await at.state(minute, "DeviceActive") for minute in (14, 15)] == ["OK", "ALARM"]
    (alarm,) = (await at.alarms.DescribeAlarms(pb.DescribeAlarmsRequest())).alarms
    assert alarm.state_reason == (
        "Threshold Crossed: no datapoints were received for 5 periods and "
        "5 missing datapoints were treated as [Breaching]."
    )
    assert json.loads(alarm.state_reason_data)["threshold"] == 1
    await write(cloud, "DeviceActive", DEVICE, 15, 1)
    assert await at.state(16, "DeviceActive") == "OK"


async def test_application_errors_alarm_when_every_minute_has_one(cloud: RunningCloud) -> None:
    at = Clockwork(cloud)
    above = pb.COMPARISON_OPERATOR_GREATER_THAN_OR_EQUAL_TO_THRESHOLD
    await at.alarms.PutMetricAlarm(template("ApplicationErrors", APPLICATION, above))
    for minute, errors in enumerate([0, 0, 0, 0, 0, 2, 1, 1, 3, 1, 0]):
        await write(cloud, "ApplicationErrors", APPLICATION, minute, errors)
    states = [await at.state(minute, "ApplicationErrors") for minute in range(5, 12)]
    assert states == ["OK"] * 5 + ["ALARM", "OK"]
    history = await at.alarms.DescribeAlarmHistory(
        pb.DescribeAlarmHistoryRequest(alarm_name="ApplicationErrors", ascending=True)
    )
    assert [item.summary for item in history.items] == [
        'Alarm "ApplicationErrors" created',
        "Alarm updated from INSUFFICIENT_DATA to OK",
        "Alarm updated from OK to ALARM",
        "Alarm updated from ALARM to OK",
    ]


async def test_an_alarm_that_is_replaced_keeps_its_state_and_one_that_is_gone_is_unknown(cloud: RunningCloud) -> None:
    alarms = pb_grpc.AlarmsServiceStub(cloud.channel)
    await alarms.PutMetricAlarm(device_active())
    await alarms.SetAlarmState(
        pb.SetAlarmStateRequest(name="DeviceActive", state=pb.ALARM_STATE_OK, reason="tried", reason_data='{"a": 1}')
    )
    await alarms.PutMetricAlarm(device_active(description="changed"))
    (alarm,) = (await alarms.DescribeAlarms(pb.DescribeAlarmsRequest())).alarms
    assert (alarm.state, alarm.state_reason) == (pb.ALARM_STATE_OK, "tried")
    assert alarm.definition == device_active(description="changed").definition
    with pytest.raises(NotFound):
        await alarms.DeleteAlarms(pb.DeleteAlarmsRequest(names=["DeviceActive", "none"]))
    assert len((await alarms.DescribeAlarms(pb.DescribeAlarmsRequest())).alarms) == 1, "all or none"
    await alarms.DeleteAlarms(pb.DeleteAlarmsRequest(names=["DeviceActive"]))
    assert not (await alarms.DescribeAlarms(pb.DescribeAlarmsRequest())).alarms
    with cloud.caller(account="210987654321"):
        assert not (await alarms.DescribeAlarmHistory(pb.DescribeAlarmHistoryRequest())).items


async def test_two_evaluators_make_one_change(cloud: RunningCloud) -> None:
    first, second = Clockwork(cloud), Clockwork(cloud)
    await first.alarms.PutMetricAlarm(device_active())
    await write(cloud, "DeviceActive", DEVICE, 0, 1)
    await first.evaluator.evaluate((START_S + 60) * 1000)
    assert await second.state(1, "DeviceActive") == "OK"
    kind = pb.ALARM_HISTORY_KIND_STATE_UPDATE
    items = (await first.alarms.DescribeAlarmHistory(pb.DescribeAlarmHistoryRequest(kind=kind))).items
    assert [item.summary for item in items] == ["Alarm updated from INSUFFICIENT_DATA to OK"]


async def test_an_alarm_of_ten_seconds_is_evaluated_within_the_minute(cloud: RunningCloud) -> None:
    at = Clockwork(cloud)
    request = device_active()
    request.definition.query.period_seconds, request.definition.evaluation_periods = 10, 1
    request.definition.datapoints_to_alarm = 1
    await at.alarms.PutMetricAlarm(request)
    await at.state(1, "DeviceActive")
    await write(cloud, "DeviceActive", DEVICE, 1, 1)
    assert await at.evaluator.evaluate((START_S + 70) * 1000 + 500) == 1
    (alarm,) = (await at.alarms.DescribeAlarms(pb.DescribeAlarmsRequest())).alarms
    assert alarm.state == pb.ALARM_STATE_OK


async def test_every_page_of_a_list_of_alarms_is_another(cloud: RunningCloud) -> None:
    alarms = pb_grpc.AlarmsServiceStub(cloud.channel)
    for index in range(7):
        request = device_active()
        request.definition.name = f"alarm {index}"
        if index % 2:
            del request.definition.alarm_actions[:]
        await alarms.PutMetricAlarm(request)
    names: list[str] = []
    listing = pb.DescribeAlarmsRequest(prefix="alarm", limit=3)
    while True:
        answer = await alarms.DescribeAlarms(listing)
        names += [alarm.definition.name for alarm in answer.alarms]
        listing.next_token = answer.next_token
        if not answer.next_token:
            break
    assert names == [f"alarm {index}" for index in range(7)]
    acting = await alarms.DescribeAlarms(pb.DescribeAlarmsRequest(action_prefix="arn:aws:sns", limit=3))
    assert [alarm.definition.name for alarm in acting.alarms] == ["alarm 0", "alarm 2", "alarm 4"]
    assert acting.next_token


class Receiver:
    """A webhook on loopback that refuses its first posts."""

    def __init__(self, refusing: int) -> None:
        self.refusing = refusing
        self.got: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        if self.refusing:
            self.refusing -= 1
            return web.Response(status=503)
        self.got.append(await request.json() | {"id": request.headers["X-Belvedere-Event"]})
        return web.Response()


async def test_a_change_is_an_event_and_reaches_the_webhook_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(refusing=1)
    application = web.Application()
    application.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    monkeypatch.setenv("BELVEDERE_LOGS_METRICS_ALARM_WEBHOOKS", f"http://127.0.0.1:{port}/hook?token=secret")
    try:
        async with running_cloud(tmp_path, ["logs_metrics"]) as cloud:
            with cloud.caller():
                alarms = pb_grpc.AlarmsServiceStub(cloud.channel)
                await alarms.PutMetricAlarm(device_active())
                for state in (pb.ALARM_STATE_OK, pb.ALARM_STATE_ALARM, pb.ALARM_STATE_OK):
                    request = pb.SetAlarmStateRequest(name="DeviceActive", state=state, reason="tried")
                    await alarms.SetAlarmState(request)
                await until(lambda: len(receiver.got) == 1)
                (told,) = receiver.got
                assert (told["AlarmName"], told["OldStateValue"], told["NewStateValue"]) == (
                    "DeviceActive",
                    "OK",
                    "ALARM",
                )
                assert told["AlarmActions"] == [TOPIC] and told["Trigger"]["Threshold"] == 1
                events = consume(
                    cloud.runtime.bus,
                    subjects.EVENTS_STREAM,
                    filter_subject=subjects.event("logs_metrics.alarm.changed"),
                )
                seen = [Event.from_json((await anext(events)).data) for _ in range(3)]
                assert told["id"] == seen[1].id
                assert [event.data["alarm"]["state"] for event in seen] == [
                    "ALARM_STATE_OK",
                    "ALARM_STATE_ALARM",
                    "ALARM_STATE_OK",
                ]

                async def acted() -> list[str]:
                    kind = pb.ALARM_HISTORY_KIND_ACTION
                    answer = await alarms.DescribeAlarmHistory(pb.DescribeAlarmHistoryRequest(kind=kind))
                    return [item.summary for item in answer.items]

                async with asyncio.timeout(30):
                    while not (summaries := await acted()):  # noqa: ASYNC110 - another task writes it
                        await asyncio.sleep(0.02)
                assert summaries == ["Successfully notified the webhooks"]
    finally:
        await runner.cleanup()


def test_a_webhook_that_is_no_address_is_refused_without_being_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as refused:
        Notifier(None, None, Secret("ftp://host/token"), None)  # type: ignore[arg-type]
    assert "token" not in str(refused.value)
