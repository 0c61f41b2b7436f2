"""Waiting for what another thread or process brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOK_EVERY_S = 0.02


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Returns when `condition()` is true; TimeoutError when it does not become so."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await asyncio.sleep(LOOK_EVERY_S)
