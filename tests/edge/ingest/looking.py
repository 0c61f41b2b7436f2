"""One camera read in this process, with its real ring: for what happens while somebody looks, and while nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from belvedere.rtsp import AccessUnit, FileSource, Source, StreamDescription
from edge.ingest.address import Address
from edge.ingest.camera import Camera
from edge.ingest.ring import CameraRing
from edge.ingest.settings import Settings
from edge.ingest.status import CameraStatus, RingCounts
from framelink import Frame, FrameReader

WAIT_S = 40.0
# Waits for what happens in these tests are shortened; those for what must not happen (the camera is in this process, and a
# busy machine may keep both from their work for a second) are longer than any test. Who tests a stall says `stall_s=STALL_S`.
STALL_S = 1.0
SETTINGS = Settings(
    open_timeout_s=30.0,
    connect_timeout_s=20.0,
    stall_s=30.0,
    first_frame_s=60.0,
    retry_max_s=0.1,
    refused_retry_max_s=0.2,
    idle_after_s=0.3,
    slots=6,
)


@dataclass
class Looking:
    """A camera, and what is seen of it."""

    path: Path
    ring: CameraRing
    status: CameraStatus
    states: list[str]
    """Each state that it entered, in order."""

    def row(self) -> dict[str, Any]:
        return self.status.row(self.ring.counts())

    async def until(self, wanted: Callable[[dict[str, Any]], object], timeout_s: float = WAIT_S) -> dict[str, Any]:
        """The first row as wanted."""
        try:
            async with asyncio.timeout(timeout_s):
                while not wanted(row := self.row()):  # noqa: ASYNC110 - counters tell nobody
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s} s; the last row was {self.row()}") from None
        return row

    async def state(self, state: str) -> dict[str, Any]:
        return await self.until(lambda row: row["state"] == state)

    async def reader(self) -> FrameReader:
        return await asyncio.to_thread(lambda: FrameReader(self.path, "test", connect_timeout_s=WAIT_S))


async def next_frame(reader: FrameReader, bgr: bool = False) -> Frame:
    return await asyncio.to_thread(reader.get, WAIT_S, bgr=bgr)


@contextlib.asynccontextmanager
async def looking(
    url: str, folder: Path, username: str = "", password: str = "", **settings: Any
) -> AsyncIterator[Looking]:
    """The camera at `url`; at the end it must let go at once. `settings` replace those above."""
    how = replace(SETTINGS, **settings)
    path = folder / "frames.sock"
    ring, stop, states = CameraRing(path, "test", how.slots), threading.Event(), []
    status = CameraStatus(lambda: states.append(status.row(RingCounts())["state"]))
    camera = Camera(Address.parse(url, username, password), ring, status, how)
    thread = threading.Thread(target=camera.run, args=(stop,))
    thread.start()
    try:
        yield Looking(path, ring, status, states)
    finally:
        stop.set()
        camera.close()
        await asyncio.to_thread(thread.join, SETTINGS.stall_s / 2)
        ring.close()
        assert not thread.is_alive(), "a wait for the camera did not end"


class Reel(Source):
    """The pictures of a clip, one by one as `send` says: `async for unit in send(units)`."""

    def __init__(self, clip: Path, send: Callable[[Sequence[AccessUnit]], AsyncGenerator[AccessUnit, None]]) -> None:
        self._clip = FileSource(clip, loop=False, realtime=False)
        self._send = send
        self.starts = 0

    async def describe(self) -> StreamDescription:
        return await self._clip.describe()

    async def units(self) -> list[AccessUnit]:
        return [unit async for unit in self._clip.subscribe()]

    async def subscribe(self) -> AsyncGenerator[AccessUnit, None]:
        self.starts += 1
        async for unit in self._send(await self.units()):
            yield unit
