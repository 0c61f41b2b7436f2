"""LogsService and MetricsService: the gRPC methods, thin; and `create`."""

from pathlib import Path
from typing import Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import page
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.ids import arn
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics import logs, metrics, rules
from services.logs_metrics.events import Intake, Trimmer
from services.logs_metrics.groups import describe_groups, describe_streams
from services.logs_metrics.logs import NewEvent, StreamKey
from services.logs_metrics.metrics import NewDatum
from services.logs_metrics.settings import Settings
from services.logs_metrics.store import EventRow, GroupRow, StreamRow

GROUP = "LOG_GROUP"
STREAM = "LOG_STREAM"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def create(runtime: Runtime) -> Service:
    """logs_metrics in this process."""
    settings = runtime.settings(Settings, "BELVEDERE_LOGS_METRICS_")
    database = runtime.database("logs_metrics")
    intake = Intake(database, runtime.bus, settings, runtime.clock)
    return Service(
        name="logs_metrics",
        servicers=[
            (pb_grpc.add_LogsServiceServicer_to_server, Logs(database, runtime), "belvedere.v1.LogsService"),
            (pb_grpc.add_MetricsServiceServicer_to_server, Metrics(database, runtime), "belvedere.v1.MetricsService"),
        ],
        tasks=[intake.devices, intake.logs, intake.metrics, Trimmer(database, settings, runtime.clock).run],
        migrations=Path(__file__).parent / "migrations",
    )


