"""One contract for blobs, for every store behind them."""

from __future__ import annotations

import abc
import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from belvedere.blobs import BadDigest, Blob, BlobNotFound, BlobStore, DigestMismatch, StoreFailed, digest_of

MISSING = "sha256:" + "0" * 64


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Contract(abc.ABC):
    """What every store does."""

    @abc.abstractmethod
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        """The store under test."""

    @pytest.mark.parametrize("size", [0, 1, 1000, 6_000_000])
    async def test_what_was_stored_is_found_by_its_digest(self, blobs: BlobStore, size: int) -> None:
        data = os.urandom(size)
        blob = await blobs.put_stream(pieces(data, 100_000))
        assert blob == Blob(f"sha256:{hashlib.sha256(data).hexdigest()}", size) and blob.digest == digest_of(data)
        assert await blobs.exists(blob.digest) and await blobs.size(blob.digest) == size
        assert await blobs.read(blob.digest) == data

    async def test_any_range_is_read(self, blobs: BlobStore) -> None:
        data = os.urandom(700_000)
        digest = (await blobs.put_bytes(data)).digest
        for start, end in ((0, 0), (0, 1), (5, 5), (100, 600_000), (699_999, 700_000), (700_000, 700_000), (0, None)):
            assert b"".join([chunk async for chunk in blobs.open(digest, start, end)]) == data[start:end]
        for start, end in ((-1, 5), (5, 4), (0, 700_001)):
            with pytest.raises(ValueError, match="not within"):
                await anext(blobs.open(digest, start, end))

    async def test_equal_bytes_are_stored_once_by_however_many(self, blobs: BlobStore) -> None:
        data = os.urandom(300_000)
        stored = await asyncio.gather(*(blobs.put_stream(pieces(data)) for _ in range(5)))
        assert len(set(stored)) == 1 and await blobs.read(stored[0].digest) == data

    async def test_other_bytes_than_announced_are_not_stored(self, blobs: BlobStore) -> None:
        with pytest.raises(DigestMismatch, match="nothing was stored"):
            await blobs.put_stream(pieces(b"x" * 10), expected=MISSING)
        assert not await blobs.exists(MISSING) and not await blobs.exists(digest_of(b"x" * 10))
        await blobs.put_stream(pieces(b"x" * 10), expected=digest_of(b"x" * 10))

    async def test_a_source_that_fails_leaves_nothing_and_its_error_passes_through(self, blobs: BlobStore) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"x" * 6_000_000
            raise ConnectionResetError("the client went away")

        with pytest.raises(ConnectionResetError, match="went away"):
            await blobs.put_stream(failing())
        assert not await blobs.exists(digest_of(b"x" * 6_000_000))

    async def test_what_is_not_there_is_said_to_be_missing(self, blobs: BlobStore) -> None:
        assert not await blobs.exists(MISSING)
        for call in (blobs.size(MISSING), blobs.read(MISSING)):
            with pytest.raises(BlobNotFound, match=MISSING):
                await call
        await blobs.delete(MISSING)

    async def test_a_deleted_blob_is_gone(self, blobs: BlobStore) -> None:
        digest = (await blobs.put_bytes(b"x")).digest
        await blobs.delete(digest)
        assert not await blobs.exists(digest)

    @pytest.mark.parametrize(
        "digest", ["", "sha256:", "sha256:../../etc/passwd", "x" * 64, MISSING + "\n", MISSING.upper()]
    )
    async def test_what_is_no_digest_reaches_no_file(self, blobs: BlobStore, digest: str) -> None:
        for call in (blobs.size(digest), blobs.delete(digest), blobs.read(digest)):
            with pytest.raises(BadDigest):
                await call


class TestFolder(Contract):
    """Blobs in a folder."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return BlobStore.at(tmp_path / "blobs")

    async def test_a_file_is_stored(self, blobs: BlobStore, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"y" * 100_000)
        assert await blobs.read((await blobs.put_file(file)).digest) == b"y" * 100_000

    async def test_nothing_passing_is_left_behind(self, blobs: BlobStore, tmp_path: Path) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"x" * 6_000_000
            raise KeyError("no")

        await blobs.put_bytes(b"a")
        await blobs.put_bytes(b"a")
        for put in (blobs.put_stream(pieces(b"b"), expected=MISSING), blobs.put_stream(failing())):
            with pytest.raises((DigestMismatch, KeyError)):
                await put
        files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert len(files) == 1

    async def test_what_a_killed_writer_left_long_ago_is_removed(self, tmp_path: Path) -> None:
        incoming = tmp_path / "blobs" / "incoming"
        incoming.mkdir(parents=True)
        for name, age_s in (("old", 100_000), ("new", 10)):
            (incoming / name).write_bytes(b"x")
            os.utime(incoming / name, (time.time() - age_s,) * 2)
        BlobStore.at(tmp_path / "blobs")
        assert [path.name for path in incoming.iterdir()] == ["new"]

    async def test_a_folder_that_is_no_folder_any_more_is_a_typed_error(self, blobs: BlobStore, tmp_path: Path) -> None:
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_text("a file")
        with pytest.raises(StoreFailed):
            await blobs.put_bytes(b"x")


class TestMemory(Contract):
    """Blobs in an object store that is no folder."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> BlobStore:
        return BlobStore(MemoryStore())
