"""Stored files to what appliances fetch: a container archive to a tree of chunks, a model to chunks of itself.

Must not know packages: a digest in, the digest of the asset's root out. Each original is cut once, whoever registers it.
"""

from __future__ import annotations

import asyncio
from typing import IO

from belvedere.blobs import BlobStore
from belvedere.chassis.logs import get_logger
from belvedere.chunks import AssetRoot, DocumentInvalid, Kind
from belvedere.chunks.archive import ArchiveLimits
from belvedere.chunks.making import Maker
from belvedere.chunks.parcel import take_parcel
from belvedere.chunks.store import ChunkStore

AT_ONCE = 2
"""Files that are cut at the same time: each keeps a core busy."""

log = get_logger(__name__)


class Chunker:
    """Makes assets."""

    def __init__(self, blobs: BlobStore, limits: ArchiveLimits | None = None) -> None:
        self._blobs = blobs
        self._chunks = ChunkStore(blobs)
        self._limits = limits or ArchiveLimits()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def root(self, original: str, kind: Kind, *, parcel: bool = False) -> str:
        """The digest of the root of a stored file; `parcel`: it is one (`belvedere.chunks.parcel`). Raises
        ArchiveInvalid for an archive that no appliance may get."""
        async with self._slots:
            known = await asyncio.to_thread(self._chunks.root_of, original, kind)
            if known is not None and await self._is_kept(known, original, kind):
                return known
            with await self._blobs.reader(original) as file:
                root, new, size = await asyncio.to_thread(self._take if parcel else self._make, file, kind)
            blob = await self._blobs.put_bytes(root.to_json())
            await asyncio.to_thread(self._chunks.keep_root_of, original, kind, blob.digest)
        log.info(
            "asset cut", original=original, root=blob.digest, bytes=root.size_bytes, new_chunks=new, new_bytes=size
        )
        return blob.digest

    async def _is_kept(self, root: str, original: str, kind: Kind) -> bool:
        """Whether all of a root is here, and stays while it is being named."""
        if not await self._blobs.renew(root):
            return False
        if not await asyncio.to_thread(self._chunks.is_fresh, original, kind):
            if not await self.renew(root):
                return False
            await asyncio.to_thread(self._chunks.keep_root_of, original, kind, root)
        return True

    async def renew(self, root: str) -> bool:
        """Whether a root and all chunks below it are here; no collector takes them away for the next hours then."""
        if not await self._blobs.renew(root):
            return False
        try:
            document = AssetRoot.from_json(await self._blobs.read(root))
            return await asyncio.to_thread(self._chunks.renew, document)
        except DocumentInvalid:
            return False

    def _take(self, file: IO[bytes], kind: Kind) -> tuple[AssetRoot, int, int]:
        return take_parcel(file, self._chunks, self._limits), 0, 0

    def _make(self, file: IO[bytes], kind: Kind) -> tuple[AssetRoot, int, int]:
        with Maker(self._chunks, self._limits) as maker:
            root = maker.archive(file) if kind is Kind.TREE else maker.file(file)
            return root, maker.chunks_new, maker.bytes_new
