"""What the SDK tells the supervisor, over `control.sock`: one JSON object per SOCK_SEQPACKET message.

    {"type": "hello", "pid", "node", "sdk_version", "python"}                    when connected
    {"type": "stats",
     "frames_taken",            new frames that the application was given
     "frames_put",              media that it has put to its outputs
     "calls",                   calls of models that were answered
     "latency_app_ms",          {"p50", "p99", "count"}: from a frame's capture to the application having it; of the last
                                LATENCIES frames; p50 and p99 are null before the first
     "first_output_unix_ms",    when it put for the first time; null before
     "waiting_since_unix_ms"}   since when it waits in get(); null while it works
Stats are sent once a second, and at once at the first frame taken and the first one put.

Must not know: what the supervisor makes of it.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import socket
import threading
import time
from typing import Any

LATENCIES = 512
"""Half a minute of one camera at 15 frames a second."""
SDK_VERSION = "1.2"
"""The version of AWS's SDK whose behaviour this is."""


class Stats:
    """Counters, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = self._put = self._calls = 0
        self._latencies: collections.deque[float] = collections.deque(maxlen=LATENCIES)
        self._first_output: int | None = None
        self._waiting: dict[str, float] = {}
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

    def waiting(self, port: str, since: float | None) -> None:
        """The application waits at this port since then (seconds, wall clock); None when it does no longer."""
        with self._lock:
            if since is None:
                self._waiting.pop(port, None)
            else:
                self._waiting[port] = since

    def message(self) -> dict[str, Any]:
        """The "stats" message."""
        with self._lock:
            ordered = sorted(self._latencies)
            waiting = min(self._waiting.values()) if self._waiting else None
            return {
                "type": "stats",
                "frames_taken": self._taken,
                "frames_put": self._put,
                "calls": self._calls,
                "latency_app_ms": {"p50": _at(ordered, 0.50), "p99": _at(ordered, 0.99), "count": self._taken},
                "first_output_unix_ms": self._first_output,
                "waiting_since_unix_ms": None if waiting is None else int(waiting * 1000),
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
