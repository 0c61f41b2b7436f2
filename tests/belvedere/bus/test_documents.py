"""Key-value documents and streams: revisions, races, watches through restarts; a device's side of them over a leaf."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from belvedere.bus import jwt, leaf, subjects
from belvedere.bus.connection import Message
from belvedere.bus.errors import BusError, NoResponders, RequestTimeout, ServerFailed, StreamNotFound, WrongRevision
from belvedere.bus.jetstream import StoredMessage, consume, ensure_stream, publish_stored, stream_info
from belvedere.bus.keyring import write_secret
from belvedere.bus.kv import Entry, KeyValue, get_target, put_reported
from belvedere.bus.server import free_port
from tests.support.hub import RunningHub, answered, linked, running_hub, running_leaf


async def some(iterator: AsyncIterator[Entry], count: int) -> list[Entry]:
    found: list[Entry] = []
    async with asyncio.timeout(30):
        async for entry in iterator:
            found.append(entry)
            if len(found) == count:
                break
    return found


async def test_a_document_is_replaced_only_at_the_revision_that_was_read(hub: RunningHub) -> None:
    kv = KeyValue(hub.bus, "target")
    assert await kv.get("a") is None
    first = await kv.put("a", b"1", revision=0)
    with pytest.raises(WrongRevision):
        await kv.put("a", b"x", revision=0)
    second = await kv.put("a", b"2", revision=first)
    assert await kv.get("a") == Entry("a", b"2", second)
    await kv.delete("a")
    assert await kv.get("a") is None
    with pytest.raises(WrongRevision):
        await kv.put("a", b"3", revision=second)


async def test_no_update_of_many_at_once_is_lost(hub: RunningHub) -> None:
    def plus_one(before: bytes | None) -> bytes:
        return str(int(before or b"0") + 1).encode()

    kv = KeyValue(hub.bus, "target")
    await asyncio.gather(*(kv.update("count", plus_one) for _ in range(8)))
    entry = await kv.get("count")
    assert entry is not None and entry.value == b"8"
    assert await kv.update("count", lambda before: None) == entry
    assert await kv.update("count", lambda before: before) == entry
    await kv.delete("count")
    again = await kv.update("count", plus_one)
    assert again is not None and again.value == b"1"


async def test_a_watch_tells_what_is_there_and_then_every_change(hub: RunningHub) -> None:
    kv = KeyValue(hub.bus, "reported")
    await kv.put("a", b"0")
    await kv.put("a", b"1")
    await kv.put("b", b"2")
    entries = kv.watch()
    assert [(e.key, e.value) for e in await some(entries, 2)] == [("a", b"1"), ("b", b"2")]
    watching = kv.watch("b")
    assert [(e.key, e.value) for e in await some(watching, 1)] == [("b", b"2")]
    await kv.put("a", b"3")
    await kv.put("b", b"4")
    await kv.delete("b")
    assert [(e.key, e.value) for e in await some(watching, 2)] == [("b", b"4"), ("b", None)]


async def test_a_watch_goes_on_after_the_hub_was_killed(tmp_path: Path) -> None:
    client_port, leaf_port = free_port(), free_port()
    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port) as first:
        bus = await first.connect()
        first._opened.clear()  # outlives this hub
        kv, told = KeyValue(bus, "reported"), asyncio.Event()
        values: list[bytes | None] = []

        async def watch() -> None:
            async for entry in kv.watch("a"):
                values.append(entry.value)
                told.set()

        task = asyncio.create_task(watch())
        await kv.put("a", b"1")
        await asyncio.wait_for(told.wait(), 30)
        first.hub.server._child.signal(signal.SIGKILL)
        await first.hub.wait()
    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port) as second:
        await KeyValue(second.bus, "reported").put("a", b"2")
        async with asyncio.timeout(30):
            while b"2" not in values:
                told.clear()
                await told.wait()
        task.cancel()
        await bus.close()


async def test_a_consumer_gets_again_what_it_did_not_acknowledge(hub: RunningHub) -> None:
    for n in range(5):
        await publish_stored(hub.bus, "belvedere.events.a.b.c", str(n).encode(), msg_id=str(n))
    seen: list[tuple[bytes, int]] = []
    async with asyncio.timeout(30):
        async for message in consume(hub.bus, "EVENTS", durable="test", ack_wait_s=60):
            seen.append((message.data, message.delivered))
            if message.data == b"2" and message.delivered == 1:
                await message.nak()
            else:
                await message.ack()
            if len(seen) == 6:
                break
    assert [data for data, delivered in seen if delivered == 1] == [b"0", b"1", b"2", b"3", b"4"]
    assert (b"2", 2) in seen
    await hub.bus.flush()
    await publish_stored(hub.bus, "belvedere.events.a.b.c", b"5", msg_id="5")
    async for message in consume(hub.bus, "EVENTS", durable="test", ack_wait_s=60):
        assert message.data == b"5"
        break


async def test_a_stream_that_is_not_there_is_named(hub: RunningHub) -> None:
    with pytest.raises(StreamNotFound, match="NOTHING"):
        await stream_info(hub.bus, "NOTHING")
    with pytest.raises(StreamNotFound):
        async for _ in consume(hub.bus, "NOTHING"):
            raise AssertionError
    with pytest.raises(NoResponders):
        await publish_stored(hub.bus, "nobody.stores.this", b"x")


async def test_a_device_reads_its_target_hears_changes_and_reports(hub: RunningHub, tmp_path: Path) -> None:
    targets, reports = KeyValue(hub.bus, "target"), KeyValue(hub.bus, "reported")
    async with running_leaf(hub, tmp_path / "leaf", "device-a") as device:
        assert await get_target(device.bus) is None
        announced: asyncio.Queue[Message] = asyncio.Queue()

        async def hear(message: Message) -> None:
            await message.respond({}) if message.reply else await announced.put(message)

        await device.bus.subscribe(subjects.dev_target("device-a"), hear)
        await answered(hub, "device-a", subjects.dev_target("device-a"), {})
        revision = await targets.put("device-a", b'{"version": 1}')
        message = await asyncio.wait_for(announced.get(), 30)
        assert message.data == b'{"version": 1}' and int(message.headers["Nats-Sequence"]) == revision
        assert await get_target(device.bus) == (b'{"version": 1}', revision)
        reported = await put_reported(device.bus, b'{"ok": true}')
        assert await reports.get("device-a") == Entry("device-a", b'{"ok": true}', reported)
        await targets.delete("device-a")
        assert await get_target(device.bus) is None


async def test_a_command_reaches_the_device_and_its_answer_comes_back(hub: RunningHub, tmp_path: Path) -> None:
    async with running_leaf(hub, tmp_path / "leaf", "device-a") as device:

        async def obey(message: Message) -> None:
            await message.respond({"done": message.json()["what"]})

        await device.bus.subscribe("dev.device-a.do", obey)
        assert (await answered(hub, "device-a", "dev.device-a.do", {"what": 7})).json() == {"done": 7}
    with pytest.raises(NoResponders):
        async with asyncio.timeout(30):
            while True:
                # The hub may still take the link for one that is there.
                with contextlib.suppress(RequestTimeout):
                    await hub.bus.request("dev.device-a.do", {"what": 7}, reply=subjects.rsp("device-a"), timeout_s=0.5)


async def test_the_appliances_own_bus_works_with_the_link_cut_and_catches_up(tmp_path: Path) -> None:
    client_port, leaf_port = free_port(), free_port()
    async with running_hub(tmp_path / "hub", client_port=client_port, leaf_port=leaf_port) as hub:
        leaving = running_leaf(hub, tmp_path / "leaf", "device-a")
        device = await leaving.__aenter__()
    await ensure_stream(device.bus, {"name": "LOGS", "subjects": ["edge.log.>"], "max_bytes": 1 << 20})
    for n in range(10):
        await publish_stored(device.bus, "edge.log.agent", str(n).encode())
    with pytest.raises(BusError):
        await put_reported(device.bus, b"{}", timeout_s=0.3)
    async with running_hub(tmp_path / "hub", client_port=client_port, leaf_port=leaf_port) as hub:
        await linked(device.bus)

        async def forward(message: StoredMessage) -> None:
            stored = await publish_stored(
                device.bus, subjects.up_logs("device-a"), message.data, msg_id=f"x-{message.sequence}"
            )
            assert stored.stream == "UP_LOGS"
            await message.ack()

        async with asyncio.timeout(30):
            async for message in consume(device.bus, "LOGS", durable="forward"):
                await forward(message)
                if message.pending == 0:
                    break
        assert (await stream_info(hub.bus, "UP_LOGS"))["state"]["messages"] == 10
        await leaving.__aexit__(None, None, None)


async def test_what_processes_of_one_appliance_say_stays_there(hub: RunningHub, tmp_path: Path) -> None:
    async with (
        running_leaf(hub, tmp_path / "a", "device-a") as one,
        running_leaf(hub, tmp_path / "b", "device-b") as two,
    ):
        heard: list[str] = []

        async def take(message: Message) -> None:
            heard.append(message.subject)

        await hub.bus.subscribe("edge.>", take)
        await two.bus.subscribe("edge.>", take)
        await one.bus.publish("edge.ingest.apply", b"{}")
        await one.bus.flush()
        await put_reported(one.bus, b"{}")  # a round trip to the hub behind it
        assert heard == []


async def test_new_credentials_that_are_wrong_leave_the_leaf_as_it_is(hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "leaf"
    async with running_leaf(hub, folder, "device-a") as device:
        before = (folder / "leaf.conf").read_text()
        with pytest.raises(ServerFailed):
            await leaf.use_credentials(folder, folder / "not-there.creds")
        assert (folder / "leaf.conf").read_text() == before
        assert await get_target(device.bus) is None
        keys = hub.hub.keys
        now = int(jwt.decode(_jwt_in(folder / "device.1.creds"))["iat"]) + 1
        renewed = keys.device_user_jwt("device-a", device.account, device.user.public, now, now + 7200)
        write_secret(folder / "device.2.creds", jwt.creds_text(renewed, device.user).encode())
        await leaf.use_credentials(folder, folder / "device.2.creds")
        assert str(folder / "device.2.creds") in (folder / "leaf.conf").read_text()
        await linked(device.bus)
        assert device.bus.stats.connects == 1
    with pytest.raises(ServerFailed, match=r"no running leaf|not running"):
        await leaf.use_credentials(folder, folder / "device.1.creds")
    assert json.loads((folder / "leaf.json").read_text())["device_id"] == "device-a"


def _jwt_in(path: Path) -> str:
    return path.read_text().splitlines()[1]
