"""Container archives, unpacked: `.tar.gz` files that anybody may have made, into folders that can be mounted as a root.

Nothing is written outside the folder whatever the archive says: names, links and kinds of members are checked
(`belvedere.chunks.archive`), no parent folder is ever a link, and the size of what comes out is bounded. A folder is
complete or absent. Links are kept as they are: their targets are followed only inside a sandbox, whose root is this folder. Must
not know what runs in it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from belvedere.chunks.archive import FILE_MODE, FOLDER_MODE, READ_BYTES, ArchiveLimits, ArchiveReader
from belvedere.chunks.errors import ArchiveInvalid
from edge.supervisor.errors import ArchiveRefused, SupervisorError

PART_PREFIX = ".part-"
_LOOK_BYTES = 16 << 20
"""Written between two looks at what is left of the disk."""


@dataclass(frozen=True)
class UnpackLimits(ArchiveLimits):
    """What an archive may become."""

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
            _Unpacking(part, self._limits).read(path)
            part.rename(target)
        except ArchiveInvalid as error:
            raise ArchiveRefused(path, error.problem, error.member or None) from error
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


class _Unpacking(ArchiveReader):
    """An archive as files below `root`."""

    limits: UnpackLimits

    def __init__(self, root: Path, limits: UnpackLimits) -> None:
        super().__init__(limits)
        self._root = root
        self._folders: set[PurePosixPath] = {PurePosixPath()}
        """Folders that are known to be real ones of ours. A member that would replace one is refused, so this stays
        true."""
        self._written = 0
        self._looked_at = -_LOOK_BYTES

    def is_folder(self, name: PurePosixPath) -> bool:
        return name in self._folders

    def folder(self, name: PurePosixPath, mode: int | None = None) -> None:
        if name not in self._folders:
            self.folder(name.parent)
            path = self._root / name
            try:
                path.mkdir()
            except FileExistsError:
                raise ArchiveInvalid("a link or a file is used as a folder", str(name)) from None
            self._folders.add(name)
        if mode is not None:
            # Ours to enter and, later, to remove; nothing that changes who the user is.
            (self._root / name).chmod((mode & FOLDER_MODE) | 0o700)

    def file(self, name: PurePosixPath, member: tarfile.TarInfo, content: IO[bytes]) -> None:
        path = self._new(name)
        with path.open("xb") as out:
            while chunk := content.read(READ_BYTES):
                self._written += len(chunk)
                self._check_free()
                out.write(chunk)
            os.fchmod(out.fileno(), (member.mode & FILE_MODE) | 0o600)
        times = max(0.0, member.mtime)
        os.utime(path, (times, times))

    def link(self, name: PurePosixPath, target: str) -> None:
        self._new(name).symlink_to(target)

    def hard_link(self, name: PurePosixPath, target: PurePosixPath) -> bool:
        if target.parent not in self._folders:
            return False
        path = self._new(name)
        try:
            os.link(self._root / target, path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _new(self, name: PurePosixPath) -> Path:
        """Where it goes; what came before under its name has gone."""
        path = self._root / name
        path.unlink(missing_ok=True)
        return path

    def _check_free(self) -> None:
        if self._written - self._looked_at < _LOOK_BYTES:
            return
        self._looked_at = self._written
        if shutil.disk_usage(self._root).free < self.limits.keep_free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
