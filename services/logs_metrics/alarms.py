"""Queries on alarms and their history. All of it works on an open session; times are unix milliseconds.

Must not know gRPC or webhooks. A change of state is one transaction: the row (only if nobody changed it meanwhile, so
that several replicas that evaluate make one change), a line of history, and the event `logs_metrics.alarm.changed`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import select as select_columns
from sqlalchemy import true, tuple_
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.bus.event import Event
from belvedere.chassis import outbox
from belvedere.chassis.context import Caller
from belvedere.chassis.ids import arn
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics.alarm_rules import Window
from services.logs_metrics.groups import begins
from services.logs_metrics.rules import dimensions_key, dimensions_of
from services.logs_metrics.store import AlarmRow, DatumRow, HistoryRow

CHANGED = "logs_metrics.alarm.changed"
SOURCE = "/belvedere/logs_metrics"
HISTORY_DAYS = 30
NAMES: Mapping[int, str] = {
    pb.ALARM_STATE_OK: "OK",
    pb.ALARM_STATE_ALARM: "ALARM",
    pb.ALARM_STATE_INSUFFICIENT_DATA: "INSUFFICIENT_DATA",
}
Key = tuple[str, str, str]
"""(account, region, name)"""


@dataclass(frozen=True)
class Change:
    """A new state and why. `reason_data`: JSON, or empty."""

    state: int
    reason: str
    reason_data: str
    at_ms: int


def row_of(who: Caller, definition: pb.AlarmDefinition, now_ms: int, before: AlarmRow | None) -> AlarmRow:
    """The row for a definition; the state of the alarm that it replaces stays."""
    query = definition.query
    actions = {
        "OK": list(definition.ok_actions),
        "ALARM": list(definition.alarm_actions),
        "INSUFFICIENT_DATA": list(definition.insufficient_data_actions),
    }
    return AlarmRow(
        account=who.account,
        region=who.region,
        name=definition.name,
        namespace=query.metric.namespace,
        metric_name=query.metric.name,
        dimensions=dimensions_key(query.metric.dimensions),
        period_s=query.period_seconds,
        statistic=query.statistic,
        unit=query.unit,
        evaluation_periods=definition.evaluation_periods,
        datapoints_to_alarm=definition.datapoints_to_alarm,
        threshold=definition.threshold,
        comparison=definition.comparison,
        missing_data=definition.missing_data,
        description=definition.description,
        actions_enabled=definition.actions_enabled,
        actions=json.dumps(actions),
        configured_ms=now_ms,
        state=before.state if before else pb.ALARM_STATE_INSUFFICIENT_DATA,
        reason=before.reason if before else "Unchecked: Initial alarm creation",
        reason_data=before.reason_data if before else "",
        updated_ms=before.updated_ms if before else now_ms,
        transitioned_ms=before.transitioned_ms if before else now_ms,
    )


def definition_of(row: AlarmRow) -> pb.AlarmDefinition:
    """What `row_of` was made of."""
    actions = json.loads(row.actions)
    metric = pb.Metric(namespace=row.namespace, name=row.metric_name, dimensions=dimensions_of(row.dimensions))
    query = pb.MetricQuery(metric=metric, period_seconds=row.period_s, unit=row.unit)
    query.statistic = row.statistic  # type: ignore[assignment]
    result = pb.AlarmDefinition(
        name=row.name,
        description=row.description,
        actions_enabled=row.actions_enabled,
        ok_actions=actions["OK"],
        alarm_actions=actions["ALARM"],
        insufficient_data_actions=actions["INSUFFICIENT_DATA"],
        query=query,
        evaluation_periods=row.evaluation_periods,
        datapoints_to_alarm=row.datapoints_to_alarm,
        threshold=row.threshold,
    )
    result.comparison, result.missing_data = row.comparison, row.missing_data  # type: ignore[assignment]
    return result


def alarm_of(row: AlarmRow) -> pb.Alarm:
    """The alarm as the API shows it."""
    alarm = pb.Alarm(
        definition=definition_of(row),
        arn=arn("cloudwatch", row.region, row.account, f"alarm:{row.name}"),
        state_reason=row.reason,
        state_reason_data=row.reason_data,
        state_updated=moment(row.updated_ms),
        state_transitioned=moment(row.transitioned_ms),
        configuration_updated=moment(row.configured_ms),
    )
    alarm.state = row.state  # type: ignore[assignment]
    return alarm


def moment(at_ms: int) -> Timestamp:
    """Unix milliseconds as a Timestamp."""
    result = Timestamp()
    result.FromMilliseconds(at_ms)
    return result


async def find(session: AsyncSession, who: Caller, name: str) -> AlarmRow | None:
    """The alarm, or None."""
    return await session.get(AlarmRow, (who.account, who.region, name))


async def describe(
    session: AsyncSession, who: Caller, request: pb.DescribeAlarmsRequest, after: str, most: int
) -> list[AlarmRow]:
    """Alarms by name, behind the name `after`."""
    query = select(AlarmRow).where(
        AlarmRow.account == who.account,
        AlarmRow.region == who.region,
        begins(col(AlarmRow.name), request.prefix),
        col(AlarmRow.name).in_(list(request.names)) if request.names else true(),
        col(AlarmRow.state) == request.state if request.state else true(),
        AlarmRow.name > after,
    )
    rows = (await session.exec(query.order_by(col(AlarmRow.name)).limit(most))).all()
    return list(rows)


def acts(row: AlarmRow, action_prefix: str) -> bool:
    """Whether one of its actions begins with the prefix."""
    return any(a.startswith(action_prefix) for actions in json.loads(row.actions).values() for a in actions)


async def change(session: AsyncSession, row: AlarmRow, to: Change) -> bool:
    """Sets the state that `to` says, if the alarm is still as `row` has it; False where it is not."""
    turned = to.state != row.state
    changed = await session.exec(
        update(AlarmRow)
        .where(
            col(AlarmRow.account) == row.account,
            col(AlarmRow.region) == row.region,
            col(AlarmRow.name) == row.name,
            col(AlarmRow.state) == row.state,
            col(AlarmRow.configured_ms) == row.configured_ms,
            col(AlarmRow.updated_ms) == row.updated_ms,
        )
        .values(
            state=to.state,
            reason=to.reason,
            reason_data=to.reason_data,
            updated_ms=to.at_ms,
            transitioned_ms=to.at_ms if turned else row.transitioned_ms,
        )
    )
    if changed.rowcount == 0:
        return False
    if turned:
        new = AlarmRow(**row.model_dump())
        new.state, new.reason, new.reason_data = to.state, to.reason, to.reason_data
        new.updated_ms = new.transitioned_ms = to.at_ms
        old, now = NAMES[row.state], NAMES[to.state]
        states = {"oldState": {"stateValue": old, "stateReason": row.reason}}
        states["newState"] = {"stateValue": now, "stateReason": to.reason}
        await record(
            session,
            new,
            to.at_ms,
            pb.ALARM_HISTORY_KIND_STATE_UPDATE,
            f"Alarm updated from {old} to {now}",
            {"version": "1.0", **states},
        )
        data = pb.AlarmChanged(alarm=alarm_of(new))
        data.old_state = row.state  # type: ignore[assignment]
        at = datetime.fromtimestamp(to.at_ms / 1000, UTC)
        outbox.add(session, Event(CHANGED, SOURCE, row.name, row.account, row.region, MessageToDict(data), time=at))
    return True


async def record(
    session: AsyncSession, row: AlarmRow, at_ms: int, kind: int, summary: str, data: Mapping[str, Any]
) -> None:
    """A line of history, in the session's transaction."""
    session.add(
        HistoryRow(
            account=row.account,
            region=row.region,
            name=row.name,
            at_ms=at_ms,
            kind=kind,
            summary=summary,
            data=json.dumps(data),
        )
    )


