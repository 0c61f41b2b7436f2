"""Registers package versions: reads what is stored, converts its models, cuts its files for appliances. May take minutes, so
that a version is REGISTER_PENDING until then; whoever asked waits a little, since most take less than a second.

A pending version that nobody works on (the process ended) is taken up again. Work may be done twice: the result is the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from belvedere.chassis import logs
from belvedere.chassis.database import Database
from services.packages import store

ANSWER_WAIT_S = 10.0
"""How long RegisterPackageVersion waits for the end: panorama-cli asks again only after 30 s, and clients give up after 60."""
RESCAN_S = 60.0
"""How often pending versions are looked for that another process left behind, and how old they are by then."""

Key = tuple[str, str, str]
"""Package id, version, patch."""

log = logs.get_logger(__name__)


class Registrations:
    """The ones under way in this process."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], register: Callable[[Key], Awaitable[None]]
    ) -> None:
        """`register` finishes one: afterwards the version is not pending any more."""
        self._database, self._clock, self._register = database, clock, register
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    async def wait(self, key: Key) -> bool:
        """Starts a pending version's registration, unless it is under way; whether it ended within ANSWER_WAIT_S."""
        task = self._start(key)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                await asyncio.shield(task)
        except TimeoutError:
            return False
        return True

    def _start(self, key: Key) -> asyncio.Task[None]:
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._register_one(key), name=f"register {key[0]} {key[1]}")
            self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key))
        return self._tasks[key]

    async def _register_one(self, key: Key) -> None:
        await self._register(key)

    async def run(self) -> None:
        """Takes up what was left pending, until cancelled; then what is under way here is given up."""
        try:
            age = timedelta()
            while True:
                async with self._database.session(read_only=True) as session:
                    left = await store.pending_versions(session, self._clock() - age)
                for row in left:
                    key = (row.package_id, row.version, row.patch)
                    if key not in self._tasks:
                        log.info("a registration is taken up again", package_id=row.package_id, version=row.version)
                        self._start(key)
                age = timedelta(seconds=RESCAN_S)
                await asyncio.sleep(RESCAN_S)
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
