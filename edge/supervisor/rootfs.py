"""Container archives, unpacked: `.tar.gz` files that anybody may have made, into folders that can be mounted as a root.

Nothing is written outside the folder whatever the archive says: no name leads up, no parent folder is ever a link,
devices and other special files are refused, and the size of what comes out is bounded. A folder is complete or
absent. Links are kept as they are: their targets are followed only inside a sandbox, whose root is this folder. Must
not know what runs in it.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from edge.supervisor.errors import ArchiveRefused, SupervisorError

PART_PREFIX = ".part-"
_COPY_BYTES = 1 << 20
_LOOK_BYTES = 16 << 20
"""Written between two looks at what is left of the disk."""
_HEADER_BYTES = 1 << 20
"""All headers of one member: names and extended attributes. A larger one is an attack on memory."""


@dataclass(frozen=True)
class UnpackLimits:
    """What an archive may become."""

    entries: int = 400_000
    """Files and folders; a full Ubuntu image with a CUDA stack has about 100,000."""
    total_bytes: int = 32 << 30
    """Of content; the largest images of AWS Panorama were below 20 GB."""
    depth: int = 64
    """Folders below each other."""
    keep_free_bytes: int = 512 << 20
    """Of the disk: logs, storage and the appliance's own state must go on while and after it is unpacked."""


