"""The control socket: what counts, and what an application that means harm gets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.supervisor.control import CONNECTIONS_MAX, MESSAGE_MAX_BYTES, AppStats, ControlServer
from tests.support.waiting import until


class Talk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[AppStats] = []
        self.server = ControlServer(path, self.heard.append)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self.path))
        return connection


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[Talk]:
    talk = Talk(tmp_path / "control.sock")
    talk.server.start()
    yield talk
    await talk.server.close()
    assert not talk.path.exists()


async def test_counters_grow_and_the_first_output_stays(talk: Talk) -> None:
    with talk.connect() as connection:
        for message in (
            {"type": "hello", "pid": 7},
            {"type": "stats", "frames_taken": 4, "latency_app_ms": {"p50": None, "p99": None, "count": 0}},
            {"type": "stats", "frames_taken": 3, "frames_put": 2, "calls": 1, "first_output_unix_ms": 1700000000001},
            {"type": "stats", "latency_app_ms": {"p50": 1.5, "p99": 9.25, "count": 9}, "first_output_unix_ms": 5},
        ):
            connection.send(json.dumps(message).encode())
        await until(lambda: len(talk.heard) == 4)
    assert talk.heard[0] == AppStats(hello=True)
    assert talk.heard[-1] == AppStats(
        hello=True,
        frames_taken=4,
        frames_put=2,
        calls=1,
        latency_app_ms={"p50": 1.5, "p99": 9.25, "count": 9},
        first_output_unix_ms=1700000000001,
    )


@pytest.mark.parametrize(
    "message",
    [
        b"no json",
        b"[" * 10_000,
        b"[]",
        b'{"type": "apply"}',
        b'{"type": "stats", "pad": "' + b"x" * MESSAGE_MAX_BYTES + b'"}',
    ],
)
async def test_what_cannot_be_read_is_counted_and_the_connection_goes_on(talk: Talk, message: bytes) -> None:
    with talk.connect() as connection:
        connection.send(message)
        connection.send(b'{"type": "hello"}')
        await until(lambda: talk.heard)
    assert talk.server.rejected == 1


@pytest.mark.parametrize("odd", ["many", -1, 1e300, None, [], {}, True])
async def test_odd_numbers_count_as_nothing(talk: Talk, odd: Any) -> None:
    with talk.connect() as connection:
        connection.send(json.dumps({"type": "stats", "frames_put": odd, "latency_app_ms": {"p50": odd}}).encode())
        await until(lambda: talk.heard)
    assert talk.heard[0].frames_put in (0, 1)


async def test_connections_beyond_the_bound_are_closed(talk: Talk) -> None:
    connections = [await asyncio.to_thread(talk.connect) for _ in range(CONNECTIONS_MAX + 2)]
    await until(lambda: talk.server.rejected == 2)
    last = connections[-1]
    last.settimeout(30)
    assert await asyncio.to_thread(last.recv, 10) == b""
    for connection in connections:
        connection.close()


async def test_idleness_is_that_of_the_process_that_asked_last_and_grows_in_silence(talk: Talk) -> None:
    with talk.connect() as first, talk.connect() as second:
        first.send(json.dumps({"type": "stats", "idle_ms": 90_000}).encode())
        await until(lambda: talk.server.idle_s() >= 90)
        assert talk.server.idle_s() < 100
        second.send(json.dumps({"type": "stats", "idle_ms": 0}).encode())
        await until(lambda: talk.server.idle_s() < 50)
        silent = talk.server.idle_s()
        await until(lambda: talk.server.idle_s() > silent + 0.1)
    await until(lambda: talk.server.idle_s() < 50)


@pytest.mark.parametrize("odd", [-1, "long", None, [], 1e300])
async def test_an_odd_idleness_counts_as_none(talk: Talk, odd: object) -> None:
    with talk.connect() as connection:
        connection.send(json.dumps({"type": "stats", "idle_ms": odd}).encode())
        await until(lambda: bool(talk.heard))
        assert talk.server.idle_s() < 50


async def test_who_comes_is_told_what_is_paused_and_again_when_that_changes(talk: Talk) -> None:
    talk.server.pause(["front"])
    with talk.connect() as connection:
        connection.settimeout(30)
        connection.send(b'{"type": "hello"}')
        told = json.loads(await asyncio.to_thread(connection.recv, 1000))
        assert told == {"type": "paused", "cameras": ["front"]}
        talk.server.pause([])
        assert json.loads(await asyncio.to_thread(connection.recv, 1000))["cameras"] == []


async def test_who_does_not_read_what_he_is_told_holds_up_nobody(talk: Talk) -> None:
    with talk.connect() as deaf:
        deaf.send(b'{"type": "hello"}')
        await until(lambda: bool(talk.heard))
        for _ in range(2000):
            talk.server.pause(["front" * 100])
        deaf.send(b'{"type": "stats", "frames_taken": 1}')
        await until(lambda: talk.heard[-1].frames_taken == 1)
