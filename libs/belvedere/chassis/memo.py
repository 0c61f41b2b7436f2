"""Answers that are remembered for as long as the database they came from has not changed.

    memo = Memo[pb.ListDevicesResponse](database, entries=512)
    answer = memo.get(key, now)
    if answer is None:
        seen = memo.mark()                       # before reading
        answer = …
        memo.put(key, answer, seen, until=…)     # until: when it turns wrong by itself, None: never

SQLite counts the commits to a file (`PRAGMA data_version`, 5 µs to ask), so that nothing stale is ever given, whoever
writes. Where the database cannot be asked that cheaply (PostgreSQL), nothing is remembered. Must not know any table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime
from typing import Generic, TypeVar

from belvedere.chassis.database import Database

T = TypeVar("T")


class Memo(Generic[T]):
    """Of one service: at most `entries` answers, the one unused longest goes first. Who is given one must not change it."""

    def __init__(self, database: Database, entries: int) -> None:
        self._database, self._entries = database, entries
        self._version: int | None = None
        self._kept: OrderedDict[Hashable, tuple[T, datetime | None]] = OrderedDict()

    def mark(self) -> int | None:
        """What `put` needs to know of the moment before the answer was read."""
        return self._database.version()

    def get(self, key: Hashable, now: datetime) -> T | None:
        """The answer, where it still holds."""
        version = self._database.version()
        if version is None or version != self._version:
            self._kept.clear()
            self._version = version
            return None
        found = self._kept.get(key)
        if found is None:
            return None
        answer, until = found
        if until is not None and now >= until:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return answer

    def put(self, key: Hashable, answer: T, seen: int | None, until: datetime | None = None) -> None:
        """Remembers an answer that was read after `mark` had given `seen`."""
        if seen is None or seen != self._version:
            return
        self._kept[key] = (answer, until)
        if len(self._kept) > self._entries:
            self._kept.popitem(last=False)
