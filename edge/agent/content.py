"""File contents on the appliance's disk, each once, whoever uses it; a chunk that is anywhere here is never fetched again.

An object is a file below objects/, named after its content, mode and time: the trees of all applications link to it, so
a base image that several share is on the disk once, and the link count says whether anybody uses it. Where each known
chunk lies (which object, at what offset) is kept in memory. A new object is put together from chunks that are here and
chunks that come; it stands under its name once every one of them was verified. Blocking: called in threads. Knows
neither network nor what the files are for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from belvedere.chunks import Chunk, Entry

OBJECTS = "objects"
PART = ".part-"
SYNC_EACH_MAX = 64
"""Up to so many new objects are brought to the disk one by one; more, all of the disk's caches at once."""


class Damaged(Exception):
    """A file on the disk is not what it was when it was written: what used it is to be fetched again."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True, slots=True)
class Item:
    """A file that is to be here."""

    path: str
    """Below the store's root."""
    chunks: tuple[Chunk, ...]
    mode: int = 0o600
    mtime: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(chunk.size for chunk in self.chunks)


def object_of(chunks: Sequence[Chunk], mode: int = 0o600, mtime: int = 0) -> Item:
    """The object with this content."""
    key = chunks[0].digest if len(chunks) == 1 else _digest("".join(chunk.digest for chunk in chunks).encode())
    return Item(f"{OBJECTS}/{key[:2]}/{key}-{mode:o}-{mtime}", tuple(chunks), mode, mtime)


def object_of_entry(entry: Entry) -> Item:
    """The object that a file of a tree is."""
    # The permissions of who runs applications only: nothing in an index can ask for more.
    return object_of(entry.chunks, (entry.mode & 0o755) | 0o600, max(0, entry.mtime))


@dataclass(frozen=True)
class Need:
    """What is missing of some items."""

    items: tuple[Item, ...] = ()
    """Not complete yet."""
    wanted: tuple[Chunk, ...] = ()
    """Chunks that nobody here has, each once, in the order in which a build asks for them."""
    new_bytes: int = 0
    """That the disk will need."""


@dataclass
class ContentStore:
    """All content below one folder."""

    root: Path
    _where: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    _complete: set[str] = field(default_factory=set)

    def learn(self, item: Item) -> bool:
        """An item that an earlier run completed: its chunks are here. False: it is not there, or of another size."""
        if item.path in self._complete:
            return True
        try:
            found = (self.root / item.path).stat().st_size == item.size
        except FileNotFoundError:
            return False
        if found:
            self._finished(item, item.path)
        return found

    def forget(self, path: str) -> None:
        """The file is gone, or wrong: it is removed, nothing is read from it any more."""
        (self.root / path).unlink(missing_ok=True)
        self._complete.discard(path)
        self._where = {digest: place for digest, place in list(self._where.items()) if place[0] != path}

    def need(self, items: Iterable[Item], tag: str) -> Need:
        """What to fetch. `tag`: whose build it is; what an interrupted one of the same tag has left goes on."""
        missing: dict[str, Item] = {}
        for item in items:
            if item.path not in missing and not self.learn(item):
                missing[item.path] = item
                self._resume(item, tag)
        wanted: dict[str, Chunk] = {}
        for item in missing.values():
            wanted.update({chunk.digest: chunk for chunk in item.chunks if _key(chunk) not in self._where})
        return Need(tuple(missing.values()), tuple(wanted.values()), sum(item.size for item in missing.values()))

    def build(self, items: Sequence[Item], tag: str) -> Build:
        """Puts items together, those that `need` gave."""
        return Build(self, items, tag)

    def check(self, item: Item) -> None:
        """Reads all of it. Raises Damaged."""
        try:
            with (self.root / item.path).open("rb") as file:
                good = all(_digest(file.read(chunk.size)) == chunk.digest for chunk in item.chunks)
        except OSError as error:
            raise Damaged(item.path) from error
        if not good:
            raise Damaged(item.path)

    def sweep(self) -> int:
        """Removes the objects that nothing links to; how many bytes. Not while something is built."""
        freed = 0
        for folder in (self.root / OBJECTS).glob("*"):
            for entry in os.scandir(folder):
                found = entry.stat()
                if found.st_nlink == 1:
                    freed += found.st_size
                    Path(entry).unlink()
        # What was known of them is learned again from what is left.
        self._where, self._complete = {}, set()
        return freed

    def size(self) -> int:
        """Bytes of all objects."""
        folders = (self.root / OBJECTS).glob("*")
        return sum(entry.stat().st_size for folder in folders for entry in os.scandir(folder))

    def local(self, chunk: Chunk) -> bytes | None:
        """A chunk that is here, verified; None: it is not. Raises Damaged."""
        place = self._where.get(_key(chunk))
        if place is None:
            return None
        path, offset = place
        try:
            with (self.root / path).open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), chunk.size, offset)
        except FileNotFoundError as error:
            raise Damaged(path) from error
        if _digest(data) != chunk.digest:
            raise Damaged(path)
        return data

    def _resume(self, item: Item, tag: str) -> None:
        """What an interrupted build has written of it is cut where it stops being right; its chunks are here."""
        part = item.path + PART + tag
        if not (self.root / part).exists():
            return
        with (self.root / part).open("r+b") as file:
            offset = 0
            for chunk in item.chunks:
                if _digest(file.read(chunk.size)) != chunk.digest:
                    break
                self._where.setdefault(_key(chunk), (part, offset))
                offset += chunk.size
            file.truncate(offset)

    def _finished(self, item: Item, where: str) -> None:
        offset = 0
        for chunk in item.chunks:
            self._where[_key(chunk)] = (where, offset)
            offset += chunk.size
        self._complete.add(item.path)

    def has(self, chunk: Chunk, path: str, offset: int) -> None:
        """A chunk was written there."""
        self._where.setdefault(_key(chunk), (path, offset))


