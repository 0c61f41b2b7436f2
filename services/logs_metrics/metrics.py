"""Queries on metrics.

Must not know gRPC or messages of the bus. Values of one metric, unit and second become one row: sum, minimum, maximum,
count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Select, TextClause, case, func, literal, text
from sqlalchemy import select as select_columns
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.logs_metrics.logs import insert_ignoring
from services.logs_metrics.rules import dimensions_key
from services.logs_metrics.store import ConsumedRow, DatumRow, MetricRow

SCAN_CHUNK = 500
NAMES_CHUNK = 250
"""Metrics looked up at once: five parameters each, and databases take a bounded number."""
Name: TypeAlias = tuple[str, str, str]
"""(namespace, name, rules.dimensions_key)"""
FullName: TypeAlias = tuple[str, str, str, str, str]
"""(account, region, namespace, name, rules.dimensions_key)"""
_NAME_COLUMNS = ("account", "region", "namespace", "name", "dimensions")
TRIM_CHUNK = 5_000
CONSUMED_DAYS = 8
"""Longer than stream UP_METRICS keeps a message (7 days): after that it cannot be delivered again."""
DAY_S = 24 * 3600


@dataclass(frozen=True)
class NewDatum:
    """Values to be written."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    timestamp_s: int
    unit: str
    sum: float
    minimum: float
    maximum: float
    sample_count: float


@dataclass(frozen=True)
class Point:
    """Statistics of one period."""

    start_s: int
    unit: str
    sum: float
    minimum: float
    maximum: float
    sample_count: float


async def first_time(session: AsyncSession, stream_sequence: int, now_ms: int) -> bool:
    """Marks a message of UP_METRICS as taken; False where it was already."""
    insert = insert_ignoring(session, ConsumedRow).values(stream_sequence=stream_sequence, at_ms=now_ms)
    inserted = await session.exec(insert.returning(ConsumedRow.stream_sequence))
    return inserted.first() is not None


async def put(session: AsyncSession, account: str, region: str, data: Sequence[NewDatum]) -> None:
    """Adds values to what is there."""
    names = [(datum.namespace, datum.name, dimensions_key(datum.dimensions)) for datum in data]
    ids = await _metric_ids(session, account, region, names)
    merged: dict[tuple[int, int, str], NewDatum] = {}
    for name, datum in zip(names, data, strict=True):
        key = (ids[name], datum.timestamp_s, datum.unit)
        merged[key] = _joined(merged[key], datum) if key in merged else datum
    rows = [
        {
            "metric_id": metric_id,
            "timestamp_s": timestamp_s,
            "unit": unit,
            "sum": datum.sum,
            "minimum": datum.minimum,
            "maximum": datum.maximum,
            "sample_count": datum.sample_count,
        }
        for (metric_id, timestamp_s, unit), datum in merged.items()
    ]
    if not rows:
        return
    make = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    insert = make(DatumRow)
    new = insert.excluded
    upsert = insert.on_conflict_do_update(
        index_elements=["metric_id", "timestamp_s", "unit"],
        set_={
            "sum": DatumRow.sum + new.sum,
            "sample_count": DatumRow.sample_count + new.sample_count,
            "minimum": case((new.minimum < DatumRow.minimum, new.minimum), else_=DatumRow.minimum),
            "maximum": case((new.maximum > DatumRow.maximum, new.maximum), else_=DatumRow.maximum),
        },
    )
    await session.exec(upsert, params=rows)


def _joined(a: NewDatum, b: NewDatum) -> NewDatum:
    return NewDatum(
        a.namespace,
        a.name,
        a.dimensions,
        a.timestamp_s,
        a.unit,
        a.sum + b.sum,
        min(a.minimum, b.minimum),
        max(a.maximum, b.maximum),
        a.sample_count + b.sample_count,
    )


async def find(
    session: AsyncSession, account: str, region: str, namespace: str, name: str, key: str
) -> MetricRow | None:
    """The metric with exactly these dimensions (`rules.dimensions_key`), or None."""
    rows = await session.exec(
        select(MetricRow).where(
            MetricRow.account == account,
            MetricRow.region == region,
            MetricRow.namespace == namespace,
            MetricRow.name == name,
            MetricRow.dimensions == key,
        )
    )
    return rows.first()


async def _metric_ids(session: AsyncSession, account: str, region: str, names: Sequence[Name]) -> dict[Name, int]:
    """The ids of metrics, which are made where absent. A statement for many of them: one each costs ten times the rest
    of a batch."""
    wanted = sorted(set(names))
    ids: dict[Name, int] = {}
    for at in range(0, len(wanted), NAMES_CHUNK):
        chunk = wanted[at : at + NAMES_CHUNK]
        ids |= await _known(session, account, region, chunk)
        absent = [name for name in chunk if name not in ids]
        if absent:
            rows = [
                {"account": account, "region": region, "namespace": namespace, "name": name, "dimensions": key}
                for namespace, name, key in absent
            ]
            await session.exec(insert_ignoring(session, MetricRow), params=rows)
            ids |= await _known(session, account, region, absent)
    return ids


async def _known(session: AsyncSession, account: str, region: str, names: Sequence[Name]) -> dict[Name, int]:
    found = await find_all(session, [(account, region, *name) for name in names])
    return {(namespace, name, key): row for (_, _, namespace, name, key), row in found.items()}


