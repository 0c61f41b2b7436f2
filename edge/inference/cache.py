"""What a backend has converted or built, kept on disk for the next start: one folder an entry, bounded, the longest
unused go first. Must not know what is in it.

An entry is made in a folder beside it and moved into place when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from belvedere.chassis.logs import get_logger

log = get_logger(__name__)


class FolderCache:
    """At `folder`; at most `entries` and `megabytes`, but always the one used last."""

    def __init__(self, folder: Path, *, entries: int, megabytes: int) -> None:
        self._folder = folder
        self._entries = max(1, entries)
        self._bytes = megabytes * 1_000_000

    def entry(self, document: Sequence[object], make: Callable[[Path], None]) -> Path:
        """The folder of what `document` (JSON: digest, versions, device, shapes) names; `make(empty folder)` fills it."""
        folder = self._path(document)
        if not folder.exists():
            self._make(folder, make)
        os.utime(folder)
        self._forget(folder)
        return folder

    def remake(self, document: Sequence[object], make: Callable[[Path], None]) -> Path:
        """The same, made anew: what was there cannot be used."""
        shutil.rmtree(self._path(document), ignore_errors=True)
        return self.entry(document, make)

    def _path(self, document: Sequence[object]) -> Path:
        return self._folder / hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]

    def _make(self, folder: Path, make: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=self._folder))
        try:
            make(work)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _forget(self, keep: Path) -> None:
        folders = [entry for entry in self._folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        folders.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        total = 0
        for number, folder in enumerate(folders):
            total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if folder != keep and (number >= self._entries or total > self._bytes):
                log.info("cached model removed", folder=folder.name)
                shutil.rmtree(folder, ignore_errors=True)
