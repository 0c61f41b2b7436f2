"""The documents of a chunked asset, pure.

Root, one JSON object:   {"schema": 1, "kind": "tree"|"file", "size_bytes": N, "chunks": [["<hex>", size], …]}
Index of a tree, a line of JSON an entry, folders before what is in them, no path twice:
    ["d", path, mode] · ["f", path, mode, mtime, [["<hex>", size], …]] · ["l", path, target]

An index is read as if an enemy had written it: what `decode_index` gives can be made below an empty folder without
anything ever being written outside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from belvedere.chunks.errors import DocumentInvalid

SCHEMA = 1
INDEX_BYTES_MAX = 64 << 20
"""Of an index: far above the 5 MB of an image with 30,000 files."""
CHUNK_BYTES_MAX = 1 << 20
_HEX = frozenset("0123456789abcdef")


class Kind(StrEnum):
    """What an asset is."""

    TREE = "tree"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of content."""

    digest: str
    """SHA-256, 64 hexadecimal digits."""
    size: int
    """Bytes, at least one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a tree."""

    type: str
    """`d` folder, `f` file, `l` symbolic link."""
    path: str
    """Below the root, without a leading slash."""
    mode: int = 0
    mtime: int = 0
    chunks: tuple[Chunk, ...] = ()
    target: str = ""

    @property
    def size(self) -> int:
        """Of a file, in bytes."""
        return sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True)
class AssetRoot:
    """What an asset's digest is of."""

    kind: Kind
    size_bytes: int
    """Of the content: of all files of a tree, or of the file."""
    chunks: tuple[Chunk, ...]
    """Of the tree's index, or of the file."""

    def to_json(self) -> bytes:
        """The same bytes for the same asset, always."""
        document = {
            "schema": SCHEMA,
            "kind": str(self.kind),
            "size_bytes": self.size_bytes,
            "chunks": [[chunk.digest, chunk.size] for chunk in self.chunks],
        }
        return json.dumps(document, separators=(",", ":")).encode()

    def digest(self) -> str:
        """`sha256:<hex>` of the document."""
        return f"sha256:{hashlib.sha256(self.to_json()).hexdigest()}"

    @classmethod
    def from_json(cls, text: bytes) -> AssetRoot:
        """Raises DocumentInvalid."""
        try:
            plain = json.loads(text)
            if plain["schema"] != SCHEMA:
                raise DocumentInvalid(f"the asset is of schema {plain['schema']}: this version reads {SCHEMA}")
            return cls(Kind(plain["kind"]), int(plain["size_bytes"]), _chunks(plain["chunks"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DocumentInvalid(f"the asset's document can't be read: {error}") from error


def encode_entry(entry: Entry) -> bytes:
    """A line of an index."""
    row: list[Any] = [entry.type, entry.path]
    if entry.type == "l":
        row.append(entry.target)
    else:
        row.append(entry.mode)
    if entry.type == "f":
        row += [entry.mtime, [[chunk.digest, chunk.size] for chunk in entry.chunks]]
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def decode_index(lines: Iterable[bytes]) -> Iterator[Entry]:
    """The entries. Raises DocumentInvalid for what this version does not write or what would lead out of the tree."""
    kinds: dict[str, str] = {"": "d"}
    for line in lines:
        try:
            entry = _entry(json.loads(line.decode("utf-8", "surrogateescape")))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DocumentInvalid(f"a line of an asset's index can't be read: {error}") from error
        parts = entry.path.split("/")
        if not entry.path or "" in parts or "." in parts or ".." in parts or "\0" in entry.path:
            raise DocumentInvalid(f"an asset's index has an unsafe path: {entry.path[:100]!r}")
        if kinds.get(entry.path.rpartition("/")[0]) != "d" or entry.path in kinds:
            raise DocumentInvalid(f"an asset's index is not a tree at {entry.path[:100]!r}")
        kinds[entry.path] = entry.type
        yield entry


def named_in_index(lines: Iterable[bytes]) -> Iterator[str]:
    """Digests of the chunks that a tree's files are of: for who only counts what is named. Raises DocumentInvalid."""
    for line in lines:
        try:
            row = json.loads(line.decode("utf-8", "surrogateescape"))
            if row[0] == "f":
                yield from (chunk.digest for chunk in _chunks(row[4]))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DocumentInvalid(f"a line of an asset's index can't be read: {error}") from error


def _entry(row: list[Any]) -> Entry:
    kind, path = row[0], str(row[1])
    if kind == "d":
        return Entry("d", path, int(row[2]))
    if kind == "f":
        return Entry("f", path, int(row[2]), int(row[3]), _chunks(row[4]))
    if kind == "l" and row[2]:
        return Entry("l", path, target=str(row[2]))
    raise ValueError(f"unknown kind {kind!r}")


def _chunks(rows: list[list[Any]]) -> tuple[Chunk, ...]:
    found = tuple(Chunk(digest, size) for digest, size in rows)
    for chunk in found:
        if not isinstance(chunk.digest, str) or len(chunk.digest) != 64 or not _HEX.issuperset(chunk.digest):
            raise ValueError("a chunk without a digest")
        if not isinstance(chunk.size, int) or not 0 < chunk.size <= CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of {chunk.size} bytes")
    return found
