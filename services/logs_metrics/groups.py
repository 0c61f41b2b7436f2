"""Lists of log groups and streams, a page at a time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, literal, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.context import Caller
from belvedere.v1 import logs_metrics_pb2 as pb
from services.logs_metrics.store import GroupRow, StreamRow


async def describe_groups(session: AsyncSession, who: Caller, prefix: str, after: str, most: int) -> Sequence[GroupRow]:
    """Groups whose name begins with `prefix`, by name, behind the name `after`."""
    rows = await session.exec(
        select(GroupRow)
        .where(
            GroupRow.account == who.account,
            GroupRow.region == who.region,
            col(GroupRow.name).startswith(prefix, autoescape=True),
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
        col(StreamRow.name).startswith(request.prefix, autoescape=True),
    )
    if cursor is not None:
        name = literal(str(cursor["name"]))
        place = (literal(int(cursor["last"])), name) if request.order_by_last_event else (name,)
        query = query.where(tuple_(*keys) < tuple_(*place) if request.descending else tuple_(*keys) > tuple_(*place))
    ordered = query.order_by(*(key.desc() if request.descending else key.asc() for key in keys))
    return (await session.exec(ordered.limit(most))).all()
