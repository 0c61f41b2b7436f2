"""Assets cut into chunks: a container archive into a tree, any other file as it is. Blocking, memory bounded.

Content decides where to cut (FastCDC), so that an insertion moves no other boundary. An archive is cut behind its
compression, and file by file: a changed line is a changed chunk whatever stands around it, two images share every file
that is the same. Archives may come from anybody: what no application may bring is refused (`archive`), before any
appliance hears of it.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import PurePosixPath
from types import TracebackType
from typing import IO, Protocol, Self

from fastcdc.fastcdc_cy import fastcdc_cy

from belvedere.chunks.archive import FILE_MODE, FOLDER_MODE, READ_BYTES, ArchiveLimits, ArchiveReader
from belvedere.chunks.documents import INDEX_BYTES_MAX, AssetRoot, Chunk, Entry, Kind, encode_entry
from belvedere.chunks.errors import ArchiveInvalid

MIN_BYTES = 16 << 10
AVERAGE_BYTES = 64 << 10
MAX_BYTES = 256 << 10
WRITERS = 4
"""Chunks that are compressed and stored at once."""
PENDING_MAX = 64
"""Chunks that wait for it, in memory: 16 MB at most."""
LINES = 1024
"""Of an index, put together at a time."""


class Sink(Protocol):
    """Where chunks go: `ChunkStore`."""

    def has(self, digest: str) -> bool: ...

    def put(self, digest: str, data: bytes) -> None: ...


def cut(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The chunks of a stream. The same content gives the same chunks however it is read."""
    buffer, ended = b"", False
    while not ended or buffer:
        while not ended and len(buffer) < READ_BYTES:
            piece = read(READ_BYTES)
            ended = not piece
            buffer += piece
        at = 0
        for found in fastcdc_cy(buffer, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES):
            if not ended and len(buffer) - at < MAX_BYTES:
                break  # where this one ends, what comes next may decide
            yield buffer[at : at + found.length]
            at += found.length
        buffer = buffer[at:]


class Maker:
    """Cuts one asset into a sink; a context manager. `chunks_new` and `bytes_new` say what was not there yet."""

    def __init__(self, sink: Sink, limits: ArchiveLimits | None = None) -> None:
        self.chunks_new = 0
        self.bytes_new = 0
        self._sink = sink
        self._limits = limits or ArchiveLimits()
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="chunks")
        self._pending: deque[Future[int]] = deque()
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def file(self, file: IO[bytes]) -> AssetRoot:
        """The root of a file that stays what it is."""
        chunks = self._content(file.read)
        self._settle()
        return AssetRoot(Kind.FILE, sum(chunk.size for chunk in chunks), chunks)

    def archive(self, file: IO[bytes]) -> AssetRoot:
        """The root of a `.tar.gz` as a tree. Raises ArchiveInvalid."""
        tree = _Tree(self._limits, self._content)
        tree.read(file)
        lines = tree.lines()
        index = self._content(lambda _: b"".join(islice(lines, LINES)))
        self._settle()
        return AssetRoot(Kind.TREE, tree.bytes, index)

    def _content(self, read: Callable[[int], bytes]) -> tuple[Chunk, ...]:
        return tuple(self._keep(data) for data in cut(read))

    def _keep(self, data: bytes) -> Chunk:
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._seen:
            self._seen.add(digest)
            self._pending.append(self._pool.submit(self._put, digest, data))
            while len(self._pending) >= PENDING_MAX:
                self._count(self._pending.popleft().result())
        return Chunk(digest, len(data))

    def _put(self, digest: str, data: bytes) -> int:
        if self._sink.has(digest):
            return 0
        self._sink.put(digest, data)
        return len(data)

    def _settle(self) -> None:
        while self._pending:
            self._count(self._pending.popleft().result())

    def _count(self, size: int) -> None:
        self.bytes_new += size
        self.chunks_new += size > 0


class _Tree(ArchiveReader):
    """An archive as the entries of a tree."""

    def __init__(self, limits: ArchiveLimits, content: Callable[[Callable[[int], bytes]], tuple[Chunk, ...]]) -> None:
        super().__init__(limits)
        self._content = content
        self._entries: dict[PurePosixPath, Entry] = {}

    def lines(self) -> Iterator[bytes]:
        """Of its index."""
        size = 0
        for entry in self._entries.values():
            line = encode_entry(entry)
            size += len(line)
            if size > INDEX_BYTES_MAX:
                raise ArchiveInvalid("its names are too long and too many")
            yield line

    def is_folder(self, name: PurePosixPath) -> bool:
        return name in self._entries and self._entries[name].type == "d"

    def folder(self, name: PurePosixPath, mode: int | None = None) -> None:
        if name == PurePosixPath():
            return
        before = self._entries.get(name)
        if before is None:
            self.folder(name.parent)
        elif before.type != "d":
            raise ArchiveInvalid("a link or a file is used as a folder", str(name))
        if before is None or mode is not None:
            kept = FOLDER_MODE if mode is None else mode & FOLDER_MODE
            self._entries[name] = Entry("d", str(name), kept | 0o700)
        if len(self._entries) > 2 * self.limits.entries:
            raise ArchiveInvalid(f"it has more than {self.limits.entries} entries")

    def file(self, name: PurePosixPath, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        chunks = self._content(content.read)
        self._entries[name] = Entry(
            "f", str(name), (member.mode & FILE_MODE) | 0o600, max(0, int(member.mtime)), chunks
        )

    def link(self, name: PurePosixPath, target: str) -> None:
        self._entries[name] = Entry("l", str(name), target=target)

    def hard_link(self, name: PurePosixPath, target: PurePosixPath) -> bool:
        found = self._entries.get(target)
        if found is None:
            return False
        self._entries[name] = Entry(found.type, str(name), found.mode, found.mtime, found.chunks, found.target)
        return True
