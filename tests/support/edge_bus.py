"""An appliance's local bus for the tests of one edge process: a real nats-server with JetStream, `bus.json` and
`config.json`.

    async with edge_bus(tmp_path):
        async with edge_process("ingest", tmp_path) as process:      # python -m edge.ingest --data tmp_path
            await ask(tmp_path, "ingest", "apply", {"cameras": []})
            await process.status(lambda status: status["cameras"] == [])

The log streams LOGS and METRICS are there, as the leaf's configuration makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats

from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus
from belvedere.bus.jwt import Kind, new_key
from belvedere.bus.server import NatsServer, free_port
from belvedere.chassis.paths import EdgePaths
from belvedere.chassis.process import Child

START_TIMEOUT_S = 60.0
STATUS_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
"""From SIGTERM on: none of them takes seconds, but for the machine's other work."""


@contextlib.asynccontextmanager
async def edge_bus(data: Path) -> AsyncIterator[Bus]:
    """The bus of the appliance in `data`, and a connection to it."""
    paths = EdgePaths(data)
    paths.prepare()
    key, port = new_key(Kind.USER), free_port()
    config = paths.nats / "test.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{paths.nats / "store"}" }}\n'
        f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}\n"
    )
    paths.bus_file.write_text(json.dumps({"url": f"nats://127.0.0.1:{port}", "nkey_seed": key.seed.reveal()}))
    paths.config_file.write_text(json.dumps({"device_id": "device-test"}))
    server = await NatsServer.start("nats-server", config, paths.logs / "nats-server.log")
    try:
        bus = await Bus.connect(f"nats://127.0.0.1:{port}", Credentials(key.seed), "test", timeout_s=START_TIMEOUT_S)
        await _make_streams(port, key.seed.reveal())
        try:
            yield bus
        finally:
            await bus.close()
    finally:
        await server.stop()


async def _make_streams(port: int, seed: str) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{port}", nkeys_seed_str=seed)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="LOGS", subjects=["edge.log.>"])
        await stream.add_stream(name="METRICS", subjects=["edge.metric.>"])
    finally:
        await client.close()


class RunningProcess:
    """`python -m edge.<name>`, and what it says."""

    def __init__(self, name: str, child: Child, log_file: Path) -> None:
        self.name = name
        self.child = child
        self.log_file = log_file
        self.statuses: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def heard(self, status: dict[str, Any]) -> None:
        """A status has come."""
        async with self._news:
            self.statuses.append(status)
            self._news.notify_all()

    async def status(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = STATUS_TIMEOUT_S, *, since: int | None = None
    ) -> dict[str, Any]:
        """The first status that is as wanted, of those from now on and the last one; `since`: of all but so many.

        None is missed, however many come at the same time: what is waited for may not last.
        """
        looked_at = max(len(self.statuses) - 1, 0) if since is None else since

        def found() -> bool:
            nonlocal looked_at
            while looked_at < len(self.statuses):
                if wanted(self.statuses[looked_at]):
                    return True
                looked_at += 1
            return False

        async with self._news:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait_for(found)
            except TimeoutError:
                last = self.statuses[-1] if self.statuses else None
                raise AssertionError(f"{self.name}: not within {timeout_s} s; the last status was {last}") from None
            return self.statuses[looked_at]

    def logs(self) -> str:
        """All that it and its children wrote to stderr."""
        return self.log_file.read_text(errors="replace")


@contextlib.asynccontextmanager
async def edge_process(name: str, data: Path, bus: Bus) -> AsyncIterator[RunningProcess]:
    """Starts it; SIGTERM at the end, and it must end by itself within STOP_TIMEOUT_S."""
    log_file = EdgePaths(data).logs / f"{name}.log"
    child = await Child.start(name, [sys.executable, "-m", f"edge.{name}", "--data", str(data)], log_file=log_file)
    process = RunningProcess(name, child, log_file)

    async def deliver(message: Any) -> None:
        await process.heard(message.json())

    subscription = await bus.subscribe(f"edge.{name}.status", deliver)
    try:
        await process.status(lambda status: True, START_TIMEOUT_S)
        yield process
    finally:
        await subscription.stop()
        code = await child.stop(STOP_TIMEOUT_S)
    assert code == 0, f"{name} ended with {code}:\n{process.logs()[-3000:]}"
