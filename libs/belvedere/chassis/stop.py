"""Orderly stop: signals set an event, tasks are watched, and every wait at the end has a named limit.

    stop = asyncio.Event()
    stop_on_signals(stop)
    async with Tasks(stop) as tasks:
        tasks.start("heartbeats", heartbeats())      # if it raises: logged, `stop` is set, and tasks.failed holds it
        await stop.wait()
    # leaving the block cancels what is left and waits TASK_STOP_TIMEOUT_S for it

Must not know what is stopped.
"""

import asyncio
import signal
from collections.abc import Awaitable, Coroutine
from types import TracebackType
from typing import Any

from belvedere.chassis.logs import get_logger

log = get_logger(__name__)

TASK_STOP_TIMEOUT_S = 2.0
"""For all tasks together to end after their cancellation. Whoever is not done by then is named in the log and left
behind."""


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`. A second one ends the process at once, for those who can't wait."""
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("second signal: ending at once", signal=number.name)
            raise SystemExit(128 + number)
        log.info("stopping", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


async def within(what: str, timeout_s: float, work: Awaitable[Any]) -> bool:
    """Waits for `work`, at most `timeout_s`; logs and returns False where it failed or took longer, so that a stop goes
    on."""
    try:
        async with asyncio.timeout(timeout_s):
            await work
    except TimeoutError:
        log.error("did not stop in time", what=what, timeout_s=timeout_s)
        return False
    except Exception:
        log.exception("failed while stopping", what=what)
        return False
    return True


class Tasks:
    """Named background tasks of one process. The first failure sets `stop` and is kept in `failed`."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self.failed: tuple[str, BaseException] | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` until it ends. A task that returns has done its part; one that raises ends the process in
        order."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task failed: stopping", task=task.get_name(), exc_info=error)
        if self.failed is None:
            self.failed = (task.get_name(), error)
        self.stop.set()

    async def close(self) -> None:
        """Cancels what still runs and waits for it."""
        tasks = set(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=TASK_STOP_TIMEOUT_S)
            for task in left:
                log.error("task ignores its cancellation", task=task.get_name(), timeout_s=TASK_STOP_TIMEOUT_S)

    async def __aenter__(self) -> "Tasks":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
