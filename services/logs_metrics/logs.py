"""Queries on log groups, streams and events.

Must not know gRPC or messages of the bus. All of it works on an open session; times are unix milliseconds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, String, case, cast, func, literal, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel, col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from services.logs_metrics.rules import MAX_GET_BYTES, Cursor, Position
from services.logs_metrics.store import EventRow, GroupRow, StreamRow

READ_CHUNK = 500
"""Events read at once: a page ends by its bytes long before 10,000 large events are in memory."""
TRIM_CHUNK = 5_000
"""Events removed in one transaction, so that writers wait only for moments."""
DAY_MS = 24 * 3600 * 1000
DETACHED = ""
"""Group of streams that were removed: no real one has that name."""


@dataclass(frozen=True)
class NewEvent:
    """An event to be written. `origin`: the device's sequence, None where it comes through the API."""

    timestamp_ms: int
    message: str
    sequence: int = 0
    origin: int | None = None


@dataclass(frozen=True)
class StreamKey:
    """Which stream."""

    account: str
    region: str
    group: str
    stream: str


def insert_ignoring(session: AsyncSession, table: type[SQLModel]) -> Any:
    """INSERT … ON CONFLICT DO NOTHING, in the words of this session's database."""
    dialect = session.get_bind().dialect.name
    make = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return make(table).on_conflict_do_nothing()


async def find_group(session: AsyncSession, account: str, region: str, name: str) -> GroupRow | None:
    """The group, or None."""
    return await session.get(GroupRow, (account, region, name))


async def find_stream(session: AsyncSession, key: StreamKey) -> StreamRow | None:
    """The stream, or None."""
    rows = await session.exec(
        select(StreamRow).where(
            StreamRow.account == key.account,
            StreamRow.region == key.region,
            StreamRow.group_name == key.group,
            StreamRow.name == key.stream,
        )
    )
    return rows.first()


async def ensure_stream(session: AsyncSession, key: StreamKey, now_ms: int) -> int:
    """The stream's id; it and its group are made where absent."""
    found = await find_stream(session, key)
    if found is None:
        group = {"account": key.account, "region": key.region, "name": key.group, "creation_ms": now_ms}
        await session.exec(insert_ignoring(session, GroupRow).values(**group))
        stream = {"account": key.account, "region": key.region, "group_name": key.group, "name": key.stream}
        await session.exec(insert_ignoring(session, StreamRow).values(**stream, creation_ms=now_ms, stored_bytes=0))
        found = await find_stream(session, key)
    assert found is not None and found.id is not None
    return found.id


async def append(session: AsyncSession, stream_id: int, events: Sequence[NewEvent], now_ms: int) -> bool:
    """Writes events; those whose `origin` is there already are left out. False where the stream is gone."""
    if not events:
        return True
    first, last = min(e.timestamp_ms for e in events), max(e.timestamp_ms for e in events)
    first_known, last_known = (
        func.coalesce(StreamRow.first_event_ms, first),
        func.coalesce(StreamRow.last_event_ms, last),
    )
    stands = await session.exec(
        update(StreamRow)
        .where(col(StreamRow.id) == stream_id, col(StreamRow.group_name) != DETACHED)
        .values(
            first_event_ms=_least(first_known, first),
            last_event_ms=_greatest(last_known, last),
            last_ingestion_ms=now_ms,
            stored_bytes=StreamRow.stored_bytes + sum(len(e.message) + 26 for e in events),
        )
    )
    if stands.rowcount == 0:
        return False
    rows = [
        {
            "stream_id": stream_id,
            "timestamp_ms": event.timestamp_ms,
            "sequence": event.sequence,
            "origin": event.origin,
            "ingestion_ms": now_ms,
            "message": event.message,
        }
        for event in events
    ]
    await session.exec(insert_ignoring(session, EventRow), params=rows)
    return True


def _least(known: ColumnElement[int], value: int) -> ColumnElement[int]:
    return case((known < value, known), else_=literal(value))


def _greatest(known: ColumnElement[int], value: int) -> ColumnElement[int]:
    return case((known > value, known), else_=literal(value))


@dataclass(frozen=True)
class EventPage:
    """Events in order of time."""

    events: list[EventRow]

    @property
    def first(self) -> Position | None:
        """Place of the first one."""
        return position_of(self.events[0]) if self.events else None

    @property
    def last(self) -> Position | None:
        """Place of the last one."""
        return position_of(self.events[-1]) if self.events else None


def position_of(event: EventRow) -> Position:
    """Where the event stands in its stream."""
    return Position(event.timestamp_ms, event.sequence, event.id or 0)


