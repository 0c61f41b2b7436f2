"""The appliance's store of assets by digest: fetched in ranges, resumed after a cut, verified before anybody sees them.

A file stands under assets/sha256/<hex> only once its digest was checked; until then it is <hex>.part beside it. Knows
HTTP and files; knows nothing of applications.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Callable, Collection
from pathlib import Path

import aiohttp
import structlog

from edge.agent.errors import AssetError

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
"""Silence in the middle of a download after which the attempt is given up; the next one resumes."""
CHUNK_BYTES = 1 << 20
ALGORITHM = "sha256:"


class AssetStore:
    """Assets below one folder, with a limit on what is kept that nobody uses."""

    def __init__(self, root: Path, *, limit_bytes: int, base_url: str, ca_file: Path, sign: Callable[[str, str], str]):
        self._folder = root / "sha256"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._limit_bytes = limit_bytes
        self._base_url = base_url.rstrip("/")
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._sign = sign
        self.fetched_bytes = 0

    def path(self, digest: str) -> Path:
        """Where the verified file of `digest` ("sha256:<64 hex>") stands, or would."""
        algorithm, _, hexdigits = digest.partition(":")
        if algorithm != "sha256" or len(hexdigits) != 64 or any(c not in "0123456789abcdef" for c in hexdigits):
            raise AssetError(digest, f"not a digest: {digest!r}; expected sha256:<64 hex digits>", invalid=True)
        return self._folder / hexdigits

    def verified(self) -> frozenset[str]:
        """The digests that are here."""
        return frozenset(ALGORITHM + entry.name for entry in self._folder.iterdir() if len(entry.name) == 64)

    async def fetch(self, digest: str) -> Path:
        """Brings one asset here. Resumes what an earlier attempt left.

        Raises AssetError: unreachable, refused, or (invalid=True) not what the digest says.
        """
        final = self.path(digest)
        if final.exists():
            os.utime(final)
            return final
        part = final.with_name(final.name + ".part")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                await self._download(session, digest, part)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AssetError(
                digest,
                f"asset {digest[:19]}… could not be fetched: {error or type(error).__name__}; will be tried again",
            ) from error
        actual = await asyncio.to_thread(_sha256, part)
        if ALGORITHM + actual != digest:
            part.unlink()
            raise AssetError(
                digest, f"asset {digest[:19]}… is damaged: what came has sha256:{actual[:12]}…", invalid=True
            )
        part.replace(final)
        return final

    async def _download(self, session: aiohttp.ClientSession, digest: str, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        path = f"/blobs/{digest}"
        headers = {"Authorization": self._sign("GET", path)}
        if have:
            headers["Range"] = f"bytes={have}-"
        async with session.get(self._base_url + path, headers=headers, ssl=self._tls) as response:
            if response.status == 416:  # everything is here already; the digest check decides
                return
            if response.status == 200:
                have = 0
            elif response.status != 206:
                text = (await response.text())[:200]
                raise AssetError(digest, f"asset {digest[:19]}… was refused: {response.status} {text}")
            with part.open("r+b" if have else "wb") as out:
                out.seek(have)
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    await asyncio.to_thread(out.write, chunk)
                    self.fetched_bytes += len(chunk)
                out.truncate()
                out.flush()
                os.fsync(out.fileno())

    def trim(self, keep: Collection[str]) -> list[str]:
        """Removes the assets longest unused, beyond the limit, that are not in `keep`; returns their digests."""
        files = sorted((entry.stat().st_mtime_ns, entry) for entry in self._folder.iterdir() if len(entry.name) == 64)
        total = sum(entry.stat().st_size for _, entry in files)
        removed = []
        for _, entry in files:
            if total <= self._limit_bytes:
                break
            digest = ALGORITHM + entry.name
            if digest not in keep:
                total -= entry.stat().st_size
                entry.unlink()
                removed.append(digest)
        if removed:
            log.info("assets removed from the cache", count=len(removed))
        return removed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
