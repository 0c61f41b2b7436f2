"""What applications keep on the appliance: a folder each, handed from an instance to the one that replaces it.

    storage/<first of a line of instances>/      the folder
    storage/<a later one> -> <the first one>     a link; both see the same folder while both run

So a replacement finds what its predecessor wrote, and what that still writes until it ends; and a replacement that is
given up leaves everything to it. A folder goes when no instance that is to be kept has it any more. Blocking; must not
know what runs.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

GONE_PREFIX = ".gone-"
"""Of folders that are being deleted: what an interrupted deletion leaves goes with the next."""


class StorageStore:
    """Storage below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ready(self, instance_id: str, replaces: str = "") -> Path:
        """The instance's folder, made if absent; that of the instance it replaces, where this has one."""
        own = self._folder / instance_id
        found = self._found(own)
        if found is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            inherited = self._found(self._folder / replaces) if replaces else None
            own.unlink(missing_ok=True)  # a link that leads nowhere
            if inherited is not None:
                own.symlink_to(inherited.name)
                return inherited
            own.mkdir(mode=0o700)
            found = own
        return found

    def retire(self, keep: Collection[str]) -> list[Path]:
        """Takes away what belongs to no instance in `keep`. Quick: to be called where `keep` is found out, before an
        instance can come whose folder would be taken for one that nobody has. What it returns is for `remove`."""
        if not self._folder.is_dir():
            return []
        used = {folder.name for name in keep if (folder := self._found(self._folder / name)) is not None}
        links = {entry.name for entry in self._folder.iterdir() if entry.is_symlink()}
        for name in links.difference(keep):
            (self._folder / name).unlink()
        return retire_folders(self._folder, used | links)

    def _found(self, path: Path) -> Path | None:
        """The folder behind a name. A link leads to a sibling, by its name alone."""
        if path.is_symlink():
            path = self._folder / path.readlink().name
        return path if path.is_dir() and not path.is_symlink() else None


def retire_folders(folder: Path, keep: Collection[str]) -> list[Path]:
    """Takes away the folders below `folder` that are not named in `keep`, as `StorageStore.retire` does."""
    if not folder.is_dir():
        return []
    gone = [entry for entry in folder.iterdir() if entry.name not in keep]
    return [
        entry if entry.name.startswith(GONE_PREFIX) else entry.rename(folder / f"{GONE_PREFIX}{uuid.uuid4().hex}")
        for entry in gone
    ]


def remove(retired: Iterable[Path]) -> None:
    """Deletes them whatever their owners have made of their modes."""
    for folder in retired:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            # The application has made folders that can't be entered or written to; they are ours all the same.
            _open_up(folder)
            shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    pending = [folder]
    while pending:
        current = pending.pop()
        current.chmod(0o700)
        with os.scandir(current) as entries:
            pending += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
