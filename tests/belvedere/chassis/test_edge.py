"""Edge processes on a real local bus."""

import asyncio
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from belvedere.bus.connection import Bus
from belvedere.bus.jetstream import consume
from belvedere.chassis import edge, logs
from belvedere.chassis.edge import (
    CommandFailed,
    EdgeProcess,
    EdgeTimeout,
    EdgeUnavailable,
    ask,
)
from belvedere.chassis.errors import Invalid
from belvedere.chassis.shipping import BATCH_BYTES, MAX_MESSAGE_BYTES, MAX_WAITING_ENTRIES, Shipper
from tests.support.edge_bus import edge_bus
from tests.support.waiting import until

GROUP = "/aws/panorama/devices/device-test"


def process(name: str, data: Path) -> EdgeProcess:
    return EdgeProcess(name, data, handle_signals=False)


async def stored(bus: Bus, stream: str, count: int, field: str) -> list[dict[str, Any]]:
    """The first `count` entries or data of a local stream."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        async for message in consume(bus, stream, ack=False):
            assert len(message.data) <= 256 * 1024
            found += json.loads(message.data)[field]
            if len(found) >= count:
                return found
    raise AssertionError("unreachable")


async def test_a_command_is_answered_with_what_its_handler_gives(tmp_path: Path) -> None:
    async def apply(body: dict[str, Any]) -> Mapping[str, Any]:
        return {"taken": len(body["cameras"])}

    async with edge_bus(tmp_path), process("ingest", tmp_path) as ingest, process("agent", tmp_path) as agent:
        await ingest.command("apply", apply)
        assert await agent.request("ingest", "apply", {"cameras": [1, 2]}) == {"ok": True, "taken": 2}
        assert await ask(tmp_path, "ingest", "apply", {"cameras": []}) == {"ok": True, "taken": 0}


async def test_a_handlers_error_reaches_who_asked(tmp_path: Path) -> None:
    errors: list[Exception] = [CommandFailed("BUSY", "not now"), Invalid("wrong"), KeyError("cameras")]

    async def apply(body: dict[str, Any]) -> None:
        raise errors[body["which"]]

    async with edge_bus(tmp_path), process("ingest", tmp_path) as ingest:
        await ingest.command("apply", apply)
        for which, code in enumerate(("BUSY", "Invalid", "INTERNAL")):
            with pytest.raises(CommandFailed) as caught:
                await ingest.request("ingest", "apply", {"which": which})
            assert caught.value.code == code


async def test_silence_and_absence_are_told_apart(tmp_path: Path) -> None:
    never = asyncio.Event()

    async def hang(body: dict[str, Any]) -> None:
        await never.wait()

    with pytest.raises(EdgeUnavailable, match="enrolled"):
        await ask(tmp_path, "ingest", "apply", {})
    assert list(tmp_path.iterdir()) == [], "a question made something"
    async with edge_bus(tmp_path), process("ingest", tmp_path) as ingest:
        await ingest.command("hang", hang)
        with pytest.raises(EdgeTimeout):
            await ingest.request("ingest", "hang", {}, timeout_s=0.2)
        with pytest.raises(EdgeUnavailable):
            await ingest.request("nobody", "apply", {})


async def test_a_status_goes_out_on_change_and_again_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[dict[str, Any]] = []

    async def note(status: dict[str, Any]) -> None:
        heard.append(status)

    async with edge_bus(tmp_path), process("ingest", tmp_path) as ingest, process("agent", tmp_path) as agent:
        await agent.on_status("ingest", note)
        assert edge.STATUS_INTERVAL_S <= 1
        monkeypatch.setattr(edge, "STATUS_INTERVAL_S", 60.0)
        ingest.publish_status({"cameras": [1]})
        await until(lambda: heard and heard[-1] == {"cameras": [1]})
        ingest.publish_status({"cameras": [2]})
        await until(lambda: heard[-1] == {"cameras": [2]})
        monkeypatch.setattr(edge, "STATUS_INTERVAL_S", 0.1)
        ingest.publish_status({"cameras": [3]})
        await until(lambda: heard[-2:] == [{"cameras": [3]}] * 2)


async def test_log_lines_of_the_process_and_its_applications_are_shipped_in_order(tmp_path: Path) -> None:
    handler = logging.StreamHandler()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("supervisor")
    try:
        async with edge_bus(tmp_path) as bus:
            async with process("supervisor", tmp_path) as me:
                logs.get_logger("edge.supervisor").info("started", instance_id="a")
                for n in range(3):
                    me.log(f"line {n}", group=f"{GROUP}/applications/a", stream="console_output", instance_id="a")
            # Leaving the process sends what still waited.
            entries = await stored(bus, "LOGS", 4, "entries")
    finally:
        root.handlers[:], root.level = before
        handler.close()
    own = [entry for entry in entries if entry["stream"] == "occ_log"]
    assert own[0]["group"] == GROUP
    assert json.loads(own[0]["message"])["event"] == "started"
    lines = [entry for entry in entries if entry["stream"] == "console_output"]
    assert [entry["message"] for entry in lines] == ["line 0", "line 1", "line 2"]
    sequences = [entry["sequence"] for entry in lines]
    assert sequences == sorted(set(sequences))


async def test_values_of_one_metric_become_one_datum(tmp_path: Path) -> None:
    async with edge_bus(tmp_path) as bus:
        async with process("agent", tmp_path) as me:
            for value in (1, 5, 3):
                me.metric("DeviceActive", value, unit="Count", dimensions={"DeviceId": "d"})
        (datum,) = await stored(bus, "METRICS", 1, "data")
    assert (datum["sum"], datum["minimum"], datum["maximum"], datum["sample_count"]) == (9, 1, 5, 3)
    assert (datum["namespace"], datum["name"], datum["unit"]) == ("PanoramaDeviceMetrics", "DeviceActive", "Count")


async def test_logs_wait_for_a_stream_that_is_away_and_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    async with edge_bus(tmp_path) as bus:
        shipper = Shipper("ingest", bus)
        for n in range(MAX_WAITING_ENTRIES + 10):
            shipper.log(GROUP, "occ_log", f"line {n}")
        assert shipper.stats.dropped_entries == 10
        assert await shipper.flush()
        entries = await stored(bus, "LOGS", MAX_WAITING_ENTRIES, "entries")
        assert [entries[0]["message"], entries[-1]["message"]] == ["line 10", f"line {MAX_WAITING_ENTRIES + 9}"]


async def test_a_message_that_is_too_long_is_cut_and_batches_stay_within_the_limit(tmp_path: Path) -> None:
    async with edge_bus(tmp_path) as bus:
        shipper = Shipper("ingest", bus)
        for _ in range(20):
            shipper.log(GROUP, "occ_log", "ü" * MAX_MESSAGE_BYTES)
        assert shipper.stats.cut_messages == 20
        assert await shipper.flush()
        entries = await stored(bus, "LOGS", 20, "entries")
        assert all("bytes cut" in entry["message"] for entry in entries)
        assert all(len(entry["message"].encode()) < MAX_MESSAGE_BYTES + 100 < BATCH_BYTES for entry in entries)


async def test_sequences_of_two_processes_never_meet(tmp_path: Path) -> None:
    async with edge_bus(tmp_path) as bus:
        shippers = [Shipper(name, bus) for name in ("ingest", "agent", "display")]
        for _ in range(500):
            for shipper in shippers:
                shipper.log(GROUP, "occ_log", "x")
        for shipper in shippers:
            assert await shipper.flush()
        entries = await stored(bus, "LOGS", 1500, "entries")
    assert len({entry["sequence"] for entry in entries}) == 1500


async def test_a_task_that_fails_ends_the_process(tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    async with edge_bus(tmp_path), process("ingest", tmp_path) as me:
        me.tasks.start("work", fail())
        async with asyncio.timeout(30):
            await me.stop.wait()
        assert me.tasks.failed is not None
        assert me.tasks.failed[0] == "work"
