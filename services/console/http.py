"""What every answer of the console has in common: who asks, security headers, errors as JSON.

Must not know what is asked. The session cookie is HttpOnly and SameSite=Strict: no script reads it and no other site's
page uses it. The token of a login link works once; identity says so, not we.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.errors import (
    BelvedereError,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from belvedere.chassis.gate import Visitor
from belvedere.chassis.logs import get_logger
from belvedere.chassis.runtime import CloudSettings
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1 import identity_pb2_grpc as pb_grpc
from services.console.asking import as_visitor
from services.console.settings import Settings

log = get_logger(__name__)

COOKIE = "belvedere_session"
MAX_SESSION_LENGTH = 512
MAX_CACHED_SESSIONS = 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: dict[type[BelvedereError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Invalid: HTTPStatus.BAD_REQUEST,
    Denied: HTTPStatus.FORBIDDEN,
    QuotaExceeded: HTTPStatus.PAYMENT_REQUIRED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")


def websocket_origin(url: str) -> str | None:
    """`ws://host:port` of a video's address if it can stand in a content security policy, else None.

    The address is a device's word: anything but a plain host and port could add rules of its own to the header.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("ws", "wss") or not parts.hostname or not _HOST.match(parts.hostname):
        return None
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port else "")


def security_policy(video_origins: Iterable[str] = ()) -> str:
    """The content security policy: nothing but our own files, and the video of the given origins."""
    connect = " ".join(["'self'", *sorted(set(video_origins))])
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def error_response(error: BelvedereError) -> web.Response:
    """{"error": {"code", "message", "fields"?}} with the status that fits."""
    kind = next((base for base in type(error).__mro__ if base in _STATUS), None)
    status = _STATUS[kind] if kind else HTTPStatus.INTERNAL_SERVER_ERROR
    body: dict[str, Any] = {"code": kind.__name__ if kind else "Internal", "message": error.message}
    if isinstance(error, Invalid) and error.fields:
        body["fields"] = [{"path": path, "message": text} for path, text in error.fields]
    return web.json_response({"error": body}, status=status)


def no_session() -> web.Response:
    """401: the page shows how to log in."""
    message = "You are not logged in, or your session has ended. Open the link that `belvedere console` prints."
    return web.json_response({"error": {"code": "NoSession", "message": message}}, status=HTTPStatus.UNAUTHORIZED)


class Sessions:
    """Who a session cookie stands for."""

    def __init__(self, identity: "pb_grpc.IdentityServiceAsyncStub", settings: Settings, cloud: CloudSettings) -> None:
        self._identity = identity
        self._settings = settings
        self._cloud = cloud
        self._known: OrderedDict[str, tuple[float, pb.Principal]] = OrderedDict()

    def _as_console(self) -> Caller:
        return Caller(self._cloud.account, self._cloud.region, service_principal("console"), new_request_id())

    async def redeem(self, token: str, source: str) -> tuple[str, float]:
        """(session id, seconds it lasts) for a login token that came from the address `source`. Raises Denied or NotFound where it
        is not good, or used already."""
        with acting_as(self._as_console()._replace(source=source)):
            answer = await self._identity.RedeemLoginToken(
                pb.RedeemLoginTokenRequest(token=token), timeout=self._settings.peer_timeout_s
            )
        return answer.session_id, max(0.0, answer.expires_at.seconds - time.time())

    async def refused(self, request: web.Request) -> None:
        """Leaves a line in the audit trail of a request that nobody is logged in for."""
        own = self._as_console()
        line = pb.RecordRefusalRequest(
            action=f"console:{request.method}",
            resource=request.path,
            source_address=request.remote or "unknown",
            request_id=own.request_id,
        )
        with acting_as(own):
            await self._identity.RecordRefusal(line, timeout=self._settings.peer_timeout_s)

    async def visitor(self, request: web.Request) -> Visitor | None:
        """Who sent the request; None without a good session. Raises Unavailable where identity does not answer."""
        session_id = request.cookies.get(COOKIE, "")
        if not session_id or len(session_id) > MAX_SESSION_LENGTH:
            return None
        now = time.monotonic()
        checked, known = self._known.get(session_id, (float("-inf"), None))
        if known is None or now - checked > self._settings.session_cache_s:
            self._known.pop(session_id, None)
            try:
                with acting_as(self._as_console()):
                    answer = await self._identity.GetSession(
                        pb.GetSessionRequest(session_id=session_id), timeout=self._settings.peer_timeout_s
                    )
            except (Denied, NotFound, Invalid):
                return None
            known = answer.principal
            self._known[session_id] = (now, known)
            while len(self._known) > MAX_CACHED_SESSIONS:
                self._known.popitem(last=False)
        who = Caller(known.account_id, self._cloud.region, known.arn, new_request_id(), request.remote or "unknown")
        # A cookie for HTTPS only says that a proxy's TLS stands before this port.
        return Visitor(known, who, request.headers.get("User-Agent", ""), secure=self._settings.secure_cookie)


def middleware(sessions: Sessions, settings: Settings) -> Middleware:
    """Guards /api/, turns errors into JSON, adds headers to every answer."""
    slots = asyncio.Semaphore(settings.max_requests)

    @web.middleware
    async def wrap(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with slots:
                response = await _guarded(request, handler, sessions)
        except BelvedereError as error:
            response = error_response(error)
        except web.HTTPException as error:
            response = web.json_response({"error": {"code": error.reason, "message": error.text}}, status=error.status)
        except Exception:
            request_id = new_request_id()
            log.exception("request failed", path=request.path, request_id=request_id)
            message = f"Something failed on our side; the log has it under {request_id}."
            response = web.json_response({"error": {"code": "Internal", "message": message}}, status=500)
        headers = response.headers
        headers.setdefault("Content-Security-Policy", security_policy())
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=()"
        return response

    return wrap


async def _guarded(request: web.Request, handler: Handler, sessions: Sessions) -> web.StreamResponse:
    if not request.path.startswith("/api/"):
        return await handler(request)
    visitor = await sessions.visitor(request)
    if visitor is None:
        await sessions.refused(request)
        return no_session()
    with as_visitor(visitor):
        return await handler(request)
