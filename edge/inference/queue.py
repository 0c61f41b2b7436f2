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
    longer because another asks a thousand times.

    `refused` counts what was turned away.
    """

    def __init__(self, per_client: int) -> None:
        self._per_client = per_client
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._arrived = threading.Condition()
        self._closed = False
        self._length = 0
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

    def get(self) -> T:
        """Wait for the next. Raises QueueClosed when there is none and will be none."""
        return self.get_some(1, 0.0, lambda: 1)[0]

    def get_some(self, most: int, delay_s: float, expected: Callable[[], int]) -> list[T]:
        """Wait for the next, and take those with it that are here, `most` at most. While there are fewer than `expected`
        says, wait up to `delay_s` for more. Raises QueueClosed when there is none and will be none.
        """
        with self._arrived:
            while not self._waiting:
                if self._closed:
                    raise QueueClosed
                # Ended by `put` or by `close`, one of which always comes: the queue lives as long as its model.
                self._arrived.wait()
            enough = min(most, expected())
            if self._length < enough and delay_s > 0:
                until = time.monotonic() + delay_s
                while self._length < enough and not self._closed:
                    left = until - time.monotonic()
                    if left <= 0 or not self._arrived.wait(left):
                        break
            # Another thread may have taken some of it while this one waited for more.
            return [self._next() for _ in range(min(most, self._length))] or self._again(most, delay_s, expected)

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

    def _again(self, most: int, delay_s: float, expected: Callable[[], int]) -> list[T]:
        if self._closed:
            raise QueueClosed
        return self.get_some(most, delay_s, expected)

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
