"""logs_metrics in the embedded cloud: real hub, real gRPC, real SQLite."""

import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel import select

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import api, publish_stored
from belvedere.chassis import outbox
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics.events import Trimmer
from services.logs_metrics.settings import Settings
from services.logs_metrics.store import EventRow
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.fleet import eventually

DEVICE = "device-aaaaaaaaaaaaaaaaaaaaaaaaaa"
GROUP = f"/aws/panorama/devices/{DEVICE}"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["logs_metrics"]) as running:
        with running.caller():
            yield running


async def provisioned(cloud: RunningCloud, device: str = DEVICE) -> None:
    """What registry says when a device is made."""
    database = cloud.runtime.database("logs_metrics")
    event = Event(type="registry.device.provisioned", source="/test", subject=device, account=ACCOUNT, region=REGION)
    async with database.session() as session, session.begin():
        outbox.add(session, event)


def entry(sequence: int, message: str, group: str = GROUP, stream: str = "occ_log") -> dict[str, Any]:
    return {"group": group, "stream": stream, "timestamp_ms": now_ms(), "message": message, "sequence": sequence}


def now_ms() -> int:
    return int(time.time() * 1000)


async def send_logs(cloud: RunningCloud, *entries: dict[str, Any], device: str = DEVICE) -> None:
    await publish_stored(cloud.runtime.bus, subjects.up_logs(device), {"entries": list(entries)})


async def messages(cloud: RunningCloud, group: str = GROUP, stream: str = "occ_log") -> list[str]:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    try:
        found = await logs.GetLogEvents(pb.GetLogEventsRequest(group=group, stream=stream, start_from_head=True))
    except NotFound:
        return []
    return [event.message for event in found.events]


async def test_log_entries_of_a_device_are_stored_in_the_account_that_owns_it(cloud: RunningCloud) -> None:
    await provisioned(cloud)
    await send_logs(cloud, entry(1, "one"), entry(2, "two"))
    await eventually(lambda: _equal(messages(cloud), ["one", "two"]))
    with cloud.caller(account="210987654321"):
        assert await messages(cloud) == []


async def test_a_batch_that_comes_twice_is_stored_once(cloud: RunningCloud) -> None:
    await provisioned(cloud)
    batch = [entry(n, f"line {n}") for n in range(5)]
    await send_logs(cloud, *batch)
    await send_logs(cloud, *batch)
    await send_logs(cloud, entry(99, "last"))
    expected = [f"line {n}" for n in range(5)] + ["last"]
    await eventually(lambda: _equal(messages(cloud), expected))
    info = await api(cloud.runtime.bus, "CONSUMER.INFO.UP_LOGS.logs_metrics", what="consumer")
    assert info["num_pending"] == 0, "both copies were delivered"


async def test_a_batch_that_overtakes_the_news_of_its_device_waits_for_it(cloud: RunningCloud) -> None:
    await send_logs(cloud, entry(1, "early"))
    await provisioned(cloud)
    await eventually(lambda: _equal(messages(cloud), ["early"]))


async def test_a_device_cannot_write_into_the_group_of_another(cloud: RunningCloud) -> None:
    await provisioned(cloud)
    other = "/aws/panorama/devices/device-bbbbbbbbbbbbbbbbbbbbbbbbbb"
    await send_logs(cloud, entry(1, "forged", group=other), entry(2, "forged", group=GROUP + "x"), entry(3, "own"))
    await eventually(lambda: _equal(messages(cloud), ["own"]))
    groups = await pb_grpc.LogsServiceStub(cloud.channel).DescribeLogGroups(pb.DescribeLogGroupsRequest())
    assert [group.name for group in groups.groups] == [GROUP]


async def test_a_batch_that_cannot_be_read_does_not_hold_up_the_next(cloud: RunningCloud) -> None:
    await provisioned(cloud)
    for data in (b"not json", b"[]", b'{"entries": 3}', b'{"entries": [3, {"group": 1}, {}]}'):
        await publish_stored(cloud.runtime.bus, subjects.up_logs(DEVICE), data)
    await publish_stored(cloud.runtime.bus, subjects.up_metrics(DEVICE), {"data": [{}, {"sum": "NaN"}]})
    await send_logs(cloud, entry(1, "good"))
    await eventually(lambda: _equal(messages(cloud), ["good"]))


