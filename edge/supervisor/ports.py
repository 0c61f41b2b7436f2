"""Ways in: ports of the appliance that lead to ports of an application's own loopback.

An application cannot listen outside its namespace and nobody outside can connect into it. The supervisor listens, takes
a socket that was made in the namespace (Running.sockets), connects it and passes bytes. TCP only, as in AWS's
networkRoutingRules. One board for the appliance, because two applications may want the same port: the first has it, and
one that replaces it gets it when the first ends, with nobody turned away in between.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable

from belvedere.chassis.logs import get_logger
from belvedere.fleet import ReasonCode
from edge.supervisor.connections import PIECE_BYTES, Connections, both_ways
from edge.supervisor.errors import SandboxUnavailable, SupervisorError
from edge.supervisor.spec import Port

log = get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""To the application, which is on this machine; then the connection is closed."""
IDLE_TIMEOUT_S = 600.0
"""A connection on which nothing moves in either direction for this long is closed."""
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
        self._open = Connections(connections_max)
        """Its count of the refused also has those that came while the application did not listen."""
        self._release = release
        self._connect: Connect | None = None

    def open(self, connect: Connect) -> None:
        """Connections are passed on from now on."""
        self._connect = connect

    def row(self) -> dict[str, int]:
        """As in supervisor.status."""
        return {
            "host_port": self.port.host_port,
            "container_port": self.port.container_port,
            "connections": self.connections,
            "refused": self._open.refused,
        }

    async def close(self) -> None:
        """Ends its connections and gives the port up."""
        self._connect = None
        self._release(self)
        await self._open.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside."""
        try:
            await self._open.serve(reader, writer, self._pass_on)
        except (ConnectionError, TimeoutError) as error:
            log.debug("connection ended", port=self.port.host_port, error=str(error))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._connect is None:
                raise SandboxUnavailable("it does not run")
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                near_reader, near_writer = await self._inside(self._connect)
        except (OSError, SupervisorError) as error:
            self._open.refused += 1
            log.debug("an application takes no connection", port=self.port.host_port, error=str(error))
            return
        self.connections += 1
        try:
            await both_ways((reader, writer), (near_reader, near_writer), IDLE_TIMEOUT_S)
        finally:
            near_writer.close()

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
