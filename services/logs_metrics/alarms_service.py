"""AlarmsService: the gRPC methods, thin."""

from typing import Any, TypeAlias

import grpc

from belvedere import jsontext
from belvedere.chassis import page
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid, NotFound
from belvedere.chassis.runtime import Runtime
from belvedere.v1 import logs_metrics_pb2 as pb
from belvedere.v1 import logs_metrics_pb2_grpc as pb_grpc
from services.logs_metrics import alarm_rules, alarms, rules
from services.logs_metrics.alarms import Change
from services.logs_metrics.store import AlarmRow, HistoryRow

ALARM = "ALARM"
PAGE_MAX = 100
NAMES_MAX = 100
DESCRIBE_LIMIT = 50
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Alarms(pb_grpc.AlarmsServiceServicer):
    """Alarms of the caller's account and region."""

    def __init__(self, database: Database, runtime: Runtime) -> None:
        self._database = database
        self._clock = runtime.clock

    async def PutMetricAlarm(self, request: pb.PutMetricAlarmRequest, context: Context) -> pb.PutMetricAlarmResponse:
        who, now_ms = caller(), self._now_ms()
        alarm_rules.check_definition(request.definition)
        async with self._database.session() as session, session.begin():
            before = await alarms.find(session, who, request.definition.name)
            row = await session.merge(alarms.row_of(who, request.definition, now_ms, before))
            summary = f'Alarm "{row.name}" {"updated" if before else "created"}'
            data = {"version": "1.0", "type": "Update" if before else "Create"}
            await alarms.record(session, row, now_ms, pb.ALARM_HISTORY_KIND_CONFIGURATION_UPDATE, summary, data)
        return pb.PutMetricAlarmResponse()

    async def DescribeAlarms(self, request: pb.DescribeAlarmsRequest, context: Context) -> pb.DescribeAlarmsResponse:
        who, size = caller(), rules.limit_of(request.limit or DESCRIBE_LIMIT, PAGE_MAX, "MaxRecords")
        if len(request.names) > NAMES_MAX:
            raise Invalid(f"{NAMES_MAX} AlarmNames at most.", fields=[("AlarmNames", f"at most {NAMES_MAX}")])
        filters = [sorted(request.names), request.prefix, request.action_prefix, request.state]
        cursor = page.decode_token(request.next_token, "DescribeAlarms", filters)
        after, found = str(cursor.get("name", "")) if cursor else "", list[AlarmRow]()
        async with self._database.session(read_only=True) as session:
            while len(found) <= size:
                rows = await alarms.describe(session, who, request, after, size + 1)
                found += [row for row in rows if not request.action_prefix or alarms.acts(row, request.action_prefix)]
                if len(rows) <= size:
                    break
                after = rows[-1].name
        found, more = page.cut(found, size)
        token = page.encode_token({"name": found[-1].name}, "DescribeAlarms", filters) if more else ""
        return pb.DescribeAlarmsResponse(alarms=[alarms.alarm_of(row) for row in found], next_token=token)

    async def DeleteAlarms(self, request: pb.DeleteAlarmsRequest, context: Context) -> pb.DeleteAlarmsResponse:
        who, now_ms = caller(), self._now_ms()
        if not 1 <= len(request.names) <= NAMES_MAX:
            raise Invalid(f"1 to {NAMES_MAX} AlarmNames are needed.", fields=[("AlarmNames", f"1 to {NAMES_MAX}")])
        async with self._database.session() as session, session.begin():
            for name in sorted(set(request.names)):
                row = await alarms.find(session, who, name)
                if row is None:
                    raise NotFound(ALARM, name, f"There is no alarm {name!r}. No alarm was deleted.")
                await session.delete(row)
                kind = pb.ALARM_HISTORY_KIND_CONFIGURATION_UPDATE
                data = {"version": "1.0", "type": "Delete"}
                await alarms.record(session, row, now_ms, kind, f'Alarm "{name}" deleted', data)
        return pb.DeleteAlarmsResponse()

    async def SetAlarmState(self, request: pb.SetAlarmStateRequest, context: Context) -> pb.SetAlarmStateResponse:
        if request.state not in alarms.NAMES:
            raise Invalid("StateValue is needed.", fields=[("StateValue", "OK, ALARM or INSUFFICIENT_DATA")])
        if request.reason_data:
            _check_json(request.reason_data)
        async with self._database.session() as session, session.begin():
            row = await alarms.find(session, caller(), request.name)
            if row is None:
                raise NotFound(ALARM, request.name, f"There is no alarm {request.name!r}.")
            session.expunge(row)
            await alarms.change(
                session, row, Change(request.state, request.reason, request.reason_data, self._now_ms())
            )
        return pb.SetAlarmStateResponse()

    async def DescribeAlarmHistory(
        self, request: pb.DescribeAlarmHistoryRequest, context: Context
    ) -> pb.DescribeAlarmHistoryResponse:
        who, size = caller(), rules.limit_of(request.limit or DESCRIBE_LIMIT, PAGE_MAX, "MaxRecords")
        times = [t.ToMilliseconds() for t in (request.start, request.end)]
        filters = [request.alarm_name, request.kind, *times, request.ascending]
        cursor = page.decode_token(request.next_token, "DescribeAlarmHistory", filters)
        after = (rules.number_in(cursor, "at"), rules.number_in(cursor, "id")) if cursor else None
        async with self._database.session(read_only=True) as session:
            rows, more = page.cut(await alarms.history(session, who, request, after, size + 1), size)
        place = {"at": rows[-1].at_ms, "id": rows[-1].id} if more else {}
        token = page.encode_token(place, "DescribeAlarmHistory", filters) if more else ""
        return pb.DescribeAlarmHistoryResponse(items=[_item(row) for row in rows], next_token=token)

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)


def _check_json(text: str) -> None:
    try:
        jsontext.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("StateReasonData must be JSON.", fields=[("StateReasonData", "must be JSON")]) from error


def _item(row: HistoryRow) -> pb.AlarmHistoryItem:
    item = pb.AlarmHistoryItem(alarm_name=row.name, at=alarms.moment(row.at_ms), summary=row.summary, data=row.data)
    item.kind = row.kind  # type: ignore[assignment]
    return item