class Build:
    """Items being put together: `feed` it the wanted chunks in their order, then `finish`.

    Another build may bring a chunk meanwhile: one that is not asked for any more is passed over.
    """

    def __init__(self, store: ContentStore, items: Sequence[Item], tag: str) -> None:
        self._store, self._items, self._tag = store, items, tag
        self._sync_each = len(items) <= SYNC_EACH_MAX
        self._steps = self._run()
        self._at = ""
        self._begun = self._ended = False

    def feed(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        """Verified chunks, the next ones. Raises Damaged, OSError."""
        self._begin()
        for pair in chunks:
            if not self._ended:
                self._step(pair)

    def finish(self) -> None:
        """After the last chunk. Raises Damaged, OSError."""
        self._begin()
        self._steps.close()
        if not self._ended:
            raise Damaged(self._at)  # what it counted on has gone meanwhile
        if not self._sync_each:
            os.sync()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._step(None)

    def _step(self, pair: tuple[Chunk, bytes] | None) -> None:
        try:
            if pair is None:
                next(self._steps)
            else:
                self._steps.send(pair)
        except StopIteration:
            self._ended = True

    def _run(self) -> Generator[None, tuple[Chunk, bytes], None]:
        for item in self._items:
            self._at = item.path
            final = self._store.root / item.path
            final.parent.mkdir(parents=True, exist_ok=True)
            name = item.path + PART + self._tag
            part = self._store.root / name
            with part.open("ab") as out:
                have, offset = out.tell(), 0
                for chunk in item.chunks:
                    if offset >= have:
                        data = self._store.local(chunk)
                        while data is None:
                            came, content = yield
                            data = content if came.digest == chunk.digest else None
                        out.write(data)
                        out.flush()
                        self._store.has(chunk, name, offset)
                    offset += chunk.size
                os.fchmod(out.fileno(), item.mode)
                if self._sync_each:
                    os.fsync(out.fileno())
            os.utime(part, (item.mtime, item.mtime))
            part.replace(final)
            self._store._finished(item, item.path)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(chunk: Chunk) -> bytes:
    return bytes.fromhex(chunk.digest)
