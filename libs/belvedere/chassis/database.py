"""A service's own database: SQLite by default, PostgreSQL by URL; migrations at start.

In services/<name>/store.py, tables of a service share a metadata of their own (never SQLModel's global one: several
services in one process clash there):

    from sqlalchemy.orm import registry
    from sqlmodel import Field, SQLModel

    class Row(SQLModel, registry=registry()):
        pass

    class DeviceRow(Row, table=True):
        __tablename__ = "device"
        device_id: str = Field(primary_key=True)
        created: datetime = Field(sa_type=UtcDateTime)

In service.py:

    database = runtime.database("registry")
    async with database.session() as session, session.begin():         # commits at the end, rolls back on an exception
        session.add(DeviceRow(...))
        outbox.add(session, Event(...))
    async with database.session(read_only=True) as session:
        row = await session.get(DeviceRow, device_id)

In services/<name>/migrations/ Alembic revisions, one module each and nothing else (no env.py, no ini): r0001_tables.py
with `revision = "0001"`, `down_revision = None` and `def upgrade() -> None`.
`tests.support.database.assert_migrations_match` compares them with the tables.

Must not know any table. A session that is not read-only takes the service's write lock when it begins: two handlers
that read, then write, queue, and what the one has read still holds when it writes. On SQLite that is BEGIN IMMEDIATE, on
PostgreSQL an advisory lock of the transaction, which all replicas of the service share. So: no calls to peers inside a
write transaction. A read-only session sees one state from its first read to its end.

On PostgreSQL each service has a schema of its own, by its name. Texts must sort by their bytes, as S3 lists keys, and as
SQLite does: a database that sorts otherwise is refused, with the statement that makes a right one.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, DateTime, Dialect, Engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.errors import Invalid
from belvedere.chassis.inline_sqlite import InlineConnection, open_inline
from belvedere.chassis.secret import Secret

BUSY_TIMEOUT_S = 10.0
"""How long a transaction waits for the write lock."""
IDLE_TIMEOUT_S = 60.0
"""PostgreSQL ends a transaction in which nothing happens: of a process that hangs, or whose machine is gone."""
POOL_SIZE = 5
POOL_OVERFLOW = 5
"""Further connections for moments: all services of one process stay below PostgreSQL's usual 100."""
BYTE_ORDER = ("C", "POSIX", "C.UTF-8", "C.utf8", "ucs_basic")
"""PostgreSQL's collations that sort texts by their bytes."""
INLINE_BUSY_TIMEOUT_S = 1.0
"""How long a reader waits, and the process with it: only while SQLite recovers a file after a crash."""
READ_ONLY = "belvedere_read_only"


class OwnTable(SQLModel, registry=registry()):
    """Base of the tables that the chassis itself keeps in every database."""


class OutboxRow(OwnTable, table=True):
    """An event that is not published yet: see `chassis.outbox`."""

    __tablename__ = "outbox"
    __table_args__ = {"sqlite_autoincrement": True}
    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(max_length=64)
    subject: str = Field(max_length=256)
    envelope: bytes


