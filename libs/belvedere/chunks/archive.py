"""Reads container archives, `.tar.gz` files that anybody may have made, and lets through what an application may bring.

Refused: names that are absolute, lead out or lie too deep, links that climb above the root, links and files used as
folders, devices and other special files, more entries or bytes than the limits, headers made to fill memory, and all that
is no whole .tar.gz. `/dev` is passed over: the sandbox makes it. Must not know what becomes of the members (a subclass
says): `making` cuts them into chunks, the appliance's supervisor unpacks them.
"""

from __future__ import annotations

import abc
import gzip
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from belvedere.chunks.errors import ArchiveInvalid

READ_BYTES = 1 << 20
HEADER_BYTES = 1 << 20
"""All headers of one member: names and extended attributes. A larger one is an attack on memory."""
FILE_MODE, FOLDER_MODE = 0o755, 0o755
"""What of a mode is kept: nothing that changes who the user is."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold."""

    entries: int = 400_000
    """Files and folders; a full Ubuntu image with a CUDA stack has about 100,000."""
    total_bytes: int = 32 << 30
    """Of content; the largest images of AWS Panorama were below 20 GB."""
    depth: int = 64
    """Folders below each other."""


class ArchiveReader(abc.ABC):
    """One reading of an archive, from its first byte to its checksum. Blocking; names are relative to the root."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits = limits
        self.bytes = 0
        """Of content, so far."""

    def read(self, archive: IO[bytes] | Path) -> None:
        """Hands over the members in their order. Raises ArchiveInvalid, and what the subclass raises."""
        try:
            with gzip.open(archive) as plain:
                bounded = _Bounded(plain)
                with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|") as members:
                    self._members(members, bounded)
                bounded.allow(HEADER_BYTES)
                while bounded.read(READ_BYTES):
                    pass  # to the end, where the checksum of the whole is
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as error:
            raise ArchiveInvalid(f"it is not a whole .tar.gz file ({error})") from error

    @abc.abstractmethod
    def is_folder(self, name: PurePosixPath) -> bool:
        """Whether it has come as a folder."""

    @abc.abstractmethod
    def folder(self, name: PurePosixPath, mode: int | None = None) -> None:
        """A folder and those above it, each of which may have come before; `mode` None: only because of what lies in it.
        Raises ArchiveInvalid where one of them is something else."""

    @abc.abstractmethod
    def file(self, name: PurePosixPath, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        """A file, its folder being there. It may come again, like the next two: the last one counts."""

    @abc.abstractmethod
    def link(self, name: PurePosixPath, target: str) -> None:
        """A symbolic link."""

    @abc.abstractmethod
    def hard_link(self, name: PurePosixPath, target: PurePosixPath) -> bool:
        """Another name of a file that has come; False: none has."""

    def _members(self, members: tarfile.TarFile, bounded: _Bounded) -> None:
        number = 0
        for number, member in enumerate(members, start=1):
            if number > self.limits.entries:
                raise ArchiveInvalid(f"it has more than {self.limits.entries} entries")
            bounded.allow(member.size + HEADER_BYTES)
            self._member(members, member)
            vars(members)["members"].clear()  # tarfile keeps every header otherwise
        if number == 0:
            raise ArchiveInvalid("it is empty")

    def _member(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._name(member.name)
        if name == PurePosixPath() or name.parts[0] == "dev":
            return
        if member.isdir():
            self.folder(name, member.mode)
            return
        self.folder(name.parent)
        if self.is_folder(name):
            raise ArchiveInvalid("a folder comes again as something else", member.name)
        if member.isreg():
            self.bytes += member.size
            if self.bytes > self.limits.total_bytes:
                raise ArchiveInvalid(f"it unpacks to more than {self.limits.total_bytes >> 20} MB")
            content = members.extractfile(member)
            assert content is not None
            with content:
                self.file(name, member, content)
        elif member.issym():
            _check_link(name, member)
            self.link(name, member.linkname)
        elif member.islnk():
            target = self._name(member.linkname)
            if self.is_folder(target) or not self.hard_link(name, target):
                raise ArchiveInvalid("a hard link leads to no file of it", member.name)
        else:
            raise ArchiveInvalid("it has a device or another special file", member.name)

    def _name(self, text: str) -> PurePosixPath:
        if text.startswith("/") or "\0" in text:
            raise ArchiveInvalid("a name is absolute", text)
        name = PurePosixPath(text)
        if ".." in name.parts:
            raise ArchiveInvalid("a name leads out of it", text)
        if len(name.parts) > self.limits.depth:
            raise ArchiveInvalid(f"folders lie deeper than {self.limits.depth}", text)
        return name


def _check_link(name: PurePosixPath, member: tarfile.TarInfo) -> None:
    """A relative link may not climb above the root. An absolute one means the sandbox's root."""
    if not member.linkname:
        raise ArchiveInvalid("a link leads nowhere", member.name)
    target = PurePosixPath(member.linkname)
    if target.is_absolute():
        return
    depth = len(name.parent.parts)
    for part in target.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise ArchiveInvalid("a link leads out of it", member.name)


class _Bounded:
    """The unpacked stream, which gives no more than was allowed: so that no header can fill the memory."""

    def __init__(self, plain: gzip.GzipFile) -> None:
        self._plain = plain
        self._left = HEADER_BYTES

    def allow(self, count: int) -> None:
        """`count` more bytes until the next call."""
        self._left = count + tarfile.RECORDSIZE

    def read(self, count: int) -> bytes:
        data = self._plain.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveInvalid("a header is too large")
        return data
