"""The simulated camera: a file behind an RTSP address with digest authentication. What `belvedere camera serve`
runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from belvedere.chassis.secret import Secret

from ._faulty import FaultConduct, FaultyServer, FaultySource
from ._file import FileSource
from ._once import OnceSource
from ._server import RtspServer
from ._source import Source
from .faults import FaultScript

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
    faults: FaultScript | None = None,
    told: Callable[[str], None] | None = None,
    ended: asyncio.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Serves `file` in a loop until `stop` is set or the task is cancelled; `ready(url)` is called when clients can
    connect. `faults`: what goes wrong; `told` hears what begins. With `ended` the file plays once: the
    event is set at its end, and the camera falls silent. `clock`: by which faults begin, in seconds.

    Raises SourceError for a file that is no H.264 or H.265 video (before listening) and ListenFailed.
    """
    users = {username: password} if username and password else None
    source: Source
    if faults is None:
        source, server = FileSource(file, loop=ended is None), RtspServer(host, port, users=users)
        await source.describe()
    else:
        conduct = FaultConduct(faults, path, told, clock)
        source, server = FaultySource(file, conduct, loop=ended is None), FaultyServer(host, port, conduct, users)
        await source.check()
    server.add(path, source if ended is None else OnceSource(source, ended))
    await server.start()
    try:
        if ready is not None:
            ready(server.url(path))
        await (stop or asyncio.Event()).wait()
    finally:
        await server.stop()
