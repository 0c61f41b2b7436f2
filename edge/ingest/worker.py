"""The process of one camera: `python -m edge.ingest.worker`, started by the service.

What it is to do comes as one JSON line on stdin (`WorkerConfig`), so that credentials stand on no command line and in
no environment. Its status goes out as JSON lines on stdout, on change and once a second; logs go to stderr. It ends
on SIGTERM, when stdin closes, and when its parent dies.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from belvedere.chassis import logs
from belvedere.chassis.secret import Secret
from belvedere.fleet import ReasonCode
from edge.ingest.address import Address
from edge.ingest.camera import Camera
from edge.ingest.errors import CameraUnsupported
from edge.ingest.ring import CameraRing
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus

log = logs.get_logger(__name__)

STATUS_EVERY_S = 1.0
# For the camera's thread to finish its frame and say goodbye; one that does not is left to the end of the process. Well
# below STOP_GRACE_S.
STOP_TIMEOUT_S = 0.3

REASON_CODES = {
    "refused": ReasonCode.CAMERA_UNAUTHORIZED,
    "not_found": ReasonCode.CAMERA_NOT_FOUND,
    "unreachable": ReasonCode.CAMERA_UNREACHABLE,
    "stalled": ReasonCode.CAMERA_STALLED,
    "unsupported": ReasonCode.CAMERA_UNSUPPORTED,
}
_VERSION_SUFFIX = re.compile(r"-[0-9][0-9A-Za-z.]*-[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The line on stdin."""

    camera_id: str
    url: str
    username: str
    password: Secret[str]
    socket_path: Path
    settings: Settings

    def to_line(self) -> bytes:
        """JSON, credentials revealed: for the worker's stdin alone."""
        document = {
            "camera_id": self.camera_id,
            "url": self.url,
            "username": self.username,
            "password": self.password.reveal(),
            "socket_path": str(self.socket_path),
            "settings": asdict(self.settings),
        }
        return json.dumps(document).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> WorkerConfig:
        """The reverse of `to_line`."""
        document = json.loads(line)
        return cls(
            camera_id=document["camera_id"],
            url=document["url"],
            username=document["username"],
            password=Secret(document["password"]),
            socket_path=Path(document["socket_path"]),
            settings=Settings(**document["settings"]),
        )


def camera_name(camera_id: str) -> str:
    """The name its user gave the camera: the package's, without version and patch."""
    return _VERSION_SUFFIX.sub("", camera_id)


def reason(camera_id: str, state: str, message: str | None) -> dict[str, str] | None:
    """The typed reason of a state, as `ingest.status` has it."""
    if message is None:
        return None
    code = REASON_CODES.get(state, ReasonCode.APPLIANCE_ERROR)
    return {"code": str(code), "message": f"camera `{camera_name(camera_id)}`: {message}"}


class Worker:
    """One camera, its ring and its status lines."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._status = CameraStatus(self._wake.set)
        self._ring = CameraRing(config.socket_path, camera_name(config.camera_id), config.settings.slots)
        self._crash: BaseException | None = None

    def stop(self) -> None:
        """From any thread, or a signal handler: end in order."""
        self._stop.set()
        self._wake.set()

    def run(self) -> int:
        """Until `stop`. Gives the exit code."""
        config = self._config
        try:
            address = Address.parse(config.url, config.username, config.password.reveal())
        except CameraUnsupported as error:
            # Nothing to try again: it lasts until the service starts this process with another address.
            self._status.state(error.state, str(error))
            self._publish_until_stop()
            return 0
        camera = Camera(address, self._ring, self._status, config.settings)
        thread = threading.Thread(target=self._run_camera, args=(camera, address), name="camera", daemon=True)
        thread.start()
        self._publish_until_stop()
        camera.close()
        thread.join(STOP_TIMEOUT_S)
        if thread.is_alive():
            log.warning("camera does not let go: ending without it", timeout_s=STOP_TIMEOUT_S)
        self._ring.close()
        return 1 if self._crash is not None else 0

    def _run_camera(self, camera: Camera, address: Address) -> None:
        structlog.contextvars.bind_contextvars(camera_id=self._config.camera_id)
        try:
            camera.run(self._stop)
        except Exception as error:  # noqa: BLE001 - the end of this process, told to the service by its exit code
            # A fault of ours or of the decoder: the service starts a fresh process, with backoff.
            log.error("camera failed", traceback=address.redact(traceback.format_exc()))
            self._crash = error
            self.stop()

    def _publish_until_stop(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._publish()
            self._wake.wait(STATUS_EVERY_S)

    def _publish(self) -> None:
        row: dict[str, Any] = self._status.row(self._ring.counts())
        row["reason"] = reason(self._config.camera_id, row["state"], row["reason"])
        try:
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.stop()


def main() -> int:
    """Entry of the process."""
    logs.configure("ingest")
    line = sys.stdin.readline()
    if not line:
        return 0  # The service ended before it had said what to do.
    config = WorkerConfig.from_line(line)
    structlog.contextvars.bind_contextvars(camera_id=config.camera_id)
    worker = Worker(config)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    # Ctrl-C in a terminal reaches the whole group; the service decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch_parent() -> None:
        while sys.stdin.readline():
            continue
        worker.stop()

    threading.Thread(target=watch_parent, name="parent", daemon=True).start()
    return worker.run()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Past any thread that is still inside the decoder.
    os._exit(code)
