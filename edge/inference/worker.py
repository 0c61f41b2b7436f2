"""The process that holds the models: `python -m edge.inference.worker`, started by the service.

The first JSON line on stdin is its configuration, each later one a wanted set (`{"models": [...]}`); its status goes
out as JSON lines on stdout, on change and once a second; logs go to stderr. Calls come over framelink. It ends on
SIGTERM, when stdin closes, and when its parent dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from belvedere.chassis import logs
from edge.inference import backends
from edge.inference.models import Models, WantedModel
from edge.inference.settings import Settings
from framelink import CallServer, Request

log = logs.get_logger(__name__)

STATUS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The first line on stdin."""

    socket_path: Path
    cache: Path
    settings: Settings

    def to_line(self) -> bytes:
        """JSON."""
        document = {"socket_path": str(self.socket_path), "cache": str(self.cache), "settings": asdict(self.settings)}
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> WorkerConfig:
        """The reverse of `to_line`."""
        document = json.loads(line)
        return cls(Path(document["socket_path"]), Path(document["cache"]), Settings(**document["settings"]))


class Worker:
    """Models, the socket that they are called at, and the status lines."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._wake = threading.Event()
        backend = backends.create(config.settings, config.cache)
        self._models = Models(backend, config.settings, self._wake)

    def stop(self) -> None:
        """From any thread, or a signal handler: end in order."""
        self._stop.set()
        self._wake.set()

    def apply(self, line: str) -> None:
        """One wanted set from stdin."""
        self._models.apply([WantedModel.from_json(row) for row in json.loads(line)["models"]])

    def run(self) -> None:
        """Until `stop`."""
        path = self._config.socket_path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with CallServer(path, self._called, name="inference"):
            while not self._stop.is_set():
                self._wake.clear()
                self._publish()
                self._wake.wait(STATUS_EVERY_S)
            self._models.close()

    def _called(self, request: Request) -> None:
        self._models.submit(request)

    def _publish(self) -> None:
        status = {"models": self._models.rows(), "loading": self._models.loading()}
        try:
            sys.stdout.write(json.dumps(status) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.stop()


def main() -> None:
    """Entry of the process."""
    logs.configure("inference")
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
    sys.stdout.flush()
    # Past a load that is still under way.
    os._exit(0)
