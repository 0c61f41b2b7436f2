"""The HTTP server of the front door: takes requests in, has it proven who signed them, hands them to a service, gives replies back.

Two ways lead here: whole requests by `direct`, all others by aiohttp (`others`). Knows signatures, no operation. Every reply has a request id; every request leaves one line in the log, which
holds no query (presigned URLs sign there), no header and no body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime

from aiohttp import web

from belvedere.chassis import logs
from belvedere.chassis.context import Caller, acting_as, new_request_id
from belvedere.chassis.errors import BelvedereError
from services.gateway import naming, others, sigv4, whole
from services.gateway.access import Access, Asker
from services.gateway.awake import Awake
from services.gateway.direct import Connections, Work
from services.gateway.dispatch import Dispatcher
from services.gateway.errors import AuthError, ClientGone, GatewayError, internal_error
from services.gateway.message import NO_FACTS, AwsService, Call, Facts, Named, Proof, Reply
from services.gateway.others import SERVER
from services.gateway.proving import Prover
from services.gateway.settings import Settings

BACKLOG = 128
"""Connections that wait to be accepted."""
PATH_SAID = 512
"""Characters of a path in the log."""
STOP_TIMEOUT_S = 0.8
"""For requests in progress when the process ends."""

log = logs.get_logger(__name__)
LINE = ("request_id", "service", "operation", "method", "path", "status", "error", "principal", "source", "duration_ms")


_OF_NO_BODY = (None, sigv4.EMPTY_SHA256)


async def _no_tags() -> Mapping[str, str]:
    return {}


TAGGED = Facts(resource_tags=_no_tags)
"""Of a question whose resource has tags; who has to know them asks the long way."""


class FrontDoor:
    """The server on one port."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        access: Access,
        clock: Callable[[], datetime],
        settings: Settings,
        *,
        account: str,
        region: str,
    ) -> None:
        """`account`, `region`: of callers whose signature names none."""
        self._account, self._region = account, region
        self._prover = Prover(access, clock, region)
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
        self._others = made = others.make(self._respond, self._dispatcher.broken, self._settings)
        self._connections = Connections(self, made, self._settings.idle_timeout_s, self.awake)
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
        call = others.call_of(request, self._access.authorize, self._settings)
        name, service = self._dispatcher.service(call)
        reply, failure = await self._reply(call, name, service)
        try:
            return await others.write(request, call, reply, self._settings)
        finally:
            self._line(call, name, reply.status, failure, started)

    async def _reply(self, call: Call, name: str, service: AwsService) -> tuple[Reply, str]:
        """(the reply, for the log: why a request was refused). Raises ClientGone."""
        try:
            reply, failure = await self._replied(call, name, service)
        except ClientGone:
            await self._refused(call, name, service)
            raise
        await self._refused(call, name, service)
        return reply, failure

    async def _refused(self, call: Call, name: str, service: AwsService) -> None:
        """Leaves the line of a call that ended before policies were asked; any other has its own."""
        if call.decided:
            return
        # What it would have been about, had this door's own account sent it.
        region = call.caller.region if call.caller else self._region
        nobody = Caller(self._account, region, "", call.request_id, call.source_address)
        body = b"" if service.streams else await naming.beginning(call)
        as_named = replace(call, caller=call.caller or nobody, body=body)
        try:
            named = self._dispatcher.named(as_named, name)
        except Exception:
            log.exception("a call without a name", request_id=call.request_id, service=name)
            named = Named(f"{name}:{call.method}", call.path)
        try:
            await self._access.refused(call, named)
        except BelvedereError as error:
            log.error("a call without its line in the trail", request_id=call.request_id, error=error.message)

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
            await self._prover.prove(call, service)
        with acting_as(call.who):
            return await service.handle(call)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _sayable(path: str) -> str:
    """A path for the log, where it may hold bytes that are no UTF-8."""
    return (path if path.isascii() else path.encode("utf-8", "replace").decode())[:PATH_SAID]


def _log_code(error: GatewayError) -> str:
    """For the log: AWS's code, or why a caller was refused."""
    return error.kind.value if isinstance(error, AuthError) else getattr(error, "code", "")
