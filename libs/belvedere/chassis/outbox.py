"""The outbox: events are rows of the transaction that made them true, and are published after it.

    async with database.session() as session, session.begin():
        session.add(row)
        outbox.add(session, Event(type="registry.device.online", source="/belvedere/registry", subject=device_id, …))

The runner starts one `Relay` for each database: a service only calls `add`. Must not know what events mean.

An event is published with its id as Nats-Msg-Id and its row is deleted after the stream's answer: a process that dies
in between publishes again, and the stream drops the copy. Order is that of the commits of one database.
"""

import asyncio

from sqlalchemy import event, func
from sqlalchemy.orm import Session
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.event import Event
from belvedere.bus.jetstream import publish_stored
from belvedere.chassis.database import Database, OutboxRow
from belvedere.chassis.logs import get_logger

log = get_logger(__name__)

BATCH = 64
"""Rows published at once before their deletion."""
RETRY_S = 1.0
"""Before the next try when the stream did not take an event."""
POLL_S = 5.0
"""Looks for rows at least so often: another replica of the service may have died and left some."""


def add(session: AsyncSession, happened: Event) -> None:
    """Records `happened` in the session's transaction; it is published once that commits, never if it rolls back."""
    session.add(OutboxRow(event_id=happened.id, subject=happened.nats_subject, envelope=happened.to_json()))
    database: Database = session.info["database"]

    def committed(_: Session) -> None:
        database.outbox_filled.set()

    event.listen(session.sync_session, "after_commit", committed, once=True)


class Relay:
    """Publishes the outbox of one database to the stream EVENTS."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self.published = 0

    async def run(self) -> None:
        """Publishes until cancelled. Without a bus it waits: rows stay where they are."""
        while True:
            self._database.outbox_filled.clear()
            try:
                while await self.publish_batch():
                    pass
            except BusError as error:
                log.warning("events wait for the bus", database=self._database.name, error=str(error), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            try:
                async with asyncio.timeout(POLL_S):
                    await self._database.outbox_filled.wait()
            except TimeoutError:
                continue

    async def publish_batch(self) -> int:
        """Publishes the oldest BATCH events in order; returns how many there were."""
        async with self._database.session(read_only=True) as session:
            rows = (await session.exec(select(OutboxRow).order_by(col(OutboxRow.position)).limit(BATCH))).all()
        done: list[int | None] = []
        try:
            for row in rows:
                await publish_stored(self._bus, row.subject, row.envelope, msg_id=row.event_id)
                done.append(row.position)
        finally:
            if done:
                async with self._database.session() as session, session.begin():
                    await session.exec(delete(OutboxRow).where(col(OutboxRow.position).in_(done)))
        self.published += len(done)
        return len(done)

    async def waiting(self) -> int:
        """How many events are not published yet."""
        async with self._database.session(read_only=True) as session:
            return (await session.exec(select(func.count()).select_from(OutboxRow))).one()