class RootfsStore:
    """Unpacked archives below one folder, each under its archive's file name (its digest)."""

    def __init__(self, folder: Path, limits: UnpackLimits | None = None) -> None:
        self._folder = folder
        self._limits = limits or UnpackLimits()
        self._unpacking: set[str] = set()

    def ready(self, path: Path) -> Path:
        """The unpacked folder of the archive at `path`; unpacks it if needed (blocking: seconds for a large image). A
        folder is returned as it is.

        Raises ArchiveRefused; SupervisorError where the archive is not there or the disk is full.
        """
        if path.is_dir():
            return path
        target = self._folder / path.name
        if target.is_dir():
            return target
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{PART_PREFIX}{uuid.uuid4().hex}"
        self._unpacking.add(part.name)
        part.mkdir()
        try:
            _Unpacking(path, part, self._limits).run()
            part.rename(target)
        except OSError as error:
            if error.errno == errno.ENOTEMPTY or (error.errno == errno.EEXIST and target.is_dir()):
                return target  # somebody else was quicker
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SupervisorError(
                    "no space is left to unpack the application: free some on the appliance"
                ) from error
            raise SupervisorError(f"the application's archive can't be unpacked: {error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
            self._unpacking.discard(part.name)
        return target

    def retire(self, used: Collection[Path]) -> list[Path]:
        """Takes away what no application uses any more, and what an interrupted unpacking left. Quick; what it
        returns is to be given to `remove`."""
        kept = {path.name for path in used} | self._unpacking
        if not self._folder.is_dir():
            return []
        found = [folder for folder in self._folder.iterdir() if folder.name not in kept]
        return [folder.rename(self._folder / f"{PART_PREFIX}{uuid.uuid4().hex}") for folder in found]

    @staticmethod
    def remove(retired: Collection[Path]) -> None:
        """Deletes it (blocking)."""
        for folder in retired:
            shutil.rmtree(folder, ignore_errors=True)


class _Unpacking:
    def __init__(self, archive: Path, root: Path, limits: UnpackLimits) -> None:
        self._archive = archive
        self._root = root
        self._limits = limits
        self._folders: set[PurePosixPath] = {PurePosixPath()}
        """Folders that are known to be real ones of ours. A member that would replace one is refused, so this stays
        true."""
        self._bytes = 0
        self._looked_at = -_LOOK_BYTES

    def run(self) -> None:
        try:
            with gzip.open(self._archive) as plain:
                bounded = _BoundedReader(plain, self._archive)
                with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|") as members:
                    self._members(members, bounded)
                # To the end, where the checksum of the whole is.
                bounded.allow(_HEADER_BYTES)
                while bounded.read(_COPY_BYTES):
                    pass
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, UnicodeError) as error:
            raise ArchiveRefused(self._archive, f"it is not a whole .tar.gz file ({error})") from error

    def _members(self, members: tarfile.TarFile, bounded: _BoundedReader) -> None:
        number = 0
        for number, member in enumerate(members, start=1):
            if number > self._limits.entries:
                raise ArchiveRefused(self._archive, f"it has more than {self._limits.entries} entries")
            bounded.allow(member.size + _HEADER_BYTES)
            self._member(members, member)
            vars(members)["members"].clear()  # tarfile keeps every header otherwise
        if number == 0:
            raise ArchiveRefused(self._archive, "it is empty")

    def _member(self, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = self._name(member.name)
        if name == PurePosixPath() or name.parts[0] == "dev":
            return  # the root itself; /dev is made by the sandbox
        if member.isdir():
            self._folder(name, member.mode)
            return
        self._folder(name.parent)
        path = self._root / name
        if name in self._folders:
            raise ArchiveRefused(self._archive, "a folder comes again as something else", member.name)
        path.unlink(missing_ok=True)
        if member.isreg():
            self._file(path, members, member)
        elif member.issym():
            self._check_link(name, member)
            path.symlink_to(member.linkname)
        elif member.islnk():
            self._hard_link(path, member)
        else:
            raise ArchiveRefused(self._archive, "it has a device or another special file", member.name)

    def _name(self, text: str) -> PurePosixPath:
        if text.startswith("/") or "\0" in text:
            raise ArchiveRefused(self._archive, "a name is absolute", text)
        name = PurePosixPath(text)
        if ".." in name.parts:
            raise ArchiveRefused(self._archive, "a name leads out of it", text)
        if len(name.parts) > self._limits.depth:
            raise ArchiveRefused(self._archive, f"folders lie deeper than {self._limits.depth}", text)
        return name

    def _folder(self, name: PurePosixPath, mode: int | None = None) -> None:
        if name not in self._folders:
            self._folder(name.parent)
            path = self._root / name
            try:
                path.mkdir()
            except FileExistsError:
                raise ArchiveRefused(self._archive, "a link or a file is used as a folder", str(name)) from None
            self._folders.add(name)
        if mode is not None:
            # Ours to enter and, later, to remove; nothing that changes who the user is.
            (self._root / name).chmod((mode & 0o755) | 0o700)

    def _file(self, path: Path, members: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        content = members.extractfile(member)
        assert content is not None
        with content, path.open("xb") as out:
            while chunk := content.read(_COPY_BYTES):
                self._bytes += len(chunk)
                if self._bytes > self._limits.total_bytes:
                    raise ArchiveRefused(self._archive, f"it unpacks to more than {self._limits.total_bytes >> 20} MB")
                self._check_free()
                out.write(chunk)
            os.fchmod(out.fileno(), (member.mode & 0o755) | 0o600)
        times = max(0.0, member.mtime)
        os.utime(path, (times, times))

    def _check_free(self) -> None:
        if self._bytes - self._looked_at < _LOOK_BYTES:
            return
        self._looked_at = self._bytes
        if shutil.disk_usage(self._root).free < self._limits.keep_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _check_link(self, name: PurePosixPath, member: tarfile.TarInfo) -> None:
        """A relative link may not climb above the root. An absolute one means the sandbox's root."""
        if not member.linkname:
            raise ArchiveRefused(self._archive, "a link leads nowhere", member.name)
        target = PurePosixPath(member.linkname)
        if target.is_absolute():
            return
        depth = len(name.parent.parts)
        for part in target.parts:
            depth += -1 if part == ".." else 1
            if depth < 0:
                raise ArchiveRefused(self._archive, "a link leads out of it", member.name)

    def _hard_link(self, path: Path, member: tarfile.TarInfo) -> None:
        target = self._name(member.linkname)
        if target.parent not in self._folders or target in self._folders:
            raise ArchiveRefused(self._archive, "a hard link leads to no file of it", member.name)
        try:
            os.link(self._root / target, path, follow_symlinks=False)
        except FileNotFoundError:
            raise ArchiveRefused(self._archive, "a hard link leads to no file of it", member.name) from None


class _BoundedReader:
    """The unpacked stream, which gives no more than was allowed: so that no header can fill the memory."""

    def __init__(self, plain: gzip.GzipFile, archive: Path) -> None:
        self._plain = plain
        self._archive = archive
        self._left = _HEADER_BYTES

    def allow(self, count: int) -> None:
        """`count` more bytes until the next call."""
        self._left = count + tarfile.RECORDSIZE

    def read(self, count: int) -> bytes:
        data = self._plain.read(count)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveRefused(self._archive, "a header is too large")
        return data
