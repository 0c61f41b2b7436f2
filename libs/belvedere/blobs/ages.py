"""How old stored objects are, and their end: what the collector of garbage goes by.

Nobody can see all who are about to name an object, so its age speaks for them: who is going to name one in a database
(an upload, a registration, a graph) first makes sure that it is there *and young* (`renew`), and names it well within
the collector's grace. The collector takes away what no database named when it looked, and what is older than the grace
at the very moment of its end (`discard`).

In a folder the two exclude each other by a lock on the file `.ages`, of all processes that share the folder: what was
renewed is not taken. In another object store a request lies between the look and the end. Blocking: for threads.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from belvedere.blobs.errors import StoreFailed

RENEW_AGE = timedelta(hours=3)
"""What is younger need not be renewed: each object is touched a few times a day at most."""
LISTED_AT_ONCE = 1000
PART_BYTES = 5 * 1024 * 1024
LOCK = ".ages"


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True)
class Amount:
    """So many objects, of so many bytes."""

    objects: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.objects + other.objects, self.size_bytes + other.size_bytes)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.objects - other.objects, self.size_bytes - other.size_bytes)


class Ages:
    """Of the objects of one store."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        """`folder`: where the objects are files, if they are."""
        self._store = store
        self._folder = folder

    def renew(self, key: str) -> bool:
        """Whether the object is there; it is younger than RENEW_AGE then. For who is about to name it."""
        try:
            if is_young(obstore.head(self._store, key)["last_modified"]):
                return True
            if self._folder is None:
                # Written anew: no object store can do less.
                # Over a file: obstore can't read while it writes, and a blob may be large.
                with tempfile.TemporaryFile() as passing:
                    for part in obstore.get(self._store, key).stream(min_chunk_size=PART_BYTES):
                        passing.write(part)
                    passing.seek(0)
                    obstore.put(self._store, key, passing, chunk_size=PART_BYTES)
                return True
            with self._locked(fcntl.LOCK_SH):
                os.utime(self._folder / key)
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot renew {key}: {error}") from error
        return True

    def discard(self, objects: Iterable[Stored], before: datetime) -> Amount:
        """Takes away those that are, now, from before then."""
        freed = Amount()
        try:
            if self._folder is not None:
                with self._locked(fcntl.LOCK_EX):
                    for item in objects:
                        freed += _unlink(self._folder / item.key, before)
                return freed
            for item in objects:
                try:
                    if obstore.head(self._store, item.key)["last_modified"] >= before:
                        continue
                except FileNotFoundError:
                    continue
                obstore.delete(self._store, item.key)
                freed += Amount(1, item.size_bytes)
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot take away what nothing names: {error}") from error
        return freed

    def listed(self, prefix: str) -> Iterator[list[Stored]]:
        """The objects below a prefix, a page at a time."""
        try:
            for page in obstore.list(self._store, prefix, chunk_size=LISTED_AT_ONCE):
                yield [Stored(item["path"], item["size"], item["last_modified"]) for item in page]
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot list what is stored below {prefix}: {error}") from error

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        assert self._folder is not None
        # Opened each time: locks belong to open files, and threads exclude each other as processes do.
        with (self._folder / LOCK).open("a") as file:
            fcntl.flock(file, kind)
            yield


def is_young(modified: datetime) -> bool:
    """Whether an object last written then need not be renewed."""
    return datetime.now(UTC) - modified < RENEW_AGE


def _unlink(path: Path, before: datetime) -> Amount:
    try:
        found = path.stat()
        if datetime.fromtimestamp(found.st_mtime, UTC) >= before:
            return Amount()
        path.unlink()
    except FileNotFoundError:
        return Amount()
    return Amount(1, found.st_size)
