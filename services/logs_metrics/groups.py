"""Lists of log groups and streams, a page at a time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal, true, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.context import Caller
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics.rules import number_in
from services.logs_metrics.store import GroupRow, StreamRow


def begins(column: Any, prefix: str) -> ColumnElement[bool]:
    """Whether the column's text begins with `prefix`, by case: LIKE takes a for A on SQLite."""
    return func.substr(column, 1, len(prefix)) == prefix if prefix else true()


def holds(column: Any, part: str) -> ColumnElement[bool]:
    """Whether `part` is in the column's text, by case."""
    return func.replace(column, part, "") != column if part else true()


async def describe_groups(
    session: AsyncSession, who: Caller, *, prefix: str, pattern: str, after: str, most: int
) -> Sequence[GroupRow]:
    """Groups whose name begins with `prefix` and holds `pattern`, by name, behind the name `after`."""
    rows = await session.exec(
        select(GroupRow)
        .where(
            GroupRow.account == who.account,
            GroupRow.region == who.region,
            begins(col(GroupRow.name), prefix),
            holds(col(GroupRow.name), pattern),
            GroupRow.name > after,
        )
        .order_by(col(GroupRow.name))
        .limit(most)
    )
    return rows.all()


async def describe_streams(
    session: AsyncSession, who: Caller, request: pb.DescribeLogStreamsRequest, cursor: dict[str, Any] | None, most: int
) -> Sequence[StreamRow]:
    """Streams of a group, by name or by their last event, behind `cursor` ({"name", "last"})."""
    last = func.coalesce(col(StreamRow.last_event_ms), 0)
    keys = (last, col(StreamRow.name)) if request.order_by_last_event else (col(StreamRow.name),)
    query = select(StreamRow).where(
        StreamRow.account == who.account,
        StreamRow.region == who.region,
        StreamRow.group_name == request.group,
        begins(col(StreamRow.name), request.prefix),
    )
    if cursor is not None:
        name = literal(str(cursor.get("name", "")))
        place = (literal(number_in(cursor, "last")), name) if request.order_by_last_event else (name,)
        query = query.where(tuple_(*keys) < tuple_(*place) if request.descending else tuple_(*keys) > tuple_(*place))
    ordered = query.order_by(*(key.desc() if request.descending else key.asc() for key in keys))
    return (await session.exec(ordered.limit(most))).all()