async def history(
    session: AsyncSession,
    who: Caller,
    request: pb.DescribeAlarmHistoryRequest,
    after: tuple[int, int] | None,
    most: int,
) -> Sequence[HistoryRow]:
    """Lines of history behind the place `after` (at_ms, id)."""
    order = (col(HistoryRow.at_ms), col(HistoryRow.id))
    query = select(HistoryRow).where(
        HistoryRow.account == who.account,
        HistoryRow.region == who.region,
        col(HistoryRow.name) == request.alarm_name if request.alarm_name else true(),
        col(HistoryRow.kind) == request.kind if request.kind else true(),
        col(HistoryRow.at_ms) >= request.start.ToMilliseconds() if request.HasField("start") else true(),
        col(HistoryRow.at_ms) <= request.end.ToMilliseconds() if request.HasField("end") else true(),
    )
    if after is not None:
        query = query.where(tuple_(*order) > after if request.ascending else tuple_(*order) < after)
    by = [column.asc() if request.ascending else column.desc() for column in order]
    return (await session.exec(query.order_by(*by).limit(most))).all()


async def due(session: AsyncSession, shorter_than_s: int, after: Key | None, most: int) -> Sequence[AlarmRow]:
    """Alarms of all accounts whose period is shorter, behind `after`."""
    order = (col(AlarmRow.account), col(AlarmRow.region), col(AlarmRow.name))
    query = select(AlarmRow).where(AlarmRow.period_s < shorter_than_s)
    if after is not None:
        query = query.where(tuple_(*order) > after)
    return (await session.exec(query.order_by(*order).limit(most))).all()


Sums = tuple[float, float, float, float]
"""sum, minimum, maximum, count"""


async def sums(session: AsyncSession, ids: Iterable[int], at: Window) -> dict[tuple[int, int, str], Sums]:
    """What metrics hold in a window, by (metric, index of the period, unit)."""
    query = select_columns(
        col(DatumRow.metric_id),
        col(DatumRow.timestamp_s),
        col(DatumRow.unit),
        col(DatumRow.sum),
        col(DatumRow.minimum),
        col(DatumRow.maximum),
        col(DatumRow.sample_count),
    ).where(
        col(DatumRow.metric_id).in_(sorted(set(ids))),
        col(DatumRow.timestamp_s) >= at.start_s,
        col(DatumRow.timestamp_s) < at.end_s,
    )
    found: dict[tuple[int, int, str], Sums] = {}
    for metric, second, unit, *values in (await (await session.connection()).execute(query)).all():
        key = (metric, (second - at.start_s) // at.period_s, unit)
        found[key] = joined(found.get(key), (values[0], values[1], values[2], values[3]))
    return found


def joined(a: Sums | None, b: Sums) -> Sums:
    """Both together."""
    return b if a is None else (a[0] + b[0], min(a[1], b[1]), max(a[2], b[2]), a[3] + b[3])


async def trim_history(session: AsyncSession, now_ms: int) -> None:
    """Removes what is older than HISTORY_DAYS."""
    await session.exec(delete(HistoryRow).where(col(HistoryRow.at_ms) < now_ms - HISTORY_DAYS * 24 * 3600 * 1000))
