"""What stands behind a node: one set of connections per process, and one thread that looks after them.

The thread connects cameras that come, or come back; gives slots back while the application is busy; tells the
supervisor how the application is doing, and heeds what that says. It works on nothing that the application waits for.

A process that the supervisor aborts (SIGABRT), because it hangs, writes what its threads were doing to standard error.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from typing import Any, Sequence

from framelink import CallClient, OutputSender
from panoramasdk import _spec
from panoramasdk._cameras import Cameras
from panoramasdk._control import Control, Stats
from panoramasdk._display import Display
from panoramasdk._media import media
from panoramasdk._models import Models
from panoramasdk._picture import Picture
from panoramasdk._ports import LiteralInput, MediaInput, MediaOutput, Ports, port

log = logging.getLogger("panoramasdk")

TICK_S = 0.25
"""How often cameras are tended; well within the two seconds that a camera waits for a slot that it wants back."""
STATS_S = 1.0
_STDERR = 2
"""The process's own, whatever the application has made of sys.stderr: what goes there is in its log."""

_lock = threading.Lock()
_current: tuple[int, Runtime] | None = None


class Runtime:
    """Everything a node uses."""

    def __init__(self, app: _spec.AppSpec) -> None:
        self._stats = Stats()
        self._control = Control(app.control_socket(), app.node)
        self._cameras: list[Cameras] = []
        self._displays: list[Display] = []
        inputs: dict[str, port] = {name: self._input(app, name, given) for name, given in app.inputs.items()}
        outputs: dict[str, port] = {name: self._output(app, name, shown) for name, shown in app.outputs.items()}
        self.inputs = Ports("input", inputs)
        self.outputs = Ports("output", outputs)
        client = CallClient(app.calls_socket(), app.instance_id)
        self.models = Models(client, app.models, self._stats.called, self._stats.using)
        for cameras in self._cameras:
            cameras.pause(app.paused)
        if not faulthandler.is_enabled():
            faulthandler.enable(file=_STDERR)
        threading.Thread(target=self._look_after, name="panoramasdk", daemon=True).start()

    def _input(self, app: _spec.AppSpec, name: str, given: _spec.Input) -> port:
        if not given.is_media:
            return LiteralInput(name, given.value)
        cameras = Cameras(
            name,
            app.instance_id,
            [(stream, app.camera_socket(stream)) for stream in given.streams],
            self._taken,
            self._stats.using,
        )
        self._cameras.append(cameras)
        return MediaInput(name, cameras)

    def _output(self, app: _spec.AppSpec, name: str, is_connected: bool) -> port:
        display = None
        if is_connected:
            display = Display(OutputSender(app.outputs_socket(), app.instance_id, name))
            self._displays.append(display)

        def show(medias: Sequence[media]) -> None:
            with self._stats.using():
                if display is not None:
                    display.show(medias)
                self._stats.put(len(medias))

        return MediaOutput(name, show)

    def _taken(self, pictures: list[Picture]) -> None:
        self._stats.taken([picture.info.capture_ns for picture in pictures])

    def _heed(self, message: dict[str, Any]) -> None:
        named = message.get("cameras")
        if message.get("type") == "paused" and isinstance(named, list):
            for cameras in self._cameras:
                cameras.pause([str(camera_id) for camera_id in named])

    def _look_after(self) -> None:
        next_stats = 0.0
        while True:
            try:
                for cameras in self._cameras:
                    cameras.tend()
                for display in self._displays:
                    display.collect()
                for message in self._control.heard():
                    self._heed(message)
                if not any(cameras.has_news() for cameras in self._cameras):
                    self._stats.nothing_new()
                news = self._stats.news.is_set()
                if news or time.monotonic() >= next_stats:
                    self._stats.news.clear()
                    self._control.send(self._stats.message())
                    next_stats = time.monotonic() + STATS_S
            except Exception:
                # A fault in here must not silently end what keeps the cameras connected.
                log.exception("panoramasdk: looking after the connections failed; it goes on")
            self._stats.news.wait(TICK_S)


def runtime() -> Runtime:
    """This process's runtime; made at the first call. A forked child gets its own. NodeError."""
    global _current
    with _lock:
        if _current is None or _current[0] != os.getpid():
            _current = (os.getpid(), Runtime(_spec.load()))
        return _current[1]