async def test_reading_forward_ends_with_the_token_that_was_sent(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    await logs.CreateLogGroup(pb.CreateLogGroupRequest(group="g"))
    await logs.CreateLogStream(pb.CreateLogStreamRequest(group="g", stream="s"))
    start = now_ms()
    events = [pb.LogEvent(timestamp_ms=start + n // 2, message=f"m{n}") for n in range(10)]
    await logs.PutLogEvents(pb.PutLogEventsRequest(group="g", stream="s", events=events))
    request = pb.GetLogEventsRequest(group="g", stream="s", start_from_head=True, limit=4)
    seen: list[str] = []
    while True:
        answer = await logs.GetLogEvents(request)
        seen += [event.message for event in answer.events]
        if answer.next_forward_token == request.next_token:
            break
        request.next_token = answer.next_forward_token
    assert seen == [f"m{n}" for n in range(10)]
    # Backwards from the end, all again.
    back: list[str] = []
    request.next_token = answer.next_backward_token
    while True:
        answer = await logs.GetLogEvents(request)
        back = [event.message for event in answer.events] + back
        if answer.next_backward_token == request.next_token:
            break
        request.next_token = answer.next_backward_token
    assert back == seen
    # What comes later is found from the last forward token on.
    request.next_token = answer.next_forward_token
    newest = await logs.GetLogEvents(pb.GetLogEventsRequest(group="g", stream="s", limit=3))
    assert [event.message for event in newest.events] == ["m7", "m8", "m9"]
    await logs.PutLogEvents(
        pb.PutLogEventsRequest(group="g", stream="s", events=[pb.LogEvent(timestamp_ms=start + 60, message="later")])
    )
    after = await logs.GetLogEvents(pb.GetLogEventsRequest(group="g", stream="s", next_token=newest.next_forward_token))
    assert [event.message for event in after.events] == ["later"]


async def test_groups_and_streams_are_listed_a_page_at_a_time(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    start = now_ms()
    for n in range(5):
        await logs.CreateLogGroup(pb.CreateLogGroupRequest(group=f"app/{n}"))
        await logs.CreateLogStream(pb.CreateLogStreamRequest(group="app/0", stream=f"s{n}"))
        event = pb.LogEvent(timestamp_ms=start - n, message="x")
        await logs.PutLogEvents(pb.PutLogEventsRequest(group="app/0", stream=f"s{n}", events=[event]))
    names: list[str] = []
    token = ""
    while True:
        groups = await logs.DescribeLogGroups(pb.DescribeLogGroupsRequest(prefix="app/", limit=2, next_token=token))
        names += [group.name for group in groups.groups]
        token = groups.next_token
        if not token:
            break
    assert names == [f"app/{n}" for n in range(5)]
    streams: list[str] = []
    request = pb.DescribeLogStreamsRequest(group="app/0", order_by_last_event=True, descending=True, limit=2)
    while True:
        answer = await logs.DescribeLogStreams(request)
        streams += [stream.name for stream in answer.streams]
        request.next_token = answer.next_token
        if not answer.next_token:
            break
    assert streams == [f"s{n}" for n in range(5)]
    with pytest.raises(Invalid):
        await logs.DescribeLogGroups(pb.DescribeLogGroupsRequest(prefix="app/", next_token="rubbish"))


async def test_errors_name_what_is_missing_or_there_already(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    with pytest.raises(NotFound) as missing:
        await logs.GetLogEvents(pb.GetLogEventsRequest(group="none", stream="s"))
    assert (missing.value.resource_type, missing.value.resource_id) == ("LOG_GROUP", "none")
    await logs.CreateLogGroup(pb.CreateLogGroupRequest(group="g"))
    with pytest.raises(Conflict):
        await logs.CreateLogGroup(pb.CreateLogGroupRequest(group="g"))
    with pytest.raises(NotFound):
        await logs.PutLogEvents(pb.PutLogEventsRequest(group="g", stream="s", events=[pb.LogEvent(message="x")]))
    with pytest.raises(Invalid):
        await logs.CreateLogGroup(pb.CreateLogGroupRequest(group="no spaces"))


async def test_batches_of_a_hundred_entries_are_taken_whole(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    await logs.CreateLogGroup(pb.CreateLogGroupRequest(group="g"))
    await logs.CreateLogStream(pb.CreateLogStreamRequest(group="g", stream="s"))
    line = "2026-11-22 03:50:00 INFO a line of an ordinary length, as an application writes one every frame or so " * 2
    events = [pb.LogEvent(timestamp_ms=now_ms(), message=line) for _ in range(100)]
    for _ in range(10):
        await logs.PutLogEvents(pb.PutLogEventsRequest(group="g", stream="s", events=events))
    (group,) = (await logs.DescribeLogGroups(pb.DescribeLogGroupsRequest())).groups
    assert group.stored_bytes == 10 * 100 * (len(line) + 26)


def datum(name: str, value: float, at_s: float, dimensions: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "namespace": "PeopleCounter",
        "name": name,
        "dimensions": dimensions or {},
        "timestamp_ms": int(at_s * 1000),
        "unit": "Count",
        "sum": value,
        "minimum": value,
        "maximum": value,
        "sample_count": 1,
    }


def statistics(
    name: str, start_s: int, end_s: int, period_s: int, dimensions: dict[str, str] | None = None
) -> pb.GetMetricStatisticsRequest:
    return pb.GetMetricStatisticsRequest(
        metric=pb.Metric(namespace="PeopleCounter", name=name, dimensions=dimensions or {}),
        start=Timestamp(seconds=start_s),
        end=Timestamp(seconds=end_s),
        period_seconds=period_s,
    )


async def test_metrics_of_a_device_are_aggregated_by_period_and_counted_once(cloud: RunningCloud) -> None:
    await provisioned(cloud)
    minute = int(time.time()) // 60 * 60
    data = [datum("People", value, minute + second) for second, value in ((1, 2.0), (1, 4.0), (30, 6.0), (61, 1.0))]
    await publish_stored(cloud.runtime.bus, subjects.up_metrics(DEVICE), {"data": data})
    metrics = pb_grpc.MetricsServiceStub(cloud.channel)

    async def points() -> list[tuple[int, float, float, float, float]]:
        answer = await metrics.GetMetricStatistics(statistics("People", minute, minute + 120, 60))
        return [(p.timestamp.seconds - minute, p.sum, p.minimum, p.maximum, p.sample_count) for p in answer.datapoints]

    expected = [(0, 12.0, 2.0, 6.0, 3.0), (60, 1.0, 1.0, 1.0, 1.0)]
    await eventually(lambda: _equal(points(), expected))
    # The hub delivers again what it believes unacknowledged: read the same message by another name.
    from services.logs_metrics import metrics as queries

    async with cloud.runtime.database("logs_metrics").session() as session, session.begin():
        assert not await queries.first_time(session, 1, now_ms())


async def test_metrics_are_told_apart_by_their_dimensions(cloud: RunningCloud) -> None:
    metrics = pb_grpc.MetricsServiceStub(cloud.channel)
    now = int(time.time())
    for camera, value in (("a", 1.0), ("b", 5.0)):
        put = pb.MetricDatum(
            name="People", dimensions={"Camera": camera}, sum=value, minimum=value, maximum=value, sample_count=1
        )
        await metrics.PutMetricData(pb.PutMetricDataRequest(namespace="PeopleCounter", data=[put]))
    listed = await metrics.ListMetrics(pb.ListMetricsRequest(namespace="PeopleCounter", dimensions={"Camera": ""}))
    assert [dict(metric.dimensions) for metric in listed.metrics] == [{"Camera": "a"}, {"Camera": "b"}]
    one = await metrics.ListMetrics(pb.ListMetricsRequest(dimensions={"Camera": "b"}))
    assert len(one.metrics) == 1
    answer = await metrics.GetMetricStatistics(statistics("People", now - 60, now + 60, 60, {"Camera": "b"}))
    assert sum(point.sum for point in answer.datapoints) == 5.0
    without = await metrics.GetMetricStatistics(statistics("People", now - 60, now + 60, 60))
    assert not without.datapoints
    with pytest.raises(Invalid):
        await metrics.GetMetricStatistics(statistics("People", now - 86400, now, 1))


async def test_what_is_past_its_retention_is_removed_and_nothing_else(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    await provisioned(cloud)
    day = 24 * 3600 * 1000
    old = [entry(n, f"{age} days") | {"timestamp_ms": now_ms() - age * day} for n, age in enumerate((15, 13, 0))]
    await send_logs(cloud, *old)
    await eventually(lambda: _equal(messages(cloud), ["15 days", "13 days", "0 days"]))
    trimmer = Trimmer(cloud.runtime.database("logs_metrics"), Settings(), cloud.runtime.clock)
    await trimmer.trim()
    assert await messages(cloud) == ["13 days", "0 days"]
    await logs.PutRetentionPolicy(pb.PutRetentionPolicyRequest(group=GROUP, days=1))
    await trimmer.trim()
    assert await messages(cloud) == ["0 days"]
    (group,) = (await logs.DescribeLogGroups(pb.DescribeLogGroupsRequest())).groups
    assert (group.retention_days, group.stored_bytes) == (1, len("0 days") + 26)
    streams = await logs.DescribeLogStreams(pb.DescribeLogStreamsRequest(group=GROUP))
    assert streams.streams[0].first_event_ms == old[2]["timestamp_ms"]


async def test_a_removed_group_takes_its_events_along_and_its_device_makes_it_anew(cloud: RunningCloud) -> None:
    logs = pb_grpc.LogsServiceStub(cloud.channel)
    await provisioned(cloud)
    await send_logs(cloud, *(entry(n, f"old {n}") for n in range(3)))
    await eventually(lambda: _equal(messages(cloud), ["old 0", "old 1", "old 2"]))
    await logs.DeleteLogGroup(pb.DeleteLogGroupRequest(group=GROUP))
    assert not (await logs.DescribeLogGroups(pb.DescribeLogGroupsRequest())).groups
    with pytest.raises(NotFound):
        await logs.DeleteLogGroup(pb.DeleteLogGroupRequest(group=GROUP))
    await send_logs(cloud, entry(9, "new"))
    await eventually(lambda: _equal(messages(cloud), ["new"]))
    database = cloud.runtime.database("logs_metrics")
    assert await Trimmer(database, Settings(), cloud.runtime.clock).trim() == 3 + 1, "the events and their stream"
    async with database.session(read_only=True) as session:
        left = (await session.exec(select(EventRow.message))).all()
    assert left == ["new"]
    await logs.DeleteLogStream(pb.DeleteLogStreamRequest(group=GROUP, stream="occ_log"))
    with pytest.raises(NotFound):
        await logs.DeleteLogStream(pb.DeleteLogStreamRequest(group=GROUP, stream="occ_log"))
    assert await messages(cloud) == []


async def test_a_restart_keeps_everything_and_takes_up_where_it_was(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, ["logs_metrics"]) as cloud:
        with cloud.caller():
            await provisioned(cloud)
            await send_logs(cloud, entry(1, "before"))
            await eventually(lambda: _equal(messages(cloud), ["before"]))
            ports = cloud.runtime.ports
    async with running_cloud(tmp_path, ["logs_metrics"]) as cloud:
        with cloud.caller():
            assert cloud.runtime.ports == ports
            await send_logs(cloud, entry(2, "after"))
            await eventually(lambda: _equal(messages(cloud), ["before", "after"]))


async def _equal(found: Awaitable[Any], expected: Any) -> bool:
    return bool(await found == expected)
