"""CallServer: answers calls with tensors, for processes that it does not trust.

    def handler(request):                       # on the server's thread: hand it on, do not work here
        queue.put(request)
    …                                           # later, on any thread
    request.reply({"boxes": boxes})             # or request.fail("INVALID_INPUT", "…")

Inputs are read-only views of the client's memory: nothing is copied on the way in, and what a client changes behind the
server's back changes its own answer only. A client has at most `max_in_flight` calls open, one included whose reply it
has not fetched; beyond that it is told OVERLOADED. A request that is dropped unanswered answers FAILED by itself.

Must not know: what a model is.
"""

from __future__ import annotations

import collections
import logging
import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Mapping

from framelink import calls_wire, tensors, wire
from framelink.buffers import BufferMap, BufferPool
from framelink.errors import FramelinkError, NoMemory, RingGone, TensorError, WireError
from framelink.peers import Message, Peer, PeerServer

if TYPE_CHECKING:
    from framelink.layout import Array

log = logging.getLogger("framelink")

MAX_IN_FLIGHT = 8
"""Calls one client may have open: enough threads to keep a batch filled, few enough that their memory stays small."""
MAX_CLIENT_BYTES = 512 << 20
"""Request memory of one client that the server maps, and reply memory that it allocates for one."""


@dataclass(frozen=True)
class CallStats:
    """Counted since the server started."""

    clients: int
    calls: int
    failed: int
    """Calls answered with an error, refused ones included."""
    malformed: int
    refused: int
    unread: int
    """Clients disconnected because they did not read their answers."""


class Request:
    """One call. Answer it once, from any thread; a second answer is ignored."""

    def __init__(
        self,
        server: CallServer,
        client: _Client,
        asked: calls_wire.Call,
        inputs: tensors.Tensors,
        pictures: dict[str, Any],
    ) -> None:
        self._server = server
        self._peer = client
        self._asked = asked
        self._lock = threading.RLock()
        self._answered = False
        self.inputs = inputs
        """name → read-only array, in the client's order."""
        self.pictures = pictures
        """input (empty: the only one) → a FrameName, or the client's own pixels as a read-only array: to be made fit.
        """

    @property
    def client(self) -> str:
        """The name that the client gave itself; not to be trusted."""
        return self._peer.name

    @property
    def model_id(self) -> str:
        return self._asked.model_id

    @property
    def deadline_ns(self) -> int:
        """CLOCK_MONOTONIC. After this nobody waits for the answer."""
        return self._asked.deadline_ns

    @property
    def abandoned(self) -> bool:
        """The client has gone: no answer can reach it."""
        return self._peer.closed

    def reply(self, outputs: Mapping[str, Array]) -> bool:
        """Send the outputs (copied before this returns). False where the client has gone, or it was answered
        already.
        """
        return self._once() and self._server._reply(self._peer, self._asked.call_id, outputs)

    def fail(self, code: str, message: str) -> bool:
        """Answer with one of the codes of `CallError` and a message for a person."""
        return self._once() and self._server._fail(self._peer, self._asked.call_id, code, message)

    def _once(self) -> bool:
        with self._lock:
            first, self._answered = not self._answered, True
            return first

    def __del__(self) -> None:
        self.fail("FAILED", "the server has dropped the request")


class _Client(Peer):
    """The server's view of one connection."""

    def __init__(self, connection: socket.socket, server: CallServer) -> None:
        super().__init__(connection)
        self.requests = BufferMap(MAX_IN_FLIGHT, MAX_CLIENT_BYTES)
        self.open: dict[int, int | None] = {}
        """call id → the buffer of its reply, once it has one"""
        self.lock = threading.RLock()
        """Around `replies`: one client's large reply does not make the others wait."""
        self.replies = BufferPool(
            "framelink-reply",
            MAX_IN_FLIGHT,
            MAX_CLIENT_BYTES,
            lambda ring, descriptor: server._tell(self, wire.ring(calls_wire.BUFFER, ring), descriptor),
            lambda number: server._tell(self, calls_wire.retire(number)),
        )


