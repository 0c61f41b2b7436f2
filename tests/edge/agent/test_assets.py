"""Fetching by digest against a real HTTPS server that can be told to break off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from belvedere.bus.tls import prepare
from edge.agent.assets import AssetStore
from edge.agent.errors import AssetError

CONTENT = os.urandom(300_000)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class BlobServer:
    """Serves blobs with ranges over TLS; `cut_after` breaks the next answer off after so many bytes."""

    def __init__(self) -> None:
        self.blobs = {DIGEST: CONTENT}
        self.cut_after: int | None = None
        self.refuse: int | None = None
        self.ranges: list[str | None] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        assert request.headers["Authorization"] == f"signed GET {request.path}"
        if self.refuse is not None:
            return web.Response(status=self.refuse, text="not you")
        content = self.blobs[request.match_info["digest"]]
        begin = request.http_range.start or 0
        response = web.StreamResponse(status=206 if begin else 200)
        response.content_length = len(content) - begin
        await response.prepare(request)
        cut, self.cut_after = self.cut_after, None
        await response.write(content[begin : begin + cut if cut else None])
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[BlobServer]:
    tls = prepare(tmp_path)
    blobs = BlobServer()
    app = web.Application()
    app.router.add_get("/blobs/{digest}", blobs.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context())
    await site.start()
    blobs.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield blobs
    await runner.cleanup()


@pytest.fixture
def store(tmp_path: Path, server: BlobServer) -> AssetStore:
    return AssetStore(
        tmp_path / "assets",
        limit_bytes=500_000,
        base_url=server.url,
        ca_file=tmp_path / "tls" / "ca.pem",
        sign=lambda method, path: f"signed {method} {path}",
    )


async def test_what_is_fetched_stands_under_its_digest(store: AssetStore) -> None:
    path = await store.fetch(DIGEST)
    assert path.read_bytes() == CONTENT
    assert store.verified() == {DIGEST}


async def test_an_asset_that_is_here_is_not_fetched_again(store: AssetStore, server: BlobServer) -> None:
    await store.fetch(DIGEST)
    await store.fetch(DIGEST)
    assert len(server.ranges) == 1


async def test_a_download_that_was_cut_goes_on_where_it_stopped(store: AssetStore, server: BlobServer) -> None:
    server.cut_after = 200_000
    with pytest.raises(AssetError, match="could not be fetched"):
        await store.fetch(DIGEST)
    assert store.verified() == frozenset()
    path = await store.fetch(DIGEST)
    assert path.read_bytes() == CONTENT
    assert server.ranges[0] is None
    assert server.ranges[1] is not None and server.ranges[1].startswith("bytes=")
    assert store.fetched_bytes <= len(CONTENT)


async def test_what_is_not_what_its_digest_says_is_thrown_away(store: AssetStore, server: BlobServer) -> None:
    server.blobs[DIGEST] = b"something else"
    with pytest.raises(AssetError, match="damaged") as caught:
        await store.fetch(DIGEST)
    assert caught.value.invalid
    assert store.verified() == frozenset()
    server.blobs[DIGEST] = CONTENT
    assert (await store.fetch(DIGEST)).read_bytes() == CONTENT


async def test_a_refusal_is_told_with_its_words(store: AssetStore, server: BlobServer) -> None:
    server.refuse = 403
    with pytest.raises(AssetError, match="403 not you"):
        await store.fetch(DIGEST)


async def test_a_server_that_is_away_is_an_error_that_says_it_goes_on(store: AssetStore, tmp_path: Path) -> None:
    away = AssetStore(
        tmp_path / "other",
        limit_bytes=1,
        base_url="https://127.0.0.1:9",
        ca_file=tmp_path / "tls" / "ca.pem",
        sign=lambda m, p: "",
    )
    with pytest.raises(AssetError, match="will be tried again"):
        await away.fetch(DIGEST)


async def test_beyond_the_limit_the_longest_unused_goes_and_what_is_needed_stays(
    store: AssetStore, server: BlobServer
) -> None:
    digests = []
    for number in range(3):
        content = bytes([number]) * 200_000
        digests.append("sha256:" + hashlib.sha256(content).hexdigest())
        server.blobs[digests[-1]] = content
        path = await store.fetch(digests[-1])
        os.utime(path, (number, number))
    assert store.trim(keep={digests[0]}) == [digests[1]]
    assert store.verified() == {digests[0], digests[2]}


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 64, "sha256:../../etc/passwd"])
async def test_a_name_that_is_no_digest_never_reaches_the_disk(store: AssetStore, digest: str) -> None:
    with pytest.raises(AssetError, match="not a digest"):
        await store.fetch(digest)
