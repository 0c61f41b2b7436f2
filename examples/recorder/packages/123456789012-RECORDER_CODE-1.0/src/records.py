"""Records in a folder, within a fixed space: one JSON line each, in files of a part of the space, the oldest file goes
first. A process that dies in the midst of a line loses that line and nothing else."""

import json
from pathlib import Path

PARTS = 8
"""The space is this many files; so at most an eighth of it goes at once."""


class Records:
    """The records in one folder, found again when the application starts anew."""

    def __init__(self, folder, limit_bytes):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._part_bytes = max(limit_bytes // PARTS, 1)
        self._counts = {number: self._read(number) for number in self._numbers()}
        self._newest = max(self._counts, default=0)
        self._counts.setdefault(self._newest, 0)
        self._path(self._newest).touch()

    def __len__(self):
        return sum(self._counts.values())

    def add(self, record):
        """Writes a record down; the operating system has it when this returns."""
        line = (json.dumps(record, sort_keys=True) + "\n").encode()
        before = self._path(self._newest).stat().st_size
        if before and before + len(line) > self._part_bytes:
            self._begin_part()
        with self._path(self._newest).open("ab") as file:
            file.write(line)
        self._counts[self._newest] += 1

    def size(self):
        """Bytes that they take."""
        return sum(self._path(number).stat().st_size for number in self._counts)

    def _begin_part(self):
        self._newest += 1
        self._counts[self._newest] = 0
        for old in sorted(self._counts)[:-PARTS]:
            self._path(old).unlink()
            del self._counts[old]

    def _read(self, number):
        """How many whole records a file holds; what was cut off is taken away, so that the next line stands alone."""
        with self._path(number).open("r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            file.truncate(whole)
        return content[:whole].count(b"\n")

    def _numbers(self):
        return sorted(int(path.stem) for path in self._folder.glob("*.jsonl") if path.stem.isdigit())

    def _path(self, number):
        return self._folder / f"{number:08d}.jsonl"
