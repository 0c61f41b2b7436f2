"""The simulated camera of the video benchmarks, in a process of its own that notes when it sends what.

    with running(clip, stamps) as camera:      # camera.url; camera.stop(), camera.start() on the same port

`stamps`: a file of 8 bytes a picture, by its number in the footage: CLOCK_MONOTONIC in ns when it was last handed to the
server for sending.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

from belvedere.rtsp import AccessUnit, FileSource, RtspClient, RtspServer, Source, StreamDescription
from tests.bench import footage, machine
from tests.bench.peers import REPOSITORY

PATH = "camera"
STARTS_WITHIN_S = 20.0


class Stamped(Source):
    """The footage in a loop; each picture's sending is noted."""

    def __init__(self, clip: Path, stamps: Path) -> None:
        self._file = FileSource(clip)
        with stamps.open("r+b") as file:
            self._stamps = mmap.mmap(file.fileno(), 8 * footage.FRAMES)

    async def describe(self) -> StreamDescription:
        return await self._file.describe()

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        number = 0
        async for unit in self._file.subscribe():
            struct.pack_into("@q", self._stamps, 8 * number, time.monotonic_ns())
            number = (number + 1) % footage.FRAMES
            yield unit


async def serve(clip: Path, stamps: Path, port: int, watched: bool) -> None:
    """Until SIGTERM. `watched`: somebody looks from the start, so that who comes later comes into the midst of a group of
    pictures, as with a real camera.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RtspServer("127.0.0.1", port) as server:
        server.add(PATH, Stamped(clip, stamps))
        if watched:
            client = RtspClient(server.url(PATH))
            threading.Thread(target=_watch, args=(client,), daemon=True).start()
        print(server.port, flush=True)
        await stop.wait()


def _watch(client: RtspClient) -> None:
    client.open()
    for _ in client.units():
        continue


@dataclass
class BenchCamera:
    """A camera that can be switched off and on."""

    clip: Path
    stamps: Path
    port: int = 0
    watched: bool = False
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/{PATH}"

    def start(self) -> None:
        """On, on the same port as before."""
        with machine.on(machine.CLIENT_CORE):
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.bench.bench_camera",
                    str(self.clip), str(self.stamps), str(self.port), str(int(self.watched)),
                ],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def stop(self) -> None:
        """Off: nobody answers at its port."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def sent_ns(self) -> list[int]:
        """When each picture was sent last."""
        return list(struct.unpack(f"@{footage.FRAMES}q", self.stamps.read_bytes()))


@contextlib.contextmanager
def running(folder: Path, *, watched: bool = False) -> Iterator[BenchCamera]:
    """A camera that is on."""
    stamps = folder / "stamps"
    stamps.write_bytes(bytes(8 * footage.FRAMES))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    camera = BenchCamera(footage.clip(), stamps, port, watched)
    camera.start()
    try:
        yield camera
    finally:
        camera.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"))
