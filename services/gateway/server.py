"""The HTTP server of the front door: takes requests in, proves who signed them, hands them to a service, writes replies.

Knows aiohttp and signatures, no operation. Every reply has a request id; every request leaves one line in the log, which
holds no query (presigned URLs sign there), no header and no body.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from belvedere.chassis import logs
from belvedere.chassis.context import Caller, acting_as, new_request_id
from belvedere.chassis.errors import BelvedereError
from services.gateway import sigv4, whole
from services.gateway.access import Access
from services.gateway.dispatch import Dispatcher
from services.gateway.errors import AuthError, AwsError, GatewayError, internal_error
from services.gateway.message import AwsService, Call, Proof, Reply, read_all
from services.gateway.payload import declared_hash
from services.gateway.settings import Settings

LINE_MAX_BYTES = 16 << 10
"""Request line and each header: S3 keys of 1,024 bytes percent-encoded, tokens of sessions."""
HEADERS_MAX = 100
LINGER_S = 5.0
"""How long a body that nobody wants is read on before the connection is cut, so that the client sees the answer."""
STOP_TIMEOUT_S = 0.8
"""For requests in progress when the process ends."""

SERVER = "Belvedere"

NAMES_KEPT = 512
"""Header names that are not put into lower case again."""

log = logs.get_logger(__name__)
LINE = ("request_id", "service", "operation", "method", "path", "status", "error", "principal", "source", "duration_ms")


class ClientGone(Exception):
    """The client closed the connection, or stopped reading."""


class FrontDoor:
    """The server on one port."""

    def __init__(
        self, dispatcher: Dispatcher, access: Access, clock: Callable[[], datetime], settings: Settings
    ) -> None:
        self._dispatcher, self._access, self._clock, self._settings = dispatcher, access, clock, settings
        self._runner: web.ServerRunner | None = None
        self.port = 0
        self._lines = logs.Repeated(__name__, "request", LINE)

    async def start(self, host: str, port: int) -> None:
        """Listens; `port` 0 takes a free one, which stands in `.port` then."""
        server = _Server(
            self._respond,
            keepalive_timeout=self._settings.idle_timeout_s,
            max_line_size=LINE_MAX_BYTES,
            max_field_size=LINE_MAX_BYTES,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=STOP_TIMEOUT_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Takes no more requests, waits STOP_TIMEOUT_S for those in progress."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        call = self._call(request)
        name, service = self._dispatcher.service(call)
        failure = ""
        try:
            reply = await self._answer(call, service)
        except GatewayError as error:
            failure = _log_code(error)
            reply = service.failed(call, error)
        except BelvedereError as error:
            # What services raise is translated by then: this is identity's.
            log.error("identity failed", request_id=call.request_id, error=error.message)
            failure = "identity"
            reply = service.failed(call, internal_error())
        except ClientGone:
            log.info("request", request_id=call.request_id, service=name, operation=call.operation, error="client gone")
            raise
        except Exception:
            log.exception("request failed", request_id=call.request_id, service=name, operation=call.operation)
            failure = "internal"
            reply = service.failed(call, internal_error())
        try:
            return await self._write(request, call, reply)
        finally:
            self._lines.info(
                call.request_id,
                name,
                call.operation,
                call.method,
                _sayable(call.path),
                reply.status,
                failure,
                call.proof.principal.arn if call.proof else "",
                call.source_address,
                round((time.monotonic() - started) * 1000, 1),
            )

    async def _answer(self, call: Call, service: AwsService) -> Reply:
        signature = sigv4.parse(call.http)
        key = await self._access.key(signature, call.request_id)
        sigv4.verify_time(signature, self._clock(), service.skew_s)
        if service.streams:
            payload_hash = declared_hash(call)
        else:
            payload_hash = sigv4.EMPTY_SHA256
            if call.has_body:
                call.body = await read_all(call)
                payload_hash = hashlib.sha256(call.body).hexdigest()
            declared = call.http.header("x-amz-content-sha256")
            if declared is not None and declared != payload_hash:
                payload_hash = _unsigned(declared)
        sigv4.verify(call.http, signature, key.secret.reveal(), payload_hash)
        principal = key.principal
        call.proof = Proof(signature, key.secret, principal)
        call.caller = Caller(principal.account_id, signature.scope.region, principal.arn, call.request_id)
        with acting_as(call.caller):
            return await service.handle(call)

    def _call(self, request: web.BaseRequest) -> Call:
        target = request.raw_path
        if target.startswith(("http://", "https://")):
            target = "/" + target.split("/", 3)[3] if target.count("/") >= 3 else "/"
        path, _, query = target.partition("?")
        headers = [
            (_lower(name), value.decode("utf-8", "surrogateescape").strip()) for name, value in request.raw_headers
        ]
        return Call(
            http=sigv4.HttpRequest(request.method, path or "/", query.partition("#")[0], headers),
            request_id=new_request_id(),
            source_address=request.remote or "",
            chunks=lambda: self._chunks(request),
            content_length=request.content_length,
            authorizer=self._access.authorize,
            has_body=request.body_exists,
        )

    async def _chunks(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        if not request.body_exists:
            return
        if request.headers.get("Expect", "").lower() == "100-continue" and not request.content.is_eof():
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The reply's headers have not begun: aiohttp counts otherwise.
            request.writer.output_size = 0
        while True:
            try:
                async with asyncio.timeout(self._settings.read_timeout_s):
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

    async def _write(self, request: web.BaseRequest, call: Call, reply: Reply) -> web.StreamResponse:
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
            await self._write_body(response, reply)
        await response.write_eof()
        return response

    async def _write_body(self, response: web.StreamResponse, reply: Reply) -> None:
        if isinstance(reply.body, bytes):
            if reply.body:
                await response.write(reply.body)
            return
        async for chunk in reply.body:
            try:
                async with asyncio.timeout(self._settings.write_timeout_s):
                    await response.write(chunk)
            except TimeoutError as error:
                raise ClientGone from error


@lru_cache(NAMES_KEPT)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _sayable(path: str) -> str:
    """A path for the log, where it may hold bytes that are no UTF-8."""
    return (path if path.isascii() else path.encode("utf-8", "replace").decode())[:512]


def _unsigned(declared: str) -> str:
    """The word of a client that signs no payload; any other hash than the body's own cannot be right."""
    if declared == sigv4.UNSIGNED:
        return declared
    raise AwsError("InvalidSignatureException", "The x-amz-content-sha256 header does not match the body.", 403)


class _Server(web.Server):
    """Makes connections that answer broken HTTP in our own words."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
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
        headers: dict[str, Any] = {"x-amzn-RequestId": request_id}
        response = web.Response(status=status, headers=headers, text='{"Message":"Bad request"}')
        response.content_type = "application/json"
        response.force_close()
        return response


def _log_code(error: GatewayError) -> str:
    """For the log: AWS's code, or why a caller was refused."""
    return error.kind.value if isinstance(error, AuthError) else getattr(error, "code", "")
