"""Cameras that do as a test tells them, and the processes that read them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from belvedere.chassis.secret import Secret
from belvedere.rtsp import AccessUnit, FileSource, Source, StreamDescription
from edge.ingest.settings import Settings
from edge.ingest.workers import WantedCamera, Workers
from framelink import FrameReader

WAIT_S = 40.0
# Waits for what happens in these tests are shortened; those for what must not happen (a busy machine may keep a camera or
# its process from their work for a second) are longer than any test. Who tests a stall says `stall_s=STALL_S`.
STALL_S = 1.0
SETTINGS = Settings(
    open_timeout_s=30.0,
    connect_timeout_s=20.0,
    stall_s=30.0,
    idle_after_s=60.0,
    retry_max_s=0.5,
    refused_retry_max_s=0.5,
    slots=6,
)


class ScriptedCamera(Source):
    """A clip in a loop, that can freeze, jump in time and send garbage."""

    def __init__(self, clip: Path) -> None:
        self._clip = FileSource(clip)
        self._running = asyncio.Event()
        self._running.set()
        self.offset_90k = 0
        self.garbage = 0
        """So many of the next pictures are sent as bytes that mean nothing."""

    def freeze(self) -> None:
        """No more pictures; connections stay."""
        self._running.clear()

    def thaw(self) -> None:
        """Pictures again."""
        self._running.set()

    def play(self, clip: Path) -> None:
        """Another clip, for those who connect from now on."""
        self._clip = FileSource(clip)

    async def describe(self) -> StreamDescription:
        return await self._clip.describe()

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        async for unit in self._clip.subscribe():
            await self._running.wait()
            data = unit.data
            if self.garbage:
                self.garbage -= 1
                # A slice header with an unknown picture parameter set (10): other bytes may be concealed as a picture.
                data = data[:5] + b"\xb1\x60" + bytes(byte ^ 0x5A for byte in data[7:])
            yield replace(unit, data=data, pts_90k=unit.pts_90k + self.offset_90k)


@dataclass
class Ingest:
    """The processes of some cameras, and how to wait for them."""

    root: Path
    settings: Settings = SETTINGS
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    workers: Workers = field(init=False)
    rows_seen: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.workers = Workers(self.socket, self.settings, self.changed.set)

    def socket(self, camera_id: str) -> Path:
        """Where a camera's frames are."""
        return self.root / camera_id / "frames.sock"

    async def want(self, *cameras: WantedCamera) -> None:
        """`ingest.apply`."""
        await self.workers.apply(list(cameras))

    async def row(
        self, camera_id: str, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = WAIT_S
    ) -> dict[str, Any]:
        """The first row of this camera that is as wanted."""
        last: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self.changed.clear()
                    for row in self.workers.rows():
                        if row["camera_id"] == camera_id:
                            last = row
                            self.rows_seen.append(row)
                            if wanted(row):
                                return row
                    # Counters change without a call of `changed`: the worker says them once a second.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"{camera_id}: not within {timeout_s} s; the last row was {last}") from None

    async def state(self, camera_id: str, state: str) -> dict[str, Any]:
        """The camera's first row in this state."""
        return await self.row(camera_id, lambda row: row["state"] == state)

    async def reader(self, camera_id: str) -> FrameReader:
        """A connected reader of its frames."""
        path = self.socket(camera_id)
        return await asyncio.to_thread(lambda: FrameReader(path, "test", connect_timeout_s=WAIT_S))


@contextlib.asynccontextmanager
async def ingesting(root: Path, **settings: Any) -> AsyncIterator[Ingest]:
    """Ends all processes at the end. `settings` replace those above."""
    ingest = Ingest(root, replace(SETTINGS, **settings))
    try:
        yield ingest
    finally:
        await ingest.workers.close()


def camera(camera_id: str, url: str, username: str = "", password: str = "", paused: bool = False) -> WantedCamera:
    """One camera of the wanted set."""
    return WantedCamera(camera_id, url, username, Secret(password), paused)


@contextlib.contextmanager
def server_that_says(answer: bytes | None) -> Iterator[str]:
    """A TCP server that answers whatever comes with `answer` and closes; None: says nothing and keeps the connection.
    Gives an RTSP URL of it.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        kept = []
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            kept.append(connection)
            if answer is not None:
                with contextlib.suppress(OSError):  # who called may be gone again
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
        for connection in kept:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/stream"
    finally:
        done.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
