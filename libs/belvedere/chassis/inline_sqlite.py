"""SQLite for readers without a thread: a driver for SQLAlchemy's asyncio that answers at once.

`aiosqlite` runs every statement in a thread of its own. For a commit that is right: it may wait for the disk. A read of
some indexed rows takes the file microseconds, and the way to the thread and back a hundred times as long (measured on
two cores: 1.7 ms a `session.get` by the thread, 0.35 ms here). In WAL mode readers wait for no writer, so there is
nothing to wait for here.

For connections that only read. Must not know any table.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any


class InlineCursor:
    """What SQLAlchemy's adapter uses of an asyncio cursor."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid

    @property
    def arraysize(self) -> int:
        return self._cursor.arraysize

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._cursor.arraysize = size

    async def __aenter__(self) -> "InlineCursor":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cursor.close()

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> "InlineCursor":
        self._cursor.execute(statement, tuple(parameters))
        return self

    async def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> "InlineCursor":
        self._cursor.executemany(statement, parameters)
        return self

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        return self._cursor.fetchmany(self._cursor.arraysize if size is None else size)

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def close(self) -> None:
        self._cursor.close()


class InlineConnection:
    """What SQLAlchemy's adapter for aiosqlite uses of a connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: sqlite3.Connection | None = connection

    def cursor(self) -> InlineCursor:
        return InlineCursor(self._open.cursor())

    async def execute(self, statement: str, parameters: Iterable[Any] = ()) -> InlineCursor:
        return InlineCursor(self._open.execute(statement, tuple(parameters)))

    async def create_function(self, *arguments: Any, **named: Any) -> None:
        self._open.create_function(*arguments, **named)

    async def commit(self) -> None:
        self._open.commit()

    async def rollback(self) -> None:
        self._open.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes at once."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError("Connection closed")
        return self._connection


async def open_inline(path: str, timeout_s: float) -> InlineConnection:
    """A connection that cannot write. `timeout_s`: for the moments when the file is being set up or recovered."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only=ON")
    return InlineConnection(connection)
