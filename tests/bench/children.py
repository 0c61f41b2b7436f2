"""Processes of a benchmark that answer in JSON lines on their standard output."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.peers import REPOSITORY

ENDS_WITHIN_S = 5.0


class NoAnswer(Exception):
    """It ended, or said nothing in time; the message is its last words."""


def child(
    command: Sequence[str], errors: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Started, with pipes for what it is told and says; what it complains of goes to `errors`."""
    with errors.open("wb") as file:
        return subprocess.Popen(
            command,
            bufsize=0,  # what was read ahead would be missed by `select`
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """At the end of the block, in order if it can be."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def line_of(process: subprocess.Popen[bytes], errors: Path, timeout_s: float) -> dict[str, Any]:
    """Its next line that is a JSON object. Raises NoAnswer."""
    assert process.stdout is not None
    until = time.monotonic() + timeout_s
    while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        line = process.stdout.readline()
        if not line:
            break
        if line.startswith(b"{"):
            return dict(json.loads(line))
    raise NoAnswer(errors.read_text(errors="replace")[-500:] or "no answer in time")
