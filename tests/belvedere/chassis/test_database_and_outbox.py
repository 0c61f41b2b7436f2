"""A service's own database, on SQLite and on PostgreSQL, and events that are published exactly once."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select

from belvedere.bus import streams, subjects
from belvedere.bus.connection import Bus
from belvedere.bus.event import Event
from belvedere.bus.hub import Hub, HubConfig
from belvedere.bus.jetstream import stream_info
from belvedere.chassis import outbox
from belvedere.chassis.database import Database, DatabaseError, UtcDateTime
from belvedere.chassis.outbox import Relay
from belvedere.chassis.secret import Secret
from tests.support import databases
from tests.support.postgres import Postgres
from tests.support.waiting import until

pytestmark = pytest.mark.both_databases

FIRST = """
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.String, primary_key=True), sa.Column("made", sa.DateTime(timezone=True)),
                    sa.Column("parent", sa.String, sa.ForeignKey("thing.id")))
"""
SECOND = """
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.execute("INSERT INTO thing (id) VALUES ('from the migration')")
    op.execute("%s")
"""


class Row(SQLModel, registry=registry()):
    """Base of these tests' tables."""


class Thing(Row, table=True):
    __tablename__ = "thing"
    id: str = Field(primary_key=True)
    made: datetime | None = Field(default=None, sa_type=UtcDateTime)
    parent: str | None = Field(default=None, foreign_key="thing.id")


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "r0001_tables.py").write_text(FIRST)
    return folder


@pytest.fixture
async def database(tmp_path: Path, migrations: Path) -> AsyncIterator[Database]:
    made = await databases.database(tmp_path / "db" / "things.sqlite3", "things")
    await made.migrate(migrations)
    yield made
    await made.close()


def event(name: str) -> Event:
    return Event(type="things.thing.made", source="/test", subject=name, account="1", region="r")


async def test_moments_come_back_in_utc(database: Database) -> None:
    moment = datetime(2026, 11, 22, 4, 0, tzinfo=timezone(timedelta(hours=2)))
    async with database.session() as session, session.begin():
        session.add(Thing(id="a", made=moment))
    async with database.session(read_only=True) as session:
        thing = await session.get(Thing, "a")
    assert thing is not None
    assert thing.made == moment
    assert thing.made is not None
    assert thing.made.tzinfo is UTC
    with pytest.raises(Exception, match="time zone"):
        async with database.session() as session, session.begin():
            session.add(Thing(id="b", made=datetime(2026, 1, 1)))


async def test_migrations_run_once_and_a_failing_one_leaves_nothing_behind(
    database: Database, migrations: Path
) -> None:
    await database.migrate(migrations)
    second = migrations / "r0002_rows.py"
    second.write_text(SECOND % "INSERT INTO no_such_table VALUES (1)")
    with pytest.raises(Exception, match="no_such_table"):
        await database.migrate(migrations)
    async with database.session(read_only=True) as session:
        assert (await session.get(Thing, "from the migration")) is None
    second.write_text(SECOND % "SELECT 1")
    await database.migrate(migrations)
    async with database.session(read_only=True) as session:
        assert (await session.get(Thing, "from the migration")) is not None
    with pytest.raises(DatabaseError, match="no folder of migrations"):
        await database.migrate(migrations / "none")


async def test_sqlite_runs_with_a_write_ahead_log(tmp_path: Path, migrations: Path) -> None:
    database = Database.at(tmp_path / "things.sqlite3", "things")
    await database.migrate(migrations)
    async with database.session(read_only=True) as session:
        assert (await (await session.connection()).execute(text("PRAGMA journal_mode"))).scalar() == "wal"
    await database.close()


