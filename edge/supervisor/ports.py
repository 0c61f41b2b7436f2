"""Ways in: ports of the appliance that lead to ports of an application's own loopback.

An application cannot listen outside its namespace and nobody outside can connect into it. The supervisor listens, takes
a socket that was made in the namespace (Running.sockets), connects it and passes bytes. TCP only, as in AWS's
networkRoutingRules. One board for the appliance, because two applications may want the same port: the first has it, and
one that replaces it gets it when the first ends, with nobody turned away in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from belvedere.chassis.logs import get_logger
from belvedere.fleet import ReasonCode
from edge.supervisor.errors import SupervisorError
from edge.supervisor.spec import Port

log = get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""To the application, which is on this machine; then the connection is closed."""
IDLE_TIMEOUT_S = 600.0
"""A connection on which nothing moves in either direction for this long is closed."""
PIECE_BYTES = 64 * 1024
BACKLOG = 64

Connect = Callable[[], Awaitable[socket.socket]]
"""Gives an unconnected TCP socket of the application's network."""


class PortUnavailable(SupervisorError):
    """A port that an application declares can't be opened."""

    code = ReasonCode.APP_PORT_UNAVAILABLE

    def __init__(self, port: int, problem: str) -> None:
        super().__init__(
            f"port {port} of the appliance can't be opened: {problem}; "
            "choose another hostPort in the overrides' networkRoutingRules"
        )
        self.port = port


class Claim:
    """One application's right to a port, or its place behind the one that it replaces."""

    def __init__(self, owner: str, port: Port, connections_max: int, release: Callable[[Claim], None]) -> None:
        self.owner = owner
        self.port = port
        self.connections = 0
        """Since it was claimed."""
        self.refused = 0
        """Connections beyond the bound, and those that came while the application did not listen."""
        self._connections_max = connections_max
        self._release = release
        self._connect: Connect | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self, connect: Connect) -> None:
        """Connections are passed on from now on."""
        self._connect = connect

    def row(self) -> dict[str, int]:
        """As in supervisor.status."""
        return {
            "host_port": self.port.host_port,
            "container_port": self.port.container_port,
            "connections": self.connections,
            "refused": self.refused,
        }

    async def close(self) -> None:
        """Ends its connections and gives the port up."""
        self._connect = None
        self._release(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._connect is None or len(self._tasks) > self._connections_max:
                self.refused += 1
                return
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    near_reader, near_writer = await self._inside(self._connect)
            except (OSError, SupervisorError) as error:
                self.refused += 1
                log.debug("an application takes no connection", port=self.port.host_port, error=str(error))
                return
            self.connections += 1
            try:
                await _both_ways(reader, writer, near_reader, near_writer)
            finally:
                near_writer.close()
        except (ConnectionError, TimeoutError) as error:
            log.debug("connection ended", port=self.port.host_port, error=str(error))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _inside(self, connect: Connect) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = await connect()
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port.container_port))
            return await asyncio.open_connection(sock=sock, limit=PIECE_BYTES)
        except BaseException:
            sock.close()
            raise


class PortBoard:
    """Every open port of the appliance."""

    def __init__(self) -> None:
        self._servers: dict[int, asyncio.Server] = {}
        self._claims: dict[int, list[Claim]] = {}
        """By port: who has it, and who waits for it."""

    async def claim(self, owner: str, port: Port, connections_max: int, replaces: str = "") -> Claim:
        """Opens a port for an application; `replaces` is whom it may wait for. Raises PortUnavailable."""
        if port.protocol != "tcp":
            raise PortUnavailable(port.host_port, f"the protocol {port.protocol!r} is not passed on, only tcp")
        claims = self._claims.setdefault(port.host_port, [])
        claim = Claim(owner, port, connections_max, self._release)
        if claims and claims[-1].owner not in (replaces, owner):
            raise PortUnavailable(port.host_port, f"the application instance {claims[0].owner} has it")
        claims.append(claim)
        if port.host_port not in self._servers:
            try:
                self._servers[port.host_port] = await self._listen(port.host_port)
            except OSError as error:
                self._release(claim)
                taken = error.errno == errno.EADDRINUSE
                problem = "another program of the appliance has it" if taken else os.strerror(error.errno or 0)
                raise PortUnavailable(port.host_port, problem) from error
        return claim

    async def _listen(self, number: int) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            claims = self._claims.get(number)
            if claims:
                await claims[0].serve(reader, writer)
            else:
                writer.close()

        dual = socket.has_dualstack_ipv6()
        family, address = (socket.AF_INET6, "::") if dual else (socket.AF_INET, "0.0.0.0")
        listener = socket.create_server((address, number), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
        return await asyncio.start_server(accepted, sock=listener, limit=PIECE_BYTES)

    def _release(self, claim: Claim) -> None:
        number = claim.port.host_port
        claims = self._claims.get(number, [])
        if claim in claims:
            claims.remove(claim)
        if not claims:
            self._claims.pop(number, None)
            if (server := self._servers.pop(number, None)) is not None:
                server.close()


async def _both_ways(
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
    near_reader: asyncio.StreamReader,
    near_writer: asyncio.StreamWriter,
) -> None:
    """Passes bytes until both sides have ended, or nothing moves any more."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(IDLE_TIMEOUT_S) as idle:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()
                idle.reschedule(loop.time() + IDLE_TIMEOUT_S)
            with contextlib.suppress(OSError):
                writer.write_eof()

        there = asyncio.create_task(pump(far_reader, near_writer))
        back = asyncio.create_task(pump(near_reader, far_writer))
        try:
            await asyncio.gather(there, back)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
