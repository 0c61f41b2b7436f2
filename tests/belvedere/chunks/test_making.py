"""Cutting: what changed is new and nothing else, whatever it stands in; hostile archives become nothing."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from belvedere.blobs import BlobStore
from belvedere.chunks import ArchiveInvalid, AssetRoot, DocumentInvalid, Entry, Kind, decode_index, encode_entry
from belvedere.chunks.archive import ArchiveLimits
from belvedere.chunks.making import Maker, cut
from belvedere.chunks.store import ChunkStore
from tests.support.archives import tar_gz

RANDOM = random.Random(7).randbytes(3_000_000)
CODE = b"import panoramasdk\n" + b"print('frame')\n" * 400


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(BlobStore.at(tmp_path / "blobs"))


def make(store: ChunkStore, archive: bytes, **limits: int) -> tuple[AssetRoot, Maker]:
    with Maker(store, ArchiveLimits(**limits)) as maker:
        return maker.archive(io.BytesIO(archive)), maker


def entries(store: ChunkStore, root: AssetRoot) -> dict[str, Entry]:
    index = b"".join(store.read(chunk.digest) for chunk in root.chunks)
    return {entry.path: entry for entry in decode_index(index.splitlines())}


def content(store: ChunkStore, entry: Entry) -> bytes:
    return b"".join(store.read(chunk.digest) for chunk in entry.chunks)


def test_the_same_content_is_cut_alike_however_it_is_read() -> None:
    whole = list(cut(io.BytesIO(RANDOM).read))
    slow = io.BytesIO(RANDOM)
    assert list(cut(lambda _: slow.read(7001))) == whole
    assert b"".join(whole) == RANDOM
    assert 20 < len(whole) < 100


def test_an_insertion_changes_the_chunks_around_it_and_no_others() -> None:
    before = list(cut(io.BytesIO(RANDOM).read))
    after = list(cut(io.BytesIO(RANDOM[:1_000_000] + b"a changed line" + RANDOM[1_000_000:]).read))
    assert len(set(after) - set(before)) <= 2


def test_a_changed_line_in_an_image_is_a_chunk_of_code_one_of_the_index_and_the_root(store: ChunkStore) -> None:
    base = {f"usr/lib/module{number}.py": b"x = %d\n" % number * 50 for number in range(300)} | {"lib.so": RANDOM}
    first, _ = make(store, tar_gz(base | {"panorama/app.py": CODE}))
    changed = CODE.replace(b"'frame'", b"'a frame'", 1)
    second, maker = make(store, tar_gz(base | {"panorama/app.py": changed}))
    assert first.digest() != second.digest()
    assert maker.chunks_new == 2  # of the code, of the index
    assert maker.bytes_new < 100_000
    assert content(store, entries(store, second)["panorama/app.py"]) == changed
    assert content(store, entries(store, second)["lib.so"]) == RANDOM


def test_the_same_base_in_another_archive_adds_nothing(store: ChunkStore) -> None:
    make(store, tar_gz({"a/lib.so": RANDOM, "b": b"1"}))
    _, maker = make(store, tar_gz({"b": b"1", "elsewhere/lib.so": RANDOM}, compresslevel=1))
    assert maker.bytes_new < 10_000  # the index: names and digests


def test_links_and_modes_are_kept_and_what_a_mode_may_not_be_is_not(store: ChunkStore) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("bin/tool")
        member.size, member.mode, member.mtime = 3, 0o6777, 1_700_000_000
        archive.addfile(member, io.BytesIO(b"abc"))
        for name, kind, target in (("tool", tarfile.SYMTYPE, "bin/tool"), ("hard", tarfile.LNKTYPE, "bin/tool")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)

    found = entries(store, make(store, tar_gz({}, fill))[0])
    assert (found["bin"].type, found["bin/tool"].mode, found["bin/tool"].mtime) == ("d", 0o755, 1_700_000_000)
    assert (found["tool"].type, found["tool"].target) == ("l", "bin/tool")
    assert found["hard"].chunks == found["bin/tool"].chunks


def test_a_file_stays_as_it_is(store: ChunkStore) -> None:
    with Maker(store) as maker:
        root = maker.file(io.BytesIO(RANDOM))
    assert (root.kind, root.size_bytes) == (Kind.FILE, len(RANDOM))
    assert b"".join(store.read(chunk.digest) for chunk in root.chunks) == RANDOM
    assert AssetRoot.from_json(root.to_json()) == root


def special(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def fill(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)

    return fill


@pytest.mark.parametrize(
    ("fill", "problem"),
    [
        (special("../out"), "leads out"),
        (special("/etc/passwd"), "absolute"),
        (special("a/../../b"), "leads out"),
        (special("disk", tarfile.BLKTYPE), "device"),
        (special("queue", tarfile.FIFOTYPE), "special file"),
        (special("up", tarfile.SYMTYPE, "../../etc"), "link leads out"),
        (special("hard", tarfile.LNKTYPE, "absent"), "hard link"),
        (special("hard", tarfile.LNKTYPE, "../absent"), "leads out"),
        (special("/".join("d" * 65)), "deeper than 64"),
    ],
)
def test_an_archive_that_leads_out_is_refused(
    store: ChunkStore, fill: Callable[[tarfile.TarFile], None], problem: str
) -> None:
    with pytest.raises(ArchiveInvalid, match=problem):
        make(store, tar_gz({}, fill))


def test_a_link_used_as_a_folder_is_refused(store: ChunkStore) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        special("a", tarfile.SYMTYPE, "/etc")(archive)
        special("a/passwd")(archive)

    with pytest.raises(ArchiveInvalid, match="used as a folder"):
        make(store, tar_gz({}, fill))


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"no archive",
        gzip.compress(b"no tar"),
        tar_gz({"a": RANDOM})[:-9],
        tar_gz({"a": RANDOM})[:-8] + b"12345678",
    ],
    ids=["empty", "text", "no tar", "cut off", "another checksum"],
)
def test_what_is_no_whole_archive_is_refused(store: ChunkStore, archive: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match=r"not a whole \.tar\.gz|empty"):
        make(store, archive)


def test_bombs_are_refused_at_their_limit(store: ChunkStore) -> None:
    many = tar_gz({f"f{number}": b"" for number in range(200)})
    with pytest.raises(ArchiveInvalid, match="more than 100 entries"):
        make(store, many, entries=100)
    with pytest.raises(ArchiveInvalid, match="unpacks to more than 1 MB"):
        make(store, tar_gz({"zeros": bytes(2 << 20)}), total_bytes=1 << 20)
    header = tarfile.TarInfo("a")
    header.pax_headers = {"comment": "x" * (3 << 20)}
    with pytest.raises(ArchiveInvalid, match="header"):
        make(store, tar_gz({}, lambda archive: archive.addfile(header), format=tarfile.PAX_FORMAT))


def peak_kb() -> int:
    found = re.search(r"VmHWM:\s+([0-9]+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def test_a_large_archive_is_never_in_memory(store: ChunkStore, tmp_path: Path) -> None:
    path, size = tmp_path / "large.tar.gz", 96 << 20
    block = RANDOM[: 1 << 20]
    with gzip.open(path, "wb", compresslevel=0) as plain, tarfile.open(fileobj=plain, mode="w|") as archive:
        member = tarfile.TarInfo("large")
        member.size = size

        class Blocks(io.RawIOBase):
            at = 0

            def read(self, count: int = -1, /) -> bytes:
                data = (block + block)[self.at % len(block) :][:count]
                self.at += len(data) + 1  # no two stretches are the same
                return data

        archive.addfile(member, Blocks())
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_kb()
    with path.open("rb") as file, Maker(store) as maker:
        root = maker.archive(file)
    assert root.size_bytes == size
    assert (peak_kb() - before) << 10 < 48 << 20


def test_everything_that_an_asset_needs_is_named_by_its_root_and_renewed_together(
    store: ChunkStore, tmp_path: Path
) -> None:
    root, _ = make(store, tar_gz({"lib.so": RANDOM, "a": b"code"}))
    files = {path.name: path for path in (tmp_path / "blobs" / "chunks").rglob("*") if path.is_file()}
    assert set(store.named_by(root)) == set(files)
    for path in files.values():
        os.utime(path, (0, 0))
    assert store.renew(root) and min(path.stat().st_mtime for path in files.values()) > time.time() - 60
    files[root.chunks[0].digest].unlink()
    assert not store.renew(root)


@pytest.mark.parametrize(
    "lines",
    [
        [b"no json"],
        [encode_entry(Entry("f", "../out"))],
        [encode_entry(Entry("f", "/out"))],
        [encode_entry(Entry("f", "a/b"))],
        [encode_entry(Entry("l", "a", target="/etc")), encode_entry(Entry("f", "a/b"))],
        [encode_entry(Entry("f", "a")), encode_entry(Entry("f", "a"))],
        [b'["f","a",420,0,[["00",5]]]'],
        [b'["x","a"]'],
    ],
)
def test_an_index_that_leads_out_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(DocumentInvalid):
        list(decode_index(lines))
