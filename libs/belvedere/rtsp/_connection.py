"""One RTSP connection: reads requests, answers them, and owns the session that was set up on it.

A session lives no longer than its connection, and no longer than its timeout without a sign of life. Nothing that a
client sends here reaches beyond its own connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import quote

from belvedere.chassis.logs import get_logger

from ._auth import AuthenticationFailed, Authenticator
from ._carrier import Carrier, CarrierClosed, TcpCarrier, UdpCarrier
from ._messages import Interleaved, MessageError, Request, format_response, read_message
from ._mount import Mount
from ._sdp import TRACK, make_sdp
from ._session import SESSION_TIMEOUT_S, Conduct, Session
from .errors import SourceError

log = get_logger(__name__)

IDLE_TIMEOUT_S = 30.0
"""A connection without a session and without a request for so long is closed."""
REPLY_TIMEOUT_S = 10.0
"""A client that does not take its answers for so long is gone."""
MAX_AUTH_FAILURES = 8
"""Wrong passwords on one connection before it is closed."""
METHODS = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN")
KNOWN_METHODS = {*METHODS, "PAUSE", "ANNOUNCE", "RECORD", "SET_PARAMETER", "REDIRECT"}

_PORTS = re.compile(r"^(\d{1,5})(?:-(\d{1,5}))?$")

Reply = tuple[int, list[tuple[str, str]], str]


class Server(Protocol):
    """What a connection asks of its server."""

    def mount_of(self, path: str) -> Mount | None: ...

    def authenticator(self) -> Authenticator | None: ...

    def conduct(self) -> Conduct | None: ...


class Connection:
    """Serves one client until it leaves."""

    def __init__(
        self,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session_timeout_s: float = SESSION_TIMEOUT_S,
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._session_timeout = session_timeout_s
        self._auth = server.authenticator()
        self._auth_failures = 0
        self._peer: str = writer.get_extra_info("peername")[0]
        self._local: str = writer.get_extra_info("sockname")[0]
        self._loop = asyncio.get_running_loop()
        self._last_sign = self._loop.time()
        self._session: Session | None = None
        self._mount: Mount | None = None
        self._sender: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._handlers: dict[str, Callable[[Request], Awaitable[Reply]]] = {
            "OPTIONS": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "GET_PARAMETER": self._get_parameter,
            "TEARDOWN": self._teardown,
        }

    @property
    def mount(self) -> Mount | None:
        """What this connection's session looks at."""
        return self._mount

    async def serve(self) -> None:
        """Until the client leaves, breaks the protocol, falls silent, or its source ends."""
        reading = asyncio.create_task(self._read(), name=f"rtsp reader {self._peer}")
        try:
            while not (reading.done() or (self._sender is not None and self._sender.done())):
                limit = self._session_timeout if self._session else IDLE_TIMEOUT_S
                left = self._last_sign + limit - self._loop.time()
                if left <= 0:
                    log.info("rtsp client fell silent", peer=self._peer, timeout_s=limit)
                    return
                # A session that begins has another time limit, and a sender to watch.
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                watched = {reading, changed} | ({self._sender} if self._sender else set())
                try:
                    await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
        finally:
            reading.cancel()
            self._end_session()
            await asyncio.wait([reading])
            if not reading.cancelled() and (error := reading.exception()) is not None:
                log.error("rtsp connection failed", peer=self._peer, exc_info=error)

    def _sign_of_life(self) -> None:
        self._last_sign = self._loop.time()

    async def _read(self) -> None:
        while True:
            try:
                message = await read_message(self._reader)
            except MessageError as error:
                await self._reply(format_response(error.status, None))
                return
            except OSError:
                return
            if message is None:
                return
            if isinstance(message, Interleaved):
                carrier = self._session.carrier if self._session else None
                if isinstance(carrier, TcpCarrier) and message.channel == carrier.rtcp_channel:
                    self._sign_of_life()
                continue
            if not await self._answer(message):
                return

    async def _answer(self, request: Request) -> bool:
        """False when the connection must end."""
        cseq: int | None = None
        fatal = False
        try:
            cseq = request.cseq
            if request.version != "RTSP/1.0":
                raise MessageError(505, "only RTSP/1.0 is spoken here")
            if "require" in request.headers or "proxy-require" in request.headers:
                wanted = request.headers.get("require") or request.headers.get("proxy-require", "")
                raise MessageError(551, "no options are supported", headers=[("Unsupported", wanted[:200])])
            # Counts also where the nonce has just become stale: the session is this connection's own.
            self._sign_of_life()
            handler = self._handlers.get(request.method)
            if handler is None:
                known = request.method in KNOWN_METHODS
                raise MessageError(405 if known else 501, "no such method", headers=[("Allow", ", ".join(METHODS))])
            if request.method != "OPTIONS":
                self._authenticate(request)
            status, headers, body = await handler(request)
        except AuthenticationFailed as error:
            self._auth_failures += error.attempted
            fatal = self._auth_failures >= MAX_AUTH_FAILURES
            assert self._auth is not None
            status, headers, body = 401, self._auth.challenges(error.stale), ""
        except MessageError as error:
            fatal = error.fatal
            status, headers, body = error.status, list(error.headers), ""
        except SourceError as error:
            log.warning("rtsp source cannot deliver", path=request.uri.split("?")[0], why=str(error))
            status, headers, body = 503, [], ""
        return await self._reply(format_response(status, cseq, headers, body)) and not fatal

    async def _reply(self, response: bytes) -> bool:
        self._writer.write(response)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await self._writer.drain()
        except (TimeoutError, OSError):
            return False
        return True

    def _authenticate(self, request: Request) -> None:
        if self._auth is not None:
            self._auth.check(request.method, request.uri, request.headers.get("authorization"))

    def _find_mount(self, request: Request) -> Mount:
        path = request.path
        mount = self._server.mount_of(path) or self._server.mount_of(path.removesuffix(TRACK).rstrip("/"))
        if mount is None:
            raise MessageError(404, "no such path")
        return mount

    def _own_session(self, request: Request) -> Session:
        named = request.headers.get("session", "").partition(";")[0].strip()
        if self._session is None or named != self._session.id:
            raise MessageError(454, "no such session on this connection")
        return self._session

    def _session_header(self, session: Session) -> tuple[str, str]:
        return ("Session", f"{session.id};timeout={int(self._session_timeout)}")

    async def _options(self, request: Request) -> Reply:
        return 200, [("Public", ", ".join(METHODS))], ""

    async def _describe(self, request: Request) -> Reply:
        mount = self._find_mount(request)
        description = await mount.describe()
        body = make_sdp(description, name=mount.path, address=self._local, session=id(mount) & 0xFFFFFFFF)
        base = request.uri.partition("?")[0].rstrip("/") + "/"
        return 200, [("Content-Base", base), ("Content-Type", "application/sdp")], body

    async def _setup(self, request: Request) -> Reply:
        mount = self._find_mount(request)
        if self._session is not None:
            if "session" in request.headers:
                self._own_session(request)
            if self._session.playing:
                raise MessageError(455, "the transport of a playing session cannot be changed")
            if self._mount is not mount:
                raise MessageError(459, "one session holds one path")
        carrier = await self._open_carrier(request.headers.get("transport", ""))
        self._end_session()
        self._session, self._mount = Session(mount.path, carrier, self._server.conduct()), mount
        self._changed.set()
        header = f"{carrier.transport_header()};ssrc={self._session.rtp.ssrc:08X}"
        return 200, [self._session_header(self._session), ("Transport", header)], ""

    async def _open_carrier(self, header: str) -> Carrier:
        """The first of the offered transports that we have."""
        for offer in header.split(","):
            spec, *rest = [part.strip() for part in offer.split(";")]
            options = dict(part.partition("=")[::2] for part in rest)
            if "multicast" in options or options.get("mode", "play").strip('"').lower() != "play":
                continue
            if spec.upper() == "RTP/AVP/TCP":
                channels = _pair(options.get("interleaved", "0-1"), 255)
                if channels is not None:
                    return TcpCarrier(self._writer, *channels)
            elif spec.upper() in ("RTP/AVP", "RTP/AVP/UDP"):
                ports = _pair(options.get("client_port", ""), 65535)
                if ports is not None and ports[0] > 0:
                    # To the client's own address only, whatever `destination` says: nobody else asked for packets.
                    try:
                        return await UdpCarrier.open(self._local, self._peer, ports, self._sign_of_life)
                    except OSError as error:
                        raise SourceError(f"no UDP ports for a viewer: {error}") from error
        raise MessageError(461, "offer RTP/AVP/TCP;interleaved=… or RTP/AVP;client_port=…")

    async def _play(self, request: Request) -> Reply:
        session = self._own_session(request)
        mount = self._mount
        assert mount is not None
        if not session.playing:
            session.playing = True
            self._sender = asyncio.create_task(self._send(session, mount), name=f"rtsp sender {session.path}")
            self._changed.set()
        base = request.uri.partition("?")[0].rstrip("/").removesuffix(f"/{TRACK}")
        info = f"url={quote(base, safe=':/@[]%')}/{TRACK};seq={session.rtp.sequence}"
        return 200, [self._session_header(session), ("Range", "npt=now-"), ("RTP-Info", info)], ""

    async def _send(self, session: Session, mount: Mount) -> None:
        mount.join(session)
        try:
            await session.send_all(mount.sent)
        except CarrierClosed as error:
            log.info("rtsp viewer gone", peer=self._peer, path=session.path, why=str(error))

    async def _get_parameter(self, request: Request) -> Reply:
        if "session" not in request.headers:
            return 200, [], ""
        return 200, [self._session_header(self._own_session(request))], ""

    async def _teardown(self, request: Request) -> Reply:
        self._own_session(request)
        self._end_session()
        return 200, [], ""

    def _end_session(self) -> None:
        session, mount, sender = self._session, self._mount, self._sender
        self._session = self._mount = self._sender = None
        if sender is not None:
            sender.cancel()
        if session is not None and mount is not None:
            mount.leave(session)
            session.carrier.close()


def _pair(text: str, highest: int) -> tuple[int, int] | None:
    """`a-b` or `a` (then b = a + 1), both within 0..highest."""
    match = _PORTS.match(text.strip())
    if match is None:
        return None
    first = int(match[1])
    second = int(match[2]) if match[2] else first + 1
    return (first, second) if max(first, second) <= highest and first != second else None