class CallServer(PeerServer):
    """Listens at `path`; gives each well-formed call to `handler`, on its own thread. Raises AddressTaken."""

    _largest_message = calls_wire.LARGEST_MESSAGE

    def __init__(
        self,
        path: str | os.PathLike[str],
        handler: Callable[[Request], None],
        *,
        name: str,
        max_clients: int = 64,
    ) -> None:
        self._handler = handler
        self._limits = calls_wire.Limits(MAX_IN_FLIGHT, MAX_CLIENT_BYTES)
        self._calls = self._failed = 0
        self._departed: collections.deque[_Client] = collections.deque()
        super().__init__(path, name, max_clients)
        self._start()

    def stats(self) -> CallStats:
        """A consistent copy of the counters."""
        with self._lock:
            return CallStats(len(self._peers), self._calls, self._failed, self._malformed, self._refused, self._unread)

    def close(self) -> None:
        """Disconnect everybody; their open calls fail with them."""
        super().close()
        self._turn()

    def __enter__(self) -> CallServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Hooks, on the server's thread ------------------------------------------------------------------------------

    def _new_peer(self, connection: socket.socket) -> Peer:
        return _Client(connection, self)

    def _left(self, peer: Peer) -> None:
        if isinstance(peer, _Client):
            peer.requests.close()
            peer.open.clear()
            self._departed.append(peer)
            self._wake()

    def _turn(self) -> None:
        """Free the reply memory of clients that have gone; not in `_left`, where a reply may be in the making."""
        while self._departed:
            client = self._departed.popleft()
            with client.lock:
                client.replies.close()

    def _heard(self, peer: Peer, message: Message) -> None:
        if not isinstance(peer, _Client):
            raise TypeError("%r is no client" % peer)
        kind, body = message.kind, message.body
        if not peer.introduced:
            if kind != wire.HELLO:
                raise WireError("the first message must be HELLO")
            peer.name = wire.text(body)
            peer.introduced = True
            self._tell(peer, calls_wire.ready(self._limits))
        elif kind == calls_wire.BUFFER:
            announced = wire.parse_ring(body)
            peer.requests.add(announced, message.take_descriptor())
        elif kind == calls_wire.RETIRE:
            peer.requests.remove(calls_wire.parse_number(body))
        elif kind == calls_wire.CALL:
            self._called(peer, calls_wire.parse_call(body))
        elif kind == calls_wire.DONE:
            self._fetched(peer, calls_wire.parse_number(body))
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _called(self, client: _Client, asked: calls_wire.Call) -> None:
        payload = client.requests.payload(asked.buffer)
        with self._lock:
            self._calls += 1
            if asked.call_id in client.open:
                raise WireError("call %d is open already" % asked.call_id)
            full = len(client.open) >= MAX_IN_FLIGHT
            if not full:
                client.open[asked.call_id] = None
        if full:
            self._fail(client, asked.call_id, "OVERLOADED", "%d calls of this client are open" % MAX_IN_FLIGHT)
            return
        try:
            inputs = tensors.decode(payload)
            pictures: dict[str, Any] = {}
            for name, frame in calls_wire.parse_pictures(asked.pictures).items():
                pictures[name] = inputs.pop(calls_wire.picture_key(name)) if frame is None else frame
            request = Request(self, client, asked, inputs, pictures)
        except KeyError as error:
            self._fail(client, asked.call_id, "INVALID_INPUT", "the picture %s was not sent" % error)
            return
        except TensorError as error:
            self._fail(client, asked.call_id, "INVALID_INPUT", str(error))
            return
        try:
            self._handler(request)
        except Exception as error:
            log.exception("%s: the handler failed for model %s", self.name, asked.model_id)
            request.fail("FAILED", "%s: %s" % (type(error).__name__, error))

    def _fetched(self, client: _Client, call_id: int) -> None:
        with self._lock:
            buffer = client.open.get(call_id)
            if buffer is None:
                raise WireError("call %d has no reply to fetch" % call_id)
            del client.open[call_id]
        with client.lock:
            client.replies.release(buffer)

    # --- Answers, on any thread -------------------------------------------------------------------------------------

    def _tell(self, client: _Client, packet: bytes, descriptor: int | None = None) -> None:
        with self._lock:
            if not self._send(client, packet, descriptor):
                raise RingGone("client %r has gone" % client.name)

    def _fail(self, client: _Client, call_id: int, code: str, reason: str) -> bool:
        if code not in calls_wire.CODES:
            raise ValueError("%r is no code of a failed call: %s" % (code, ", ".join(calls_wire.CODES)))
        with self._lock:
            self._failed += 1
            client.open.pop(call_id, None)
            return self._send(client, calls_wire.fail(call_id, code, reason))

    def _reply(self, client: _Client, call_id: int, outputs: Mapping[str, Array]) -> bool:
        buffer = None
        try:
            size = tensors.encoded_size(outputs)
            with client.lock:
                if client.closed:
                    return False
                buffer = client.replies.acquire(size)
                payload = client.replies.payload(buffer) if buffer is not None else None
            if buffer is None or payload is None:
                return self._fail(client, call_id, "OVERLOADED", "the memory for this client's replies is used up")
            tensors.encode(outputs, payload, size)
        except (TensorError, NoMemory) as error:
            code = "TOO_LARGE" if isinstance(error, NoMemory) else "FAILED"
            return self._fail(client, call_id, code, "the outputs cannot be sent: %s" % error)
        except FramelinkError:
            return False  # It has gone in the meantime; that is counted where it was noticed.
        with self._lock:
            if client.closed:
                return False
            client.open[call_id] = buffer
            return self._send(client, calls_wire.reply(call_id, buffer))
