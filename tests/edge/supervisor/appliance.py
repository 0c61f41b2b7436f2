"""A supervisor as a process, with its bus, and what its tests ask of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from belvedere.bus.connection import Bus
from belvedere.chassis.edge import ask
from tests.support.edge_bus import RunningProcess, edge_bus, edge_process

WAIT_S = 60.0
DELIVER = 'say(type="stats", frames_taken=3, frames_put=2, calls=1, first_output_unix_ms=1700000000000)\n'
STAY = "import time\ntime.sleep(600)\n"


class Appliance:
    """A supervisor, and what is to be asked of it."""

    def __init__(self, data: Path, bus: Bus, process: RunningProcess) -> None:
        self.data = data
        self.bus = bus
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.news = asyncio.Condition()

    async def apply(self, *specs: dict[str, Any], keep: list[str] | None = None) -> None:
        await ask(self.data, "supervisor", "apply", {"applications": list(specs), "keep": keep})

    async def app(
        self, wanted: Callable[[dict[str, Any]], bool], instance_id: str = "applicationInstance-1"
    ) -> dict[str, Any]:
        """Its status, once it is as wanted."""

        def found(status: dict[str, Any]) -> list[dict[str, Any]]:
            return [app for app in status["applications"] if app["instance_id"] == instance_id and wanted(app)]

        return found(await self.process.status(lambda status: bool(found(status)), WAIT_S))[0]

    async def failed(self, code: str) -> str:
        app = await self.app(lambda app: app["state"] == "failed" and app["reason"]["code"] == code)
        message: str = app["reason"]["message"]
        return message

    async def line(self, text: str) -> dict[str, Any]:
        """The first log entry with this text."""

        def found() -> list[dict[str, Any]]:
            return [entry for entry in self.lines if text in entry["message"]]

        async with asyncio.timeout(WAIT_S), self.news:
            await self.news.wait_for(found)
        return found()[0]


@contextlib.asynccontextmanager
async def running_appliance(data: Path) -> AsyncIterator[Appliance]:
    """The supervisor of the appliance in `data`; ended with the block."""
    async with edge_bus(data) as bus, edge_process("supervisor", data, bus) as process:
        appliance = Appliance(data, bus, process)

        async def deliver(message: Any) -> None:
            async with appliance.news:
                appliance.lines += message.json()["entries"]
                appliance.news.notify_all()

        async def measured(message: Any) -> None:
            async with appliance.news:
                appliance.metrics += message.json()["data"]
                appliance.news.notify_all()

        await bus.subscribe("edge.log.app.>", deliver)
        await bus.subscribe("edge.metric.supervisor", measured)
        yield appliance
