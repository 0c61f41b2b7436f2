"""The simulated camera: a file behind an RTSP address with digest authentication. What `belvedere camera serve`
runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from belvedere.chassis.secret import Secret

from ._file import FileSource
from ._server import RtspServer

CAMERA_PATH = "camera"


async def serve_camera(
    file: Path,
    host: str,
    port: int,
    path: str = CAMERA_PATH,
    username: str | None = None,
    password: Secret[str] | None = None,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serves `file` in a loop until `stop` is set or the task is cancelled; `ready(url)` is called when clients can
    connect.

    Raises SourceError for a file that is no H.264 or H.265 video (before listening) and ListenFailed.
    """
    source = FileSource(file)
    await source.describe()
    users = {username: password} if username and password else None
    server = RtspServer(host, port, users=users)
    server.add(path, source)
    await server.start()
    try:
        if ready is not None:
            ready(server.url(path))
        await (stop or asyncio.Event()).wait()
    finally:
        await server.stop()
