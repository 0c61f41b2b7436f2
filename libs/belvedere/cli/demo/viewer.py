"""Somebody who looks: opens the annotated video as any player would and counts what arrives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import av

from belvedere.chassis.secret import Secret
from belvedere.cli.errors import CliError

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0
RETRY_S = 0.5


class Viewer:
    """Reads an RTSP stream on a thread of its own until stopped; opens it again when it ends."""

    def __init__(self, find: Callable[[], Secret[str]]) -> None:
        """`find` gives the address with user and password; asked before each opening, since a replacement moves it."""
        self._find = find
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="viewer", daemon=True)
        self.first_frame = threading.Event()
        self.frames = 0
        self.size = (0, 0)
        self.last_error = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(READ_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch(self._find())
            except (av.error.FFmpegError, CliError) as error:
                self.last_error = getattr(error, "strerror", None) or str(error)
                self._stop.wait(RETRY_S)

    def _watch(self, url: Secret[str]) -> None:
        with av.open(
            url.reveal(), options={"rtsp_transport": "tcp"}, timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        ) as video:
            for frame in video.decode(video=0):
                self.frames += 1
                self.size = (frame.width, frame.height)
                self.first_frame.set()
                if self._stop.is_set():
                    return


def frames_over(viewer: Viewer, seconds: float | None, stopped: threading.Event) -> tuple[int, float]:
    """Frames that arrive within `seconds` (None: however long), or until `stopped`: (frames, seconds it really took)."""
    before, begin = viewer.frames, time.monotonic()
    stopped.wait(seconds)
    return viewer.frames - before, time.monotonic() - begin
