"""A process's output, to lines, at a bounded cost."""

from __future__ import annotations

import asyncio
import os

from edge.supervisor.sandbox.output import BYTES_BURST, LINES_BURST, LINES_PER_S, Output


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.dropped = 0
        self.now = 0.0
        self.output = Output(self.lines.append, self._drop, clock=lambda: self.now)

    def _drop(self, count: int) -> None:
        self.dropped += count


def numbered(first: int, count: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, first + count))


def test_lines_below_the_rate_all_come() -> None:
    heard = Heard()
    for second in range(20):
        heard.now = float(second)
        heard.output.feed(numbered(second * 1000, 1000))
    heard.output.feed(b"no end")
    heard.output.end()
    assert heard.lines == [f"line {number}" for number in range(20_000)] + ["no end"]
    assert heard.dropped == 0


def test_what_is_too_much_is_counted_and_the_last_lines_before_the_end_come() -> None:
    heard = Heard()
    for block in range(100):
        heard.output.feed(numbered(block * 1000, 1000))
    heard.output.feed(b"Traceback:\n  somewhere\nOops: the last words")
    heard.output.end()
    assert heard.lines[:LINES_BURST] == [f"line {number}" for number in range(LINES_BURST)]
    assert heard.lines[-3:] == ["Traceback:", "  somewhere", "Oops: the last words"]
    assert heard.dropped + len(heard.lines) == 100_003


def test_it_goes_on_with_a_whole_line_once_there_is_room() -> None:
    heard = Heard()
    heard.output.feed(numbered(0, LINES_BURST))
    heard.output.feed(numbered(LINES_BURST, 5000) + b"cut in the mid")
    heard.now = 0.5 * LINES_BURST / LINES_PER_S
    heard.output.feed(b"dle\nwhole\n")
    assert heard.lines[-1] == "whole" and len(heard.lines) == LINES_BURST + 1
    assert heard.dropped == 5001


def test_bytes_without_a_line_end_are_bounded_too() -> None:
    heard = Heard()
    for _ in range(4 * BYTES_BURST // 65536):
        heard.output.feed(bytes(65536))
    heard.output.end()
    assert sum(map(len, heard.lines)) <= 2 * BYTES_BURST


async def test_a_stream_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\n")
    os.close(writing)
    stream = asyncio.StreamReader()
    with os.fdopen(reading, "rb") as pipe:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        heard = Heard()
        await heard.output.read(stream)
        transport.close()
    assert heard.lines == ["one", "two"]
