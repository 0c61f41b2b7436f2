"""What an application says, on its way to its log group: standard output and error to the stream `console_output`,
the files of /opt/aws/panorama/logs line by line to the stream named as its code node. The rate is bounded; what is
dropped is counted and said.

Files are written by the application: links are never followed, only regular files are read. Must not know where log
entries go.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.supervisor.lines import LineSplitter

CONSOLE = "console_output"
TAIL_INTERVAL_S = 0.5
"""How often log files are looked at; it adds to the age of a line on the live page."""
READ_BYTES = 1 << 18
READ_MAX_BYTES = 4 << 20
"""Of all files of one application in one look; the rest waits for the next."""
LAST_BYTES = 2048
READ_MAX_LINES = 4000
"""The same in lines, several times what the log lets pass; more are counted and not looked at."""
FILES_MAX = 64
"""Log files of one application that are read; the others are not, which is said once."""
FILE_MAX_BYTES = 64 << 20
"""A file that the application does not rotate is emptied at this size: what it held was sent."""

LAST_LINES = 40
"""Of those that were dropped, kept: the last words before an end are worth more than the rest."""

Send = Callable[[str, str], None]
"""Called with a stream and a message."""


RESUME_S = 1.0
"""Once a log is cut, it goes on when there is room for this long: stretches of whole lines, not every hundredth one."""


class RateLimit:
    """A token bucket of lines or bytes; what is over is refused until a stretch fits again. `clock` in seconds."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()
        self._resume = min(burst, per_s * RESUME_S)
        self._refusing = False

    def take(self, cost: int = 1) -> bool:
        """Whether so much more may pass now."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        needed = max(cost, self._resume) if self._refusing else cost
        self._refusing = self._tokens < needed
        if not self._refusing:
            self._tokens -= cost
        return not self._refusing


class AppLog:
    """The log of one application."""

    def __init__(self, send: Send, lines: RateLimit, size: RateLimit) -> None:
        """`lines` and `size` (bytes) bound what passes."""
        self.dropped = 0
        """Lines, since the start."""
        self._send = send
        self._lines = lines
        self._size = size
        self._unsaid: dict[str, int] = {}
        self._last: deque[tuple[str, str]] = deque(maxlen=LAST_LINES)
        """Of the dropped ones."""

    def line(self, stream: str, text: str) -> None:
        """One line of it."""
        if not text.strip():
            return
        if not (self._lines.take() and self._size.take(len(text.encode()))):
            self.missed(stream, 1)
            self._last.append((stream, text))
            return
        self._last.clear()
        self._say_dropped()
        self._send(stream, text)

    def missed(self, stream: str, count: int) -> None:
        """Lines that came too fast to be looked at."""
        self.dropped += count
        self._unsaid[stream] = self._unsaid.get(stream, 0) + count

    def note(self, stream: str, text: str) -> None:
        """A line of ours in its log: always passes."""
        self.end()
        self._send(stream, f"[belvedere] {text}")

    def end(self) -> None:
        """A run of it has ended: its last words pass whatever came before them."""
        last = list(self._last)
        self._last.clear()
        for stream, _ in last:
            self.dropped -= 1
            self._unsaid[stream] -= 1
        self._say_dropped()
        for stream, text in last:
            self._send(stream, text)

    def _say_dropped(self) -> None:
        for stream, count in self._unsaid.items():
            if count:
                self._send(stream, f"[belvedere] {count} lines were dropped here: the application writes too many")
        self._unsaid.clear()


@dataclass
class _File:
    offset: int
    splitter: LineSplitter = field(default_factory=LineSplitter)


class FolderTail:
    """Follows the files of one folder from now on, through rotation (a renamed file is known by its inode) and
    truncation."""

    def __init__(
        self,
        folder: Path,
        on_line: Callable[[str], None],
        on_note: Callable[[str], None],
        on_missed: Callable[[int], None],
    ) -> None:
        """`on_missed`: with a count of lines that came too fast."""
        self._folder = folder
        self._on_missed = on_missed
        self._missed = 0
        self._lines_left = 0
        self._on_line = on_line
        self._on_note = on_note
        self._files: dict[tuple[int, int], _File] = {}
        self._too_many = False
        self._unreadable = False
        self._budget = 0
        for _, status in self._scan():
            self._files[_key(status)] = _File(status.st_size)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TAIL_INTERVAL_S)
            try:
                self.hand_on(await asyncio.to_thread(self.read))
            except OSError as error:
                if not self._unreadable:
                    self._on_note(f"the logs folder can't be read just now: {error}")
                self._unreadable = True
            else:
                self._unreadable = False

    def hand_on(self, lines: list[str]) -> None:
        """Gives lines to `on_line`."""
        if self._missed:
            self._on_missed(self._missed)
            self._missed = 0
        for line in lines:
            self._on_line(line)

    def read(self, *, last: bool = False) -> list[str]:
        """Every line that is there, up to READ_MAX_BYTES (blocking). `last`: also a line without an end."""
        lines: list[str] = []
        self._budget, self._lines_left = READ_MAX_BYTES, READ_MAX_LINES
        seen = set()
        for name, status in self._scan():
            key = _key(status)
            seen.add(key)
            known = self._files.setdefault(key, _File(0))
            if status.st_size != known.offset:
                self._read_file(name, key, known, lines)
        for key in set(self._files) - seen:
            del self._files[key]
        if last:
            for known in self._files.values():
                lines += known.splitter.end()
        return lines

    def _scan(self) -> list[tuple[str, os.stat_result]]:
        """Regular files, the oldest first, so that a rotated file's last lines come before its successor's first."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # rotated away meanwhile
                if stat.S_ISREG(status.st_mode):
                    found.append((entry.name, status))
        found.sort(key=lambda item: item[1].st_mtime_ns)
        if len(found) > FILES_MAX and not self._too_many:
            self._too_many = True
            self._on_note(f"more than {FILES_MAX} files in the logs folder: only the latest are read")
        return found[-FILES_MAX:]

    def _read_file(self, name: str, key: tuple[int, int], known: _File, lines: list[str]) -> None:
        try:
            fd = os.open(self._folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            # Renamed or made a link since it was listed: the next look finds it, or not.
            if not isinstance(error, FileNotFoundError):
                self._on_note(f"log file {name} can't be read: {error.strerror}")
            return
        with os.fdopen(fd, "rb", buffering=0) as content:
            status = os.fstat(fd)
            if _key(status) != key or not stat.S_ISREG(status.st_mode):
                return
            if status.st_size < known.offset:
                known.offset = 0
            content.seek(known.offset)
            while self._budget > 0 and (data := content.read(READ_BYTES)):
                self._budget -= len(data)
                known.offset += len(data)
                count = data.count(b"\n")
                if count > self._lines_left:
                    self._missed += count
                    known.splitter = LineSplitter()
                    # But for the file's last lines just now.
                    data = data[-LAST_BYTES:].partition(b"\n")[2] if len(data) < READ_BYTES else b""
                    count = data.count(b"\n")
                    self._missed -= count
                self._lines_left -= count
                lines += known.splitter.feed(data)
            if known.offset > FILE_MAX_BYTES:
                os.ftruncate(fd, 0)
                known.offset = 0


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
