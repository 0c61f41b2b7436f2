"""Requests and answers on one wire: numbering, authentication, and what the server asks of us in between.

Frames that arrive while an answer is waited for go where they always go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ._credentials import Credentials
from ._messages import Request, Response, format_interleaved, format_request
from ._target import Target
from ._wire import Message, Wire
from .errors import ProtocolError, ServerFailed, StreamNotFound, StreamRefused

USER_AGENT = "belvedere"
MAX_TRIES = 3
"""Of one request: without credentials, with them, and once more when the nonce had become too old."""
MAX_STRAY_ANSWERS = 16
"""Answers to earlier requests while waiting for one; more is a server that only talks."""
SEND_TIMEOUT_S = 5.0

OnFrame = Callable[[int, memoryview, int], bool]
Headers = Sequence[tuple[str, str]]


class Channel:
    """The RTSP side of one connection."""

    def __init__(
        self, wire: Wire, target: Target, credentials: Credentials, on_frame: OnFrame, *, basic_allowed: bool
    ) -> None:
        self.wire = wire
        self._target = target
        self._credentials = credentials
        self._on_frame = on_frame
        self._basic_allowed = basic_allowed
        self._cseq = 0
        self._alive_cseq = 0
        self._alive: tuple[str, str, Headers] | None = None

    def ask(self, method: str, uri: str, headers: Headers, deadline: float) -> Response:
        """The answer, whatever its status but 401: that is authenticated, or raised. Raises TimeoutError at
        `deadline`.
        """
        for _ in range(MAX_TRIES):
            response = self._answer(self._send(method, uri, headers), deadline)
            if response.status != 401:
                self._credentials.accepted()
                return response
            if not self._challenged(response):
                break
        raise StreamRefused(401, tried=bool(self._credentials))

    def demand(self, method: str, uri: str, headers: Headers, deadline: float) -> Response:
        """The answer, which is a success or a redirection. Raises StreamRefused, StreamNotFound, ServerFailed."""
        response = self.ask(method, uri, headers, deadline)
        if response.status == 403:
            raise StreamRefused(403, tried=bool(self._credentials))
        if response.status == 404:
            raise StreamNotFound(self._target.path)
        if not 200 <= response.status < 400:
            raise ServerFailed(method, response.status)
        return response

    def tell(self, method: str, uri: str, headers: Headers) -> None:
        """Sends without waiting for the answer, which `handle` gets."""
        self._alive = (method, uri, headers)
        self._alive_cseq = self._send(method, uri, headers)

    def frame(self, channel: int, packet: bytes) -> None:
        """Sends a packet of ours inside the connection."""
        self.wire.send(format_interleaved(channel, [packet]), time.monotonic() + SEND_TIMEOUT_S)

    def say_goodbye(self, uri: str, session: str, timeout_s: float) -> None:
        """TEARDOWN, if it goes: the end of the connection says the same."""
        self._cseq += 1
        authorization = self._credentials.header("TEARDOWN", uri)
        headers = [("Session", session)] + ([("Authorization", authorization)] if authorization else [])
        self.wire.send_last(format_request("TEARDOWN", uri, self._cseq, headers), timeout_s)

    def advance(self) -> Message | None:
        """See `Wire.advance`."""
        return self.wire.advance(self._on_frame)

    def handle(self, message: Message) -> int | None:
        """A message that nobody waits for: the server's own requests are answered; of the answer to `tell` the status
        is given back. Raises StreamRefused.
        """
        if isinstance(message, Request):
            self._reply(message)
            return None
        if message.first("cseq") != str(self._alive_cseq) or self._alive is None:
            return None
        if message.status == 401:
            if not self._challenged(message):
                raise StreamRefused(401, tried=bool(self._credentials))
            again, self._alive = self._alive, None
            cseq = self._send(*again)  # once: a second 401 is left unanswered, and the session then ends
            self._alive_cseq = cseq
            return None
        self._credentials.accepted()
        return message.status

    def _challenged(self, response: Response) -> bool:
        return self._credentials.challenged(response.every("www-authenticate"), basic_allowed=self._basic_allowed)

    def _send(self, method: str, uri: str, headers: Headers) -> int:
        self._cseq += 1
        authorization = self._credentials.header(method, uri)
        more = [("User-Agent", USER_AGENT)] + ([("Authorization", authorization)] if authorization else [])
        request = format_request(method, uri, self._cseq, [*headers, *more])
        self.wire.send(request, time.monotonic() + SEND_TIMEOUT_S)
        return self._cseq

    def _answer(self, cseq: int, deadline: float) -> Response:
        strays = 0
        while True:
            message = self.wire.advance(self._deliver)
            if message is None:
                # A server that sends frame after frame and no answer must not be waited for longer, either.
                if time.monotonic() > deadline or not self.wire.wait(deadline):
                    raise TimeoutError
                self.wire.fill()
                continue
            if isinstance(message, Request):
                self._reply(message)
            elif message.first("cseq") in (str(cseq), ""):  # some servers leave it out
                return message
            elif not message.first("cseq").isdecimal() or int(message.first("cseq")[:10]) > self._cseq:
                raise ProtocolError("the server answers a request that was not made (CSeq)")
            strays += 1
            if strays > MAX_STRAY_ANSWERS:
                raise ProtocolError("the server talks without answering")

    def _deliver(self, channel: int, data: memoryview, arrived_ns: int) -> bool:
        self._on_frame(channel, data, arrived_ns)
        return False

    def _reply(self, request: Request) -> None:
        """Servers may ask: whether we are alive (that we are), or for what we do not do (501)."""
        status = "200 OK" if request.method in ("OPTIONS", "GET_PARAMETER", "SET_PARAMETER") else "501 Not Implemented"
        cseq = request.headers.get("cseq", "")
        lines = [f"RTSP/1.0 {status}"] + ([f"CSeq: {cseq}"] if cseq.isdecimal() else [])
        self.wire.send(("\r\n".join(lines) + "\r\n\r\n").encode(), time.monotonic() + SEND_TIMEOUT_S)
