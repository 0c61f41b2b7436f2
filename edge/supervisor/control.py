"""The supervisor's end of apps/<instance>/control.sock: what an application's SDK says of itself, and what it is told
(docs/architecture.md §3).

Unix SOCK_SEQPACKET, one JSON object a message:
    {"type": "hello", …}      the application has made its node
    {"type": "stats", "frames_taken", "frames_put", "calls", "latency_app_ms": {"p50", "p99", "count"},
    "first_output_unix_ms", "idle_ms"}
    {"type": "paused", "cameras": [camera_id]}        to the application, when it comes and whenever that changes

Applications are not trusted: sizes, numbers and connections are bounded, and what can't be read is counted and
dropped. Knows nothing of states.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from belvedere import jsontext

MESSAGE_MAX_BYTES = 16 * 1024
CONNECTIONS_MAX = 4
"""An application has one; a few more for those that fork."""
MESSAGE_GAP_S = 0.02
"""Between two messages that are read from one connection: an application that floods it only waits for itself."""
_NUMBER_MAX = 2**53
_CREDENTIALS = struct.Struct("3i")
"""SO_PEERCRED: pid, uid, gid."""


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


@dataclass
class _Peer:
    """One process of the application that has introduced itself."""

    pidfd: int
    """Where its process can be signalled, whatever becomes of its number; -1 where that can't be had."""
    idle_s: float
    heard_at: float

    def idle_now_s(self, now: float) -> float:
        """For how long it has asked for nothing: what it said last, and how long ago that was."""
        return self.idle_s + now - self.heard_at


class ControlServer:
    """Listens for one application. `on_stats` is called with each new state of its counters."""

    def __init__(self, path: Path, on_stats: Callable[[AppStats], None], paused: Collection[str] = ()) -> None:
        self.rejected = 0
        """Messages that could not be read, and connections beyond the bound."""
        self._path = path
        self._on_stats = on_stats
        self._paused = tuple(paused)
        self._stats = AppStats()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._peers: dict[socket.socket, _Peer] = {}
        self._alone_since = time.monotonic()

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

    def idle_s(self) -> float:
        """For how long no process of the application has asked for anything, while there was something to ask for; or
        for how long it has said nothing at all."""
        now = time.monotonic()
        if not self._peers:
            return now - self._alone_since
        return min(peer.idle_now_s(now) for peer in self._peers.values())

    def abort(self) -> int:
        """SIGABRT to every process that has introduced itself: Python writes what its threads do, and ends. How many."""
        aborted = 0
        for peer in self._peers.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if peer.pidfd >= 0:
                    signal.pidfd_send_signal(peer.pidfd, signal.SIGABRT)
                    aborted += 1
        return aborted

    def pause(self, camera_ids: Collection[str]) -> None:
        """These deliver nothing from now on, all others do."""
        self._paused = tuple(camera_ids)
        for connection in self._peers:
            self._tell(connection)

    def _tell(self, connection: socket.socket) -> None:
        # One that does not read what it is told has itself to blame.
        with contextlib.suppress(OSError):
            connection.send(json.dumps({"type": "paused", "cameras": list(self._paused)}).encode())

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
        try:
            with connection, contextlib.suppress(ConnectionError):
                while data := await loop.sock_recv(connection, MESSAGE_MAX_BYTES + 1):
                    self._message(connection, data)
                    await asyncio.sleep(MESSAGE_GAP_S)
        finally:
            self._leave(connection)

    def _leave(self, connection: socket.socket) -> None:
        if (peer := self._peers.pop(connection, None)) is not None and peer.pidfd >= 0:
            os.close(peer.pidfd)
        self._alone_since = time.monotonic()

    def _message(self, connection: socket.socket, data: bytes) -> None:
        try:
            message = jsontext.loads(data) if len(data) <= MESSAGE_MAX_BYTES else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or message.get("type") not in ("hello", "stats"):
            self.rejected += 1
            return
        peer = self._peers.get(connection)
        if peer is None:
            peer = self._peers[connection] = _Peer(_process_of(connection), 0.0, 0.0)
            self._tell(connection)
        peer.idle_s, peer.heard_at = _count(message.get("idle_ms")) / 1000, time.monotonic()
        self._stats = _merged(self._stats, message)
        self._on_stats(self._stats)


def _process_of(connection: socket.socket) -> int:
    """The pidfd of the process at the other end, which may live in a pid namespace of its own; -1 where it has gone."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(packed)[0]
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


def _merged(stats: AppStats, message: Mapping[str, Any]) -> AppStats:
    """Counters only grow; what is absent or odd stays as it was."""
    latency = message.get("latency_app_ms")
    return replace(
        stats,
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
