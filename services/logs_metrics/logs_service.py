"""LogsService: the gRPC methods, thin."""

from typing import Any, TypeAlias

import grpc
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import page
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.chassis.ids import arn
from belvedere.chassis.runtime import Runtime
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics import logs, rules
from services.logs_metrics.groups import describe_groups, describe_streams
from services.logs_metrics.logs import NewEvent, StreamKey
from services.logs_metrics.patterns import compile_pattern
from services.logs_metrics.search import Hit, search, streams_of
from services.logs_metrics.settings import Settings
from services.logs_metrics.store import EventRow, GroupRow, StreamRow

GROUP = "LOG_GROUP"
STREAM = "LOG_STREAM"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Logs(pb_grpc.LogsServiceServicer):
    """Log groups, streams and events of the caller's account and region."""

    def __init__(self, database: Database, settings: Settings, runtime: Runtime) -> None:
        self._database = database
        self._settings = settings
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
            await self._group(session, who, key.group)
            if await logs.find_stream(session, key):
                raise Conflict(STREAM, key.stream, "The specified log stream already exists")
            await logs.ensure_stream(session, key, self._now_ms())
        return pb.CreateLogStreamResponse()

    async def PutLogEvents(self, request: pb.PutLogEventsRequest, context: Context) -> pb.PutLogEventsResponse:
        who, now_ms = caller(), self._now_ms()
        times = [event.timestamp_ms for event in request.events]
        sizes = [len(event.message.encode()) for event in request.events]
        async with self._database.session() as session, session.begin():
            group = await self._group(session, who, request.group)
            days = group.retention_days or self._settings.log_retention_days
            batch = rules.check_batch(times, sizes, now_ms, days)
            stream = await self._stream(session, who, request.group, request.stream)
            # All of one writer's: their order is that of arrival, so that a reader's token skips none of a later batch.
            events = [
                NewEvent(event.timestamp_ms, event.message.replace("\x00", ""))
                for event in request.events[batch.begin : batch.end]
            ]
            await logs.append(session, stream, events, now_ms)
        # CloudWatch ignores sequence tokens since 2023 and still sends one.
        return pb.PutLogEventsResponse(
            next_sequence_token=str(now_ms),
            too_old_end_index=batch.too_old_end,
            expired_end_index=batch.expired_end,
            too_new_start_index=batch.too_new_start,
        )

    async def DescribeLogGroups(
        self, request: pb.DescribeLogGroupsRequest, context: Context
    ) -> pb.DescribeLogGroupsResponse:
        who, size = caller(), rules.limit_of(request.limit, rules.MAX_DESCRIBE, "limit")
        filters = [request.prefix, request.pattern]
        cursor = page.decode_token(request.next_token, "DescribeLogGroups", filters)
        after = str(cursor.get("name", "")) if cursor else ""
        async with self._database.session(read_only=True) as session:
            rows = await describe_groups(
                session, who, prefix=request.prefix, pattern=request.pattern, after=after, most=size + 1
            )
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
        token = page.encode_token({"name": rows[-1].name}, "DescribeLogGroups", filters) if more else ""
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
            await self._group(session, who, request.group)
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

    async def FilterLogEvents(self, request: pb.FilterLogEventsRequest, context: Context) -> pb.FilterLogEventsResponse:
        who, limit = caller(), rules.limit_of(request.limit, rules.MAX_EVENTS_PER_GET, "limit")
        rules.check_filter(request.streams, request.stream_prefix, request.pattern)
        matches = compile_pattern(request.pattern)
        start_ms = request.start_ms if request.HasField("start_ms") else 0
        end_ms = request.end_ms if request.HasField("end_ms") else rules.MAX_TIME_MS
        streams = sorted(set(request.streams))
        filters = [request.group, streams, request.stream_prefix, request.pattern, start_ms, end_ms]
        cursor = page.decode_token(request.next_token, "FilterLogEvents", filters)
        after = rules.place_of(cursor) if cursor else None
        async with self._database.session(read_only=True) as session:
            await self._group(session, who, request.group)
            rows = await streams_of(session, who.account, who.region, request.group, streams, request.stream_prefix)
            if missing := set(streams) - {row.name for row in rows}:
                raise NotFound(STREAM, min(missing), "The specified log stream does not exist.")
            found = await search(
                session, rows, start_ms=start_ms, end_ms=end_ms, after=after, matches=matches, limit=limit
            )
        token = page.encode_token({"place": found.next}, "FilterLogEvents", filters) if found.next else ""
        return pb.FilterLogEventsResponse(events=[_hit(hit) for hit in found.hits], next_token=token)

    async def PutRetentionPolicy(
        self, request: pb.PutRetentionPolicyRequest, context: Context
    ) -> pb.PutRetentionPolicyResponse:
        await self._retain(request.group, rules.check_retention(request.days))
        return pb.PutRetentionPolicyResponse()

    async def DeleteRetentionPolicy(
        self, request: pb.DeleteRetentionPolicyRequest, context: Context
    ) -> pb.DeleteRetentionPolicyResponse:
        await self._retain(request.group, None)
        return pb.DeleteRetentionPolicyResponse()

    async def DeleteLogGroup(self, request: pb.DeleteLogGroupRequest, context: Context) -> pb.DeleteLogGroupResponse:
        who = caller()
        async with self._database.session() as session, session.begin():
            group = await self._group(session, who, request.group)
            await logs.detach(session, who.account, who.region, request.group)
            await session.delete(group)
        return pb.DeleteLogGroupResponse()

    async def DeleteLogStream(self, request: pb.DeleteLogStreamRequest, context: Context) -> pb.DeleteLogStreamResponse:
        who = caller()
        async with self._database.session() as session, session.begin():
            await self._group(session, who, request.group)
            if not await logs.detach(session, who.account, who.region, request.group, request.stream):
                raise NotFound(STREAM, request.stream, "The specified log stream does not exist.")
        return pb.DeleteLogStreamResponse()

    async def _retain(self, name: str, days: int | None) -> None:
        async with self._database.session() as session, session.begin():
            group = await self._group(session, caller(), name)
            group.retention_days = days
            session.add(group)

    async def _group(self, session: AsyncSession, who: Caller, name: str) -> GroupRow:
        group = await logs.find_group(session, who.account, who.region, name)
        if group is None:
            raise NotFound(GROUP, name, "The specified log group does not exist.")
        return group

    async def _stream(self, session: AsyncSession, who: Caller, group: str, stream: str) -> int:
        await self._group(session, who, group)
        row = await logs.find_stream(session, StreamKey(who.account, who.region, group, stream))
        if row is None or row.id is None:
            raise NotFound(STREAM, stream, "The specified log stream does not exist.")
        return row.id

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)


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


def _hit(hit: Hit) -> pb.FilteredLogEvent:
    return pb.FilteredLogEvent(
        stream=hit.stream,
        timestamp_ms=hit.place[0],
        message=hit.message,
        ingestion_ms=hit.ingestion_ms,
        event_id=hit.event_id,
    )
