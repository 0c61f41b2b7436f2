"""Assets by digest against a real HTTPS server that can be told to break off: only what is missing is moved, what comes
is checked, what is here is on the disk once."""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard
from aiohttp import web

from belvedere.bus.tls import prepare
from belvedere.chunks import AssetRoot, Entry, encode_entry, pack, unpack_digests
from belvedere.chunks.making import Maker
from edge.agent.assets import AssetStore
from edge.agent.errors import AssetError
from tests.support.archives import tar_gz

LIBRARY = random.Random(1).randbytes(1_500_000)
OTHER = random.Random(2).randbytes(900_000)
CODE = b"import panoramasdk\n" * 50


class Server:
    """Serves documents and chunks over TLS; `cuts`: after how many chunks the next answers break off; None: not."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.frames: dict[str, bytes] = {}
        self.cuts: list[int | None] = []
        self.refuse: int | None = None
        self.asked: list[list[str]] = []
        self.url = ""

    def has(self, digest: str) -> bool:
        return digest in self.frames

    def put(self, digest: str, data: bytes) -> None:
        self.frames[digest] = zstandard.compress(data)

    def _offer(self, root: AssetRoot) -> str:
        self.documents[root.digest()] = root.to_json()
        return root.digest()

    def archive(self, files: dict[str, bytes]) -> str:
        """The digest of a tree."""
        with Maker(self) as maker:
            return self._offer(maker.archive(io.BytesIO(tar_gz(files))))

    def file(self, data: bytes) -> str:
        """The digest of a file."""
        with Maker(self) as maker:
            return self._offer(maker.file(io.BytesIO(data)))

    async def document(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"signed GET {request.path}"
        if self.refuse is not None:
            return web.Response(status=self.refuse, text="not you")
        return web.Response(body=self.documents[request.match_info["digest"]])

    async def chunks(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "signed POST /chunks"
        digests = unpack_digests(await request.read())
        self.asked.append(digests)
        response = web.StreamResponse()
        await response.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else None
        for digest in digests[:cut]:
            await response.write(pack(self.frames.get(digest)))
        if cut is not None:
            assert request.transport is not None
            request.transport.close()
        return response


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    tls = prepare(tmp_path)
    found = Server()
    app = web.Application()
    app.router.add_get("/blobs/{digest}", found.document)
    app.router.add_post("/chunks", found.chunks)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server_context())
    await site.start()
    found.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


def opened(tmp_path: Path, url: str, limit_bytes: int = 4_000_000) -> AssetStore:
    return AssetStore(
        tmp_path / "assets",
        limit_bytes=limit_bytes,
        base_url=url,
        ca_file=tmp_path / "tls" / "ca.pem",
        sign=lambda method, path: f"signed {method} {path}",
    )


@pytest.fixture
def store(tmp_path: Path, server: Server) -> AssetStore:
    return opened(tmp_path, server.url)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def disk_use(folder: Path) -> int:
    return sum({path.lstat().st_ino: path.lstat().st_size for path in folder.rglob("*") if path.is_file()}.values())


async def test_an_archive_becomes_a_root_filesystem_and_a_model_stays_a_file(store: AssetStore, server: Server) -> None:
    image = {"usr/lib.so": LIBRARY, "panorama/app.py": CODE, "empty": b""}
    tree, model = server.archive(image), server.file(OTHER)
    assert files(await store.fetch(tree)) == image
    assert (await store.fetch(model)).read_bytes() == OTHER
    assert store.verified() == {tree, model}
    graph = f"sha256:{hashlib.sha256(b'graph').hexdigest()}"
    server.documents[graph] = b"graph"
    assert (await store.fetch_document(graph)).read_bytes() == b"graph"
    assert len(server.asked) == 3  # the index, the files, the model


async def test_a_changed_line_moves_a_chunk_or_two_and_the_rest_is_on_the_disk_once(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    base = {"usr/lib.so": LIBRARY} | {f"usr/{number}.py": b"%d\n" % number * 40 for number in range(200)}
    first = await store.fetch(server.archive(base | {"app.py": CODE}))
    before, asked = store.fetched_bytes, len(server.asked)
    changed = base | {"app.py": CODE + b"print()\n"}
    second = await store.fetch(server.archive(changed))
    assert sum(map(len, server.asked[asked:])) == 2  # of the index, of the code
    assert store.fetched_bytes - before < 20_000
    assert files(second) == changed
    assert (first / "usr/lib.so").stat().st_ino == (second / "usr/lib.so").stat().st_ino
    assert disk_use(tmp_path / "assets") < 1.3 * len(LIBRARY)


async def test_what_an_earlier_run_fetched_is_known_after_a_restart(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    await store.fetch(server.archive({"lib.so": LIBRARY, "app.py": CODE}))
    asked = len(server.asked)
    again = opened(tmp_path, server.url)
    # The same content, at another place in a longer file.
    moved = OTHER[:300_000] + LIBRARY
    assert files(await again.fetch(server.archive({"moved.so": moved}))) == {"moved.so": moved}
    assert sum(map(len, server.asked[asked:])) < 15


async def test_a_download_that_was_cut_goes_on_where_it_stopped(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    digest = server.archive({"app.py": CODE, "lib.so": LIBRARY})
    server.cuts = [0, None, 10]  # the index, once more, the files
    for _ in range(2):
        with pytest.raises(AssetError, match="will be tried again"):
            await store.fetch(digest)
    store.changed()
    assert store.trim(keep={digest}) == []  # what has come of it stays
    again = opened(tmp_path, server.url)
    assert (await again.fetch(digest) / "lib.so").read_bytes() == LIBRARY
    assert [len(digests) for digests in server.asked[:2]] == [1, 1]
    assert len(server.asked[3]) == len(server.asked[2]) - 10


async def test_a_chunk_that_is_not_what_it_should_be_is_refused_until_it_is(store: AssetStore, server: Server) -> None:
    digest = server.file(LIBRARY)
    chunk = AssetRoot.from_json(server.documents[digest]).chunks[3]
    good = server.frames[chunk.digest]
    for bad in (zstandard.compress(bytes(chunk.size)), zstandard.compress(b"short"), b"no frame", good[:-5]):
        server.frames[chunk.digest] = bad
        with pytest.raises(AssetError, match="damaged") as caught:
            await store.fetch(digest)
        assert caught.value.invalid
    del server.frames[chunk.digest]
    with pytest.raises(AssetError, match="not whole in the cloud"):
        await store.fetch(digest)
    assert store.verified() == frozenset()
    server.frames[chunk.digest] = good
    assert (await store.fetch(digest)).read_bytes() == LIBRARY


async def test_a_document_that_is_not_what_it_should_be_is_refused(store: AssetStore, server: Server) -> None:
    digest = server.file(LIBRARY)
    server.documents[digest] = b"something else"
    with pytest.raises(AssetError, match="damaged") as caught:
        await store.fetch(digest)
    assert caught.value.invalid
    unreadable = f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    server.documents[unreadable] = b"{}"
    with pytest.raises(AssetError, match="can't be used"):
        await store.fetch(unreadable)


async def test_an_index_that_leads_out_of_its_tree_writes_nothing(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    index = encode_entry(Entry("l", "a", target="/tmp")) + encode_entry(Entry("f", "a/evil", 0o644))
    with Maker(server) as maker:
        root = maker.file(io.BytesIO(index))
    evil = AssetRoot.from_json(root.to_json().replace(b'"file"', b'"tree"'))
    server.documents[evil.digest()] = evil.to_json()
    with pytest.raises(AssetError, match="not a tree"):
        await store.fetch(evil.digest())
    assert store.verified() == frozenset()


async def test_what_the_disk_has_spoilt_is_fetched_again(store: AssetStore, server: Server, tmp_path: Path) -> None:
    first = server.archive({"lib.so": LIBRARY, "app.py": CODE})
    spoilt = await store.fetch(first) / "lib.so"
    with spoilt.open("r+b") as file:
        file.seek(700_000)
        file.write(b"spoilt")
    # The content is wanted for a longer file: what lies here is read, found wrong, and brought once more.
    other = server.archive({"longer.so": LIBRARY + OTHER})
    assert files(await store.fetch(other)) == {"longer.so": LIBRARY + OTHER}
    assert store.check() == [first]
    assert store.verified() == {other}
    assert files(await store.fetch(first)) == {"lib.so": LIBRARY, "app.py": CODE}
    assert store.check() == []


async def test_a_refusal_is_told_with_its_words(store: AssetStore, server: Server) -> None:
    server.refuse = 403
    with pytest.raises(AssetError, match="403 not you"):
        await store.fetch(server.file(b"1"))


async def test_a_server_that_is_away_is_an_error_that_says_it_goes_on(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    away = opened(tmp_path, "https://127.0.0.1:9")
    with pytest.raises(AssetError, match="will be tried again"):
        await away.fetch(server.file(b"1"))


async def test_beyond_the_limit_the_longest_unused_goes_and_what_is_needed_stays(
    store: AssetStore, server: Server, tmp_path: Path
) -> None:
    contents = [random.Random(number).randbytes(1_800_000) for number in range(3)]
    digests = [server.file(contents[0]), server.archive({"a": contents[1]}), server.file(contents[2])]
    for number, digest in enumerate(digests):
        await store.fetch(digest)
        os.utime(tmp_path / "assets" / "roots" / digest.removeprefix("sha256:"), (number, number))
    assert store.trim(keep={digests[0]}) == [digests[1]]
    assert store.verified() == {digests[0], digests[2]}
    assert disk_use(tmp_path / "assets") < 3_700_000
    assert files(await store.fetch(digests[1])) == {"a": contents[1]}


async def test_a_full_disk_is_said_and_what_nobody_uses_makes_room_first(
    store: AssetStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, unused = server.file(LIBRARY), server.file(OTHER)
    await store.fetch(used)
    await store.fetch(unused)
    store.in_use = lambda: {used}
    room = 64 << 20

    def free(self: AssetStore) -> int:
        return room - self._content.size() + len(LIBRARY) + len(OTHER)

    monkeypatch.setattr(AssetStore, "_free_bytes", free)
    with pytest.raises(AssetError, match=r"needs 2 MB, and the appliance's disk has 64 MB free"):
        await store.fetch(server.file(LIBRARY[::-1] + OTHER))
    assert store.verified() == {used}
    assert (await store.fetch(server.file(OTHER[::-1]))).read_bytes() == OTHER[::-1]


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 64, "sha256:../../etc/passwd"])
async def test_a_name_that_is_no_digest_never_reaches_the_disk(store: AssetStore, digest: str) -> None:
    with pytest.raises(AssetError, match="not a digest"):
        await store.fetch(digest)
