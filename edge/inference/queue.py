"""Calls that wait at one model: bounded for each client, and each client in its turn. Knows no model and no socket."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

LATELY_S = 0.5
"""For how long what was under way at once counts as what may be expected again."""


class QueueFull(Exception):
    """This client has as many calls waiting as it may."""


class QueueClosed(Exception):
    """Nothing more is taken from this queue."""


class FairQueue(Generic[T]):
    """First in, first out within a client; between clients in turns, so that one who asks ten times a second waits no
    longer because another asks a thousand times. One thread gathers what is computed next while others compute, each at
    a place.

    `refused` counts what was turned away.
    """

    def __init__(self, per_client: int) -> None:
        self._per_client = per_client
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._arrived = threading.Condition()
        self._closed = False
        self._length = 0
        self._places = 0
        self.refused = 0

    def put(self, client: str, item: T) -> None:
        """Raises QueueFull, QueueClosed."""
        with self._arrived:
            if self._closed:
                raise QueueClosed
            waiting = self._waiting.setdefault(client, deque())
            if len(waiting) >= self._per_client:
                self.refused += 1
                raise QueueFull
            waiting.append(item)
            self._length += 1
            self._arrived.notify()

    def gather(self, held: int, most: int, until: float, expected: Callable[[], int]) -> list[T]:
        """For the one who puts together what is computed next and has `held` items so far: those that are here, in
        their turn, `most` with those held; or none, which means: begin, a place is yours until you `free` it.

        While all places are taken it waits for more items. With a place free it begins as soon as there are as many as
        `expected` says, and at `until` (time.monotonic) at the latest. One thread at a time. Raises QueueClosed when
        there is none and will be none.
        """
        with self._arrived:
            while True:
                if self._waiting and held < most:
                    return [self._next() for _ in range(min(most - held, self._length))]
                if self._closed and not held:
                    raise QueueClosed
                wait_s = None
                if held and self._places > 0:
                    wait_s = until - time.monotonic()
                    if self._closed or wait_s <= 0 or held >= min(most, expected()):
                        self._places -= 1
                        return []
                # Ended by `put`, `free` or `close`, one of which always comes: the queue lives as long as its model, and
                # a computation that does not end takes the process with it.
                self._arrived.wait(wait_s)

    def free(self, places: int = 1) -> None:
        """So many places to compute at are free: new ones at first, then those that `gather` gave."""
        with self._arrived:
            self._places += places
            self._arrived.notify()

    def take_if(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out all that are `unwanted`."""
        with self._arrived:
            taken = [item for waiting in self._waiting.values() for item in waiting if unwanted(item)]
            for client in list(self._waiting):
                kept = deque(item for item in self._waiting[client] if not unwanted(item))
                if kept:
                    self._waiting[client] = kept
                else:
                    del self._waiting[client]
            self._length -= len(taken)
            return taken

    def oldest(self, since: Callable[[T], float]) -> float | None:
        """The least of `since` of what waits."""
        with self._arrived:
            return min((since(waiting[0]) for waiting in self._waiting.values()), default=None)

    def close(self) -> list[T]:
        """No more in, no more out; gives back what waited."""
        with self._arrived:
            self._closed = True
            left = [item for waiting in self._waiting.values() for item in waiting]
            self._waiting.clear()
            self._length = 0
            self._arrived.notify_all()
            return left

    def __len__(self) -> int:
        with self._arrived:
            return self._length

    def _next(self) -> T:
        client, waiting = next(iter(self._waiting.items()))
        item = waiting.popleft()
        self._length -= 1
        # To the end of the line; gone from it when it has nothing left.
        self._waiting.move_to_end(client)
        if not waiting:
            del self._waiting[client]
        return item


class Demand:
    """How many calls were under way at once lately: what a batch may wait for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self._most = self._most_before = 0
        self._since = time.monotonic()

    def began(self) -> None:
        """One more is under way."""
        with self._lock:
            self._now += 1
            self._turn()
            self._most = max(self._most, self._now)

    def ended(self, count: int = 1) -> None:
        """So many are answered."""
        with self._lock:
            self._now -= count

    def lately(self) -> int:
        """The most at once in the last half second to second; at least 1."""
        with self._lock:
            self._turn()
            return max(1, self._most, self._most_before)

    def _turn(self) -> None:
        now = time.monotonic()
        if now - self._since >= LATELY_S:
            recent = now - self._since < 2 * LATELY_S
            self._most_before = self._most if recent else 0
            self._most, self._since = self._now, now
