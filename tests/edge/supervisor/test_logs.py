"""Following log files, and bounding their rate."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.supervisor import logs
from edge.supervisor.lines import MAX_LINE_BYTES, LineSplitter
from edge.supervisor.logs import AppLog, FolderTail, RateLimit


class Tailed:
    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self.missed: list[int] = []
        self.lines: list[str] = []
        self.tail = FolderTail(folder, self.lines.append, self.notes.append, self.missed.append)

    def read(self) -> list[str]:
        return self.tail.read()


def test_lines_from_before_are_not_sent_again_and_new_ones_are_sent_once(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_text("old\n")
    tailed = Tailed(tmp_path)
    with path.open("a") as out:
        out.write("new\nhalf a li")
        out.flush()
        assert tailed.read() == ["new"]
        out.write("ne\n")
    assert tailed.read() == ["half a line"]
    assert tailed.read() == []


def test_a_rotated_file_is_read_to_its_end_and_its_successor_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    tailed = Tailed(tmp_path)
    path.write_text("one\n")
    assert tailed.read() == ["one"]
    with path.open("a") as out:
        out.write("two\n")
    os.utime(path, (1000, 1000))
    path.rename(tmp_path / "app.log.1")
    path.write_text("three\n")
    assert tailed.read() == ["two", "three"]


def test_a_truncated_file_is_read_again_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    tailed = Tailed(tmp_path)
    path.write_text("a long first line\n")
    assert tailed.read() == ["a long first line"]
    path.write_text("short\n")
    assert tailed.read() == ["short"]


def test_the_last_look_takes_a_line_without_an_end(tmp_path: Path) -> None:
    tailed = Tailed(tmp_path)
    (tmp_path / "app.log").write_text("no end")
    assert tailed.tail.read(last=True) == ["no end"]


def test_links_and_pipes_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary\n")
    folder = tmp_path / "logs"
    folder.mkdir()
    tailed = Tailed(folder)
    (folder / "link.log").symlink_to(secret)
    os.mkfifo(folder / "metrics.pipe")
    assert tailed.read() == []


def test_a_file_that_nobody_rotates_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_MAX_BYTES", 100)
    tailed = Tailed(tmp_path)
    path = tmp_path / "app.log"
    with path.open("a") as out:
        for number in range(30):
            out.write(f"line {number}\n")
        out.flush()
        assert len(tailed.read()) == 30
        assert path.stat().st_size == 0
        out.write("goes on\n")
    assert tailed.read() == ["goes on"]


def test_too_many_lines_are_dropped_counted_and_said() -> None:
    now = [0.0]
    sent: list[tuple[str, str]] = []
    lines, size = RateLimit(10, 5, clock=lambda: now[0]), RateLimit(1000, 1000, clock=lambda: now[0])
    log = AppLog(lambda stream, text: sent.append((stream, text)), lines, size)
    for number in range(20):
        log.line("console_output", f"line {number}")
    assert [text for _, text in sent] == [f"line {number}" for number in range(5)]
    assert log.dropped == 15
    now[0] = 1.0
    log.line("console_output", "later")
    assert [text for _, text in sent[5:]] == [
        "[belvedere] 15 lines were dropped here: the application writes too many",
        "later",
    ]


def test_the_last_words_pass_whatever_came_before_them() -> None:
    sent: list[str] = []
    lines, size = RateLimit(1, 2, clock=lambda: 0.0), RateLimit(1 << 20, 1 << 20, clock=lambda: 0.0)
    log = AppLog(lambda _, text: sent.append(text), lines, size)
    for number in range(1000):
        log.line("console_output", f"line {number}")
    log.missed("console_output", 5000)
    log.end()
    cut = f"[belvedere] {5998 - logs.LAST_LINES} lines were dropped here: the application writes too many"
    assert sent == ["line 0", "line 1", cut, *(f"line {number}" for number in range(1000 - logs.LAST_LINES, 1000))]
    assert log.dropped == 5998 - logs.LAST_LINES


def test_a_file_of_very_many_lines_is_counted_and_its_last_lines_come(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    tailed = Tailed(tmp_path)
    path.write_text("".join(f"{number}\n" for number in range(100_000)))
    tailed.tail.hand_on(tailed.read())
    assert tailed.lines[-1] == "99999" and len(tailed.lines) < logs.READ_MAX_LINES
    assert sum(tailed.missed) + len(tailed.lines) == 100_000


def test_long_lines_are_cut_by_their_size_and_a_cut_log_goes_on_in_whole_stretches() -> None:
    now = [0.0]
    sent: list[str] = []
    lines, size = RateLimit(1000, 1000, clock=lambda: now[0]), RateLimit(100, 200, clock=lambda: now[0])
    log = AppLog(lambda _, text: sent.append(text), lines, size)
    for _ in range(30):
        log.line("console_output", 50 * "x")
    assert len(sent) == 4
    now[0] = 0.9  # room for one line, not for a stretch
    log.line("console_output", 50 * "x")
    assert log.dropped == 27
    now[0] = 1.1
    for _ in range(2):
        log.line("console_output", 50 * "x")
    assert sent[4:] == [
        "[belvedere] 27 lines were dropped here: the application writes too many",
        *(2 * [50 * "x"]),
    ]


def test_a_line_without_end_comes_in_pieces_and_odd_bytes_do_no_harm() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * (MAX_LINE_BYTES + 1)) == ["x" * MAX_LINE_BYTES]
    assert splitter.feed(b"\r\n\xff\0end\n") == ["x", "��end"]
    assert splitter.end() == []
