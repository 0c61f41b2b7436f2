"""The only way out of a sandbox: its loopback's port leads, byte for byte, to the gateway. And the credentials
endpoint beside it.

Both accept on sockets that live in the sandbox's network namespace (sandbox/gate.py); whatever an application
asks for, it reaches the gateway and nothing else. Must not know what is said: the gateway checks who speaks.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import datetime
import hmac
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from belvedere.chassis.logs import get_logger
from belvedere.chassis.secret import Secret
from edge.supervisor.connections import PIECE_BYTES, Connections, both_ways

log = get_logger(__name__)

CONNECT_TIMEOUT_S = 5.0
"""To the gateway; then the application gets 503, which AWS's libraries take as a reason to try again."""
IDLE_TIMEOUT_S = 120.0
"""A connection on which nothing moves for this long is closed."""
HEAD_TIMEOUT_S = 10.0
HEAD_MAX_BYTES = 16 * 1024
RENEW_BEFORE_S = 20 * 60.0
"""AWS's libraries begin to renew 15 minutes before the end: what they get then must be newer than that."""

Ask = Callable[[], Awaitable[Mapping[str, Any]]]


class Served(abc.ABC):
    """A server on a listening socket that somebody else made, with a bound on its connections."""

    def __init__(self, name: str, connections_max: int) -> None:
        self._name = name
        self._open = Connections(connections_max)
        self._server: asyncio.Server | None = None

    @property
    def refused(self) -> int:
        """Connections beyond the bound."""
        return self._open.refused

    async def start(self, listener: socket.socket) -> None:
        """Serves until `close`; the socket is then closed."""
        listener.setblocking(False)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_MAX_BYTES)

    async def close(self) -> None:
        """Ends every connection."""
        if self._server is not None:
            self._server.close()
        await self._open.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open.serve(reader, writer, self.serve, _too_many)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("connection ended", what=self._name, error=str(error))

    @abc.abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""


class GatewayRelay(Served):
    """Leads to the gateway. `gateway_url` is asked at each connection; `ca_file` is who signs its certificate, for
    https."""

    def __init__(self, name: str, gateway_url: Callable[[], str], ca_file: Path | None, connections_max: int) -> None:
        super().__init__(name, connections_max)
        self._gateway_url = gateway_url
        self._ca_file = ca_file

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await self._connect()
        except (OSError, ValueError) as error:
            log.debug("the gateway can't be reached", what=self._name, error=str(error))
            await refuse(reader, writer, 503, "the gateway can't be reached from the appliance just now")
            return
        try:
            await both_ways((reader, writer), (far_reader, far_writer), IDLE_TIMEOUT_S)
        finally:
            far_writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self._gateway_url())
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{url.geturl()!r} is no http or https address")
        tls = None
        if url.scheme == "https":
            private = self._ca_file if self._ca_file is not None and self._ca_file.is_file() else None
            tls = ssl.create_default_context(cafile=private)
        port = url.port or (443 if tls else 80)
        return await asyncio.open_connection(url.hostname, port, ssl=tls, limit=PIECE_BYTES)


class CredentialsEndpoint(Served):
    """GET /credentials with the token: the role's credentials, asked for once and kept until shortly before they
    end."""

    def __init__(self, name: str, token: Secret[str], ask: Ask, connections_max: int) -> None:
        super().__init__(name, connections_max)
        self._token = token
        self._ask = ask
        self._kept: Mapping[str, Any] | None = None
        self._asking = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in head)
            if colon
        }
        given = headers.get("authorization", "")
        if head[0].split(" ")[:2] != ["GET", "/credentials"]:
            await answer(writer, 404, {"message": "only GET /credentials is here"})
        elif not hmac.compare_digest(given.encode(), self._token.reveal().encode()):
            await answer(writer, 401, {"message": "the authorization token is missing or wrong"})
        else:
            await self._credentials(writer)

    async def _credentials(self, writer: asyncio.StreamWriter) -> None:
        async with self._asking:
            if self._kept is None or _seconds_left(self._kept) < RENEW_BEFORE_S:
                try:
                    self._kept = await self._ask()
                except (OSError, TimeoutError, ValueError) as error:
                    # What is kept may still be good for a while.
                    if self._kept is None or _seconds_left(self._kept) <= 0:
                        await answer(writer, 503, {"message": f"no credentials just now: {error}"})
                        return
            kept = self._kept
        await answer(
            writer, 200, {name: kept[name] for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")}
        )


async def _too_many(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await refuse(reader, writer, 503, "too many connections at once")


def _seconds_left(credentials: Mapping[str, Any]) -> float:
    end = datetime.datetime.fromisoformat(str(credentials["Expiration"]))
    if end.tzinfo is None:
        end = end.replace(tzinfo=datetime.UTC)
    return (end - datetime.datetime.now(datetime.UTC)).total_seconds()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, message: str) -> None:
    """Answers a request whose content is of no interest. It is read first: else the answer may be lost to a reset."""
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            await reader.readuntil(b"\r\n\r\n")
    await answer(writer, status, {"message": message})


async def answer(writer: asyncio.StreamWriter, status: int, body: Mapping[str, Any]) -> None:
    """An HTTP answer with JSON in it, the last of its connection."""
    text = json.dumps(body).encode()
    reason = {200: "OK", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}[status]
    writer.write(
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        "Connection: close\r\n\r\n".encode()
        + text
    )
    await writer.drain()
