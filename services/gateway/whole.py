"""An answer that is all there: its head and body go out in one write.

Most answers of the API are: JSON, some kilobytes. aiohttp's own responses serve for everything else; for these they cost
a fifth of the request. Knows HTTP and aiohttp, no operation.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

from services.gateway.message import Reply

HEADS_KEPT = 256
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What would end a header's line, and what RFC 9110 does not allow in one."""


def fits(request: web.BaseRequest, reply: Reply) -> bool:
    """Whether this is the answer to send: whole, on a connection that stays open, to a request that has come in whole."""
    return (
        reply.status == 200
        and isinstance(reply.body, bytes)
        and reply.length is None
        and request.method != "HEAD"
        and request.version == HttpVersion11
        and request.keep_alive
        and request.content.is_eof()
    )


def packet(reply: Reply, request_id: str, server: str) -> bytes:
    """The answer as it goes out, for one with a body or an empty one; not for 204, 304 and what answers a HEAD."""
    body = reply.body
    assert isinstance(body, bytes)
    head = _head(reply.status, server, tuple(reply.headers.items()))
    return (
        f"{head}{_date(int(time.time()))}\r\nx-amzn-RequestId: {request_id}\r\nx-amz-request-id: {request_id}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def send(request: web.BaseRequest, reply: Reply, request_id: str, server: str) -> web.StreamResponse:
    """Sends what fits."""
    writer = request.writer
    await writer.write(packet(reply, request_id, server))
    await writer.drain()
    await writer.write_eof()
    return _SENT


class _Sent(web.StreamResponse):
    """What aiohttp is told of an answer that has gone out. It holds nothing, so that one serves for all."""

    @property
    def prepared(self) -> bool:
        return True

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """It has ended."""


_SENT = _Sent()


@lru_cache(2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(HEADS_KEPT)
def _head(status: int, server: str, headers: tuple[tuple[str, str], ...]) -> str:
    """The lines above those that change with each answer. Raises ValueError for what is no header."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Server: {server}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if any(_FORBIDDEN.search(line) for line in lines):
        raise ValueError("a control character in a header")
    return "\r\n".join(lines) + "\r\nDate: "
