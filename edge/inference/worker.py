"""The process that holds the models: `python -m edge.inference.worker`, started by the service.

The first JSON line on stdin is its configuration, each later one a wanted set (`{"models": [...], "clients": [...], "apart": [...]}`; those apart are computed one at a time);
its status goes out as JSON lines on stdout, on change and once a second; logs go to stderr. Calls come over framelink. It
ends on SIGTERM, when stdin closes, when its parent dies, and, with HUNG_EXIT, when a model hangs: a computation that
does not come back cannot be taken out of a process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from belvedere.chassis import logs
from belvedere.chassis.paths import short_name
from edge.inference.backends import Choice
from edge.inference.board import Board
from edge.inference.frames import FrameSource
from edge.inference.model import WantedModel
from edge.inference.models import Models
from edge.inference.settings import Settings
from framelink import CallServer, FramelinkError, Request

log = logs.get_logger(__name__)

STATUS_EVERY_S = 1.0
HUNG_EXIT = 75
"""EX_TEMPFAIL: the last status line says which model has hung."""
LOST_EXIT = 76
"""What computes, a GPU, can be used by this process no more."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The first line on stdin."""

    socket_path: Path
    """The shared socket; each client's own lies in a folder of its name beside it."""
    cameras: Path
    """The folder of the cameras' sockets."""
    cache: Path
    settings: Settings

    @property
    def board_path(self) -> Path:
        """Where it stands what is being computed (`edge.inference.board`)."""
        return self.socket_path.with_name("computing")

    def to_line(self) -> bytes:
        """JSON."""
        document = {
            "socket_path": str(self.socket_path),
            "cameras": str(self.cameras),
            "cache": str(self.cache),
            "settings": asdict(self.settings),
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> WorkerConfig:
        """The reverse of `to_line`."""
        document = json.loads(line)
        return cls(
            Path(document["socket_path"]),
            Path(document["cameras"]),
            Path(document["cache"]),
            Settings(**document["settings"]),
        )


class Worker:
    """Models, the sockets that they are called at, and the status lines."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._out = threading.Lock()
        self._frames = FrameSource(config.cameras)
        config.board_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._models = Models(
            Choice(config.settings, config.cache),
            config.settings,
            self._wake,
            cache=config.cache,
            frames=self._frames,
            hung=self._hung,
            board=Board(config.board_path),
            lost=self._lost,
        )
        self._clients: dict[str, CallServer] = {}

    def stop(self) -> None:
        """From any thread, or a signal handler: end in order."""
        self._stop.set()
        self._wake.set()

    def apply(self, line: str) -> None:
        """One wanted set from stdin."""
        wanted = json.loads(line)
        self._models.set_apart(wanted.get("apart") or [])
        self._models.apply([WantedModel.from_json(row) for row in wanted["models"]])
        self._serve(wanted.get("clients") or [])

    def run(self) -> None:
        """Until `stop`."""
        path = self._config.socket_path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with CallServer(path, self._models.submit, name="inference"):
            while not self._stop.is_set():
                self._wake.clear()
                self._frames.tend()
                self._publish()
                self._wake.wait(STATUS_EVERY_S)
            self._models.close()
            self._serve([])

    def _serve(self, clients: Sequence[str]) -> None:
        """A socket for each: who calls there is known by the socket, whatever it says."""
        for name in [name for name in self._clients if name not in clients]:
            self._clients.pop(name).close()
        for name in clients:
            if name not in self._clients:
                path = self._config.socket_path.parent / short_name(name) / self._config.socket_path.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    self._clients[name] = CallServer(path, partial(self._called_by, name), name=f"inference-{name}")
                except (FramelinkError, OSError) as error:
                    log.error("calls of an application cannot be served", instance_id=name, error=str(error))

    def _called_by(self, client: str, request: Request) -> None:
        self._models.submit(request, client)

    def _hung(self, model_id: str) -> None:
        """Say so, leave what the threads were doing in the log, and end."""
        self._publish({"hung": model_id})
        faulthandler.dump_traceback(file=sys.stderr)
        sys.stderr.flush()
        os._exit(HUNG_EXIT)

    def _lost(self) -> None:
        """End: another process may use the device again. Who was computing stands on the board."""
        sys.stderr.flush()
        os._exit(LOST_EXIT)

    def _publish(self, more: dict[str, Any] | None = None) -> None:
        status = {"models": self._models.rows(), "loading": self._models.loading(), **(more or {})}
        try:
            with self._out:
                sys.stdout.write(json.dumps(status) + "\n")
                sys.stdout.flush()
        except BrokenPipeError:
            self.stop()


def main() -> None:
    """Entry of the process."""
    logs.configure("inference")
    # What a library that crashes was doing stands in the log.
    faulthandler.enable()
    line = sys.stdin.readline()
    if not line:
        return  # The service ended before it had said what to do.
    worker = Worker(WorkerConfig.from_line(line))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    # Ctrl-C in a terminal reaches the whole group; the service decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def listen() -> None:
        for line in sys.stdin:
            worker.apply(line)
        worker.stop()

    threading.Thread(target=listen, name="parent", daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    # Past a load that is still under way.
    os._exit(0)
