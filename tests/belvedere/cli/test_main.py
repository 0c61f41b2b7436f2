"""What every command does with who reads it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from belvedere.cli.main import READER_GONE
from tests.support.whole import REPOSITORY, command


def unread(*words: object) -> tuple[int, str]:
    """Exit status and stderr of `belvedere …` whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            command(*words), cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writing)
    return ended.returncode, ended.stderr


def test_a_reader_who_leaves_early_ends_a_command_without_a_word(tmp_path: Path) -> None:
    assert unread("aws-model", "install", "--into", tmp_path) == (READER_GONE, "")
    assert unread("--help")[1] == ""