async def read(
    session: AsyncSession,
    stream_id: int,
    *,
    start_ms: int | None,
    end_ms: int | None,
    cursor: Cursor | None,
    from_head: bool,
    limit: int,
) -> EventPage:
    """At most `limit` events and MAX_GET_BYTES of the stream between start (in) and end (out), in order of time.

    From the head: the oldest of them, else the newest; a cursor decides by itself.
    """
    forward = cursor.forward if cursor is not None else from_head
    order = (col(EventRow.timestamp_ms), col(EventRow.sequence), col(EventRow.id))
    conditions: list[ColumnElement[bool]] = [col(EventRow.stream_id) == stream_id]
    if start_ms is not None:
        conditions.append(col(EventRow.timestamp_ms) >= start_ms)
    if end_ms is not None:
        conditions.append(col(EventRow.timestamp_ms) < end_ms)
    at = cursor.position if cursor is not None else None
    events: list[EventRow] = []
    size = 0
    while len(events) < limit:
        here = list(conditions)
        if at is not None:
            place = tuple_(literal(at.timestamp_ms), literal(at.sequence), literal(at.id))
            here.append(tuple_(*order) > place if forward else tuple_(*order) < place)
        by = [column.asc() if forward else column.desc() for column in order]
        chunk = (
            await session.exec(select(EventRow).where(*here).order_by(*by).limit(min(READ_CHUNK, limit - len(events))))
        ).all()
        for event in chunk:
            size += len(event.message)
            if events and size > MAX_GET_BYTES:
                break
            events.append(event)
        if size > MAX_GET_BYTES or len(chunk) < READ_CHUNK:
            break
        at = position_of(chunk[-1])
    return EventPage(events if forward else events[::-1])


async def stored_bytes(session: AsyncSession, account: str, region: str, groups: Iterable[str]) -> dict[str, int]:
    """Bytes of each of the groups."""
    rows = await session.exec(
        select(StreamRow.group_name, func.sum(StreamRow.stored_bytes))
        .where(StreamRow.account == account, StreamRow.region == region, col(StreamRow.group_name).in_(list(groups)))
        .group_by(col(StreamRow.group_name))
    )
    return {name: int(size) for name, size in rows.all()}


async def detach(session: AsyncSession, account: str, region: str, group: str, stream: str | None = None) -> int:
    """Takes one stream, or all, out of a group; returns how many. Their events go a little at a time, by `trim`: a large
    group would keep all writers waiting."""
    of_group = (
        col(StreamRow.account) == account,
        col(StreamRow.region) == region,
        col(StreamRow.group_name) == group,
    )
    gone = update(StreamRow).where(*of_group)
    if stream is not None:
        gone = gone.where(col(StreamRow.name) == stream)
    return int((await session.exec(gone.values(group_name=DETACHED, name=cast(col(StreamRow.id), String)))).rowcount)


async def trim(session: AsyncSession, now_ms: int, default_days: int) -> int:
    """Removes up to TRIM_CHUNK events of one stream that are past their group's retention, or whose stream was removed;
    returns how many rows, 0 when there are none left."""
    gone = (await session.exec(select(StreamRow.id).where(StreamRow.group_name == DETACHED).limit(1))).first()
    if gone is not None:
        removed, _ = await _remove(session, gone, None)
        if removed < TRIM_CHUNK:
            await session.exec(delete(StreamRow).where(col(StreamRow.id) == gone))
            removed += 1
        return removed
    # In 64 bits: PostgreSQL would count days in milliseconds in 32.
    days = cast(func.coalesce(GroupRow.retention_days, default_days), BigInteger)
    old = (
        await session.exec(
            select(StreamRow.id, days)
            .join(
                GroupRow,
                (col(GroupRow.account) == StreamRow.account)
                & (col(GroupRow.region) == StreamRow.region)
                & (col(GroupRow.name) == StreamRow.group_name),
            )
            .where(col(StreamRow.first_event_ms) < literal(now_ms, BigInteger) - days * DAY_MS)
            .limit(1)
        )
    ).first()
    if old is None:
        return 0
    stream_id, kept_days = old
    assert stream_id is not None
    removed, freed = await _remove(session, stream_id, now_ms - int(kept_days) * DAY_MS)
    first = select(func.min(EventRow.timestamp_ms)).where(EventRow.stream_id == stream_id).scalar_subquery()
    await session.exec(
        update(StreamRow)
        .where(col(StreamRow.id) == stream_id)
        .values(first_event_ms=first, stored_bytes=StreamRow.stored_bytes - freed)
    )
    # One at least: the stream has been looked at, and its first event is known again.
    return max(removed, 1)


async def _remove(session: AsyncSession, stream_id: int, before_ms: int | None) -> tuple[int, int]:
    """(events removed, their bytes): the oldest TRIM_CHUNK of the stream at most."""
    oldest = select(EventRow.id, func.length(EventRow.message)).where(EventRow.stream_id == stream_id)
    if before_ms is not None:
        oldest = oldest.where(EventRow.timestamp_ms < before_ms)
    rows = (await session.exec(oldest.order_by(col(EventRow.timestamp_ms)).limit(TRIM_CHUNK))).all()
    await session.exec(delete(EventRow).where(col(EventRow.id).in_([row for row, _ in rows])))
    return len(rows), sum(length + 26 for _, length in rows)
