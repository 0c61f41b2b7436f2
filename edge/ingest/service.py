"""What `edge.ingest` answers on the local bus, and what it says there. Must not know how cameras are read.

ingest.apply    {cameras: [{camera_id, url, username, password, paused}]}   the whole wanted set
ingest.status   {cameras: [...]}, on change and once a second
"""

from __future__ import annotations

import asyncio
from typing import Any

from belvedere.chassis.edge import CommandFailed, EdgeProcess
from belvedere.chassis.settings import load
from edge.ingest.settings import Settings
from edge.ingest.workers import WantedCamera, Workers

STATUS_EVERY_S = 1.0


async def main(me: EdgeProcess) -> None:
    """Run until the process is to stop."""
    settings = load(Settings, env="BELVEDERE_INGEST_")
    changed = asyncio.Event()
    workers = Workers(me.paths.camera_socket, settings, changed.set)

    async def apply(body: dict[str, Any]) -> None:
        await workers.apply(wanted_cameras(body))

    async def publish() -> None:
        while True:
            changed.clear()
            me.publish_status({"cameras": workers.rows()})
            try:
                async with asyncio.timeout(STATUS_EVERY_S):
                    await changed.wait()
            except TimeoutError:
                continue  # Nothing new but the counters.

    try:
        await me.command("apply", apply)
        me.tasks.start("status", publish())
        await me.stop.wait()
    finally:
        await workers.close()


def wanted_cameras(body: dict[str, Any]) -> list[WantedCamera]:
    """The wanted set in an `ingest.apply`. Raises CommandFailed INVALID_REQUEST, naming the field and never its
    value.
    """
    rows = body.get("cameras")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CommandFailed("INVALID_REQUEST", "cameras: must be a list of objects")
    try:
        return [WantedCamera.from_json(row) for row in rows]
    except ValueError as error:
        raise CommandFailed("INVALID_REQUEST", str(error)) from error
