"""Work that may take as long as it likes: a thread below everything else on the appliance.

Must not know what the work is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

IDLE_PRIORITY = 19


async def when_idle(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises. Its thread ends with it: a priority once lowered stays so for a plain user, and whatever
    a shared thread did next, or started, would have it too."""
    pool = ThreadPoolExecutor(1, "idle", initializer=_lower)
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    finally:
        pool.shutdown(wait=False)


def _lower() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE_PRIORITY)
