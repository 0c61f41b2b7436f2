"""Archives: what comes out, and what is refused."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.supervisor.errors import ArchiveRefused, SupervisorError
from edge.supervisor.rootfs import RootfsStore, UnpackLimits
from tests.support.small_disk import on_small_disk

Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


@pytest.fixture
def store(tmp_path: Path) -> RootfsStore:
    return RootfsStore(tmp_path / "rootfs", UnpackLimits(entries=50, total_bytes=1 << 20, depth=8))


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[Members], Path]:
    def make(members: Members) -> Path:
        path = tmp_path / "0123abcd"
        with tarfile.open(path, "w:gz") as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        return path

    return make


def test_files_folders_and_links_come_out_as_they_were(store: RootfsStore, archive: Callable[[Members], Path]) -> None:
    path = archive(
        [
            member("./usr", type=tarfile.DIRTYPE, mode=0o555),
            member("./usr/bin/tool", b"#!/bin/sh\n", mode=0o6755, mtime=1_600_000_000),
            link("bin", "usr/bin"),
            link("etc/alternatives/tool", "/usr/bin/tool"),
            link("usr/bin/same", "usr/bin/tool", tarfile.LNKTYPE),
            member("dev/console", type=tarfile.CHRTYPE),
            member("panorama/app.py", b"first"),
            member("panorama/app.py", b"second"),
        ]
    )
    root = store.ready(path)
    tool = root / "usr" / "bin" / "tool"
    assert tool.stat().st_mode & 0o7777 == 0o755, "no set-user-id"
    assert tool.stat().st_mtime == 1_600_000_000
    assert (root / "usr" / "bin" / "same").samefile(tool)
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "etc" / "alternatives" / "tool").readlink() == Path("/usr/bin/tool")
    assert (root / "panorama" / "app.py").read_text() == "second"
    assert not (root / "dev").exists()
    assert store.ready(path) == root


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([member("../out", b"x")], "leads out"),
        ([member("a/../../out", b"x")], "leads out"),
        ([member("/etc/passwd", b"x")], "absolute"),
        ([link("a", "../../etc")], "leads out"),
        ([link("a", "/tmp"), member("a/out", b"x")], "used as a folder"),
        ([link("a", "."), member("a/b/out", b"x")], "used as a folder"),
        ([member("a/b", b"x"), link("a", "/etc")], "comes again"),
        ([link("a", "/etc/passwd", tarfile.LNKTYPE)], "absolute"),
        ([link("a", "../etc/passwd", tarfile.LNKTYPE)], "leads out"),
        ([link("b", "a/passwd", tarfile.LNKTYPE)], "no file of it"),
        ([member("x/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "device"),
        ([member("x/fifo", type=tarfile.FIFOTYPE)], "device"),
        ([member("/".join("abcdefghij"), b"x")], "deeper"),
        ([member(f"f{number}") for number in range(51)], "more than 50 entries"),
        ([member("zeros", bytes((1 << 20) + 1))], "more than 1 MB"),
        ([member("a", b"x", pax_headers={"comment": "x" * (2 << 20)})], "header is too large"),
        ([], "empty"),
    ],
)
def test_an_archive_that_tries_something_is_refused_and_leaves_nothing(
    members: Members, problem: str, store: RootfsStore, archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    path = archive(members)
    with pytest.raises(ArchiveRefused, match=problem):
        store.ready(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["0123abcd", "rootfs"]
    assert list((tmp_path / "rootfs").iterdir()) == []


def written(path: Path, *parts: bytes) -> Path:
    """A file of gzip members, one after the other: the same compressed bytes many times over cost nothing to make."""
    with path.open("wb") as out:
        for part in parts:
            out.write(part)
    return path


def refused_cheaply(store: RootfsStore, path: Path, problem: str) -> None:
    """Refused with this reason, in little memory, and without a trace."""
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveRefused, match=problem):
            store.ready(path)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert sorted(item.name for item in path.parent.iterdir()) == ["0123abcd", "rootfs"]
    assert list((path.parent / "rootfs").iterdir()) == []


def test_ten_million_entries_are_too_many_after_the_first_few(store: RootfsStore, tmp_path: Path) -> None:
    headers = b"".join(tarfile.TarInfo(f"f{number}").tobuf() for number in range(10_000))
    path = written(tmp_path / "0123abcd", *[gzip.compress(headers)] * 1000)
    refused_cheaply(store, path, "more than 50 entries")


def test_a_bomb_is_cut_at_its_size(store: RootfsStore, tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 8 << 30
    zeros = gzip.compress(bytes(64 << 20))
    path = written(tmp_path / "0123abcd", gzip.compress(info.tobuf()), *[zeros] * 128)
    assert path.stat().st_size < 16 << 20
    refused_cheaply(store, path, "more than 1 MB")


def test_holes_count_as_what_they_unpack_to(store: RootfsStore, tmp_path: Path) -> None:
    info = tarfile.TarInfo("sparse")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    # GNU's old format: one byte at the end of 64 GB of nothing.
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % ((64 << 30) // 8 - 1, 0)
    header[483:495] = b"\x80" + (64 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = written(tmp_path / "0123abcd", gzip.compress(bytes(header) + bytes(1024)))
    refused_cheaply(store, path, "more than 1 MB")


def test_the_last_of_the_disk_is_left_to_the_appliance(archive: Callable[[Members], Path], tmp_path: Path) -> None:
    path = archive([member(f"{number}", random.Random(number).randbytes(1 << 20)) for number in range(32)])
    (disk := tmp_path / "disk").mkdir()
    said = on_small_disk(
        disk,
        40,
        f"""
        import shutil
        from pathlib import Path
        from edge.supervisor.errors import SupervisorError
        from edge.supervisor.rootfs import RootfsStore, UnpackLimits
        for keep_mb in (41, 4):
            store = RootfsStore(Path({str(disk / "rootfs")!r}), UnpackLimits(keep_free_bytes=keep_mb << 20))
            try:
                unpacked = store.ready(Path({str(path)!r}))
                print("files", len(list(unpacked.iterdir())))
            except SupervisorError as error:
                print(error, shutil.disk_usage({str(disk)!r}).used >> 20)
        try:
            RootfsStore(Path({str(disk / "rootfs2")!r}), UnpackLimits(keep_free_bytes=0)).ready(Path({str(path)!r}))
        except SupervisorError as error:  # the disk itself says so: nothing was kept free
            print(error, shutil.disk_usage({str(disk)!r}).used >> 20)
        """,
    )
    full = "no space is left to unpack the application: free some on the appliance"
    assert said.splitlines() == [f"{full} 0", "files 32", f"{full} 32"]


@pytest.mark.parametrize("cut", [10, 100, -5])
def test_a_damaged_archive_is_refused(
    cut: int, store: RootfsStore, archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    path = archive([member("a", os.urandom(50_000))])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArchiveRefused, match="not a whole"):
        store.ready(path)
    path.write_bytes(gzip.compress(b"not a tar" * 1000))
    with pytest.raises(ArchiveRefused, match="not a whole"):
        store.ready(path)
    assert list((tmp_path / "rootfs").iterdir()) == []


def test_an_archive_that_is_not_there_is_said_to_be(store: RootfsStore, tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match="No such file"):
        store.ready(tmp_path / "absent")


def test_what_nobody_uses_goes_and_what_is_used_stays(
    store: RootfsStore, archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    used = store.ready(archive([member("a", b"x")]))
    unused = tmp_path / "rootfs" / "ffff"
    left = tmp_path / "rootfs" / ".part-of-a-killed-one"
    for folder in (unused, left):
        (folder / "inside").mkdir(parents=True)
    store.remove(store.retire([tmp_path / "assets" / used.name]))
    assert list((tmp_path / "rootfs").iterdir()) == [used]
