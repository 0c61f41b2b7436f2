"""A parcel: an archive on its way to the cloud side, as the chunks that it lacks there, and its root.

    records, each a length (4 bytes, big-endian) and a Zstandard frame · a length of 0 · the root's JSON

It is stored among the binaries of a package in the archive's place, under its name and SUFFIX. What it leaves out must be
there already: registration says so where it is not, and the whole archive is sent.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import zstandard

from belvedere.chunks.archive import ArchiveLimits
from belvedere.chunks.documents import CHUNK_BYTES_MAX, INDEX_BYTES_MAX, AssetRoot, Kind, decode_index
from belvedere.chunks.errors import ArchiveInvalid, DocumentInvalid
from belvedere.chunks.making import Maker
from belvedere.chunks.store import LEVEL, ChunkStore
from belvedere.chunks.wire import LENGTH

SUFFIX = ".chunks"
INCOMPLETE = "chunks that the parcel leaves out are not here"
"""Part of the message that asks for the whole archive."""
_FRAME_MAX = 2 * CHUNK_BYTES_MAX


class ParcelWriter:
    """A sink (`making.Sink`) that writes what is not `known`; a context manager."""

    def __init__(self, path: Path, known: Collection[str]) -> None:
        self.digests: set[str] = set()
        """Of all chunks, those that were left out too."""
        self._known = known
        self._out = path.open("wb")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._out.close()

    def has(self, digest: str) -> bool:
        with self._lock:
            self.digests.add(digest)
        return digest in self._known

    def put(self, digest: str, data: bytes) -> None:
        frame = zstandard.ZstdCompressor(level=LEVEL).compress(data)
        with self._lock:
            self._out.write(LENGTH.pack(len(frame)) + frame)

    def finish(self, root: AssetRoot) -> None:
        """After the last chunk."""
        self._out.write(LENGTH.pack(0) + root.to_json())


def write_parcel(archive: Path, parcel: Path, known: Collection[str]) -> set[str]:
    """Cuts a `.tar.gz` into a parcel without what is `known`; the digests of all its chunks. Raises ArchiveInvalid."""
    with ParcelWriter(parcel, known) as writer, archive.open("rb") as file, Maker(writer) as maker:
        writer.finish(maker.archive(file))
        return writer.digests


def take_parcel(file: IO[bytes], store: ChunkStore, limits: ArchiveLimits | None = None) -> AssetRoot:
    """Keeps a parcel's chunks; its root, of which everything is here. Trusts nothing. Raises ArchiveInvalid."""
    limits = limits or ArchiveLimits()
    try:
        while size := _length(file):
            if size > _FRAME_MAX:
                raise ArchiveInvalid("a chunk of the parcel is too long")
            frame = file.read(size)
            if not 0 < zstandard.frame_content_size(frame) <= CHUNK_BYTES_MAX:
                raise ArchiveInvalid("a chunk of the parcel is too long")
            data = zstandard.ZstdDecompressor().decompress(frame)
            digest = hashlib.sha256(data).hexdigest()
            if not store.has(digest):
                store.put(digest, data)
        root = AssetRoot.from_json(file.read(INDEX_BYTES_MAX))
        _check(root, store, limits)
    except (zstandard.ZstdError, DocumentInvalid) as error:
        raise ArchiveInvalid(f"the parcel is damaged ({error})") from error
    return root


def _check(root: AssetRoot, store: ChunkStore, limits: ArchiveLimits) -> None:
    if root.kind is not Kind.TREE or sum(chunk.size for chunk in root.chunks) > INDEX_BYTES_MAX:
        raise ArchiveInvalid("the parcel is of no archive")
    index = b"".join(_content(store, chunk.digest) for chunk in root.chunks)
    total, seen = 0, set[str]()
    for number, entry in enumerate(decode_index(index.splitlines()), start=1):
        total += entry.size
        if number > 2 * limits.entries or total > limits.total_bytes:
            raise ArchiveInvalid("it has too many entries or bytes")
        for chunk in entry.chunks:
            if chunk.digest not in seen and not store.has(chunk.digest):
                raise ArchiveInvalid(INCOMPLETE, entry.path)
            seen.add(chunk.digest)


def _content(store: ChunkStore, digest: str) -> bytes:
    if not store.has(digest):
        raise ArchiveInvalid(INCOMPLETE)
    return store.read(digest)


def _length(file: IO[bytes]) -> int:
    data = file.read(LENGTH.size)
    if len(data) != LENGTH.size:
        raise ArchiveInvalid("the parcel is cut off")
    size: int = LENGTH.unpack(data)[0]
    return size
