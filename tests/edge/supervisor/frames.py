"""A camera that delivers, for applications under a supervisor."""

from __future__ import annotations

import asyncio
from pathlib import Path

from belvedere.chassis.paths import EdgePaths
from tests.support.shared_memory import NumberCamera

CAMERA = "front-1.0-" + "a" * 80
"""Its socket would lie too deep under its own name."""
MEDIA = {"type": "media", "streams": [{"camera_id": CAMERA, "stream_id": "front", "stream_uri": "rtsp://x"}]}


class Frames:
    """A camera that delivers until the test ends."""

    def __init__(self, data: Path) -> None:
        path = EdgePaths(data).camera_socket(CAMERA)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.camera = NumberCamera(path)

    async def __aenter__(self) -> Frames:
        self._task = asyncio.create_task(self._deliver())
        return self

    async def _deliver(self) -> None:
        while True:
            self.camera.publish(bgr=True)
            await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.camera.close()
