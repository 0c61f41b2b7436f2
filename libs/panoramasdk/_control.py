"""What the SDK tells the supervisor, over `control.sock`: one JSON object per SOCK_SEQPACKET message.

    {"type": "hello", "pid", "node", "sdk_version", "python"}                    when connected
    {"type": "stats",
     "frames_taken",            new frames that the application was given
     "frames_put",              media that it has put to its outputs
     "calls",                   calls of models that were answered
     "latency_app_ms",          {"p50", "p99", "count"}: from a frame's capture to the application having it; of the last
                                LATENCIES frames; p50 and p99 are null before the first
     "first_output_unix_ms",    when it put for the first time; null before
     "idle_ms"}                 for how long there have been new frames while the application was neither in get(), put()
                                nor call(), in any thread; 0 while it is. A large one: it hangs
Stats are sent once a second, and at once at the first frame taken and the first one put.

The supervisor says:
    {"type": "paused", "cameras": [camera_id]}                                   these deliver nothing to this application

Must not know: what the supervisor makes of it.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import platform
import socket
import threading
import time
from typing import Any, Iterator

LATENCIES = 512
"""Half a minute of one camera at 15 frames a second."""
MESSAGE_MAX_BYTES = 16384
SDK_VERSION = "1.2"
"""The version of AWS's SDK whose behaviour this is."""


class Stats:
    """Counters, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = self._put = self._calls = 0
        self._latencies: collections.deque[float] = collections.deque(maxlen=LATENCIES)
        self._first_output: int | None = None
        self._inside = 0
        """Threads of the application that are in the SDK just now."""
        self._idle_since_ns = time.monotonic_ns()
        self.news = threading.Event()
        """Set at the first frame taken and put: somebody waits to hear of them."""

    def taken(self, captured_ns: list[int]) -> None:
        """New frames, by their capture times, are being handed to the application."""
        now = time.monotonic_ns()
        with self._lock:
            first = not self._taken and captured_ns
            self._taken += len(captured_ns)
            self._latencies.extend((now - captured) / 1e6 for captured in captured_ns)
        if first:
            self.news.set()

    def put(self, count: int) -> None:
        """The application has put so many media."""
        with self._lock:
            first = self._first_output is None
            self._put += count
            if first:
                self._first_output = time.time_ns() // 1000000
        if first:
            self.news.set()

    def called(self) -> None:
        """A model has answered."""
        with self._lock:
            self._calls += 1

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Held while a thread of the application is in the SDK: that it hangs can't be said of it."""
        with self._lock:
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._idle_since_ns = time.monotonic_ns()

    def nothing_new(self) -> None:
        """No frame waits for the application: it has nothing to ask for."""
        with self._lock:
            self._idle_since_ns = time.monotonic_ns()

    def message(self) -> dict[str, Any]:
        """The "stats" message."""
        with self._lock:
            ordered = sorted(self._latencies)
            idle_ns = 0 if self._inside else time.monotonic_ns() - self._idle_since_ns
            return {
                "type": "stats",
                "frames_taken": self._taken,
                "frames_put": self._put,
                "calls": self._calls,
                "latency_app_ms": {"p50": _at(ordered, 0.50), "p99": _at(ordered, 0.99), "count": self._taken},
                "first_output_unix_ms": self._first_output,
                "idle_ms": idle_ns // 1000000,
            }


class Control:
    """The connection to the supervisor. Not thread-safe: the runtime's own thread uses it."""

    def __init__(self, path: str, node: str) -> None:
        self._path = path
        self._node = node
        self._socket: socket.socket | None = None

    def send(self, message: dict[str, Any]) -> bool:
        """One message, now or never. False while nobody listens; the next one tries to connect again."""
        if self._socket is None and not self._connect():
            return False
        return self._send(message)

    def heard(self) -> list[dict[str, Any]]:
        """What the supervisor has said since the last time; what can't be read is left out."""
        messages = []
        while self._socket is not None:
            try:
                data = self._socket.recv(MESSAGE_MAX_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                break
            try:
                message = json.loads(data.decode())
            except ValueError:
                continue
            if isinstance(message, dict):
                messages.append(message)
        return messages

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            return False
        self._socket = connection
        hello = {
            "type": "hello",
            "pid": os.getpid(),
            "node": self._node,
            "sdk_version": SDK_VERSION,
            "python": platform.python_version(),
        }
        return self._send(hello)

    def _send(self, message: dict[str, Any]) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(json.dumps(message).encode())
        except BlockingIOError:
            return False  # The supervisor is behind; the next message says all that this one would have.
        except OSError:
            self.close()
            return False
        return True


def _at(ordered: list[float], part: float) -> float | None:
    """The nearest-rank percentile."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 3)
