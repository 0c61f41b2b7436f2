"""Requests that aiohttp reads and answers: uploads, bodies in pieces, `Expect`, broken HTTP; whatever `direct` hands over.

Knows aiohttp and HTTP, no AWS: makes a Call of a request, writes a Reply.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from belvedere.chassis import logs
from belvedere.chassis.context import new_request_id
from services.gateway import sigv4, whole
from services.gateway.errors import AwsError, ClientGone
from services.gateway.message import Authorize, Call, Reply
from services.gateway.settings import Settings

LINE_MAX_BYTES = 16 << 10
"""Request line and each header: S3 keys of 1,024 bytes percent-encoded, tokens of sessions."""
HEADERS_MAX = 100
LINGER_S = 5.0
"""How long a body that nobody wants is read on before the connection is cut, so that the client sees the answer."""
NAMES_KEPT = 512
"""Header names that are not put into lower case again."""

SERVER = "Belvedere"

log = logs.get_logger(__name__)
_REQUEST = re.compile(rb"[A-Z]{1,16} /")
Respond = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def make(respond: Respond, broken: Callable[..., Reply], settings: Settings) -> web.Server:
    """What connections are handed to. `broken`: the answer to what is no valid HTTP (`Dispatcher.broken`)."""
    return _Server(
        respond,
        broken,
        keepalive_timeout=settings.idle_timeout_s,
        max_line_size=LINE_MAX_BYTES,
        max_field_size=LINE_MAX_BYTES,
        max_headers=HEADERS_MAX,
        lingering_time=LINGER_S,
        auto_decompress=False,
        access_log=None,
    )


def call_of(request: web.BaseRequest, authorizer: Authorize, settings: Settings) -> Call:
    """The request; its body is read when somebody asks for it."""
    target = request.raw_path
    if target.startswith(("http://", "https://")):
        target = "/" + target.split("/", 3)[3] if target.count("/") >= 3 else "/"
    path, _, query = target.partition("?")
    headers = [(_lower(name), value.decode("utf-8", "surrogateescape").strip()) for name, value in request.raw_headers]
    return Call(
        http=sigv4.HttpRequest(request.method, path or "/", query.partition("#")[0], headers),
        request_id=new_request_id(),
        source_address=request.remote or "",
        chunks=lambda: _chunks(request, settings.read_timeout_s),
        content_length=request.content_length,
        authorizer=authorizer,
        has_body=request.body_exists,
    )


async def write(request: web.BaseRequest, call: Call, reply: Reply, settings: Settings) -> web.StreamResponse:
    """Sends the reply. Raises ClientGone."""
    if whole.fits(request, reply):
        return await whole.send(request, reply, call.request_id, SERVER)
    ids = {"x-amzn-RequestId": call.request_id, "x-amz-request-id": call.request_id}
    headers = {"Server": SERVER, **ids, **reply.headers}
    response = web.StreamResponse(status=reply.status, headers=headers)
    if not request.content.is_eof():
        # The client may still send, or wait to: what follows on this connection would not be a request.
        response.force_close()
    length = len(reply.body) if isinstance(reply.body, bytes) else reply.length
    if reply.length is not None:
        length = reply.length
    if reply.status not in (204, 304):
        response.content_length = length
    await response.prepare(request)
    if request.method != "HEAD":
        await _write_body(response, reply, settings.write_timeout_s)
    await response.write_eof()
    return response


async def _write_body(response: web.StreamResponse, reply: Reply, timeout_s: float) -> None:
    if isinstance(reply.body, bytes):
        if reply.body:
            await response.write(reply.body)
        return
    async for chunk in reply.body:
        try:
            async with asyncio.timeout(timeout_s):
                await response.write(chunk)
        except TimeoutError as error:
            raise ClientGone from error


async def _chunks(request: web.BaseRequest, timeout_s: float) -> AsyncIterator[bytes]:
    if not request.body_exists:
        return
    if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The reply's headers have not begun: aiohttp counts otherwise.
        request.writer.output_size = 0
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await request.content.readany()
        except TimeoutError as error:
            text = "Your socket connection to the server was not read from or written to within the timeout."
            raise AwsError("RequestTimeout", text, 408) from error
        except web.RequestPayloadError as error:
            raise AwsError("IncompleteBody", "The request body is not what its headers say.", 400) from error
        except ConnectionError as error:
            raise ClientGone from error
        if not chunk:
            return
        yield chunk


@lru_cache(NAMES_KEPT)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


class _Server(web.Server):
    """Makes connections that answer broken HTTP in our own words."""

    def __init__(self, handler: Any, broken: Callable[..., Reply], **options: Any) -> None:
        """`broken`: the answer to what is no valid HTTP (`Dispatcher.broken`)."""
        super().__init__(handler, **options)
        self.broken = broken

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    _front = b""
    """How the last request began; more of it, or of what looks like it in a body, does not matter."""

    def data_received(self, data: bytes) -> None:
        if _REQUEST.match(data):
            self._front = bytes(data[:LINE_MAX_BYTES])
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        request_id = new_request_id()
        if not isinstance(exc, ClientGone | ConnectionError):
            # Only the error's kind: its text repeats headers, which may hold what must not be logged.
            kind = type(exc).__name__
            log.warning("broken request", request_id=request_id, status=status, source=request.remote, error=kind)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer has gone out already")
        assert isinstance(self._manager, _Server)
        too_large = isinstance(exc, LineTooLong) or (message or "").startswith("Too many headers")
        reply = self._manager.broken(self._front, request_id, too_large=too_large)
        assert isinstance(reply.body, bytes)
        ids = {"Server": SERVER, "x-amzn-RequestId": request_id, "x-amz-request-id": request_id}
        response = web.Response(status=status, headers={**ids, **reply.headers}, body=reply.body)
        response.force_close()
        return response
