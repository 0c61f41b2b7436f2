"""Raw HTTP: requests signed beforehand, sent over kept connections as fast as answers come, by a client that costs
next to nothing, so that what is measured is the server.

A server that closes after each answer is connected to anew, which is part of its time.
"""

from __future__ import annotations

import re
import selectors
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.bench.servers import REGION, Server

ANSWER_TIMEOUT_S = 30.0
RECEIVE_BYTES = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class BadAnswer(Exception):
    """Not the 200 that a benchmark counts on."""


@dataclass(frozen=True)
class Request:
    """What is asked, before it is signed."""

    service: str
    method: str
    path: str
    parameters: Mapping[str, str | int] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes = b""

    def signed(self, server: Server) -> bytes:
        """The bytes on the wire for this server, good for five minutes."""
        query = f"?{urlencode(self.parameters)}" if self.parameters else ""
        target = f"{self.path}{query}"
        host = f"127.0.0.1:{server.port}"
        headers = {"Host": host, "Accept": "*/*", **(self.headers or {})}
        if self.body or self.method == "POST":
            headers["Content-Length"] = str(len(self.body))
        request = AWSRequest(self.method, f"http://{host}{target}", headers=headers, data=self.body or None)
        credentials = Credentials(server.access_key_id, server.secret_access_key)
        SigV4Auth(credentials, self.service, REGION).add_auth(request)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return f"{self.method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


@dataclass(frozen=True)
class Round:
    """What one party did in one round."""

    answers: int
    seconds: float
    p50_ms: float

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


class _Connection:
    """One request after the other."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port, self._request = port, request
        self._held = b""
        self._sent = 0.0
        self.socket = self._connected()

    def _connected(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), ANSWER_TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def send(self) -> None:
        self._sent = time.perf_counter()
        self.socket.sendall(self._request)

    def take(self) -> tuple[bytes, float, bool] | None:
        """(body, seconds since it was asked for, whether the connection is over) once the answer is whole."""
        part = self.socket.recv(RECEIVE_BYTES)
        self._held = self._held + part if self._held else part
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            if not part:
                raise BadAnswer(f"the connection ended after {self._held[:200]!r}")
            return None
        head = self._held[:end]
        length = _LENGTH.search(head)
        closes = head.startswith(b"HTTP/1.0") or _CLOSES.search(head) is not None
        body = self._held[end + 4 :]
        if length is None or len(body) < int(length[1]):
            if not part:
                raise BadAnswer(f"the answer is not whole: {head[:200]!r}")
            return None
        if head[9:12] != b"200":
            raise BadAnswer(f"{head[:200]!r} {body[:500]!r}")
        self._held = b""
        return body, time.perf_counter() - self._sent, closes

    def renew(self) -> None:
        self.socket.close()
        self.socket = self._connected()


def answer(server: Server, request: Request) -> bytes:
    """The body of one answer."""
    connection = _Connection(server.port, request.signed(server))
    try:
        connection.send()
        while True:
            taken = connection.take()
            if taken is not None:
                return taken[0]
    finally:
        connection.socket.close()


def load(server: Server, request: Request, connections: int, seconds: float) -> Round:
    """Asks on `connections` at once for `seconds`; each has one request under way. Raises BadAnswer."""
    signed = request.signed(server)
    selector = selectors.EpollSelector()
    users = [_Connection(server.port, signed) for _ in range(connections)]
    times: list[float] = []
    try:
        for user in users:
            selector.register(user.socket, selectors.EVENT_READ, user)
            user.send()
        started = time.perf_counter()
        deadline = started + seconds
        busy = len(users)
        while busy:
            found = selector.select(ANSWER_TIMEOUT_S)
            if not found:
                raise BadAnswer(f"no answer within {ANSWER_TIMEOUT_S:g} s")
            for key, _ in found:
                user = key.data
                taken = user.take()
                if taken is None:
                    continue
                times.append(taken[1])
                if taken[2]:
                    selector.unregister(user.socket)
                    user.renew()
                    selector.register(user.socket, selectors.EVENT_READ, user)
                if time.perf_counter() < deadline:
                    user.send()
                else:
                    busy -= 1
        return Round(len(times), time.perf_counter() - started, statistics.median(times) * 1000)
    finally:
        selector.close()
        for user in users:
            user.socket.close()
