"""A source that is played once: at its end it falls silent, where others hang up, so that nobody comes back for more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from ._source import AccessUnit, Source, StreamDescription


class OnceSource(Source):
    """`ended` is set when the last picture has been handed on."""

    def __init__(self, source: Source, ended: asyncio.Event) -> None:
        self._source = source
        self._ended = ended

    async def describe(self) -> StreamDescription:
        return await self._source.describe()

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        if not self._ended.is_set():
            async with contextlib.aclosing(self._source.subscribe()) as units:
                async for unit in units:
                    yield unit
            self._ended.set()
        await asyncio.Event().wait()
