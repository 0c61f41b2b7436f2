"""Blobs by the SHA-256 of their bytes.

A blob is written under a passing name while its digest is computed, then renamed: a reader sees all of it or nothing, and
two writers of the same bytes do not disturb each other. Memory stays bounded whatever the size. Nothing is ever
overwritten with other bytes. Who is about to name a blob in a database asks `renew` for it, not `exists`
(`belvedere.blobs.ages`: what nothing names is taken away when it is old).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore

from belvedere.blobs.ages import Ages, Amount, is_young
from belvedere.blobs.errors import BadDigest, BlobError, BlobNotFound, DigestMismatch, StoreFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PART_BYTES = 5 * 1024 * 1024  # the smallest part that S3 takes
PARTS_AT_ONCE = 2  # in memory while writing: PART_BYTES * (PARTS_AT_ONCE + 1)
READ_BYTES = 256 * 1024
INCOMING = "incoming"
INCOMING_MAX_AGE = timedelta(days=1)  # what a killed writer left; none that lives takes this long

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """A stored blob."""

    digest: str
    """"sha256:<64 hexadecimal digits>"."""
    size_bytes: int

    @property
    def size(self) -> int:
        """The same, in bytes."""
        return self.size_bytes


def digest_of(data: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class BlobStore:
    """Blobs in an object store of obstore's."""

    def __init__(self, store: ObjectStore, folder: Path | None = None) -> None:
        """`folder`: where the store's objects are files, if they are."""
        self._store = store
        self.ages = Ages(store, folder)
        """What the collector of garbage goes by; `belvedere.chunks` too."""

    @classmethod
    def at(cls, folder: Path) -> BlobStore:
        """Blobs in a folder, made if it is not there. What writers left that were killed long ago is removed."""
        folder.mkdir(parents=True, exist_ok=True)
        blobs = cls(LocalStore(str(folder.absolute())), folder.absolute())
        blobs.clear_incoming()
        return blobs

    def clear_incoming(self) -> Amount:
        """Removes what writers left that were killed long ago. It blocks."""
        oldest = datetime.now(UTC) - INCOMING_MAX_AGE
        freed = Amount()
        for page in self.ages.listed(INCOMING):
            freed += self.ages.discard([item for item in page if item.modified < oldest], oldest)
        return freed

    @property
    def objects(self) -> ObjectStore:
        """The object store itself: for `belvedere.chunks`, which keeps its own beside the blobs, below `chunk…/`."""
        return self._store

    async def put_stream(self, chunks: AsyncIterable[bytes], *, expected: str | None = None) -> Blob:
        """Stores what comes. With `expected`, DigestMismatch if it is something else. Errors of `chunks` pass through."""
        if expected is not None:
            _key(expected)
        sha, size, failed = hashlib.sha256(), 0, None

        async def through() -> AsyncIterator[bytes]:
            nonlocal size, failed
            try:
                async for chunk in chunks:
                    if chunk:
                        sha.update(chunk)
                        size += len(chunk)
                        yield bytes(chunk)
            except Exception as error:
                failed = error
                raise

        passing = f"{INCOMING}/{secrets.token_hex(16)}"
        try:
            await obstore.put_async(
                self._store, passing, through(), chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        except Exception as error:
            if failed is not None:
                raise failed from None
            raise _failed("cannot store a blob", error) from error
        digest = f"sha256:{sha.hexdigest()}"
        try:
            if expected is not None and digest != expected:
                raise DigestMismatch(f"the bytes are {digest}, expected was {expected}: nothing was stored")
            if await self.renew(digest):
                return Blob(digest, size)
            await obstore.rename_async(self._store, passing, _key(digest), overwrite=True)
            return Blob(digest, size)
        except (BaseError, OSError) as error:
            raise _failed(f"cannot store {digest}", error) from error
        finally:
            await self._remove(passing)

    async def put_file(self, path: Path, *, expected: str | None = None) -> Blob:
        """Stores a file's bytes."""

        async def chunks() -> AsyncIterator[bytes]:
            with path.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    yield chunk

        return await self.put_stream(chunks(), expected=expected)

    async def put_bytes(self, data: bytes) -> Blob:
        """Stores bytes that are in memory already."""

        async def once() -> AsyncIterator[bytes]:
            yield data

        return await self.put_stream(once())

    async def open(self, digest: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `end` (excluded; None: to the last), in chunks of at most READ_BYTES or so.

        Raises BlobNotFound before the first chunk; ValueError for a range that is not within the blob.
        """
        size = await self.size(digest)
        stop = size if end is None else end
        if not 0 <= start <= stop <= size:
            raise ValueError(f"the range {start} to {stop} is not within the {size} bytes of {digest}")
        if start == stop:
            return
        try:
            found = await obstore.get_async(self._store, _key(digest), options={"range": (start, stop)})
            async for chunk in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise _absent(digest) from error
        except (BaseError, OSError) as error:
            raise _failed(f"cannot read {digest}", error) from error

    async def read(self, digest: str) -> bytes:
        """All the bytes: for what is known to be small."""
        return b"".join([chunk async for chunk in self.open(digest)])

    async def size(self, digest: str) -> int:
        """In bytes; BlobNotFound."""
        try:
            return int((await obstore.head_async(self._store, _key(digest)))["size"])
        except FileNotFoundError as error:
            raise _absent(digest) from error
        except (BaseError, OSError) as error:
            raise _failed(f"cannot look at {digest}", error) from error

    async def exists(self, digest: str) -> bool:
        """Whether it is there."""
        try:
            await self.size(digest)
        except BlobNotFound:
            return False
        return True

    async def renew(self, digest: str) -> bool:
        """Whether it is there; no collector takes it away for the next hours then. For who is about to name it."""
        key = _key(digest)
        try:
            modified = (await obstore.head_async(self._store, key))["last_modified"]
        except FileNotFoundError:
            return False
        except (BaseError, OSError) as error:
            raise _failed(f"cannot look at {digest}", error) from error
        return is_young(modified) or await asyncio.to_thread(self.ages.renew, key)

    async def reader(self, digest: str) -> io.BufferedReader:
        """The blob as a file that can be read and sought in, for archives. It blocks: read it in a thread. BlobNotFound."""
        return io.BufferedReader(_BlobFile(self._store, digest, await self.size(digest)), READ_BYTES)

    async def delete(self, digest: str) -> None:
        """Removes it; no error where there is none."""
        await self._remove(_key(digest))

    async def _remove(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _failed(f"cannot delete {key}", error) from error


class _BlobFile(io.RawIOBase):
    """A blob as a file; OSError where the store fails."""

    def __init__(self, store: ObjectStore, digest: str, size: int) -> None:
        self._store, self._digest, self._size, self._position = store, digest, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"cannot seek to {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        end = min(self._position + len(view), self._size)
        if end <= self._position:
            return 0
        try:
            data = bytes(obstore.get_range(self._store, _key(self._digest), start=self._position, end=end))
        except BaseError as error:
            raise OSError(f"cannot read {self._digest}: {error}") from error
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise BadDigest(f"{digest[:100]!r} is no digest: sha256: and 64 hexadecimal digits are expected")
    value = digest.removeprefix("sha256:")
    return f"sha256/{value[:2]}/{value}"


def _absent(digest: str) -> BlobNotFound:
    return BlobNotFound(f"there is no blob {digest}")


def _failed(what: str, error: Any) -> BlobError:
    return StoreFailed(f"{what}: {error}")