class Logs(pb_grpc.LogsServiceServicer):
    """Log groups, streams and events of the caller's account and region."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._clock = runtime.clock

    async def CreateLogGroup(self, request: pb.CreateLogGroupRequest, context: Context) -> pb.CreateLogGroupResponse:
        who, name = caller(), rules.check_group(request.group)
        async with self._database.session() as session, session.begin():
            if await logs.find_group(session, who.account, who.region, name):
                raise Conflict(GROUP, name, "The specified log group already exists")
            session.add(GroupRow(account=who.account, region=who.region, name=name, creation_ms=self._now_ms()))
        return pb.CreateLogGroupResponse()

    async def CreateLogStream(self, request: pb.CreateLogStreamRequest, context: Context) -> pb.CreateLogStreamResponse:
        who = caller()
        key = StreamKey(who.account, who.region, rules.check_group(request.group), rules.check_stream(request.stream))
        async with self._database.session() as session, session.begin():
            if not await logs.find_group(session, who.account, who.region, key.group):
                raise NotFound(GROUP, key.group, "The specified log group does not exist.")
            if await logs.find_stream(session, key):
                raise Conflict(STREAM, key.stream, "The specified log stream already exists")
            await logs.ensure_stream(session, key, self._now_ms())
        return pb.CreateLogStreamResponse()

    async def PutLogEvents(self, request: pb.PutLogEventsRequest, context: Context) -> pb.PutLogEventsResponse:
        if not 1 <= len(request.events) <= rules.MAX_EVENTS_PER_PUT:
            raise Invalid(
                f"{len(request.events)} log events: 1 to {rules.MAX_EVENTS_PER_PUT} are taken at once.",
                fields=[("logEvents", f"1 to {rules.MAX_EVENTS_PER_PUT}")],
            )
        for index, event in enumerate(request.events):
            if len(event.message.encode()) > rules.MAX_EVENT_BYTES or not event.message:
                raise Invalid(
                    f"logEvents[{index}].message must have 1 to {rules.MAX_EVENT_BYTES} bytes.",
                    fields=[(f"logEvents[{index}].message", f"1 to {rules.MAX_EVENT_BYTES} bytes")],
                )
        events = [
            NewEvent(event.timestamp_ms, event.message.replace("\x00", ""), event.sequence) for event in request.events
        ]
        async with self._database.session() as session, session.begin():
            stream = await self._stream(session, caller(), request.group, request.stream)
            await logs.append(session, stream, events, self._now_ms())
        # CloudWatch ignores sequence tokens since 2023 and still sends one.
        return pb.PutLogEventsResponse(next_sequence_token=str(self._now_ms()))

    async def DescribeLogGroups(
        self, request: pb.DescribeLogGroupsRequest, context: Context
    ) -> pb.DescribeLogGroupsResponse:
        who, size = caller(), rules.limit_of(request.limit, rules.MAX_DESCRIBE, "limit")
        cursor = page.decode_token(request.next_token, "DescribeLogGroups", request.prefix)
        async with self._database.session(read_only=True) as session:
            rows = await describe_groups(session, who, request.prefix, str(cursor["name"]) if cursor else "", size + 1)
            rows, more = page.cut(rows, size)
            sizes = await logs.stored_bytes(session, who.account, who.region, [row.name for row in rows])
        groups = [
            pb.LogGroup(
                name=row.name,
                arn=arn("logs", row.region, row.account, f"log-group:{row.name}:*"),
                creation_ms=row.creation_ms,
                stored_bytes=sizes.get(row.name, 0),
                retention_days=row.retention_days,
            )
            for row in rows
        ]
        token = page.encode_token({"name": rows[-1].name}, "DescribeLogGroups", request.prefix) if more else ""
        return pb.DescribeLogGroupsResponse(groups=groups, next_token=token)

    async def DescribeLogStreams(
        self, request: pb.DescribeLogStreamsRequest, context: Context
    ) -> pb.DescribeLogStreamsResponse:
        who, size = caller(), rules.limit_of(request.limit, rules.MAX_DESCRIBE, "limit")
        if request.prefix and request.order_by_last_event:
            raise Invalid(
                "Cannot order by LastEventTime with a logStreamNamePrefix.", fields=[("orderBy", "with a prefix")]
            )
        filters = [request.group, request.prefix, request.order_by_last_event, request.descending]
        cursor = page.decode_token(request.next_token, "DescribeLogStreams", filters)
        async with self._database.session(read_only=True) as session:
            if not await logs.find_group(session, who.account, who.region, request.group):
                raise NotFound(GROUP, request.group, "The specified log group does not exist.")
            rows, more = page.cut(await describe_streams(session, who, request, cursor, size + 1), size)
        token = ""
        if more:
            place = {"name": rows[-1].name, "last": rows[-1].last_event_ms or 0}
            token = page.encode_token(place, "DescribeLogStreams", filters)
        return pb.DescribeLogStreamsResponse(streams=[_stream(row) for row in rows], next_token=token)

    async def GetLogEvents(self, request: pb.GetLogEventsRequest, context: Context) -> pb.GetLogEventsResponse:
        limit = rules.limit_of(request.limit, rules.MAX_EVENTS_PER_GET, "limit")
        cursor = rules.Cursor.of(request.next_token) if request.next_token else None
        start = request.start_ms if request.HasField("start_ms") else None
        end = request.end_ms if request.HasField("end_ms") else None
        async with self._database.session(read_only=True) as session:
            stream = await self._stream(session, caller(), request.group, request.stream)
            found = await logs.read(
                session,
                stream,
                start_ms=start,
                end_ms=end,
                cursor=cursor,
                from_head=request.start_from_head,
                limit=limit,
            )
        forward, backward = rules.page_tokens(cursor, found.first, found.last, start or 0)
        return pb.GetLogEventsResponse(
            events=[_event(row) for row in found.events], next_forward_token=forward, next_backward_token=backward
        )

    async def _stream(self, session: AsyncSession, who: Caller, group: str, stream: str) -> int:
        if not await logs.find_group(session, who.account, who.region, group):
            raise NotFound(GROUP, group, "The specified log group does not exist.")
        row = await logs.find_stream(session, StreamKey(who.account, who.region, group, stream))
        if row is None or row.id is None:
            raise NotFound(STREAM, stream, "The specified log stream does not exist.")
        return row.id

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)


class Metrics(pb_grpc.MetricsServiceServicer):
    """Metrics of the caller's account and region."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._clock = runtime.clock

    async def PutMetricData(self, request: pb.PutMetricDataRequest, context: Context) -> pb.PutMetricDataResponse:
        who = caller()
        if not 1 <= len(request.data) <= rules.MAX_DATA_PER_PUT:
            raise Invalid(
                f"{len(request.data)} metric data: 1 to {rules.MAX_DATA_PER_PUT} are taken at once.",
                fields=[("MetricData", f"1 to {rules.MAX_DATA_PER_PUT}")],
            )
        now_s = int(self._clock().timestamp())
        data = []
        for index, datum in enumerate(request.data):
            rules.check_metric(request.namespace, datum.name, datum.dimensions, f"MetricData[{index}].")
            timestamp_s = datum.timestamp.seconds if datum.HasField("timestamp") else now_s
            values = (datum.sum, datum.minimum, datum.maximum, datum.sample_count)
            rules.check_values(values, f"MetricData[{index}]")
            data.append(
                NewDatum(
                    request.namespace, datum.name, dict(datum.dimensions), timestamp_s, datum.unit or "None", *values
                )
            )
        async with self._database.session() as session, session.begin():
            await metrics.put(session, who.account, who.region, data)
        return pb.PutMetricDataResponse()

    async def ListMetrics(self, request: pb.ListMetricsRequest, context: Context) -> pb.ListMetricsResponse:
        who, wanted = caller(), dict(request.dimensions)
        filters = [request.namespace, request.name, wanted]
        cursor = page.decode_token(request.next_token, "ListMetrics", filters)
        at = int(cursor["id"]) if cursor else 0
        found: list[pb.Metric] = []
        async with self._database.session(read_only=True) as session:
            while True:
                rows = await metrics.scan(session, who.account, who.region, request.namespace, request.name, at)
                for row in rows:
                    at = row.id or at
                    dimensions = rules.dimensions_of(row.dimensions)
                    if rules.has_dimensions(dimensions, wanted):
                        found.append(pb.Metric(namespace=row.namespace, name=row.name, dimensions=dimensions))
                    if len(found) == rules.MAX_METRICS_PER_PAGE:
                        token = page.encode_token({"id": at}, "ListMetrics", filters)
                        return pb.ListMetricsResponse(metrics=found, next_token=token)
                if len(rows) < metrics.SCAN_CHUNK:
                    return pb.ListMetricsResponse(metrics=found)

    async def GetMetricStatistics(
        self, request: pb.GetMetricStatisticsRequest, context: Context
    ) -> pb.GetMetricStatisticsResponse:
        who, wanted = caller(), request.metric
        start_s, end_s, period_s = request.start.seconds, request.end.seconds, request.period_seconds
        rules.check_metric(wanted.namespace, wanted.name, wanted.dimensions)
        rules.check_period(start_s, end_s, period_s)
        key = rules.dimensions_key(wanted.dimensions)
        async with self._database.session(read_only=True) as session:
            metric = await metrics.find(session, who.account, who.region, wanted.namespace, wanted.name, key)
            if metric is None or metric.id is None:
                return pb.GetMetricStatisticsResponse()
            points = await metrics.statistics(
                session, metric.id, start_s=start_s, end_s=end_s, period_s=period_s, unit=request.unit
            )
        return pb.GetMetricStatisticsResponse(datapoints=[_datapoint(point) for point in points])


def _stream(row: StreamRow) -> pb.LogStream:
    return pb.LogStream(
        name=row.name,
        arn=arn("logs", row.region, row.account, f"log-group:{row.group_name}:log-stream:{row.name}"),
        creation_ms=row.creation_ms,
        first_event_ms=row.first_event_ms,
        last_event_ms=row.last_event_ms,
        last_ingestion_ms=row.last_ingestion_ms,
    )


def _event(row: EventRow) -> pb.LogEvent:
    return pb.LogEvent(
        timestamp_ms=row.timestamp_ms, message=row.message, sequence=row.sequence, ingestion_ms=row.ingestion_ms
    )


def _datapoint(point: metrics.Point) -> pb.Datapoint:
    return pb.Datapoint(
        timestamp=Timestamp(seconds=point.start_s),
        sum=point.sum,
        minimum=point.minimum,
        maximum=point.maximum,
        sample_count=point.sample_count,
        unit=point.unit,
    )
