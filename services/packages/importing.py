"""What a package archive holds: a package version as the AWS tools lay it out, packed as tar (plain, gzip, bzip2, xz) or zip.

    …/package.json   the package document. Where there are several (a whole application project), the one in
                     packages/<account>-<name>-<version>/ is meant
    its files        every assetUri and descriptorUri of the document, found by its name: beside package.json, in assets/ beside
                     it, in assets/ at the top of the archive, or else the only file of that name

Blocks: to be used in a thread. Must not know storage, the database or the API. Nothing is written to a path of an archive's.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, Protocol, cast

from belvedere import jsontext

DOCUMENT = "package.json"
ENTRIES_MAX = 10_000
"""Entries of one archive."""
UNPACKED_MAX_BYTES = 64 << 30
"""All files of one archive together."""
CHUNK_BYTES = 1 << 20
READ_MAX_BYTES = 16 << 20
"""Of one archive's headers: a zip's directory of ENTRIES_MAX entries takes a few MiB."""


class ArchiveInvalid(Exception):
    """The archive can't be imported; the message says why."""


class PackageArchive:
    """One package in an open archive."""

    def __init__(self, file: IO[bytes], account: str, name: str, version: str, document_max_bytes: int) -> None:
        """Finds the package and its files. Raises ArchiveInvalid."""
        with _readable():
            self._archive: _Archive = _Zip(file) if zipfile.is_zipfile(file) else _Tar(file)
            self._sizes = dict(self._archive.sizes())
            path = _document(self._sizes, f"{account}-{name}-{version}")
            if self._sizes[path] > document_max_bytes:
                raise ArchiveInvalid(f"{path} has {self._sizes[path]} bytes, at most {document_max_bytes} are read")
            with self._archive.open(path) as document:
                self.document = document.read()
        found = {uri: _find(self._sizes, path, uri) for uri in _uris(self.document)}
        order = {entry: place for place, entry in enumerate(self._sizes)}
        # In the archive's order: what is compressed as a whole is gone through once.
        self._files = dict(sorted(((u, p) for u, p in found.items() if p), key=lambda item: order[item[1]]))

    @property
    def files(self) -> list[str]:
        """The assetUris and descriptorUris whose files are there."""
        return list(self._files)

    def chunks(self, uri: str) -> Iterator[bytes]:
        """The bytes of one of `files`, in pieces. Raises ArchiveInvalid."""
        with _readable(), self._archive.open(self._files[uri]) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


class _Archive(Protocol):
    def sizes(self) -> Mapping[str, int]:
        """Bytes of every regular file by its path in the archive, in order."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """A file of `sizes`."""
        ...


class _Careful:
    """A file that gives no more than READ_MAX_BYTES at once: headers can claim any length, and are read into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > READ_MAX_BYTES:
            raise OSError(f"a header in it claims {size} bytes")
        data = self._file.read(READ_MAX_BYTES + 1 if size < 0 else size)
        if len(data) > READ_MAX_BYTES:
            raise OSError(f"a header in it has more than {READ_MAX_BYTES} bytes")
        return data


_UNPACK: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class _Tar:
    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        magic = file.read(6)
        file.seek(0)
        unpack = next((opened for front, opened in _UNPACK.items() if magic.startswith(front)), None)
        plain = cast(IO[bytes], _Careful(file if unpack is None else unpack(file)))
        self._archive = tarfile.open(fileobj=plain, mode="r:")  # noqa: SIM115 — reads `file`, holds nothing of its own
        self._members: dict[str, tarfile.TarInfo] = {}
        total = 0
        for count, member in enumerate(self._archive, 1):
            total += member.size
            _check(count, total)
            if member.isreg():
                self._members[_tidy(member.name)] = member

    def sizes(self) -> Mapping[str, int]:
        return {path: member.size for path, member in self._members.items()}

    def open(self, path: str) -> IO[bytes]:
        file = self._archive.extractfile(self._members[path])
        assert file is not None, "a regular file has bytes"
        return file


class _Zip:
    def __init__(self, file: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(cast(IO[bytes], _Careful(file)))
        entries = self._archive.infolist()
        _check(len(entries), sum(entry.file_size for entry in entries))
        self._entries = {_tidy(entry.filename): entry for entry in entries if not entry.is_dir()}

    def sizes(self) -> Mapping[str, int]:
        return {path: entry.file_size for path, entry in self._entries.items()}

    def open(self, path: str) -> IO[bytes]:
        return self._archive.open(self._entries[path])


@contextmanager
def _readable() -> Iterator[None]:
    """What the readers of archives raise, as ArchiveInvalid. RuntimeError: an encrypted zip."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise ArchiveInvalid(f"it is no tar or zip archive that can be read: {error}") from error


def _document(sizes: Mapping[str, int], folder: str) -> str:
    documents = [path for path in sizes if PurePosixPath(path).name == DOCUMENT]
    if not documents:
        raise ArchiveInvalid(f"it holds no {DOCUMENT}")
    if len(documents) == 1:
        return documents[0]
    named = [path for path in documents if PurePosixPath(path).parent.name == folder]
    if len(named) == 1:
        return named[0]
    raise ArchiveInvalid(
        f"it holds {len(documents)} files {DOCUMENT}, {len(named)} of them in a folder {folder}: exactly one is expected"
    )


def _uris(document: bytes) -> list[str]:
    """What the document names. One that is wrong names nothing here: whoever registers it says what is wrong."""
    try:
        assets = jsontext.loads(document)["nodePackage"].get("assets", [])
        items = [item for asset in assets for item in asset["implementations"] if item["type"] != "system"]
        uris = [item.get(key) for item in items for key in ("assetUri", "descriptorUri")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [uri for uri in dict.fromkeys(uris) if isinstance(uri, str) and uri]


def _find(sizes: Mapping[str, int], document: str, uri: str) -> str | None:
    beside = PurePosixPath(document).parent
    for folder in (beside, beside / "assets", PurePosixPath("assets")):
        path = _tidy(str(folder / uri))
        if path in sizes:
            return path
    same = [path for path in sizes if PurePosixPath(path).name == uri]
    return same[0] if len(same) == 1 else None


def _tidy(path: str) -> str:
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _check(count: int, size: int) -> None:
    if count > ENTRIES_MAX or size > UNPACKED_MAX_BYTES:
        raise ArchiveInvalid(f"it holds more than {ENTRIES_MAX} entries or {UNPACKED_MAX_BYTES} bytes")
