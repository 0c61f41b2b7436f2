"""FilterLogEvents: events of several streams in one order of time, as far as one page goes.

Must not know gRPC. The streams are merged here rather than by the database: each is read in the order of its own index,
so that a page costs what it returns and not what the group holds, and a stream is opened only when its time has come.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from sqlalchemy import select as select_columns
from sqlalchemy import tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.logs_metrics.patterns import Matcher
from services.logs_metrics.rules import MAX_GET_BYTES
from services.logs_metrics.store import EventRow, StreamRow

SCAN_MAX = 20_000
"""Events looked at for one page: CloudWatch too ends a page that finds little, with a token to go on from."""
QUERIES_MAX = 500
"""Reads for one page."""
READ_CHUNK = 250
FIRST = -(2**62)

Place: TypeAlias = tuple[int, int, int, int]
"""(timestamp_ms, stream id, sequence, event id): the order of the events of a group."""


@dataclass(frozen=True)
class Hit:
    """An event that matches."""

    stream: str
    place: Place
    ingestion_ms: int
    message: str

    @property
    def event_id(self) -> str:
        """The same for the same event at every call; 56 digits, as CloudWatch's are."""
        timestamp, stream, _, row = self.place
        return f"{timestamp:016d}{stream:020d}{row:020d}"


@dataclass(frozen=True)
class Page:
    """What was found, and where the next page begins (behind it); None: nothing is left."""

    hits: list[Hit]
    next: Place | None


@dataclass
class _Open:
    """A stream that is being read."""

    id: int
    name: str
    waiting: deque[Hit] = field(default_factory=deque)


async def streams_of(
    session: AsyncSession, account: str, region: str, group: str, names: Iterable[str], prefix: str
) -> list[StreamRow]:
    """The streams with these names or, without names, those whose name begins with `prefix`."""
    query = select(StreamRow).where(
        StreamRow.account == account, StreamRow.region == region, StreamRow.group_name == group
    )
    chosen = list(names)
    if chosen:
        query = query.where(col(StreamRow.name).in_(chosen))
    rows = (await session.exec(query)).all()
    return [row for row in rows if row.name.startswith(prefix)]


async def search(
    session: AsyncSession,
    streams: Iterable[StreamRow],
    *,
    start_ms: int,
    end_ms: int,
    after: Place | None,
    matches: Matcher,
    limit: int,
) -> Page:
    """Up to `limit` events and MAX_GET_BYTES from start to end (both included) behind `after`, oldest first."""
    heap: list[tuple[Place, _Open]] = []
    for row in streams:
        if row.id is None or row.first_event_ms is None or row.last_event_ms is None:
            continue
        begin = max(start_ms, row.first_event_ms)
        if after is not None:
            begin = max(begin, after[0] if row.id >= after[1] else after[0] + 1)
        if begin <= min(end_ms, row.last_event_ms):
            # Not read yet: it stands where its first event can be.
            heap.append(((begin, row.id, FIRST, FIRST), _Open(row.id, row.name)))
    heapq.heapify(heap)
    hits: list[Hit] = []
    scanned = queries = size = 0
    at = after
    while heap:
        place, stream = heap[0]
        if scanned >= SCAN_MAX or queries >= QUERIES_MAX or len(hits) >= limit:
            return Page(hits, at)
        if stream.waiting:
            hit = stream.waiting.popleft()
            if matches(hit.message):
                size += len(hit.message.encode())
                if hits and size > MAX_GET_BYTES:
                    return Page(hits, at)
                hits.append(hit)
            scanned += 1
        if not stream.waiting:
            queries += 1
            behind = place if after is None or place[1] != after[1] else max(place, after)
            stream.waiting.extend(await _read(session, stream, behind, end_ms))
        at = place
        if stream.waiting:
            heapq.heapreplace(heap, (stream.waiting[0].place, stream))
        else:
            heapq.heappop(heap)
    return Page(hits, None)


async def _read(session: AsyncSession, stream: _Open, behind: Place, end_ms: int) -> list[Hit]:
    order = (col(EventRow.timestamp_ms), col(EventRow.sequence), col(EventRow.id))
    query = (
        select_columns(*order, col(EventRow.ingestion_ms), col(EventRow.message))
        .where(
            col(EventRow.stream_id) == stream.id,
            tuple_(*order) > (behind[0], behind[2], behind[3]),
            col(EventRow.timestamp_ms) <= end_ms,
        )
        .order_by(*order)
        .limit(READ_CHUNK)
    )
    rows = (await (await session.connection()).execute(query)).all()
    return [Hit(stream.name, (t, stream.id, sequence, row or 0), at, text) for t, sequence, row, at, text in rows]
