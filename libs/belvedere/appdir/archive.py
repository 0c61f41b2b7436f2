"""Archives of assets: `.tar.gz` files under their own digest.

Everything here is a stream: an archive of a gigabyte takes a megabyte of memory to make. What is packed from files is
reproducible: the same input gives the same bytes, so the same digest, so nothing to upload or to deploy.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, cast

from belvedere.appdir.errors import DocumentInvalid

CODE_ROOT = "panorama"
"""Where application code lies in the container, from the root."""

PART_PREFIX = ".part-"
_LEFT_OUT = ("__pycache__", ".DS_Store")
_COMPRESS_LEVEL = 6
_FAST_LEVEL = 1
"""For whole root filesystems, as panorama-cli: a gigabyte at level 6 takes a minute and saves little."""
_GZIP_WINDOW = 31
"""zlib's largest window, with gzip's header (which zlib leaves without a time)."""
_CHUNK = 1 << 20


class DigestingFile:
    """A file that is only written, and knows the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def store(assets: Path, write: Callable[[DigestingFile], None], suffix: str = ".tar.gz") -> Path:
    """Stores what `write` writes as `<sha256><suffix>` in `assets`: complete or not at all."""
    assets.mkdir(parents=True, exist_ok=True)
    part = assets / f"{PART_PREFIX}{uuid.uuid4().hex}"
    try:
        with part.open("wb") as file:
            out = DigestingFile(file)
            write(out)
        target = assets / f"{out.hexdigest()}{suffix}"
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def store_tree(assets: Path, entries: Iterable[tuple[str, Path]]) -> Path:
    """Packs files under these names, without times, owners or the packer's umask: only names, content and who may
    execute. Raises DocumentInvalid for what is neither file, folder nor link."""
    return store(assets, lambda out: _pack(out, entries))


def store_copy(assets: Path, archive: Path) -> Path:
    """Takes a ready archive as it is."""

    def write(out: DigestingFile) -> None:
        with archive.open("rb") as content:
            while chunk := content.read(_CHUNK):
                out.write(chunk)

    return store(assets, write)


def store_compressed(assets: Path, tar: IO[bytes]) -> Path:
    """Compresses a tar stream to its end. An error while reading leaves nothing."""

    def write(out: DigestingFile) -> None:
        packer = zlib.compressobj(_FAST_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        while chunk := tar.read(_CHUNK):
            out.write(packer.compress(chunk))
        out.write(packer.flush())

    return store(assets, write)


def code_tree(source: Path) -> list[tuple[str, Path]]:
    """The files of a code package's `src`, as they lie in the container."""
    found = [(CODE_ROOT, source)]
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if path.suffix != ".pyc" and not any(part in _LEFT_OUT for part in relative.parts):
            found.append((f"{CODE_ROOT}/{relative.as_posix()}", path))
    return found


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _pack(out: DigestingFile, entries: Iterable[tuple[str, Path]]) -> None:
    with (
        gzip.GzipFile(
            filename="", fileobj=cast("IO[bytes]", out), mode="wb", compresslevel=_COMPRESS_LEVEL, mtime=0
        ) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path in entries:
            info = archive.gettarinfo(path, arcname=name)
            if info is None or not (info.isreg() or info.isdir() or info.issym() or info.islnk()):
                raise DocumentInvalid(path, "", "is neither a file, a folder nor a link: it can't go into an archive")
            if info.islnk():
                # Linked twice in the checkout is an accident of that disk: it goes in as a file.
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "root", "root"
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
            if info.isreg():
                with path.open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
