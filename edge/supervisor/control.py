"""The supervisor's end of apps/<instance>/control.sock: what an application's SDK says of itself
(docs/architecture.md §3).

Unix SOCK_SEQPACKET, one JSON object a message:
    {"type": "hello", …}      the application has made its node
    {"type": "stats", "frames_taken", "frames_put", "calls", "latency_app_ms": {"p50", "p99", "count"},
    "first_output_unix_ms"}

Applications are not trusted: sizes, numbers and connections are bounded, and what can't be read is counted and
dropped. Knows nothing of states.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MESSAGE_MAX_BYTES = 16 * 1024
CONNECTIONS_MAX = 4
"""An application has one; a few more for those that fork."""
MESSAGE_GAP_S = 0.02
"""Between two messages that are read from one connection: an application that floods it only waits for itself."""
_NUMBER_MAX = 2**53


@dataclass(frozen=True)
class AppStats:
    """Counters of one run of an application."""

    hello: bool = False
    """Whether it has made its node."""
    frames_taken: int = 0
    frames_put: int = 0
    calls: int = 0
    latency_app_ms: Mapping[str, float | None] = field(default_factory=lambda: {"p50": None, "p99": None, "count": 0})
    """From a frame's capture to the application having it."""
    first_output_unix_ms: int | None = None


class ControlServer:
    """Listens for one application. `on_stats` is called with each new state of its counters."""

    def __init__(self, path: Path, on_stats: Callable[[AppStats], None]) -> None:
        self.rejected = 0
        """Messages that could not be read, and connections beyond the bound."""
        self._path = path
        self._on_stats = on_stats
        self._stats = AppStats()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Makes the socket (0600, in a folder of 0700), in place of an old one."""
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            listener.listen(CONNECTIONS_MAX)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._keep(self._accept(listener))

    async def close(self) -> None:
        """Ends every connection and removes the socket."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        self._path.unlink(missing_ok=True)

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work, name=f"control {self._path.parent.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            if len(self._tasks) > CONNECTIONS_MAX:
                self.rejected += 1
                connection.close()
                continue
            connection.setblocking(False)
            self._keep(self._read(connection))

    async def _read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(connection, MESSAGE_MAX_BYTES + 1):
                self._message(data)
                await asyncio.sleep(MESSAGE_GAP_S)

    def _message(self, data: bytes) -> None:
        try:
            message = json.loads(data) if len(data) <= MESSAGE_MAX_BYTES else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("type") not in ("hello", "stats"):
            self.rejected += 1
            return
        self._stats = _merged(self._stats, message)
        self._on_stats(self._stats)


def _merged(stats: AppStats, message: Mapping[str, Any]) -> AppStats:
    """Counters only grow; what is absent or odd stays as it was."""
    latency = message.get("latency_app_ms")
    return AppStats(
        hello=True,
        frames_taken=max(stats.frames_taken, _count(message.get("frames_taken"))),
        frames_put=max(stats.frames_put, _count(message.get("frames_put"))),
        calls=max(stats.calls, _count(message.get("calls"))),
        latency_app_ms=_latency(latency) if isinstance(latency, dict) else stats.latency_app_ms,
        first_output_unix_ms=stats.first_output_unix_ms or _count(message.get("first_output_unix_ms")) or None,
    )


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < _NUMBER_MAX else 0


def _latency(value: Mapping[str, Any]) -> dict[str, float | None]:
    def number(name: str) -> float | None:
        given = value.get(name)
        return round(float(given), 3) if isinstance(given, int | float) and 0 <= given < _NUMBER_MAX else None

    return {"p50": number("p50"), "p99": number("p99"), "count": _count(value.get("count"))}


def remove_socket_folder(folder: Path) -> None:
    """Removes what an application's folder below run/ holds, and the folder."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
