"""What of the blob store is named: for who collects the rest.

    with Names() as names:
        await Look(database, blobs, channel).into(names)
        names.has("<hex>")

Names are those of objects and registered package versions (here), of the graphs of live application instances and
what these name (the deployments service), and of all chunks that a named root leads to. They are kept in a file, not
in memory. Must not know ages, and deletes nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import grpc

from belvedere.blobs import BlobNotFound, BlobStore
from belvedere.chassis import logs
from belvedere.chassis.database import Database
from belvedere.chunks import INDEX_BYTES_MAX, AssetRoot, ChunkError, Kind
from belvedere.chunks.store import ChunkStore
from belvedere.v1 import deployments_pb2, deployments_pb2_grpc
from services.packages import objects, store

ROWS_AT_ONCE = 500
VERSIONS_AT_ONCE = 50
"""Each with its descriptors."""
NAMES_AT_ONCE = 2000
PREFIX = "sha256:"

log = logs.get_logger(__name__)


class Names:
    """A set of SHA-256 on the disk; a context manager, after which nothing of it is left. A thread that goes on after that
    ends with an error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Without a name: a file that SQLite removes by itself. A cache of 2 MB is all of it that is in memory.
        self._rows = sqlite3.connect("", check_same_thread=False)
        for table in ("named", "walked"):
            self._rows.execute(f"CREATE TABLE {table} (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._rows.close()

    def add(self, digests: Iterable[str]) -> None:
        """64 hexadecimal digits each, with or without `sha256:`; what is no digest is passed over."""
        keys = [(key,) for key in map(_key, digests) if key]
        with self._lock:
            self._rows.executemany("INSERT OR IGNORE INTO named VALUES (?)", keys)

    def walk(self, digest: str) -> bool:
        """Whether this is the first time that it is asked for this one: what it leads to need be added once."""
        with self._lock:
            return self._rows.execute("INSERT OR IGNORE INTO walked VALUES (?)", (_key(digest),)).rowcount == 1

    def has(self, digest: str) -> bool:
        """Whether it is named."""
        with self._lock:
            found = self._rows.execute("SELECT 1 FROM named WHERE digest = ?", (_key(digest),)).fetchone()
        return found is not None


def _key(digest: str) -> bytes:
    try:
        return bytes.fromhex(digest.removeprefix(PREFIX))
    except ValueError:
        return b""


class Look:
    """One look at all names. A name that comes while it goes on may be missed: that is what ages are for."""

    def __init__(self, database: Database, blobs: BlobStore, channel: Callable[[], grpc.aio.Channel]) -> None:
        """`channel` leads to the deployments service."""
        self._database, self._blobs, self._channel = database, blobs, channel
        self._chunks = ChunkStore(blobs)

    async def into(self, names: Names) -> None:
        """Raises BelvedereError where the deployments service is away, BlobError: then nothing may be taken away."""
        await self._objects(names)
        # Versions before graphs: a graph is made of versions, and names them before they may go.
        await self._versions(names)
        await self._graphs(names)
        await self._models(names)

    async def _objects(self, names: Names) -> None:
        async for rows in store.pages(self._database, objects.all_objects, ROWS_AT_ONCE):
            await asyncio.to_thread(names.add, [row.digest for row in rows])

    async def _versions(self, names: Names) -> None:
        async for rows in store.pages(self._database, store.all_versions, VERSIONS_AT_ONCE):
            assets = [asset for row in rows for asset in row.assets if asset["digest"]]
            await asyncio.to_thread(names.add, [asset["digest"] for asset in assets])
            await self._roots(names, [asset["digest"] for asset in assets if asset["descriptor"]])

    async def _graphs(self, names: Names) -> None:
        stub = deployments_pb2_grpc.DeploymentsServiceStub(self._channel())
        token = ""
        while True:
            page = await stub.ListDeployedAssets(deployments_pb2.ListDeployedAssetsRequest(next_token=token))
            await asyncio.to_thread(names.add, [*page.graph_digests, *page.asset_digests])
            await self._roots(names, page.asset_digests)
            token = page.next_token
            if not token:
                return

    async def _models(self, names: Names) -> None:
        """What a model was converted to stays as long as some version names its root: to be cut again is cheap, to be
        converted again is not."""
        async for rows in store.pages(self._database, store.taken_models, ROWS_AT_ONCE):
            await asyncio.to_thread(self._name_models, names, [row.digest for row in rows])

    def _name_models(self, names: Names, digests: Sequence[str]) -> None:
        roots = ((digest, self._chunks.root_of(digest, Kind.FILE)) for digest in digests)
        names.add([digest for digest, root in roots if root is not None and names.has(root)])

    async def _roots(self, names: Names, digests: Iterable[str]) -> None:
        for digest in digests:
            if not await asyncio.to_thread(names.walk, digest):
                continue
            try:
                if await self._blobs.size(digest) > INDEX_BYTES_MAX:
                    continue  # no root: from a time when assets were files
                root = AssetRoot.from_json(await self._blobs.read(digest))
                await asyncio.to_thread(_add, names, self._chunks.named_by(root))
            except (BlobNotFound, ChunkError) as error:
                # It can't be fetched any more, whatever is kept: said, and no reason to keep everybody's garbage.
                log.warning("an asset that is named is not whole in the store", digest=digest, error=str(error))


def _add(names: Names, digests: Iterator[str]) -> None:
    while group := list(itertools.islice(digests, NAMES_AT_ONCE)):
        names.add(group)