async def find_all(session: AsyncSession, metrics: Sequence[FullName]) -> dict[FullName, int]:
    """The ids of those metrics that are there; NAMES_CHUNK at once.

    Joined with a list of values, each is looked up in the index: SQLite answers `(a, b, c) IN (…)` by reading all.
    """
    found: dict[FullName, int] = {}
    connection = await session.connection()
    for at in range(0, len(metrics), NAMES_CHUNK):
        chunk = metrics[at : at + NAMES_CHUNK]
        rows = (await connection.execute(_lookup(len(chunk)), _parameters(chunk))).all()
        found |= {(account, region, namespace, name, key): row for row, account, region, namespace, name, key in rows}
    return found


@lru_cache(NAMES_CHUNK)
def _lookup(count: int) -> TextClause:
    places = ", ".join(f"(:p{n}a, :p{n}r, :p{n}s, :p{n}n, :p{n}d)" for n in range(count))
    on = " AND ".join(f"metric.{column} = wanted.{column}" for column in _NAME_COLUMNS)
    return text(
        f"WITH wanted({', '.join(_NAME_COLUMNS)}) AS (VALUES {places}) "
        f"SELECT metric.id, {', '.join(f'metric.{column}' for column in _NAME_COLUMNS)} FROM wanted JOIN metric ON {on}"
    )


def _parameters(metrics: Sequence[FullName]) -> dict[str, str]:
    return {f"p{n}{part}": value for n, name in enumerate(metrics) for part, value in zip("arsnd", name, strict=True)}


async def scan(
    session: AsyncSession, account: str, region: str, namespace: str, name: str, *, since_s: int, after_id: int
) -> Sequence[MetricRow]:
    """Up to SCAN_CHUNK metrics with ids above `after_id` and data of `since_s` (0: any time) or later; empty namespace
    or name: any."""
    query = select(MetricRow).where(
        MetricRow.account == account, MetricRow.region == region, col(MetricRow.id) > after_id
    )
    if namespace:
        query = query.where(MetricRow.namespace == namespace)
    if name:
        query = query.where(MetricRow.name == name)
    if since_s:
        lately = (col(DatumRow.metric_id) == col(MetricRow.id)) & (col(DatumRow.timestamp_s) >= since_s)
        query = query.where(select(DatumRow.metric_id).where(lately).exists())
    return (await session.exec(query.order_by(col(MetricRow.id)).limit(SCAN_CHUNK))).all()


async def statistics(
    session: AsyncSession, metric_id: int, *, start_s: int, end_s: int, period_s: int, unit: str
) -> list[Point]:
    """One point a period and unit that has values, oldest first; periods begin at multiples of `period_s`. Start in,
    end out; empty `unit`: every one."""
    begin = (col(DatumRow.timestamp_s) - col(DatumRow.timestamp_s) % period_s).label("begin")
    query = _summed(metric_id, start_s, end_s, unit, begin, col(DatumRow.unit)).order_by(begin)
    rows = (await (await session.connection()).execute(query)).all()
    return [_point(*row) for row in rows]


async def series(
    session: AsyncSession,
    metric_id: int,
    *,
    start_s: int,
    end_s: int,
    period_s: int,
    unit: str,
    ascending: bool,
    most: int,
) -> list[Point]:
    """As `statistics`, but one point a period whatever its values' units, and the first `most` of them."""
    begin = (col(DatumRow.timestamp_s) - col(DatumRow.timestamp_s) % period_s).label("begin")
    query = _summed(metric_id, start_s, end_s, unit, begin, literal(unit))
    rows = await (await session.connection()).execute(
        query.order_by(begin.asc() if ascending else begin.desc()).limit(most)
    )
    return [_point(*row) for row in rows.all()]


def _summed(metric_id: int, start_s: int, end_s: int, unit: str, begin: Any, of_unit: Any) -> Select[Any]:
    query = (
        select_columns(
            begin,
            of_unit,
            func.sum(DatumRow.sum),
            func.min(DatumRow.minimum),
            func.max(DatumRow.maximum),
            func.sum(DatumRow.sample_count),
        )
        .where(
            col(DatumRow.metric_id) == metric_id,
            col(DatumRow.timestamp_s) >= start_s,
            col(DatumRow.timestamp_s) < end_s,
        )
        .group_by(begin, of_unit)
    )
    return query.where(col(DatumRow.unit) == unit) if unit else query


def _point(start_s: int, unit: str, total: float, minimum: float, maximum: float, sample_count: float) -> Point:
    return Point(int(start_s), unit, float(total), float(minimum), float(maximum), float(sample_count))


async def trim(session: AsyncSession, now_s: int, days: int) -> int:
    """Removes up to TRIM_CHUNK old data, then metrics that have none left; returns how many data."""
    old = (
        select(DatumRow.metric_id, DatumRow.timestamp_s, DatumRow.unit)
        .where(DatumRow.timestamp_s < now_s - days * DAY_S)
        .limit(TRIM_CHUNK)
    )
    keys = (await session.exec(old)).all()
    for metric_id, timestamp_s, unit in keys:
        await session.exec(
            delete(DatumRow).where(
                col(DatumRow.metric_id) == metric_id,
                col(DatumRow.timestamp_s) == timestamp_s,
                col(DatumRow.unit) == unit,
            )
        )
    if len(keys) < TRIM_CHUNK:
        with_data = select(DatumRow.metric_id).where(col(DatumRow.metric_id) == col(MetricRow.id)).exists()
        await session.exec(delete(MetricRow).where(~with_data))
        await session.exec(delete(ConsumedRow).where(col(ConsumedRow.at_ms) < (now_s - CONSUMED_DAYS * DAY_S) * 1000))
    return len(keys)
