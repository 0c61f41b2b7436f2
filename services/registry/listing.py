"""Pages of devices, in any order the API has, at a cost that does not grow with the fleet.

Each order walks an index from the last page's end. A device's status is in its row (`standing`) but for the passing of
time: who is OFFLINE becomes LEASE_EXPIRED by itself. Names by their beginning are the one filter that an index cannot
serve in every order: few matches are sorted here, many are met soon on the way. Knows no gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal, or_, tuple_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.registry import rules
from services.registry.store import DeviceRow

FEW_NAMES = 50
"""So many devices whose names begin alike are read whole and sorted here."""

LAST_CHARACTER = "\U0010ffff"


class SortBy(Enum):
    """The API's DeviceSortBy (ListDevicesSortBy)."""

    CREATED = "created"
    DEVICE_ID = "device_id"
    NAME = "name"
    STATUS = "status"


@dataclass(frozen=True)
class Wanted:
    """What is listed."""

    account: str
    region: str
    now: datetime
    sort_by: SortBy
    descending: bool
    size: int
    """Rows, at most."""
    status: str = ""
    """DeviceAggregatedStatus without its prefix; empty: any."""
    name_front: str = ""
    after: tuple[str, str] | None = None
    """(key, device id) of the last row of the page before: `key_of`."""


def key_of(row: DeviceRow, sort_by: SortBy, now: datetime) -> str:
    """What a row is sorted by; ties are sorted by device id."""
    match sort_by:
        case SortBy.CREATED:
            return row.created.isoformat(timespec="microseconds")
        case SortBy.NAME:
            return row.name
        case SortBy.STATUS:
            return rules.aggregated_status(row.state, now)
        case SortBy.DEVICE_ID:
            return row.device_id


async def page(session: AsyncSession, wanted: Wanted) -> Sequence[DeviceRow]:
    """The rows after `wanted.after`, in order. Raises ValueError for a cursor that is none of this order's."""
    if wanted.name_front and wanted.sort_by is not SortBy.NAME:
        names = select(col(DeviceRow.device_id)).where(*_mine(wanted), *_begins(wanted.name_front))
        found = await session.exec(select(func.count()).select_from(names.limit(FEW_NAMES + 1).subquery()))
        if found.one() <= FEW_NAMES:
            return await _few(session, wanted)
    if wanted.sort_by is SortBy.STATUS:
        return await _by_status(session, wanted)
    conditions = [*_mine(wanted), *_is(wanted.status, wanted.now)]
    if wanted.name_front and wanted.sort_by is SortBy.NAME:
        conditions += _begins(wanted.name_front)
    elif wanted.name_front:
        # Not in the words an index understands: the order's own index is the one to walk.
        conditions.append(func.substr(DeviceRow.name, 1, len(wanted.name_front)) == wanted.name_front)
    return await _walk(session, wanted, conditions, wanted.after, wanted.size)


async def _few(session: AsyncSession, wanted: Wanted) -> list[DeviceRow]:
    def place(row: DeviceRow) -> tuple[str, str]:
        return key_of(row, wanted.sort_by, wanted.now), row.device_id

    rows = (await session.exec(select(DeviceRow).where(*_mine(wanted), *_begins(wanted.name_front)))).all()
    chosen = [r for r in rows if not wanted.status or rules.aggregated_status(r.state, wanted.now) == wanted.status]
    chosen.sort(key=place, reverse=wanted.descending)
    if wanted.after is not None:
        last = wanted.after
        chosen = [row for row in chosen if (place(row) < last if wanted.descending else place(row) > last)]
    return chosen[: wanted.size]


async def _by_status(session: AsyncSession, wanted: Wanted) -> list[DeviceRow]:
    """One status after the other, each by device id."""
    rows: list[DeviceRow] = []
    for status in sorted((wanted.status,) if wanted.status else rules.STATUSES, reverse=wanted.descending):
        after = None
        if wanted.after is not None:
            key, device_id = wanted.after
            if (status > key) if wanted.descending else (status < key):
                continue
            after = (device_id, device_id) if status == key else None
        conditions = [*_mine(wanted), *_is(status, wanted.now)]
        if wanted.name_front:
            conditions.append(func.substr(DeviceRow.name, 1, len(wanted.name_front)) == wanted.name_front)
        rows += await _walk(session, wanted, conditions, after, wanted.size - len(rows))
        if len(rows) >= wanted.size:
            break
    return rows


async def _walk(
    session: AsyncSession,
    wanted: Wanted,
    conditions: Sequence[ColumnElement[bool]],
    after: tuple[str, str] | None,
    size: int,
) -> Sequence[DeviceRow]:
    first: Any = {SortBy.CREATED: col(DeviceRow.created), SortBy.NAME: col(DeviceRow.name)}.get(wanted.sort_by)
    # Names are unique within an account and region.
    order: list[Any] = [first] if wanted.sort_by is SortBy.NAME else [col(DeviceRow.device_id)]
    if wanted.sort_by is SortBy.CREATED:
        order.insert(0, first)
    query = select(DeviceRow).where(*conditions)
    if after is not None:
        key: Any = datetime.fromisoformat(after[0]) if wanted.sort_by is SortBy.CREATED else after[0]
        if len(order) == 1:
            query = query.where(order[0] < key if wanted.descending else order[0] > key)
        else:
            place = tuple_(literal(key, UtcDateTime()), literal(after[1]))
            query = query.where(tuple_(*order) < place if wanted.descending else tuple_(*order) > place)
    by = [column.desc() if wanted.descending else column.asc() for column in order]
    return (await session.exec(query.order_by(*by).limit(size))).all()


def _mine(wanted: Wanted) -> list[ColumnElement[bool]]:
    return [col(DeviceRow.account) == wanted.account, col(DeviceRow.region) == wanted.region]


def _begins(front: str) -> list[ColumnElement[bool]]:
    """As a range, which an index serves; LIKE beside it, for databases whose texts are sorted by a language's rules."""
    name = col(DeviceRow.name)
    return [name >= front, name < front + LAST_CHARACTER, name.startswith(front, autoescape=True)]


def _is(status: str, now: datetime) -> list[ColumnElement[bool]]:
    if not status:
        return []
    standing, lease = col(DeviceRow.standing), col(DeviceRow.lease_expires)
    match status:
        case rules.LEASE_EXPIRED:
            return [standing == rules.OFFLINE, lease.is_not(None), lease <= now]
        case rules.OFFLINE:
            return [standing == rules.OFFLINE, or_(lease.is_(None), lease > now)]
        case _:
            return [and_(standing == status)]
