"""CallClient: sends tensors to a CallServer and waits for its answer, from any number of threads.

    client = CallClient("inference/calls.sock", "my application")
    outputs = client.call("model-1", {"images": tensor}, timeout_s=5.0)
    outputs = client.call("model-1", {}, timeout_s=5.0, pictures={"images": FrameName(…)})   # made to fit by the server

Connects at the first call, and again at the next call after the server has gone; calls that were under way then fail
with ServerGone, a CallError FAILED. There is no thread of its own: of the threads that wait, one listens for all, so that a single
caller has its answer without a hop from one thread to another.

Measured (two processes on two busy cores, a 1×3×224×224 float32 request, which is copied once, into the shared buffer): 0.12
ms of CPU on each side, hot; 0.3 ms after something else had the caches.

Must not know: what a model is.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Mapping, Union

import numpy as np

from framelink import calls_wire, sockets, tensors, wire
from framelink.buffers import BufferMap, BufferPool
from framelink.errors import (
    CallError,
    CallTimeout,
    FramelinkError,
    NoMemory,
    RingAbsent,
    RingGone,
    ServerGone,
    TensorError,
    WireError,
)

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes

    Picture = Union[calls_wire.FrameName, Array]

READY_TIMEOUT_S = 5.0
"""A server that accepts a connection and does not greet within this is hung."""


class CallClient:
    """A client of the server at `path`; `name` is what the server shows for it. Connects when it is first used."""

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.path = os.fspath(path)
        self.name = name
        self._lock = threading.Lock()
        self._link: _Link | None = None

    def call(
        self,
        model_id: str,
        inputs: Mapping[str, Array],
        timeout_s: float,
        pictures: Mapping[str, Picture] | None = None,
    ) -> tensors.Tensors:
        """name → array, the caller's own, in the model's output order.

        `pictures`: by the model's inputs (empty: its only one), a frame of a camera's ring that the caller holds until
        the answer has come, or pixels (height, width, 3) uint8, blue first: the server makes them fit.

        Raises CallError with the server's code (FRAME_GONE: send the pixels instead); CallTimeout when the answer, or a
        server at all, does not come in time.
        """
        deadline = time.monotonic() + timeout_s
        named, sent = {}, dict(inputs)
        for name, picture in (pictures or {}).items():
            named[name] = picture if isinstance(picture, calls_wire.FrameName) else None
            if not isinstance(picture, calls_wire.FrameName):
                sent[calls_wire.picture_key(name)] = picture
        try:
            size = tensors.encoded_size(sent)
            asked = calls_wire.Call(0, 0, int(deadline * 1e9), model_id, calls_wire.encode_pictures(named))
        except (TensorError, ValueError) as error:
            raise CallError("INVALID_INPUT", str(error)) from error
        link = self._connected(deadline, timeout_s)
        return link.call(asked, sent, size, deadline, timeout_s)

    def close(self) -> None:
        """Disconnect; calls under way fail."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.end("the client was closed")

    def __enter__(self) -> CallClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self, deadline: float, timeout_s: float) -> _Link:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise CallTimeout("%s: no connection within %.3f s" % (self.path, timeout_s))
        try:
            if self._link is None or self._link.has_ended():
                self._link = None
                self._link = _Link(self.path, self.name, max(0.0, deadline - time.monotonic()))
            return self._link
        except RingAbsent as error:
            raise CallTimeout("no answer within %.3f s: %s" % (timeout_s, error)) from error
        except (FramelinkError, OSError) as error:
            raise ServerGone(str(error)) from error
        finally:
            self._lock.release()


class _Pending:
    """One call under way."""

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer
        self.reply: Bytes | None = None
        """The memory of the answer."""
        self.error: CallError | None = None
        self.abandoned = False
        """Nobody waits any more; the request's buffer must stay untouched until the server has answered."""

    @property
    def answered(self) -> bool:
        return self.reply is not None or self.error is not None


