"""Writes of many rows at once, in one go: for what is collected and written every some milliseconds.

    writer = BatchWriter(database)
    await writer.write(lambda connection: insert_all(connection, rows))      # one transaction
    await writer.close()

aiosqlite goes to its thread and back for every step of a transaction, a dozen times; each way costs the event loop more than
the rows do (measured on a front door under load: 8 of 55 parts of its time, 1 this way). Here the whole transaction is one step
in a thread of its own. On PostgreSQL, where there is no thread, it is the engine's own way. Must not know any table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, Engine, create_engine

from belvedere.chassis.database import BUSY_TIMEOUT_S, Database, prepare_sqlite

Work = Callable[[Connection], None]


class BatchWriter:
    """Of one service. One write at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._engine: Engine | None = None
        self._thread: ThreadPoolExecutor | None = None
        if database.is_sqlite and database.engine.url.database:
            self._thread = ThreadPoolExecutor(1, f"{database.name} batches")

    async def write(self, work: Work) -> None:
        """Runs `work` in a write transaction. Raises SQLAlchemyError and what `work` raises; nothing is written then."""
        if self._thread is None:
            async with self._database.engine.begin() as connection:
                await connection.run_sync(work)
        else:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    async def close(self) -> None:
        """Ends the thread; what is written from now on goes the engine's way."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._dispose)
            thread.shutdown(wait=False)

    def _write(self, work: Work) -> None:
        if self._engine is None:
            url = self._database.engine.url.set(drivername="sqlite")
            self._engine = create_engine(url, pool_size=1, connect_args={"timeout": BUSY_TIMEOUT_S})
            prepare_sqlite(self._engine)
        with self._engine.begin() as connection:
            work(connection)

    def _dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
