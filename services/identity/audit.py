"""The audit trail: one line a call, with every decision about it, written in batches; and when access keys were used last.

The first decision of a call is its row in `audit`; further ones stand in `audit_further` under its request id, so that whoever
makes them (another service, another replica) need not know where the row is. A decision does not wait for the disk: rows are written every FLUSH_S, or as soon as BATCH of them wait. None is dropped: while
ROWS_MAX wait, who comes next waits too, and an orderly stop writes what is left. A process that is killed loses FLUSH_S at most.
Knows the tables only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from belvedere.chassis.batch import BatchWriter
from belvedere.chassis.database import Database, UtcDateTime
from belvedere.chassis.errors import Unavailable
from belvedere.chassis.logs import get_logger
from services.identity.store import AccessKeyRow, AuditRow, FurtherRow, Row

FLUSH_S = 0.05
BATCH = 500
ROWS_MAX = 10_000
ROOM_TIMEOUT_S = 10.0
"""For room in the queue; a call that gets none is not answered with yes."""
RETRY_S = 1.0
COLUMNS = ("at", "account", "principal", "action", "resource", "allowed", "source_address", "request_id")
STATEMENT_ROWS = 1000
"""Rows of one INSERT on SQLite, which takes 32,766 values at most."""
FURTHER_COLUMNS = ("at", "account", "request_id", "action", "resource", "allowed")

REQUEST_ID_MAX = 64

Decided = tuple[datetime, str, str, str, str, bool, str, str]
"""COLUMNS of one decision."""
What = tuple[str, str, str, str, bool, str]
"""The same without the first and the last, which are another one's each time."""
Further = tuple[datetime, str, str, str, str, bool]
"""FURTHER_COLUMNS of one further decision."""

log = get_logger(__name__)


@dataclass(frozen=True)
class Use:
    """A use of an access key."""

    at: datetime
    service: str
    region: str


class _Waiting(NamedTuple):
    """What is to be written next."""

    rows: list[Decided]
    further: list[Further]
    uses: dict[str, Use]


class Trail:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._writer = BatchWriter(database)
        self._rows: list[Decided] = []
        self._further: list[Further] = []
        self._uses: dict[str, Use] = {}
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()
        self._closed = False

    async def record(
        self,
        *,
        at: datetime,
        account: str,
        principal: str,
        action: str,
        resource: str,
        allowed: bool,
        source_address: str,
        request_id: str,
        further: bool = False,
    ) -> None:
        """Adds a line, or (`further`) a decision to the line of the same request id. Raises Unavailable where the trail cannot be
        written: what leaves no trace is not done."""
        if self._full:
            self._room.clear()
            try:
                async with asyncio.timeout(ROOM_TIMEOUT_S):
                    await self._room.wait()
            except TimeoutError as error:
                raise Unavailable("The audit trail cannot be written at the moment. Try again.") from error
        what = decided(account, principal, action, resource, allowed, source_address)
        name = request_id[:REQUEST_ID_MAX]
        if further:
            self._further.append((at, what[0], name, what[2], what[3], allowed))
        else:
            self._rows.append((at, *what, name))
        if self._closed:
            # The task has ended; calls that were under way when the stop began still leave their line.
            await self.flush()
        else:
            self._filled.set()

    def add(self, at: datetime, what: What, request_id: str) -> bool:
        """Adds a line without waiting; False, and nothing is added, where there is no room or the stop has begun."""
        if self._full or self._closed:
            return False
        self._rows.append((at, *what, request_id[:REQUEST_ID_MAX]))
        self._filled.set()
        return True

    @property
    def _full(self) -> bool:
        return len(self._rows) + len(self._further) >= ROWS_MAX

    def used(self, access_key_id: str, use: Use) -> None:
        """Notes that a key was used; written with the next batch."""
        self._uses[access_key_id] = use
        self._filled.set()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._filled.wait()
            if len(self._rows) < BATCH:
                await asyncio.sleep(FLUSH_S)
            self._filled.clear()
            try:
                await self.flush()
            except SQLAlchemyError as error:
                log.error("the audit trail waits", rows=len(self._rows), error=str(error)[:200], retry_s=RETRY_S)
                self._filled.set()
                await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Writes what is left; from now on every decision is written at once."""
        self._closed = True
        await self.flush()
        async with self._writing:
            await self._writer.close()

    async def flush(self) -> None:
        """Returns when all that was recorded before is written."""
        # Shielded: who is cut off in the midst of it cannot know whether its rows are there.
        await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        async with self._writing:
            waiting = _Waiting(self._rows, self._further, self._uses)
            if not any(waiting):
                return
            self._rows, self._further, self._uses = [], [], {}
            try:
                await self._writer.write(lambda connection: _write(connection, waiting))
            except BaseException:
                # Nothing was written: back in line, ahead of what came meanwhile.
                self._rows = waiting.rows + self._rows
                self._further = waiting.further + self._further
                self._uses = {**waiting.uses, **self._uses}
                raise
            if not self._full:
                self._room.set()


def decided(account: str, principal: str, action: str, resource: str, allowed: bool, source_address: str) -> What:
    """As the columns take it."""
    return (
        account[:12],
        principal[:512],
        action[:128],
        # A NUL, which gRPC's texts may hold, would keep PostgreSQL from taking this row and every later one.
        resource[:2048].replace("\0", "\ufffd"),
        allowed,
        source_address[:64],
    )


def _write(connection: Connection, waiting: _Waiting) -> None:
    _insert(connection, AuditRow, COLUMNS, waiting.rows)
    _insert(connection, FurtherRow, FURTHER_COLUMNS, waiting.further)
    for key, use in waiting.uses.items():
        connection.execute(
            update(AccessKeyRow)
            .where(col(AccessKeyRow.access_key_id) == key)
            .values(last_used=use.at, last_used_service=use.service, last_used_region=use.region)
        )


def _insert(
    connection: Connection, table: type[Row], columns: Sequence[str], rows: Sequence[tuple[datetime, *tuple[Any, ...]]]
) -> None:
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(insert(table), [dict(zip(columns, row, strict=True)) for row in rows])
        return
    # One statement for all rows: `executemany` gives up the GIL and waits for it again at each row, with the front door busy
    # at the other end (measured: an eighth of a request's time).
    written = UtcDateTime().dialect_impl(connection.dialect).bind_processor(connection.dialect)
    assert written is not None
    places = f"({','.join('?' * len(columns))})"
    for start in range(0, len(rows), STATEMENT_ROWS):
        part = rows[start : start + STATEMENT_ROWS]
        statement = f"INSERT INTO {table.__tablename__} ({','.join(columns)}) VALUES {','.join([places] * len(part))}"
        values: tuple[Any, ...] = tuple(chain.from_iterable((written(row[0]), *row[1:]) for row in part))
        connection.exec_driver_sql(statement, values)
