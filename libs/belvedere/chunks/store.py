"""The cloud side's chunks: each once, whoever names it, as a Zstandard frame in the object store of the blobs.

    chunks/<2>/<hex>            a chunk, compressed
    chunked/<kind>/<hex>        which root an original (the file as it was uploaded) became: not cut twice

Blocking, as the threads that use it want it. Who names what: a package version's assets and a deployed graph name
roots (blobs), a root names chunks, of which those of a tree's index name more. `sweep` takes away what none of the
given roots leads to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import obstore
import zstandard
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from belvedere.blobs import BlobStore, StoreFailed
from belvedere.chunks.documents import AssetRoot, Kind, decode_index
from belvedere.chunks.errors import ChunkAbsent

LEVEL = 3
SWEEP_MIN_AGE = timedelta(days=1)
"""A chunk younger than this may belong to a registration under way."""


class ChunkStore:
    """Chunks beside the blobs."""

    def __init__(self, blobs: BlobStore) -> None:
        self._objects: ObjectStore = blobs.objects

    def has(self, digest: str) -> bool:
        """Whether the chunk (64 hexadecimal digits) is there."""
        try:
            obstore.head(self._objects, _key(digest))
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot look at chunk {digest}: {error}") from error
        return True

    def put(self, digest: str, data: bytes) -> None:
        """Keeps a chunk; `digest` is of `data`."""
        try:
            obstore.put(self._objects, _key(digest), zstandard.ZstdCompressor(level=LEVEL).compress(data))
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot store chunk {digest}: {error}") from error

    def frame(self, digest: str) -> bytes | None:
        """The chunk as it is kept and sent; None: it is not there."""
        try:
            return bytes(obstore.get(self._objects, _key(digest)).bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot read chunk {digest}: {error}") from error

    def read(self, digest: str) -> bytes:
        """The chunk's content. Raises ChunkAbsent."""
        frame = self.frame(digest)
        if frame is None:
            raise ChunkAbsent(f"chunk {digest} is not in the store")
        return zstandard.ZstdDecompressor().decompress(frame)

    def root_of(self, original: str, kind: Kind) -> str | None:
        """The digest of the root that an original (`sha256:<hex>`) became; None where it was not cut yet."""
        try:
            found: str = json.loads(bytes(obstore.get(self._objects, _made(original, kind)).bytes()))["root"]
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot read what {original} became: {error}") from error
        return found

    def keep_root_of(self, original: str, kind: Kind, root: str) -> None:
        """Remembers it."""
        try:
            obstore.put(self._objects, _made(original, kind), json.dumps({"root": root}).encode())
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot write what {original} became: {error}") from error

    def named_by(self, root: AssetRoot) -> set[str]:
        """Digests of all chunks that an asset needs."""
        named = {chunk.digest for chunk in root.chunks}
        if root.kind is Kind.TREE:
            index = b"".join(self.read(chunk.digest) for chunk in root.chunks)
            named.update(chunk.digest for entry in decode_index(index.splitlines()) for chunk in entry.chunks)
        return named

    def sweep(self, roots: Iterable[AssetRoot], now: datetime | None = None) -> int:
        """Deletes the chunks that none of these roots leads to and that are older than SWEEP_MIN_AGE; how many."""
        named: set[str] = set()
        for root in roots:
            named |= self.named_by(root)
        oldest, gone = (now or datetime.now(UTC)) - SWEEP_MIN_AGE, 0
        for page in obstore.list(self._objects, "chunks"):
            old = [
                item["path"]
                for item in page
                if item["last_modified"] < oldest and item["path"].rpartition("/")[2] not in named
            ]
            if old:
                obstore.delete(self._objects, old)
                gone += len(old)
        if gone:
            # What an original became may name what is gone: it is cut again when it is registered again.
            for page in obstore.list(self._objects, "chunked"):
                obstore.delete(self._objects, [item["path"] for item in page])
        return gone


def _key(digest: str) -> str:
    return f"chunks/{digest[:2]}/{digest}"


def _made(original: str, kind: Kind) -> str:
    return f"chunked/{kind}/{original.removeprefix('sha256:')}"
