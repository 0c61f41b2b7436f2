"""Parcels: what they leave out, and what of them is refused."""

from __future__ import annotations

import hashlib
import io
import random
from pathlib import Path

import pytest
import zstandard

from belvedere.blobs import BlobStore
from belvedere.chunks import ArchiveInvalid, AssetRoot, Chunk, Entry, Kind, encode_entry
from belvedere.chunks.archive import ArchiveLimits
from belvedere.chunks.making import Maker
from belvedere.chunks.parcel import INCOMPLETE, take_parcel, write_parcel
from belvedere.chunks.store import ChunkStore
from belvedere.chunks.wire import LENGTH
from tests.support.archives import tar_gz


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(BlobStore.at(tmp_path / "blobs"))


def parcel(tmp_path: Path, files: dict[str, bytes], known: set[str]) -> tuple[bytes, set[str]]:
    archive, out = tmp_path / "archive", tmp_path / "parcel"
    archive.write_bytes(tar_gz(files))
    digests = write_parcel(archive, out, known)
    return out.read_bytes(), digests


def test_a_parcel_is_what_the_archive_would_have_become(store: ChunkStore, tmp_path: Path) -> None:
    files = {"a/lib": random.Random(5).randbytes(100_000), "b": b"code"}
    data, digests = parcel(tmp_path, files, set())
    root = take_parcel(io.BytesIO(data), store)
    with Maker(store) as maker:
        assert maker.archive(io.BytesIO(tar_gz(files))) == root
    again, _ = parcel(tmp_path, files | {"b": b"changed"}, digests)
    assert len(again) < 1000 < len(data)
    assert take_parcel(io.BytesIO(again), store).digest() != root.digest()


def test_what_a_parcel_leaves_out_must_be_there(store: ChunkStore, tmp_path: Path) -> None:
    _, digests = parcel(tmp_path, {"a": b"never sent"}, set())
    data, _ = parcel(tmp_path, {"a": b"never sent", "b": b"new"}, digests)
    with pytest.raises(ArchiveInvalid, match=INCOMPLETE):
        take_parcel(io.BytesIO(data), store)


def hand_made(index: bytes, kind: Kind = Kind.TREE) -> bytes:
    frame = zstandard.compress(index)
    root = AssetRoot(kind, 0, (Chunk(hashlib.sha256(index).hexdigest(), len(index)),))
    return LENGTH.pack(len(frame)) + frame + LENGTH.pack(0) + root.to_json()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "cut off"),
        (LENGTH.pack(5) + b"12345", "damaged"),
        (LENGTH.pack(2**31), "too long"),
        (LENGTH.pack(0) + b"no root", "damaged"),
        (hand_made(encode_entry(Entry("f", "../out"))), "damaged"),
        (hand_made(b"index", Kind.FILE), "of no archive"),
        (hand_made(b"".join(encode_entry(Entry("d", f"d{n}")) for n in range(30))), "too many"),
    ],
    ids=["empty", "no frame", "long", "no root", "leads out", "a file", "too many"],
)
def test_a_parcel_that_lies_is_refused(store: ChunkStore, data: bytes, problem: str) -> None:
    with pytest.raises(ArchiveInvalid, match=problem):
        take_parcel(io.BytesIO(data), store, ArchiveLimits(entries=10))
