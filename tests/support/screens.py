"""A screen without a monitor: Xvfb, whose picture lies in a file that tests read.

with screen(tmp_path, 1280, 720) as shown:
    shown.environment                  # {"DISPLAY": ":99", "SDL_VIDEODRIVER": "x11"}
    shown.pixels()                     # uint8 (720, 1280, 3), RGB
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class FakeScreen:
    """A running X server."""

    display: str
    frame_buffer: Path
    width: int
    height: int

    @property
    def environment(self) -> dict[str, str]:
        """What SDL needs to draw on it."""
        return {"DISPLAY": self.display, "SDL_VIDEODRIVER": "x11", "SDL_RENDER_DRIVER": "software"}

    def pixels(self) -> npt.NDArray[np.uint8]:
        """What is on it now. The file is an XWD dump: a header of 32-bit numbers, a colour map of 12 bytes a colour, pixels."""
        data = self.frame_buffer.read_bytes()
        header = struct.unpack(">25I", data[:100])
        start, line, colours = header[0], header[12], header[19]
        rows = np.frombuffer(data, np.uint8, line * self.height, start + colours * 12).reshape(self.height, line)
        return rows[:, : self.width * 4].reshape(self.height, self.width, 4)[:, :, 2::-1]


@contextmanager
def screen(folder: Path, width: int = 640, height: int = 480) -> Iterator[FakeScreen]:
    """Skips the test where Debian's xvfb is not installed."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("needs the Debian package xvfb")
    frames = folder / "xvfb"
    frames.mkdir()
    read, write = os.pipe()
    options = [
        "-screen",
        "0",
        f"{width}x{height}x24",
        "-fbdir",
        str(frames),
        "-nolisten",
        "tcp",
        "-displayfd",
        str(write),
    ]
    with (folder / "xvfb.log").open("wb") as log:
        server = subprocess.Popen([program, *options], pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as ready:
            number = ready.readline().decode().strip()  # it writes its number when it listens, or ends
        assert number, (folder / "xvfb.log").read_text()
        yield FakeScreen(f":{number}", frames / "Xvfb_screen0", width, height)
    finally:
        server.terminate()
        server.wait(START_TIMEOUT_S)