class _Link:
    """One connection to one server; when it ends, so do its calls."""

    def __init__(self, path: str, name: str, timeout_s: float) -> None:
        self._path = path
        # A forked child has the socket, too, and must make its own connection.
        self._owner = os.getpid()
        # Guards everything below, the socket's sending side included; waiting threads wait on it.
        self._changed = threading.Condition()
        self._ended: str | None = None
        self._listening = False
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1
        self._thanks: list[int] = []
        """Answers that were fetched, and the server not told yet."""
        self._socket = sockets.connect(path, timeout_s)
        try:
            limits = self._introduce(name)
        except BaseException:
            self._socket.close()
            raise
        self._replies = BufferMap(limits.max_in_flight, limits.max_bytes)
        self._requests = BufferPool(
            "framelink-call",
            limits.max_in_flight,
            limits.max_bytes,
            lambda ring, descriptor: self._send(wire.ring(calls_wire.BUFFER, ring), descriptor),
            lambda number: self._send(calls_wire.retire(number)),
        )

    def call(
        self, what: calls_wire.Call, inputs: Mapping[str, Array], size: int, deadline: float, timeout_s: float
    ) -> tensors.Tensors:
        buffer, payload = self._buffer(size, deadline)
        try:
            tensors.encode(inputs, payload, size)
            call_id, pending = self._ask(what, buffer)
        except BaseException:
            with self._changed:
                self._requests.release(buffer)
            raise
        self._wait(pending, deadline)
        with self._changed:
            if not pending.answered:
                pending.abandoned = True
                raise CallTimeout("%s: no answer from %s within %.3f s" % (self._path, what.model_id, timeout_s))
            if pending.reply is None:
                raise pending.error or CallError("FAILED", "no answer")
        try:
            # Copied outside the lock: other threads' answers need not wait for it.
            return {name: np.array(view) for name, view in tensors.decode(pending.reply).items()}
        except TensorError as error:
            raise CallError("FAILED", "the answer cannot be read: %s" % error) from error
        finally:
            with self._changed:
                self._thank(call_id, pending)

    def has_ended(self) -> bool:
        """The server has gone, or says so now. Also hears what came while nobody waited."""
        if self._owner != os.getpid():
            return True
        with self._changed:
            if not self._listening and self._ended is None:
                self._hear()
            return self._ended is not None

    def end(self, reason: str) -> None:
        """No more of this connection: every call under way fails."""
        with self._changed:
            if self._ended is not None:
                return
            self._ended = reason
            for pending in self._pending.values():
                if not pending.answered:
                    pending.error = ServerGone(reason)
            self._pending.clear()
            self._socket.close()
            self._requests.close()
            self._replies.close()
            self._changed.notify_all()

    # --- One call ---------------------------------------------------------------------------------------------------

    def _introduce(self, name: str) -> calls_wire.Limits:
        with contextlib.suppress(RingGone):  # Refused already: it has left word of why.
            sockets.send(self._socket, wire.hello(name))
        if not sockets.ready(self._socket.fileno(), select.POLLIN, READY_TIMEOUT_S):
            raise RingAbsent("%s did not answer within %.0f s" % (self._path, READY_TIMEOUT_S))
        kind, body = wire.parse(sockets.receive_plain(self._socket) or b"")
        if kind == wire.GOODBYE:
            raise RingGone("%s refused: %s" % (self._path, wire.text(body, 512)))
        if kind != calls_wire.READY:
            raise WireError("%s is no call server" % self._path)
        return calls_wire.parse_ready(body)

    def _buffer(self, size: int, deadline: float) -> tuple[int, Bytes]:
        """A free buffer of this size; waits for one while other threads' calls have them all."""
        with self._changed:
            while True:
                if self._ended is not None:
                    raise ServerGone(self._ended)
                try:
                    number = self._requests.acquire(size)
                except NoMemory as error:
                    raise CallError("TOO_LARGE", str(error)) from error
                except RingGone as error:
                    self.end(str(error))
                    raise ServerGone(str(error)) from error
                if number is not None:
                    return number, self._requests.payload(number)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CallError("OVERLOADED", "%s: every buffer is in use by an earlier call" % self._path)
                self._listen_or_wait(left)

    def _ask(self, what: calls_wire.Call, buffer: int) -> tuple[int, _Pending]:
        with self._changed:
            if self._ended is not None:
                raise ServerGone(self._ended)
            call_id, self._next_id = self._next_id, self._next_id + 1
            pending = self._pending[call_id] = _Pending(buffer)
            try:
                # Both at once: the server wakes once for them. A call counts as open until it has heard its DONE.
                while self._thanks:
                    self._send(calls_wire.done(self._thanks.pop()))
                self._send(calls_wire.call(what._replace(call_id=call_id, buffer=buffer)))
            except RingGone as error:
                self.end(str(error))
                raise ServerGone(str(error)) from error
            return call_id, pending

    def _wait(self, pending: _Pending, deadline: float) -> None:
        with self._changed:
            while not pending.answered:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._listen_or_wait(left)

    def _thank(self, call_id: int, pending: _Pending) -> None:
        """The reply is copied: its buffer is the server's again, which hears of it with the next call."""
        if self._ended is None:
            self._thanks.append(call_id)
            self._requests.release(pending.buffer)
            self._changed.notify_all()

    def _send(self, packet: bytes, descriptor: int | None = None) -> None:
        sockets.send(self._socket, packet, descriptor)

    # --- Listening, by one of the waiting threads; the condition is held
    # -----------------------------------------------

    def _listen_or_wait(self, timeout_s: float) -> None:
        """Be the one who listens, if nobody is; else wait for what the listener has to say."""
        if self._listening:
            self._changed.wait(timeout_s)
            return
        self._listening = True
        descriptor = self._socket.fileno()
        self._changed.release()
        try:
            if descriptor >= 0:
                sockets.ready(descriptor, select.POLLIN, timeout_s)
        finally:
            self._changed.acquire()
            self._listening = False
        self._hear(1)
        # Whoever was answered goes; of the others one becomes the listener.
        self._changed.notify_all()

    def _hear(self, most: int | None = None) -> None:
        """Take in the messages that are there, or the first so many of them."""
        while self._ended is None and most != 0:
            most = None if most is None else most - 1
            try:
                received = sockets.receive(self._socket, calls_wire.LARGEST_MESSAGE)
                if received is None:
                    return
                packet, descriptor = received
                try:
                    kind, body = wire.parse(packet)
                    if kind == calls_wire.BUFFER and descriptor is not None:
                        given, descriptor = descriptor, None
                        self._replies.add(wire.parse_ring(body), given)
                    else:
                        self._obey(kind, body)
                finally:
                    if descriptor is not None:
                        os.close(descriptor)
            except (FramelinkError, OSError) as error:
                self.end("%s: %s" % (self._path, error))

    def _obey(self, kind: int, body: bytes) -> None:
        if kind == calls_wire.REPLY:
            call_id, buffer = calls_wire.parse_reply(body)
            payload = self._replies.payload(buffer)
            pending = self._finished(call_id)
            pending.reply = payload
            if pending.abandoned:
                self._thank(call_id, pending)
        elif kind == calls_wire.FAIL:
            call_id, code, reason = calls_wire.parse_fail(body)
            pending = self._finished(call_id)
            pending.error = CallError(code, reason)
            self._requests.release(pending.buffer)
        elif kind == calls_wire.RETIRE:
            self._replies.remove(calls_wire.parse_number(body))
        elif kind == wire.GOODBYE:
            raise RingGone(wire.text(body, 512) or "the server has closed the connection")
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _finished(self, call_id: int) -> _Pending:
        pending = self._pending.pop(call_id, None)
        if pending is None:
            raise WireError("an answer to call %d, which is not open" % call_id)
        return pending