async def test_foreign_keys_are_kept(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.session() as session, session.begin():
            session.add(Thing(id="child", parent="nobody"))


async def test_texts_are_sorted_by_their_bytes(database: Database) -> None:
    names = ["B", "a", "É", "a-", "Z", "ab", "😀", "~"]
    async with database.session() as session, session.begin():
        session.add_all([Thing(id=name) for name in names])
    async with database.session(read_only=True) as session:
        found = [thing.id for thing in (await session.exec(select(Thing).order_by(col(Thing.id)))).all()]
    assert found == sorted(names, key=str.encode)


async def test_a_reader_sees_one_state_and_cannot_write(database: Database) -> None:
    async with database.session(read_only=True) as reader:
        assert (await reader.exec(select(Thing))).all() == []
        async with database.session() as session, session.begin():
            session.add(Thing(id="meanwhile"))
        assert (await reader.exec(select(Thing))).all() == []
    async with database.session(read_only=True) as reader:
        assert len((await reader.exec(select(Thing))).all()) == 1
        with pytest.raises(DBAPIError, match=r"read-?\s?only"):
            await (await reader.connection()).execute(text("DELETE FROM thing"))


async def test_postgresql_that_sorts_by_a_language_is_refused_with_what_to_do(
    postgresql: Postgres, migrations: Path
) -> None:
    url = await postgresql.database("latin", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    wrong = Database("things", url)
    with pytest.raises(DatabaseError, match=r"CREATE DATABASE .* LC_COLLATE 'C'"):
        await wrong.migrate(migrations)
    await wrong.close()


@pytest.mark.parametrize("host", ["/nowhere", "127.0.0.1:1"])
async def test_postgresql_that_is_not_there_is_told_in_one_line_without_its_password(
    host: str, migrations: Path
) -> None:
    away = Database("things", Secret(f"postgresql://user:hunter2@/db?host={host}"))
    with pytest.raises(DatabaseError, match=r"things: the database .* cannot be reached: ") as caught:
        await away.migrate(migrations)
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)
    await away.close()


async def test_a_database_of_another_name_is_missed_by_it(postgresql: Postgres, migrations: Path) -> None:
    away = Database("things", postgresql.url("no_such_database"))
    with pytest.raises(DatabaseError, match="no_such_database"):
        await away.migrate(migrations)
    await away.close()


async def test_services_of_one_postgresql_database_do_not_see_each_other(
    postgresql: Postgres, migrations: Path
) -> None:
    url = await postgresql.database(f"shared {migrations}")
    mine, yours = Database("mine", url), Database("yours", url)
    await mine.migrate(migrations)
    await yours.migrate(migrations)
    async with mine.session() as session, session.begin():
        # A transaction of the one does not wait for a transaction of the other.
        async with yours.session() as other, other.begin():
            other.add(Thing(id="yours"))
        session.add(Thing(id="mine"))
    for database, expected in ((mine, "mine"), (yours, "yours")):
        async with database.session(read_only=True) as session:
            assert [thing.id for thing in (await session.exec(select(Thing))).all()] == [expected]
        await database.close()


async def test_handlers_that_read_and_then_write_queue_instead_of_failing(database: Database) -> None:
    async with database.session() as session, session.begin():
        session.add(Thing(id="counter", parent=None))

    all_begun = asyncio.Event()

    async def append(number: int) -> None:
        if number == 19:
            all_begun.set()
        async with database.session() as session, session.begin():
            names = (await (await session.connection()).execute(text("SELECT count(*) FROM thing"))).scalar()
            await all_begun.wait()  # the others want to write between what is read and what is written
            session.add(Thing(id=f"number {names}"))

    await asyncio.gather(*(append(number) for number in range(20)))
    async with database.session(read_only=True) as session:
        assert (await (await session.connection()).execute(text("SELECT count(*) FROM thing"))).scalar() == 21


async def test_a_writer_cancelled_in_the_middle_of_a_statement_leaves_the_lock_to_others(
    tmp_path: Path, migrations: Path
) -> None:
    database = Database.at(tmp_path / "things.sqlite3", "things")
    await database.migrate(migrations)
    loop, amid, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def meet() -> int:
        loop.call_soon_threadsafe(amid.set)
        return int(go_on.wait(10))

    async def write() -> None:
        async with database.session() as session, session.begin():
            session.add(Thing(id="never"))
            await session.flush()
            connection = await (await session.connection()).get_raw_connection()
            assert connection.driver_connection is not None
            await connection.driver_connection.create_function("meet", 0, meet)
            await session.exec(text("SELECT meet() UNION ALL SELECT 2"))  # type: ignore[call-overload]

    writer = asyncio.create_task(write())
    await amid.wait()
    writer.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError) as kept:  # kept, as a log or a debugger keeps it, with all its frames
        await writer
    async with database.session() as session, session.begin():
        session.add(Thing(id="next"))
    assert kept.value is not None
    async with database.session(read_only=True) as session:
        assert (await session.exec(select(Thing.id))).all() == ["next"]
    await database.close()


async def test_an_unknown_database_is_refused_without_its_password() -> None:
    with pytest.raises(DatabaseError) as caught:
        Database("x", Secret("mysql://user:hunter2@host/db"))
    assert "hunter2" not in str(caught.value)


async def test_an_event_is_recorded_with_its_transaction_or_not_at_all(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.session() as session, session.begin():
            outbox.add(session, event("lost"))
            raise RuntimeError
    assert not database.outbox_filled.is_set()
    async with database.session() as session, session.begin():
        outbox.add(session, event("kept"))
        assert not database.outbox_filled.is_set()
    assert database.outbox_filled.is_set()


async def test_the_relay_publishes_in_order_and_a_second_copy_is_dropped(database: Database, tmp_path: Path) -> None:
    async with (
        await Hub.start(HubConfig(tmp_path / "hub")) as hub,
        await Bus.connect(hub.url, hub.services_credentials(), "test") as bus,
    ):
        await streams.ensure(bus)
        relay = Relay(database, bus)
        running = asyncio.create_task(relay.run())
        happened = [event(f"thing {n}") for n in range(70)]
        for one in happened:
            async with database.session() as session, session.begin():
                outbox.add(session, one)
        await until(lambda: relay.published == len(happened))
        running.cancel()
        assert await _empty(database)
        # A process that died before it deleted the row publishes the event again.
        async with database.session() as session, session.begin():
            outbox.add(session, happened[0])
        await relay.publish_batch()
        info = await stream_info(bus, subjects.EVENTS_STREAM)
        assert info["state"]["messages"] == len(happened)


async def _empty(database: Database) -> bool:
    async with database.session(read_only=True) as session:
        rows = await (await session.connection()).execute(text("SELECT count(*) FROM outbox"))
        return rows.scalar() == 0
