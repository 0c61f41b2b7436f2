"""Where assets come from: the registry's device port, over HTTPS, signed with the device's key.

Everything that comes is verified here, before anybody sees it. Knows no files.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import zstandard

from belvedere.chunks import CHUNKS_PER_REQUEST, Chunk, pack_digests
from belvedere.chunks.wire import ABSENT, LENGTH
from edge.agent.errors import AssetError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
"""Silence in the middle of a download after which the attempt is given up; the next one goes on where it stopped."""
DOCUMENT_BYTES_MAX = 32 << 20
"""Of a graph or a root."""
BATCH_BYTES = 1 << 20
"""Of chunks, as they come, that are verified and written together."""


class Source:
    """A device's way to assets."""

    def __init__(self, base_url: str, ca_file: Path, sign: Callable[[str, str], str]) -> None:
        self._base_url = base_url.rstrip("/")
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._sign = sign
        self.fetched_bytes = 0
        """That came over the network."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Download]:
        """Connections for one asset."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Download(self, session)

    @asynccontextmanager
    async def ask(
        self, session: aiohttp.ClientSession, asset: str, method: str, path: str, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of a good answer. Raises AssetError."""
        headers = {"Authorization": self._sign(method, path)}
        try:
            async with session.request(
                method, self._base_url + path, data=body, headers=headers, ssl=self._tls
            ) as response:
                if response.status != 200:
                    text = (await response.text())[:200]
                    raise AssetError(asset, f"asset {asset[:19]}… was refused: {response.status} {text}")
                yield response.content
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise AssetError(
                asset, f"asset {asset[:19]}… could not be fetched: {error or type(error).__name__}; will be tried again"
            ) from error


class Download:
    """One asset's requests."""

    def __init__(self, source: Source, session: aiohttp.ClientSession) -> None:
        self._source, self._session = source, session

    async def document(self, digest: str) -> bytes:
        """A small file by its digest, whole. Raises AssetError: unreachable, refused, or (invalid) not what the digest says."""
        data = bytearray()
        async with self._source.ask(self._session, digest, "GET", f"/blobs/{digest}") as content:
            async for piece in content.iter_any():
                data += piece
                self._source.fetched_bytes += len(piece)
                if len(data) > DOCUMENT_BYTES_MAX:
                    raise AssetError(digest, f"asset {digest[:19]}… is no document: it is too long", invalid=True)
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if actual != digest:
            raise AssetError(digest, f"asset {digest[:19]}… is damaged: what came has {actual[:19]}…", invalid=True)
        return bytes(data)

    async def chunks(self, asset: str, wanted: Sequence[Chunk]) -> AsyncIterator[list[tuple[Chunk, bytes]]]:
        """Their contents, in their order, some at a time, verified. Raises AssetError."""
        for at in range(0, len(wanted), CHUNKS_PER_REQUEST):
            group = wanted[at : at + CHUNKS_PER_REQUEST]
            body = pack_digests(chunk.digest for chunk in group)
            async with self._source.ask(self._session, asset, "POST", "/chunks", body) as content:
                async for frames, chunks in self._frames(asset, content, group):
                    yield await asyncio.to_thread(_decoded, asset, frames, chunks)

    async def _frames(
        self, asset: str, content: aiohttp.StreamReader, group: Sequence[Chunk]
    ) -> AsyncIterator[tuple[list[bytes], Sequence[Chunk]]]:
        frames: list[bytes] = []
        size = done = 0
        for number, chunk in enumerate(group, start=1):
            try:
                (length,) = LENGTH.unpack(await content.readexactly(LENGTH.size))
                if length == ABSENT:
                    raise AssetError(
                        asset, f"asset {asset[:19]}… is not whole in the cloud: chunk {chunk.digest[:12]}…"
                    )
                if length > 2 * chunk.size + 1024:
                    raise AssetError(asset, f"asset {asset[:19]}… is damaged: a chunk is too long", invalid=True)
                frames.append(await content.readexactly(length))
            except (asyncio.IncompleteReadError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if frames:
                    yield frames, group[done : number - 1]  # what has come need not come again
                raise AssetError(
                    asset, f"asset {asset[:19]}… could not be fetched: the connection was cut; will be tried again"
                ) from error
            size += length
            self._source.fetched_bytes += LENGTH.size + length
            if size >= BATCH_BYTES or number == len(group):
                yield frames, group[done:number]
                frames, size, done = [], 0, number


def _decoded(asset: str, frames: Sequence[bytes], chunks: Sequence[Chunk]) -> list[tuple[Chunk, bytes]]:
    decompress = zstandard.ZstdDecompressor().decompress
    contents = []
    for frame, chunk in zip(frames, chunks, strict=True):
        try:
            if zstandard.frame_content_size(frame) != chunk.size:
                raise zstandard.ZstdError("another size")
            data = decompress(frame)
        except zstandard.ZstdError as error:
            raise AssetError(asset, f"asset {asset[:19]}… is damaged: {error} in a chunk", invalid=True) from error
        if hashlib.sha256(data).hexdigest() != chunk.digest:
            raise AssetError(
                asset, f"asset {asset[:19]}… is damaged: chunk {chunk.digest[:12]}… is something else", invalid=True
            )
        contents.append((chunk, data))
    return contents
