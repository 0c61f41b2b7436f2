"""Store and forward between a real leaf and a real hub that goes away in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.jetstream import consume, publish_stored
from edge.agent.forward import Forwarder, ensure_local_streams
from tests.support.hub import RunningHub, RunningLeaf, linked, running_hub, running_leaf

DEVICE = "device-a"
PATIENCE_S = 60.0


@asynccontextmanager
async def forwarding(bus: Bus, link_up: asyncio.Event) -> AsyncIterator[Forwarder]:
    """A forwarder of logs at work."""
    forwarder = Forwarder(bus, DEVICE, subjects.EDGE_LOGS_STREAM, subjects.up_logs(DEVICE), window=16, link_up=link_up)
    task = asyncio.create_task(forwarder.run())
    try:
        yield forwarder
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def write(leaf: RunningLeaf, first: int, last: int) -> None:
    for number in range(first, last):
        await publish_stored(leaf.bus, subjects.edge_log("test"), {"entries": [{"message": str(number)}]})


async def arrived(hub: RunningHub, count: int) -> list[str]:
    """The first `count` messages of UP_LOGS."""
    found: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in consume(hub.bus, subjects.UP_LOGS_STREAM, ack=False):
            assert message.subject == subjects.up_logs(DEVICE)
            found.append(message.data.decode())
            if len(found) == count:
                return found
    return found


async def stored(hub: RunningHub) -> int:
    from belvedere.bus.jetstream import stream_info

    return int((await stream_info(hub.bus, subjects.UP_LOGS_STREAM))["state"]["messages"])


async def test_what_is_written_here_is_stored_there(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub") as hub, running_leaf(hub, tmp_path / "leaf", DEVICE) as leaf:
        await ensure_local_streams(leaf.bus)
        up = asyncio.Event()
        up.set()
        async with forwarding(leaf.bus, up):
            await write(leaf, 0, 50)
            assert len(set(await arrived(hub, 50))) == 50


async def test_what_was_written_with_the_hub_away_arrives_once_when_it_is_back(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub") as hub:
        ports = int(hub.hub.url.rsplit(":", 1)[1]), int(hub.hub.leaf_urls[0].rsplit(":", 1)[1])
        async with running_leaf(hub, tmp_path / "leaf", DEVICE) as leaf:
            await ensure_local_streams(leaf.bus)
            up = asyncio.Event()
            up.set()
            async with forwarding(leaf.bus, up):
                await write(leaf, 0, 20)
                await arrived(hub, 20)
                await hub.hub.stop()
                await write(leaf, 20, 60)
                async with running_hub(tmp_path / "hub", client_port=ports[0], leaf_port=ports[1]) as again:
                    await linked(leaf.bus, PATIENCE_S)
                    found = await arrived(again, 60)
                    assert len(set(found)) == 60
                    assert await stored(again) == 60


async def test_a_forwarder_that_starts_anew_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub") as hub, running_leaf(hub, tmp_path / "leaf", DEVICE) as leaf:
        await ensure_local_streams(leaf.bus)
        up = asyncio.Event()
        up.set()
        async with forwarding(leaf.bus, up):
            await write(leaf, 0, 10)
            await arrived(hub, 10)
        await write(leaf, 10, 20)
        async with forwarding(leaf.bus, up):
            assert len(set(await arrived(hub, 20))) == 20
        assert await stored(hub) == 20


async def test_with_the_link_down_nothing_is_tried(tmp_path: Path) -> None:
    async with running_hub(tmp_path / "hub") as hub, running_leaf(hub, tmp_path / "leaf", DEVICE) as leaf:
        await ensure_local_streams(leaf.bus)
        down = asyncio.Event()
        async with forwarding(leaf.bus, down) as forwarder:
            await write(leaf, 0, 5)
            assert (forwarder.stats.forwarded, forwarder.stats.retried) == (0, 0)
            down.set()
            assert len(await arrived(hub, 5)) == 5
