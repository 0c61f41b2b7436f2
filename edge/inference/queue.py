"""Calls that wait at one model: bounded for each client, and each client in its turn. Knows no model and no socket."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


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
            self._arrived.notify()

    def get(self) -> T:
        """Wait for the next. Raises QueueClosed when there is none and will be none."""
        with self._arrived:
            while not self._waiting:
                if self._closed:
                    raise QueueClosed
                # Ended by `put` or by `close`, one of which always comes: the queue lives as long as its model.
                self._arrived.wait()
            client, waiting = next(iter(self._waiting.items()))
            item = waiting.popleft()
            # To the end of the line; gone from it when it has nothing left.
            self._waiting.move_to_end(client)
            if not waiting:
                del self._waiting[client]
            return item

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
            return taken

    def close(self) -> list[T]:
        """No more in, no more out; gives back what waited."""
        with self._arrived:
            self._closed = True
            left = [item for waiting in self._waiting.values() for item in waiting]
            self._waiting.clear()
            self._arrived.notify_all()
            return left

    def __len__(self) -> int:
        with self._arrived:
            return sum(len(waiting) for waiting in self._waiting.values())
