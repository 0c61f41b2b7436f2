"""What a sandbox's process writes to its output, to lines, at a bounded cost: an application that prints without end
must not cost the appliance a core.

Up to LINES_PER_S and BYTES_PER_S every line is handed on. Beyond, what comes is counted and dropped without being
looked at, all but its last TAIL_BYTES: they are handed on at the end, so that the last words before an exit arrive
whatever came before. And no more than DRAIN_BYTES_PER_S are read: who writes faster waits for it, as for any pipe, and
is never blocked for good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edge.supervisor.lines import LineSplitter

LINES_PER_S = 2000
LINES_BURST = 8000
BYTES_PER_S = 2 << 20
BYTES_BURST = 8 << 20
"""A few times what the log lets pass (settings: log_lines_per_s, log_bytes_per_s), which has its own say."""
DRAIN_BYTES_PER_S = 32 << 20
"""Read at most; some 500 reads a second, 3 % of a core."""
READ_BYTES = 1 << 16
TAIL_BYTES = 16 * 1024
RESUME_SHARE = 0.25
"""Of a burst must be there again before lines are handed on: whole stretches, not every hundredth line."""

OnLine = Callable[[str], None]
OnDropped = Callable[[int], None]


class Output:
    """One stream of one process."""

    def __init__(self, on_line: OnLine, on_dropped: OnDropped, clock: Callable[[], float] = time.monotonic) -> None:
        """`on_dropped` is called with a count of lines; a negative one where some of them are handed on after all."""
        self._on_line = on_line
        self._on_dropped = on_dropped
        self._clock = clock
        self._splitter = LineSplitter()
        self._lines = float(LINES_BURST)
        self._bytes = float(BYTES_BURST)
        self._at = clock()
        self._skipping = False
        self._tail = b""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """To its end."""
        while data := await stream.read(READ_BYTES):
            self.feed(data)
            if self._skipping:
                await asyncio.sleep(len(data) / DRAIN_BYTES_PER_S)
        self.end()

    def feed(self, data: bytes) -> None:
        """What came."""
        count = data.count(b"\n")
        self._refill()
        if self._skipping and (self._lines < RESUME_SHARE * LINES_BURST or self._bytes < RESUME_SHARE * BYTES_BURST):
            self._skip(data)
            return
        if not self._skipping and (self._lines < count or self._bytes < len(data)):
            # What had begun before is handed on, cut where it is.
            for line in self._splitter.end():
                self._on_line(line)
            self._skipping = True
            self._skip(data)
            return
        if self._skipping:
            self._skipping = False
            data = self._resumed(data)
            count = data.count(b"\n")
        self._lines -= count
        self._bytes -= len(data)
        for line in self._splitter.feed(data):
            self._on_line(line)

    def end(self) -> None:
        """Nothing more comes: hands on the tail of what was skipped, and a line without an end."""
        if self._skipping:
            self._skipping = False
            data = self._tail.partition(b"\n")[2] or self._tail
            self._on_dropped(-data.count(b"\n"))
            for line in self._splitter.feed(data):
                self._on_line(line)
        for line in self._splitter.end():
            self._on_line(line)

    def _skip(self, data: bytes) -> None:
        self._on_dropped(data.count(b"\n"))
        self._tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]

    def _resumed(self, data: bytes) -> bytes:
        """From the next line's start on."""
        skipped, end, rest = data.partition(b"\n")
        if not end:
            self._skipping = True
            self._skip(skipped)
            return b""
        self._on_dropped(1)
        self._tail = b""
        return rest

    def _refill(self) -> None:
        now = self._clock()
        passed, self._at = now - self._at, now
        self._lines = min(LINES_BURST, self._lines + passed * LINES_PER_S)
        self._bytes = min(BYTES_BURST, self._bytes + passed * BYTES_PER_S)
