"""What the ways into and out of a sandbox have in common: connections, each a task, with a bound on their number, and bytes
passed both ways. Must not know what is said, nor who is at either end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

PIECE_BYTES = 64 * 1024

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Connections:
    """The connections of one way."""

    def __init__(self, most: int) -> None:
        self.refused = 0
        """Connections beyond the bound; who refuses for another reason counts here too."""
        self._most = most
        self._tasks: set[asyncio.Task[Any]] = set()

    async def serve(
        self,
        reader: Reader,
        writer: Writer,
        work: Callable[[Reader, Writer], Awaitable[None]],
        turn_away: Callable[[Reader, Writer], Awaitable[None]] | None = None,
    ) -> None:
        """One connection, to its end, as the present task; `turn_away` instead of `work` where there are too many."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= self._most:
                await work(reader, writer)
                return
            self.refused += 1
            if turn_away is not None:
                await turn_away(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """Ends every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def both_ways(one: tuple[Reader, Writer], other: tuple[Reader, Writer], idle_s: float) -> None:
    """Passes bytes until both sides have ended. Raises TimeoutError once nothing has moved for `idle_s`, in either
    direction; closes neither side."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(idle_s) as idle:

        async def pump(reader: Reader, writer: Writer) -> None:
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()
                idle.reschedule(loop.time() + idle_s)
            if not writer.can_write_eof():  # TLS has no end of one direction
                writer.close()
                return
            with contextlib.suppress(OSError):
                writer.write_eof()

        there = asyncio.create_task(pump(one[0], other[1]))
        back = asyncio.create_task(pump(other[0], one[1]))
        try:
            await asyncio.gather(there, back)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
