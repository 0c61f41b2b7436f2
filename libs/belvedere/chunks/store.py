"""The cloud side's chunks: each once, whoever names it, as a Zstandard frame in the object store of the blobs.

    chunks/<2>/<hex>            a chunk, compressed
    chunked/<kind>/<hex>        which root an original (the file as it was uploaded) became: not cut twice

Blocking, as the threads that use it want it. Who names what: a package version's assets and a deployed graph name
roots (blobs), a root names chunks, of which those of a tree's index name more. What nothing names is taken away by the
packages service, when it is old: `belvedere.blobs.ages`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime

import obstore
import zstandard
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from belvedere.blobs import BlobStore, StoreFailed
from belvedere.blobs.ages import is_young
from belvedere.chunks.documents import AssetRoot, Kind, named_in_index
from belvedere.chunks.errors import ChunkAbsent

LEVEL = 3
CHUNKS = "chunks"


class ChunkStore:
    """Chunks beside the blobs."""

    def __init__(self, blobs: BlobStore) -> None:
        self._objects: ObjectStore = blobs.objects
        self._ages = blobs.ages

    def has(self, digest: str) -> bool:
        """Whether the chunk (64 hexadecimal digits) is there: for who is about to name it, it is renewed."""
        return self._ages.renew(_key(digest))

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
        return self._root_at(_made(original, kind))

    def is_fresh(self, original: str, kind: Kind) -> bool:
        """Whether everything below the root that an original became was written or renewed not long ago."""
        try:
            return is_young(obstore.head(self._objects, _made(original, kind))["last_modified"])
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot look at what {original} became: {error}") from error

    def _root_at(self, key: str) -> str | None:
        try:
            found: str = json.loads(bytes(obstore.get(self._objects, key).bytes()))["root"]
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot read {key}: {error}") from error
        return found

    def keep_root_of(self, original: str, kind: Kind, root: str) -> None:
        """Remembers it; when everything below the root is young."""
        try:
            obstore.put(self._objects, _made(original, kind), json.dumps({"root": root}).encode())
        except (BaseError, OSError) as error:
            raise StoreFailed(f"cannot write what {original} became: {error}") from error

    def named_by(self, root: AssetRoot) -> Iterator[str]:
        """Digests of all chunks that an asset needs; one may come again. Raises ChunkAbsent where one of the index is
        not here, DocumentInvalid."""
        yield from (chunk.digest for chunk in root.chunks)
        if root.kind is Kind.TREE:
            yield from named_in_index(self._lines(root))

    def renew(self, root: AssetRoot) -> bool:
        """Whether all chunks of an asset are here; no collector takes them away for the next hours then. For who is about
        to name its root, or to take away a name that others may be about to use."""
        try:
            return all(self.has(digest) for digest in self.named_by(root))
        except ChunkAbsent:
            return False

    def _lines(self, root: AssetRoot) -> Iterator[bytes]:
        rest = b""
        for chunk in root.chunks:
            *lines, rest = (rest + self.read(chunk.digest)).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def forget_roots_but(self, is_named: Callable[[str], bool], before: datetime) -> None:
        """Forgets what originals became where nothing names it any more, if that was not asked for since `before`."""
        for kind in Kind:
            for page in self._ages.listed(f"chunked/{kind}"):
                old = [item for item in page if item.modified < before]
                self._ages.discard([item for item in old if not is_named(self._root_at(item.key) or "")], before)


def _key(digest: str) -> str:
    return f"{CHUNKS}/{digest[:2]}/{digest}"


def _made(original: str, kind: Kind) -> str:
    return f"chunked/{kind}/{original.removeprefix('sha256:')}"