class DatabaseError(Exception):
    """A database cannot be opened or migrated; the message names it, without its password."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware datetimes in and out, in UTC, on both databases."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone: use datetime.now(UTC) or runtime.clock()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class RollingBack(sqlite3.Connection):
    """Gives up its transaction, and with it the write lock, when it is closed.

    SQLAlchemy closes a connection whose task was cancelled in the middle of a statement. For SQLite that connection
    lives on, with its lock, until the last cursor of it is gone, which a traceback may hold for ever: every other
    writer would wait in vain."""

    def close(self) -> None:
        if self.in_transaction:
            self.rollback()
        super().close()


class Database:
    """One service's database."""

    def __init__(self, name: str, url: Secret[str]) -> None:
        """`name`: the service's; on PostgreSQL its schema. `url`: `sqlite:///path` or `postgresql://…`."""
        self.name = name
        self._inline: AsyncEngine | None = None
        self._inline_path: str | None = None
        self._watcher: sqlite3.Connection | None = None
        self._watching: sqlite3.Cursor | None = None
        self.outbox_filled = asyncio.Event()
        """Set after a commit that added events; the outbox relay waits for it."""
        parsed = make_url(url.reveal())
        if parsed.get_backend_name() == "sqlite":
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine: AsyncEngine = create_async_engine(
                parsed.set(drivername="sqlite+aiosqlite"),
                pool_size=POOL_SIZE,
                connect_args={"timeout": BUSY_TIMEOUT_S, "factory": RollingBack},
            )
            prepare_sqlite(self.engine.sync_engine)
            if parsed.database:
                self._inline_path = parsed.database
                self._inline = _inline_readers(parsed.database)
        elif parsed.get_backend_name() == "postgresql":
            settings = {
                "search_path": name,
                "lock_timeout": f"{BUSY_TIMEOUT_S:g}s",
                "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S:g}s",
            }
            self.engine = create_async_engine(
                parsed.set(drivername="postgresql+asyncpg"),
                pool_size=POOL_SIZE,
                max_overflow=POOL_OVERFLOW,
                pool_pre_ping=True,
                connect_args={"server_settings": settings},
            )
            _prepare_postgresql(self.engine, name)
        else:
            raise DatabaseError(
                f"{parsed.drivername} is not supported: use sqlite:///path or postgresql://user:password@host/db"
            )
        reading: dict[str, Any] = {READ_ONLY: True}
        if not self.is_sqlite:
            reading |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._readers = self._inline or self.engine.execution_options(**reading)

    @classmethod
    def at(cls, path: Path, name: str) -> "Database":
        """A SQLite database in the file `path`."""
        return cls(name, Secret(f"sqlite:///{path.absolute()}"))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @asynccontextmanager
    async def session(self, *, read_only: bool = False) -> AsyncIterator[AsyncSession]:
        """A session; what is not committed at its end is rolled back. Objects stay readable after a commit."""
        engine = self._readers if read_only else self.engine
        async with AsyncSession(engine, expire_on_commit=False, info={"database": self}) as session:
            yield session

    def version(self) -> int | None:
        """A number that changes with every commit of anybody; None where that cannot be had at once (PostgreSQL)."""
        if self._inline_path is None:
            return None
        if self._watcher is None:
            self._watcher = sqlite3.connect(self._inline_path, timeout=INLINE_BUSY_TIMEOUT_S, isolation_level=None)
        if self._watching is None:
            self._watching = self._watcher.cursor()
        # A cursor of its own each time would be a third of the cost.
        return int(self._watching.execute("PRAGMA data_version").fetchone()[0])

    async def migrate(self, folder: Path | None) -> None:
        """Brings the tables of the chassis, then those of the service's `folder` of Alembic revisions, to the newest
        version. Raises DatabaseError where it cannot be used at all."""
        if not self.is_sqlite:
            await self._reach()
        async with self.engine.begin() as connection:
            if not self.is_sqlite:
                await self._check(connection)
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self.name}"'))
            await connection.run_sync(OwnTable.metadata.create_all)
            if folder is not None:
                await connection.run_sync(_upgrade, folder)

    async def _reach(self) -> None:
        try:
            async with self.engine.connect():
                return
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            place = self.engine.url.render_as_string(hide_password=True)
            raise DatabaseError(f"{self.name}: the database {place} cannot be reached: {reason}") from error

    async def _check(self, connection: AsyncConnection) -> None:
        query = (
            "SELECT current_database(), datcollate, pg_encoding_to_char(encoding) "
            "FROM pg_database WHERE datname = current_database()"
        )
        name, collation, encoding = (await connection.execute(text(query))).one()
        if collation not in BYTE_ORDER or encoding != "UTF8":
            raise DatabaseError(
                f"the PostgreSQL database {name!r} is {encoding} and sorts by {collation}: it must be UTF8 and sort by "
                "bytes. Make another one: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
            )

    async def ping(self) -> None:
        """Raises where the database does not answer."""
        async with self._readers.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes all connections."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = self._watching = None
        if self._inline is not None:
            await self._inline.dispose()
        await self.engine.dispose()


def prepare_sqlite(engine: Engine) -> None:
    """Settings of every connection that may write, and transactions that begin when we say so."""

    def on_connect(connection: Any, _: Any) -> None:
        # The driver's own BEGIN comes too late for what SELECT sees and never for DDL: we say BEGIN ourselves, below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def on_begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)


def _prepare_postgresql(engine: AsyncEngine, name: str) -> None:
    # Any number, the same for all replicas: locks are those of one database, in which schemas stand side by side.
    lock = int.from_bytes(hashlib.sha256(f"belvedere {name}".encode()).digest()[:8], signed=True)

    def on_begin(connection: Connection) -> None:
        if not connection.get_execution_options().get(READ_ONLY, False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")

    def on_execute(_: Any, __: Any, ___: str, parameters: Any, ____: Any, executemany: bool) -> None:
        # PostgreSQL holds no NUL in texts; where one came this far, its sender is told so.
        for row in parameters if executemany else (parameters,):
            if any(isinstance(value, str) and "\0" in value for value in row):
                raise Invalid("A text holds the character NUL, which cannot be stored.")

    event.listen(engine.sync_engine, "begin", on_begin)
    event.listen(engine.sync_engine, "before_cursor_execute", on_execute)


def _inline_readers(path: str) -> AsyncEngine:
    """An engine for reads of a SQLite file: in WAL mode they wait for nobody, so they need no thread to wait in."""

    async def connect() -> InlineConnection:
        return await open_inline(path, INLINE_BUSY_TIMEOUT_S)

    engine = create_async_engine("sqlite+aiosqlite:///" + path, pool_size=POOL_SIZE, async_creator=connect)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def _upgrade(connection: Connection, folder: Path) -> None:
    if not folder.is_dir():
        raise DatabaseError(f"{folder}: there is no folder of migrations")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _: Any) -> Any:
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=steps, destination_rev="head") as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
