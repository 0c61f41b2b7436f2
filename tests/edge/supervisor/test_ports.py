"""Declared ports: from outside, through a real sandbox, to an application that listens on its own loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from belvedere.bus.server import free_port
from edge.supervisor.ports import PortBoard, PortUnavailable
from edge.supervisor.spec import Port
from tests.edge.supervisor.appliance import WAIT_S, Appliance
from tests.edge.supervisor.archives import app_spec

SERVER = """
import socket, time
say(type="hello")
with socket.create_server(("127.0.0.1", 8080)) as server:
    while True:
        connection, address = server.accept()
        with connection:
            connection.sendall(b"NAME: " + connection.recv(1000))
"""
HOLDING = """
import socket
say(type="hello")
kept = []
with socket.create_server(("127.0.0.1", 8080)) as server:
    while True:
        connection, address = server.accept()
        connection.sendall(b"kept")
        kept.append(connection)
"""


def served(appliance: Appliance, port: int, name: str = "one", code: str = SERVER, **changes: Any) -> dict[str, Any]:
    ports = [{"host_port": port, "container_port": 8080, "protocol": "tcp"}]
    return app_spec(appliance.data, code.replace("NAME", name), instance_id=name, ports=ports, **changes)


async def said(port: int, text: bytes = b"hello", host: str = "127.0.0.1") -> bytes:
    """What comes back."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(text)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


async def test_what_comes_to_a_declared_port_reaches_the_application(appliance: Appliance) -> None:
    port = free_port()
    await appliance.apply(served(appliance, port))
    await appliance.app(lambda app: app["state"] == "running", "one")
    for number in range(40):  # more than sockets are made at once
        assert await said(port, b"request %d" % number) == b"one: request %d" % number
    if socket.has_dualstack_ipv6():
        assert await said(port, host="::1") == b"one: hello"
    row = await appliance.app(lambda app: app["ports"] and app["ports"][0]["connections"] >= 40, "one")
    assert (row["ports"][0]["host_port"], row["ports"][0]["container_port"]) == (port, 8080)
    assert row["sandbox"] in ("runc", "bubblewrap")

    await appliance.apply()
    await appliance.process.status(lambda status: status["applications"] == [])
    with pytest.raises(ConnectionRefusedError):
        await said(port)


async def test_connections_are_bounded_and_the_others_are_counted(
    appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    await appliance.apply(served(appliance, port, code=HOLDING))
    await appliance.app(lambda app: app["state"] == "running", "one")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(64):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            async with asyncio.timeout(WAIT_S):
                assert await reader.readexactly(4) == b"kept"
        assert await said(port) == b""
        row = await appliance.app(lambda app: app["ports"][0]["refused"] >= 1, "one")
        assert row["state"] == "running"


async def test_a_port_that_is_taken_is_named_and_got_once_it_is_free(appliance: Appliance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        await appliance.apply(served(appliance, port))
        row = await appliance.app(lambda app: app["state"] == "failed", "one")
        assert row["reason"]["code"] == "APP_PORT_UNAVAILABLE"
        assert f"port {port} of the appliance can't be opened: another program" in row["reason"]["message"]
    await appliance.app(lambda app: app["state"] == "running", "one")
    assert await said(port) == b"one: hello"


async def test_an_application_that_listens_late_is_reached_then(appliance: Appliance) -> None:
    port = free_port()
    code = SERVER.replace("with socket", "input_file = '/opt/aws/panorama/storage/go'\nwait()\nwith socket", 1)
    wait = "import os\ndef wait():\n    while not os.path.exists(input_file):\n        time.sleep(0.02)\n"
    await appliance.apply(served(appliance, port, code=wait + code))
    await appliance.app(lambda app: app["state"] == "running", "one")
    assert await said(port) == b""
    (appliance.data / "storage" / "one" / "go").touch()
    async with asyncio.timeout(WAIT_S):
        while (answer := await said(port)) != b"one: hello":
            assert answer == b""


async def test_who_replaces_an_application_gets_its_port_when_it_ends_and_nobody_is_turned_away(
    appliance: Appliance,
) -> None:
    port = free_port()
    old, new = served(appliance, port, "old"), served(appliance, port, "new", replaces="old")
    await appliance.apply(old)
    await appliance.app(lambda app: app["state"] == "running", "old")
    await appliance.apply(old, new)
    await appliance.app(lambda app: app["state"] == "running", "new")
    assert await said(port) == b"old: hello"
    await appliance.apply(new)
    async with asyncio.timeout(WAIT_S):
        while (answer := await said(port)) != b"new: hello":
            assert answer in (b"old: hello", b"")


@pytest.fixture
async def board() -> AsyncIterator[PortBoard]:
    yield PortBoard()


async def test_a_port_of_another_application_is_refused_with_its_name(board: PortBoard) -> None:
    port = Port(free_port(), 80)
    first = await board.claim("first", port, 4)
    with pytest.raises(PortUnavailable, match="the application instance first has it"):
        await board.claim("second", port, 4)
    successor = await board.claim("successor", port, 4, replaces="first")
    await first.close()
    await successor.close()
    again = await board.claim("second", port, 4)
    await again.close()


async def test_only_tcp_is_passed_on(board: PortBoard) -> None:
    with pytest.raises(PortUnavailable, match="only tcp"):
        await board.claim("first", Port(free_port(), 80, "udp"), 4)
