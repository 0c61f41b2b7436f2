"""Connections that answer whole requests themselves, on real sockets; what they hand over goes to an echo that says so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from services.gateway.awake import Awake
from services.gateway.direct import Connections, Work
from services.gateway.sigv4 import HttpRequest
from tests.support.waiting import until

TIMEOUT_S = 30.0


def request(path: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Other(asyncio.Protocol):
    """Who gets what is handed over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"other:" + data)


@dataclass
class Answers:
    """/now at once, /later when `go` is set, /big a lot, /other not at all, /fails with an error."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def take(self, request: HttpRequest, body: bytes, source_address: str) -> bytes | Work | None:
        assert source_address == "127.0.0.1"
        self.asked.append(request.path)
        match request.path:
            case "/other":
                return None
            case "/big":
                return b"x" * (8 << 20)
            case "/later" | "/fails":
                return self._later(request.path)
        return b"now:" + body + b";"

    async def _later(self, path: str) -> bytes:
        await self.go.wait()
        self.done.append(path)
        if path == "/fails":
            raise ConnectionError("an answer that failed")
        return b"later;"


@dataclass
class Served:
    answers: Answers
    connections: Connections
    port: int

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def served(idle_timeout_s: float = 60.0) -> AsyncIterator[Served]:
    answers = Answers()
    connections = Connections(answers, Other, idle_timeout_s, Awake(0))
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    connections.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield Served(answers, connections, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await connections.stop(0.1)


async def test_answers_come_in_the_order_of_their_requests_whether_ready_or_not() -> None:
    async with served() as party, party.client() as (reader, writer):
        writer.write(request("/now", b"1") + request("/later") + request("/now", b"2"))
        assert await reader.readuntil(b";") == b"now:1;"
        writer.write(request("/later"))
        writer.write(request("/now", b"3"))
        party.answers.go.set()
        found = [await reader.readuntil(b";") for _ in range(4)]
        assert found == [b"later;", b"now:2;", b"later;", b"now:3;"]


async def test_a_client_that_sends_hundreds_in_one_go_does_not_keep_others_from_their_turn() -> None:
    async with served() as party, party.client() as (reader, writer), party.client() as (other, asks):
        many = 300
        writer.write(b"".join(request("/now", b"%d" % number) for number in range(many)))
        asks.write(request("/other"))
        writer.write(request("/now", b"last"))
        expected = [b"now:%d;" % number for number in range(many)] + [b"now:last;"]
        assert [await reader.readuntil(b";") for _ in expected] == expected
        assert await other.readexactly(6) == b"other:"
        assert party.answers.asked.index("/other") < many


async def test_a_request_of_which_a_part_is_missing_is_handed_over_whole() -> None:
    async with served() as party, party.client() as (reader, writer):
        whole = request("/now", b"abc")
        writer.write(request("/now", b"1") + whole[:-1])
        assert await reader.readuntil(b";") == b"now:1;"
        assert await reader.readexactly(5 + len(whole)) == b"other:" + whole[:-1]
        # For good: who parses bodies in parts knows where they end.
        writer.write(b"c")
        assert await reader.readexactly(7) == b"other:c"
        assert party.answers.asked == ["/now"]


async def test_a_request_of_a_service_that_streams_is_handed_over_with_what_follows() -> None:
    async with served() as party, party.client() as (reader, writer):
        data = request("/other") + request("/now")
        writer.write(request("/later") + data)
        party.answers.go.set()
        assert await reader.readexactly(6 + 6 + len(data)) == b"later;other:" + data


async def test_a_client_that_takes_nothing_is_answered_no_further_and_then_left() -> None:
    async with served(idle_timeout_s=0.2) as party:
        with socket.create_connection(("127.0.0.1", party.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, request("/big") + request("/now") * 3)
            await until(lambda: party.answers.asked)
            assert party.answers.asked == ["/big"]
            assert len(party.connections) == 1
            await until(lambda: not len(party.connections))
            assert party.answers.asked == ["/big"]


async def test_an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() -> None:
    async with served(idle_timeout_s=0.1) as party, party.client() as (idle, _), party.client() as (busy, asks):
        asks.write(request("/later"))
        assert await idle.read() == b""
        party.answers.go.set()
        assert await busy.readuntil(b";") == b"later;"
        assert await busy.read() == b""


async def test_work_of_a_client_that_has_left_is_finished() -> None:
    async with served() as party:
        async with party.client() as (_, writer):
            writer.write(request("/later"))
            await until(lambda: party.answers.asked)
        party.answers.go.set()
        await until(lambda: party.answers.done)


async def test_work_that_fails_ends_the_connection() -> None:
    async with served() as party, party.client() as (reader, writer):
        writer.write(request("/fails"))
        party.answers.go.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert party.answers.done == ["/fails"]


async def test_a_stop_waits_for_what_is_under_way_and_closes_the_rest() -> None:
    async with served() as party, party.client() as (idle, _), party.client() as (busy, asks):
        asks.write(request("/later"))
        await until(lambda: party.answers.asked)
        stopping = asyncio.ensure_future(party.connections.stop(TIMEOUT_S))
        assert await idle.read() == b""
        assert not stopping.done()
        party.answers.go.set()
        assert await busy.read() == b"later;"
        await stopping
