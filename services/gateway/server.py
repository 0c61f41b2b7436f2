"""The HTTP server of the front door: takes requests in, proves who signed them, hands them to a service, writes replies.

Two ways lead here: whole requests by `direct`, all others by aiohttp. Knows aiohttp and signatures, no operation. Every reply has a request id; every request leaves one line in the log, which
holds no query (presigned URLs sign there), no header and no body.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from belvedere.chassis import logs
from belvedere.chassis.context import Caller, acting_as, new_request_id
from belvedere.chassis.errors import BelvedereError
from services.gateway import sigv2, sigv4, whole
from services.gateway.access import Access, Asker
from services.gateway.awake import Awake
from services.gateway.direct import Connections, Work
from services.gateway.dispatch import Dispatcher
from services.gateway.errors import AuthError, AwsError, GatewayError, internal_error
from services.gateway.message import NO_FACTS, AwsService, Call, Facts, Proof, Reply, TakesV2, read_all
from services.gateway.payload import declared_hash
from services.gateway.settings import Settings

LINE_MAX_BYTES = 16 << 10
"""Request line and each header: S3 keys of 1,024 bytes percent-encoded, tokens of sessions."""
HEADERS_MAX = 100
LINGER_S = 5.0
"""How long a body that nobody wants is read on before the connection is cut, so that the client sees the answer."""
BACKLOG = 128
"""Connections that wait to be accepted."""
PATH_SAID = 512
"""Characters of a path in the log."""
STOP_TIMEOUT_S = 0.8
"""For requests in progress when the process ends."""

SERVER = "Belvedere"

NAMES_KEPT = 512
"""Header names that are not put into lower case again."""

log = logs.get_logger(__name__)
_REQUEST = re.compile(rb"[A-Z]{1,16} /")
LINE = ("request_id", "service", "operation", "method", "path", "status", "error", "principal", "source", "duration_ms")


_OF_NO_BODY = (None, sigv4.EMPTY_SHA256)


async def _no_tags() -> Mapping[str, str]:
    return {}


TAGGED = Facts(resource_tags=_no_tags)
"""Of a question whose resource has tags; who has to know them asks the long way."""


class ClientGone(Exception):
    """The client closed the connection, or stopped reading."""


class FrontDoor:
    """The server on one port."""

    def __init__(
        self, dispatcher: Dispatcher, access: Access, clock: Callable[[], datetime], settings: Settings, region: str
    ) -> None:
        """`region`: of callers whose signature names none."""
        self._region = region
        self._dispatcher, self._access, self._clock, self._settings = dispatcher, access, clock, settings
        self._remembering = dispatcher.remembering()
        self._server: asyncio.AbstractServer | None = None
        self._connections: Connections | None = None
        self._others: web.Server | None = None
        self.awake = Awake(settings.stay_awake_us)
        self.port = 0
        self._lines = logs.Repeated(__name__, "request", LINE)

    async def start(self, host: str, port: int) -> None:
        """Listens; `port` 0 takes a free one, which stands in `.port` then."""
        self._others = others = _Server(
            self._respond,
            self._dispatcher.broken,
            keepalive_timeout=self._settings.idle_timeout_s,
            max_line_size=LINE_MAX_BYTES,
            max_field_size=LINE_MAX_BYTES,
            max_headers=HEADERS_MAX,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self._connections = Connections(self, others, self._settings.idle_timeout_s, self.awake)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connections, host, port, reuse_address=True, backlog=BACKLOG)
        self._connections.start()
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Takes no more requests, waits STOP_TIMEOUT_S for those in progress."""
        server, self._server = self._server, None
        if server is None or self._others is None or self._connections is None:
            return
        server.close()
        # What has arrived already begins.
        await asyncio.sleep(0)
        self._others.pre_shutdown()
        await asyncio.gather(self._connections.stop(STOP_TIMEOUT_S), self._others.shutdown(STOP_TIMEOUT_S))
        self._lines.flush()

    def take(self, request: sigv4.HttpRequest, body: bytes, source_address: str) -> bytes | Work | None:
        """A whole request: its answer, where that is ready; else the work that gives it; None where its service streams."""
        started, request_id = time.monotonic(), new_request_id()
        proven: tuple[Proof, Caller] | None = None
        if request.method == "GET" and not body:
            found = self._ready(request, source_address, request_id, started)
            if isinstance(found, bytes):
                return found
            proven = found
        call = Call(
            http=request,
            request_id=request_id,
            source_address=source_address,
            chunks=lambda: _once(body),
            content_length=len(body) if "content-length" in request.named else None,
            authorizer=self._access.authorize,
            has_body=bool(body),
        )
        if proven is not None:
            call.proof, call.caller = proven
        name, service = self._dispatcher.service(call)
        return None if service.streams else self._whole(call, name, service, started)

    def _ready(
        self, request: sigv4.HttpRequest, source_address: str, request_id: str, started: float
    ) -> bytes | tuple[Proof, Caller] | None:
        """The answer to a request that is proven, allowed and remembered; what was proven of another one; None where the long way
        has to say what is wrong, or to ask for the key."""
        try:
            signature = sigv4.parse(request)
            name = signature.scope.service
            service, key = self._remembering.get(name), self._access.known(signature)
            if service is None or key is None or request.named.get("x-amz-content-sha256") not in _OF_NO_BODY:
                return None
            sigv4.verify_time(signature, self._clock(), service.skew_s)
            sigv4.verify(request, signature, key.signer, sigv4.EMPTY_SHA256)
        except AuthError:
            return None
        region = signature.scope.region
        who = Caller(key.account, region, key.arn, request_id, source_address)
        found = service.ready(who, request)
        if found is not None:
            agent = request.named.get("user-agent", "")
            asker = Asker(key.arn, key.user_id, region, source_address, agent)
            facts = TAGGED if found.has_tags else NO_FACTS
            if self._access.allowed(who, key.principal, asker, found.action, found.resource, facts):
                answer = whole.packet(found.reply, request_id, SERVER)
                self._lines.later(
                    request_id,
                    name,
                    found.operation,
                    request.method,
                    request.path[:PATH_SAID],
                    found.reply.status,
                    "",
                    key.arn,
                    source_address,
                    round((time.monotonic() - started) * 1000, 1),
                )
                return answer
        return Proof(signature, key.signer, key.principal), who

    async def _whole(self, call: Call, name: str, service: AwsService, started: float) -> bytes:
        reply, failure = await self._reply(call, name, service)
        try:
            return whole.packet(reply, call.request_id, SERVER)
        except ValueError:
            log.exception("an answer that cannot be sent", request_id=call.request_id, operation=call.operation)
            reply, failure = service.failed(call, internal_error()), "internal"
            return whole.packet(reply, call.request_id, SERVER)
        finally:
            self._line(call, name, reply.status, failure, started)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.monotonic()
        call = self._call(request)
        name, service = self._dispatcher.service(call)
        reply, failure = await self._reply(call, name, service)
        try:
            return await self._write(request, call, reply)
        finally:
            self._line(call, name, reply.status, failure, started)

    async def _reply(self, call: Call, name: str, service: AwsService) -> tuple[Reply, str]:
        """(the reply, for the log: why a request was refused). Raises ClientGone."""
        reply, failure = await self._replied(call, name, service)
        if failure and not call.decided:
            try:
                await self._access.refused(call, name)
            except BelvedereError as error:
                log.error("a call without its line in the trail", request_id=call.request_id, error=error.message)
        return reply, failure

    async def _replied(self, call: Call, name: str, service: AwsService) -> tuple[Reply, str]:
        try:
            return await self._answer(call, service), ""
        except GatewayError as error:
            return service.failed(call, error), _log_code(error)
        except BelvedereError as error:
            # What services raise is translated by then: this is identity's.
            log.error("identity failed", request_id=call.request_id, error=error.message)
            return service.failed(call, internal_error()), "identity"
        except ClientGone:
            log.info("request", request_id=call.request_id, service=name, operation=call.operation, error="client gone")
            raise
        except Exception:
            log.exception("request failed", request_id=call.request_id, service=name, operation=call.operation)
            return service.failed(call, internal_error()), "internal"

    def _line(self, call: Call, name: str, status: int, failure: str, started: float) -> None:
        self._lines.later(
            call.request_id,
            name,
            call.operation,
            call.method,
            _sayable(call.path),
            status,
            failure,
            call.proof.principal.arn if call.proof else "",
            call.source_address,
            round((time.monotonic() - started) * 1000, 1),
        )

    async def _answer(self, call: Call, service: AwsService) -> Reply:
        if call.caller is None:
            await self._prove(call, service)
        with acting_as(call.who):
            return await service.handle(call)

    async def _prove(self, call: Call, service: AwsService) -> None:
        """Who signed this request. Raises AuthError, AwsError."""
        if sigv2.is_signed(call.http) and isinstance(service, TakesV2):
            await self._prove_v2(call, service)
            return
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
        sigv4.verify(call.http, signature, key.signer, payload_hash)
        call.proof = Proof(signature, key.signer, key.principal)
        call.caller = Caller(key.account, signature.scope.region, key.arn, call.request_id, call.source_address)

    async def _prove_v2(self, call: Call, service: TakesV2) -> None:
        """The same of a URL that is presigned the older way."""
        signature, now = sigv2.parse(call.http), self._clock()
        sigv2.verify_time(signature, now)
        text = sigv2.string_to_sign(signature, service.signed_path(call))
        key = await self._access.verify_v2(signature, text, self._region, call.request_id)
        scope = sigv4.Scope(signature.access_key_id, f"{now:%Y%m%d}", self._region, "s3")
        call.proof = Proof(sigv4.Signature(scope, (), "", now, None, ""), key.signer, key.principal)
        call.caller = Caller(key.account, self._region, key.arn, call.request_id, call.source_address)
        call.http = signature.request

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


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


@lru_cache(NAMES_KEPT)
def _lower(name: bytes) -> str:
    return name.decode("latin-1").lower()


def _sayable(path: str) -> str:
    """A path for the log, where it may hold bytes that are no UTF-8."""
    return (path if path.isascii() else path.encode("utf-8", "replace").decode())[:PATH_SAID]


def _unsigned(declared: str) -> str:
    """The word of a client that signs no payload; any other hash than the body's own cannot be right."""
    if declared == sigv4.UNSIGNED:
        return declared
    raise AwsError("InvalidSignatureException", "The x-amz-content-sha256 header does not match the body.", 403)


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


def _log_code(error: GatewayError) -> str:
    """For the log: AWS's code, or why a caller was refused."""
    return error.kind.value if isinstance(error, AuthError) else getattr(error, "code", "")
