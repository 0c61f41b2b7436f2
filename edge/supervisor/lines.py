"""Bytes as they come, to lines. Pure."""

from __future__ import annotations

MAX_LINE_BYTES = 16 * 1024
"""A longer line is handed on in pieces of this size."""


class LineSplitter:
    """Cuts a stream into lines without their ends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [piece for line in whole for piece in _pieces(line)]
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(_text(self._rest[:MAX_LINE_BYTES]))
            self._rest = self._rest[MAX_LINE_BYTES:]
        return lines

    def end(self) -> list[str]:
        """What came after the last line's end."""
        rest, self._rest = self._rest, b""
        return _pieces(rest) if rest else []


def _pieces(line: bytes) -> list[str]:
    if len(line) <= MAX_LINE_BYTES:
        return [_text(line)]
    return [_text(line[start : start + MAX_LINE_BYTES]) for start in range(0, len(line), MAX_LINE_BYTES)]


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r").replace("\0", "�")
