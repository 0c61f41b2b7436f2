"""Notices a computation that does not come back. Must not know models; what happens then is the caller's to say."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Hung:
    """A computation that took longer than its limit."""

    model_id: str
    limit_s: float
    calls: Sequence[Any]


class Watch:
    """`hung` is called once, on the watch's own thread, for the first computation that is over its limit."""

    def __init__(self, hung: Callable[[Hung], None]) -> None:
        self._hung = hung
        self._lock = threading.Lock()
        self._under_way: dict[int, tuple[float, Hung]] = {}
        self._next = 0
        self._stop = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextlib.contextmanager
    def over(self, model_id: str, limit_s: float, calls: Sequence[Any]) -> Iterator[None]:
        """What runs inside must end within `limit_s`."""
        with self._lock:
            self._next += 1
            number = self._next
            self._under_way[number] = (time.monotonic() + limit_s, Hung(model_id, limit_s, calls))
        try:
            yield
        finally:
            with self._lock:
                self._under_way.pop(number, None)

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()

    def _look(self) -> None:
        while not self._stop.wait(TICK_S):
            now = time.monotonic()
            with self._lock:
                late = [hung for until, hung in self._under_way.values() if now > until]
            if late:
                self._hung(late[0])
                return
