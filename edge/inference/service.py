"""What `edge.inference` answers on the local bus, and what it says there. Must not know how models are computed.

inference.apply    {models: [{model_id, path, framework, precision, inputs: [{name, shape, dtype, image}]}],
                    clients: [instance_id]}   the whole wanted set
inference.status   {models: [...], loading}, on change and once a second
"""

from __future__ import annotations

import asyncio
from typing import Any

from belvedere.chassis.edge import CommandFailed, EdgeProcess
from belvedere.chassis.settings import load
from edge.inference.keeper import Keeper
from edge.inference.model import WantedModel
from edge.inference.settings import Settings

STATUS_EVERY_S = 1.0


async def main(me: EdgeProcess) -> None:
    """Run until the process is to stop."""
    settings = load(Settings, env="BELVEDERE_INFERENCE_")
    changed = asyncio.Event()
    cameras = me.paths.run / "cameras"
    keeper = Keeper(me.paths.inference_socket, cameras, me.paths.data / "cache", settings, changed.set)

    async def apply(body: dict[str, Any]) -> None:
        await keeper.apply(wanted_models(body), clients(body))

    async def publish() -> None:
        while True:
            changed.clear()
            me.publish_status({"models": keeper.rows(), "loading": keeper.loading()})
            try:
                async with asyncio.timeout(STATUS_EVERY_S):
                    await changed.wait()
            except TimeoutError:
                continue  # Nothing new: the same again.

    await me.command("apply", apply)
    running = me.tasks.start("worker", keeper.run())
    me.tasks.start("status", publish())
    await me.stop.wait()
    running.cancel()
    await asyncio.wait([running])


def wanted_models(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The wanted set in an `inference.apply`. Raises CommandFailed INVALID_REQUEST, naming the field."""
    rows = body.get("models")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CommandFailed("INVALID_REQUEST", "models: must be a list of objects")
    try:
        for row in rows:
            WantedModel.from_json(row)
    except ValueError as error:
        raise CommandFailed("INVALID_REQUEST", str(error)) from error
    return rows


def clients(body: dict[str, Any]) -> list[str]:
    """Who may call, a socket each. Raises CommandFailed INVALID_REQUEST."""
    names = body.get("clients") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name and "/" not in name for name in names):
        raise CommandFailed("INVALID_REQUEST", "clients: must be a list of instance ids")
    return names
