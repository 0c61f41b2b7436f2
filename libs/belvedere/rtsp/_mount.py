"""A source under its path: started for the first viewer, stopped after the last, its units handed to every viewer's
queue.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from belvedere.chassis.logs import get_logger

from ._packetise import Packetiser
from ._session import Session
from ._source import Source, StreamDescription
from .errors import SourceError

log = get_logger(__name__)

DESCRIBE_TIMEOUT_S = 10.0
SOURCE_STOP_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class PathStats:
    """Counters of one path since it was added."""

    viewers: int
    """Sessions that play now."""
    starts: int
    """How often the source was started: with viewers at the same time, once."""
    units_read: int
    """Access units that came from the source."""
    units_sent: int
    """Access units sent, summed over viewers."""
    units_dropped: int
    """Access units that slow viewers did not get."""


class Mount:
    """One path of the server."""

    def __init__(self, path: str, source: Source) -> None:
        self.path = path
        self.source = source
        self._sessions: set[Session] = set()
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._starts = self._read = self._sent = self._dropped = 0

    def stats(self) -> PathStats:
        dropped = self._dropped + sum(session.dropped for session in self._sessions)
        return PathStats(len(self._sessions), self._starts, self._read, self._sent, dropped)

    async def describe(self) -> StreamDescription:
        """Raises SourceError, also when the source does not answer in time."""
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
                return await self.source.describe()
        except TimeoutError as error:
            raise SourceError(f"the source gave no description within {DESCRIBE_TIMEOUT_S:.0f} s") from error

    def join(self, session: Session) -> None:
        self._sessions.add(session)
        if self._task is None:
            self._task = asyncio.create_task(self._run(self._stopping), name=f"rtsp source {self.path}")
        else:
            self.source.viewer_joined()

    def leave(self, session: Session) -> None:
        if session not in self._sessions:
            return
        self._sessions.discard(session)
        self._dropped += session.dropped
        if not self._sessions and self._task is not None:
            self._task.cancel()
            self._stopping, self._task = self._task, None

    def sent(self) -> None:
        self._sent += 1

    async def close(self) -> None:
        """Stops the source; viewers are the server's to end."""
        task = self._task or self._stopping
        self._task = None
        if task is not None:
            task.cancel()
            _, pending = await asyncio.wait([task], timeout=SOURCE_STOP_TIMEOUT_S)
            if pending:
                log.error("source did not stop in time", path=self.path, timeout_s=SOURCE_STOP_TIMEOUT_S)

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])  # one source, one reader: the old one closes first
        try:
            packetiser = Packetiser(await self.describe())
            self._starts += 1
            async with contextlib.aclosing(self.source.subscribe()) as units:
                async for unit in units:
                    self._read += 1
                    made = packetiser.packetise(unit)
                    if made is not None:
                        for session in self._sessions:
                            session.offer(made)
        except SourceError as error:
            log.warning("source failed", path=self.path, why=str(error))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("source broke", path=self.path)
        self._task = None
        for session in self._sessions:
            session.end()
