"""Every computation goes through here: one that does not come back is noticed, one that brings the process down leaves its name
on the board, and suspects are computed one at a time. Must not know models; what happens then is the caller's to say.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.inference.board import Board

TICK_S = 0.5
LOADING = "loading "
"""Before the name of a model that is being loaded, on the board."""


@dataclass(frozen=True, slots=True)
class Hung:
    """A computation that took longer than its limit."""

    model_id: str
    limit_s: float
    calls: Sequence[Any]


class Watch:
    """`hung` is called once, on the watch's own thread, for the first computation that is over its limit."""

    def __init__(
        self, hung: Callable[[Hung], None], board: Board | None = None, lost: Callable[[], None] = lambda: None
    ) -> None:
        """`lost` is called by `lost`."""
        self._hung = hung
        self.lost = lost
        self._board = board
        self._apart: frozenset[str] = frozenset()
        self._alone = threading.Lock()
        self._lock = threading.Lock()
        self._under_way: dict[int, tuple[float, Hung]] = {}
        self._next = 0
        self._stop = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def set_apart(self, model_ids: Iterable[str]) -> None:
        """These are computed one at a time, and not while a model is loaded."""
        self._apart = frozenset(model_ids)

    @contextlib.contextmanager
    def loading(self, model_id: str) -> Iterator[None]:
        """The model is loaded inside, for as long as it takes."""
        with (
            self._alone if self._apart else contextlib.nullcontext(),
            self._shown(LOADING + model_id),
        ):
            yield

    @contextlib.contextmanager
    def over(self, model_id: str, limit_s: float, calls: Sequence[Any]) -> Iterator[None]:
        """What runs inside must end within `limit_s`."""
        # Waiting for its turn is no computing: outside of what is watched.
        with (
            self._alone if model_id in self._apart else contextlib.nullcontext(),
            self._shown(model_id),
            self._timed(model_id, limit_s, calls),
        ):
            yield

    def _shown(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._board.shows(name) if self._board is not None else contextlib.nullcontext()

    @contextlib.contextmanager
    def _timed(self, model_id: str, limit_s: float, calls: Sequence[Any]) -> Iterator[None]:
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
