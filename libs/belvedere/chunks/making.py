"""Assets cut into chunks: a container archive into a tree, any other file as it is. Blocking, memory bounded.

Content decides where to cut (FastCDC), so that an insertion moves no other boundary. An archive is cut behind its
compression, and file by file: a changed line is a changed chunk whatever stands around it, two images share every file
that is the same. Archives may come from anybody: names that lead out, links used as folders, devices, more entries or
bytes than the limits, headers made to fill memory, and all that is no whole .tar.gz are refused here, before any
appliance hears of them.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from types import TracebackType
from typing import IO, Protocol, Self, cast

from fastcdc.fastcdc_cy import fastcdc_cy

from belvedere.chunks.documents import INDEX_BYTES_MAX, AssetRoot, Chunk, Entry, Kind, encode_entry
from belvedere.chunks.errors import ArchiveInvalid

MIN_BYTES = 16 << 10
AVERAGE_BYTES = 64 << 10
MAX_BYTES = 256 << 10
READ_BYTES = 1 << 20
WRITERS = 4
"""Chunks that are compressed and stored at once."""
PENDING_MAX = 64
"""Chunks that wait for it, in memory: 16 MB at most."""
HEADER_BYTES = 1 << 20
"""All headers of one member: names and extended attributes. A larger one is an attack on memory."""
LINES = 1024
"""Of an index, put together at a time."""
FILE_MODE, FOLDER_MODE = 0o755, 0o755
"""What of a mode is kept: nothing that changes who the user is."""


class Sink(Protocol):
    """Where chunks go: `ChunkStore`."""

    def has(self, digest: str) -> bool: ...

    def put(self, digest: str, data: bytes) -> None: ...


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold."""

    entries: int = 400_000
    """Files and folders; a full Ubuntu image with a CUDA stack has about 100,000."""
    total_bytes: int = 32 << 30
    """Of content; the largest images of AWS Panorama were below 20 GB."""
    depth: int = 64
    """Folders below each other."""


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
        entries, size = _Archive(file, self._limits, self._content).read()
        lines = iter(entries)
        index = self._content(lambda _: b"".join(islice(lines, LINES)))
        self._settle()
        return AssetRoot(Kind.TREE, size, index)

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


class _Archive:
    """One reading of an archive, from its first byte to its checksum."""

    def __init__(
        self, file: IO[bytes], limits: ArchiveLimits, content: Callable[[Callable[[int], bytes]], tuple[Chunk, ...]]
    ) -> None:
        self._file, self._limits, self._content = file, limits, content
        self._entries: dict[PurePosixPath, Entry] = {}
        self._bytes = 0

    def read(self) -> tuple[Iterator[bytes], int]:
        try:
            with gzip.open(self._file) as plain:
                bounded = _Bounded(plain)
                with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|") as members:
                    self._members(members, bounded)
                bounded.allow(HEADER_BYTES)
                while bounded.read(READ_BYTES):
                    pass  # to the end, where the checksum of the whole is
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as error:
            raise ArchiveInvalid(f"it is not a whole .tar.gz file ({error})") from error
        return self._lines(), self._bytes

    def _lines(self) -> Iterator[bytes]:
        size = 0
        for entry in self._entries.values():
            line = encode_entry(entry)
            size += len(line)
            if size > INDEX_BYTES_MAX:
                raise ArchiveInvalid("its names are too long and too many")
            yield line

    def _members(self, members: tarfile.TarFile, bounded: _Bounded) -> None:
        number = 0
        for number, member in enumerate(members, start=1):
            if number > self._limits.entries:
                raise ArchiveInvalid(f"it has more than {self._limits.entries} entries")
            bounded.allow(member.size + HEADER_BYTES)
            self._member(members, member)
            vars(members)["members"].clear()  # tarfile keeps every header otherwise
        if number == 0:
            raise ArchiveInvalid("it is empty")

    def _member(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._name(member.name)
        if name == PurePosixPath() or name.parts[0] == "dev":
            return  # the root itself; /dev is made by the sandbox
        if member.isdir():
            self._folder(name, member.mode)
            return
        self._folder(name.parent)
        before = self._entries.get(name)
        if before is not None and before.type == "d":
            raise ArchiveInvalid("a folder comes again as something else", member.name)
        if member.isreg():
            self._entries[name] = self._regular(name, members, member)
        elif member.issym():
            self._check_link(name, member)
            self._entries[name] = Entry("l", str(name), target=member.linkname)
        elif member.islnk():
            target = self._entries.get(self._name(member.linkname))
            if target is None or target.type == "d":
                raise ArchiveInvalid("a hard link leads to no file of it", member.name)
            self._entries[name] = Entry(target.type, str(name), target.mode, target.mtime, target.chunks, target.target)
        else:
            raise ArchiveInvalid("it has a device or another special file", member.name)

    def _regular(self, name: PurePosixPath, members: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
        self._bytes += member.size
        if self._bytes > self._limits.total_bytes:
            raise ArchiveInvalid(f"it unpacks to more than {self._limits.total_bytes >> 20} MB")
        content = members.extractfile(member)
        assert content is not None
        with content:
            chunks = self._content(content.read)
        return Entry("f", str(name), (member.mode & FILE_MODE) | 0o600, max(0, int(member.mtime)), chunks)

    def _name(self, text: str) -> PurePosixPath:
        if text.startswith("/") or "\0" in text:
            raise ArchiveInvalid("a name is absolute", text)
        name = PurePosixPath(text)
        if ".." in name.parts:
            raise ArchiveInvalid("a name leads out of it", text)
        if len(name.parts) > self._limits.depth:
            raise ArchiveInvalid(f"folders lie deeper than {self._limits.depth}", text)
        return name

    def _folder(self, name: PurePosixPath, mode: int = FOLDER_MODE) -> None:
        if name == PurePosixPath():
            return
        before = self._entries.get(name)
        if before is None:
            self._folder(name.parent)
        elif before.type != "d":
            raise ArchiveInvalid("a link or a file is used as a folder", str(name))
        if before is None or mode != FOLDER_MODE:
            self._entries[name] = Entry("d", str(name), (mode & FOLDER_MODE) | 0o700)
        if len(self._entries) > 2 * self._limits.entries:
            raise ArchiveInvalid(f"it has more than {self._limits.entries} entries")

    @staticmethod
    def _check_link(name: PurePosixPath, member: tarfile.TarInfo) -> None:
        """A relative link may not climb above the root. An absolute one means the sandbox's root."""
        if not member.linkname:
            raise ArchiveInvalid("a link leads nowhere", member.name)
        target = PurePosixPath(member.linkname)
        if target.is_absolute():
            return
        depth = len(name.parent.parts)
        for part in target.parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                raise ArchiveInvalid("a link leads out of it", member.name)


class _Bounded:
    """The unpacked stream, which gives no more than was allowed: so that no header can fill the memory."""

    def __init__(self, plain: gzip.GzipFile) -> None:
        self._plain = plain
        self._left = HEADER_BYTES

    def allow(self, count: int) -> None:
        """`count` more bytes until the next call."""
        self._left = count + tarfile.RECORDSIZE

    def read(self, count: int) -> bytes:
        data = self._plain.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveInvalid("a header is too large")
        return data
