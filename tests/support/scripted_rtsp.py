"""An RTSP server that says what a test tells it, byte for byte: for clients, and for what real servers never do.

    with ScriptedServer({"DESCRIBE": lambda request: request.answer(404)}) as server:
        RtspClient(server.url).open()

Methods without an entry are answered as an ordinary camera with one H.264 track does. `after_play(connection)` sends
what follows, on a thread of its own; the connection stays open until it shuts it down.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\na=control:*\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    uri: str
    headers: dict[str, str] = field(default_factory=dict)

    def answer(self, status: int = 200, body: str = "", *more: str) -> bytes:
        """A response with this request's CSeq and the given header lines."""
        lines = [f"RTSP/1.0 {status} So", f"CSeq: {self.headers.get('cseq', '0')}", *more]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


Answer = Callable[[Asked], bytes | None]

ORDINARY: dict[str, Answer] = {
    "OPTIONS": lambda asked: asked.answer(200, "", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"),
    "DESCRIBE": lambda asked: asked.answer(200, SDP, "Content-Type: application/sdp"),
    "SETUP": lambda asked: asked.answer(
        200, "", "Session: 4711;timeout=60", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
    ),
    "PLAY": lambda asked: asked.answer(200, "", "Session: 4711"),
    "GET_PARAMETER": lambda asked: asked.answer(200),
    "TEARDOWN": lambda asked: asked.answer(200),
    "RTSP/1.0": lambda asked: None,  # the answer to a question of the script's
}


def _hang_up(_: Asked) -> bytes:
    """What comes is no method that the script knows."""
    return b""


class ScriptedServer:
    """Listens on a free port of 127.0.0.1. An answer of None is silence; b"" closes."""

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        after_play: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._answers = ORDINARY | dict(answers or {})
        self._after_play = after_play
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._heard = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.asked: list[Asked] = []
        self.received = bytearray()
        """Interleaved frames that the client sent."""

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [asked.method for asked in self.asked]

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Until `condition()` is true of what was asked; it is looked at after every request."""
        with self._heard:
            if not self._heard.wait_for(condition, timeout_s):
                raise AssertionError(f"not within {timeout_s} s; asked was {self.methods()}")

    def __enter__(self) -> ScriptedServer:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):  # closed already
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while True:
                first = lines.read(1)
                if first == b"$":
                    head = lines.read(3)
                    self.received += lines.read(head[1] << 8 | head[2])
                    continue
                line = (first + lines.readline()).decode("utf-8", "replace").split()
                if len(line) < 2:
                    return
                asked = Asked(line[0], line[1])
                while header := lines.readline().strip().decode("utf-8", "replace"):
                    name, _, value = header.partition(":")
                    asked.headers[name.lower()] = value.strip()
                with self._heard:
                    self.asked.append(asked)
                    answer = self._answers.get(asked.method, _hang_up)(asked)
                    self._heard.notify_all()
                if answer == b"":
                    return
                if answer is not None:
                    connection.sendall(answer)
                if asked.method == "PLAY" and self._after_play is not None:
                    self._start(self._play, connection)

    def _play(self, connection: socket.socket) -> None:
        assert self._after_play is not None
        with contextlib.suppress(OSError):  # the client has gone
            self._after_play(connection)
