"""The cameras' rings, mapped read-only: applications name their frames, the pixels are read here. Asks for no frame
itself.

Must not know what is shown. A camera that is not there yet, or restarts, is waited for in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from belvedere.chassis.logs import get_logger
from framelink import FramelinkError, FrameReader, RingGone

log = get_logger(__name__)

CONNECT_TIMEOUT_S = 0.1
RETRY_S = 0.25
"""Between two attempts to reach a camera's process that is not there."""
NAME = "display"


class Rings:
    """Call it with a camera id, from any thread: a connected FrameReader, or None."""

    def __init__(self, socket_path: Callable[[str], Path]) -> None:
        self._socket_path = socket_path
        self._readers: dict[str, FrameReader] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __call__(self, camera_id: str) -> FrameReader | None:
        return self._readers.get(camera_id)

    async def apply(self, camera_ids: Iterable[str]) -> None:
        """The whole wanted set of cameras."""
        wanted = set(camera_ids)
        ended = [self._tasks.pop(camera_id) for camera_id in set(self._tasks) - wanted]
        for task in ended:
            task.cancel()
        if ended:
            await asyncio.wait(ended)
        for camera_id in wanted - set(self._tasks):
            self._tasks[camera_id] = asyncio.create_task(self._keep(camera_id), name=f"ring of {camera_id}")

    async def close(self) -> None:
        await self.apply(())

    async def _keep(self, camera_id: str) -> None:
        path = self._socket_path(camera_id)
        while True:
            try:
                reader = await asyncio.to_thread(FrameReader, path, NAME, connect_timeout_s=CONNECT_TIMEOUT_S)
            except RingGone:
                await asyncio.sleep(RETRY_S)
                continue
            except (FramelinkError, OSError) as error:
                log.warning("camera's frames cannot be attached", camera_id=camera_id, why=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            self._readers[camera_id] = reader
            try:
                await self._until_gone(reader)
            finally:
                del self._readers[camera_id]
                reader.close()

    @staticmethod
    async def _until_gone(reader: FrameReader) -> None:
        """The writer sends nothing that we did not ask for: readable means that it has ended."""
        loop = asyncio.get_running_loop()
        while True:
            readable = asyncio.Event()
            descriptor = reader.fileno()
            loop.add_reader(descriptor, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(descriptor)
            try:
                reader.take()
            except RingGone:
                return
