"""OutputReceiver: takes pictures with annotations from applications, which it does not trust.

    def handler(output):                        # on the receiver's thread: hand it on, do not draw here
        latest[output.instance_id] = output
    …                                           # later, on any thread
    picture = output.bgr()                      # read-only; a view of shared memory
    …
    if output.still_valid(): show(…)
    output.done()                               # the sender may use the memory again

A picture by reference is looked up in the camera's own ring, through `rings(camera_id)`; a name that leads nowhere (any more)
is counted, and the sender is told at once. The sender of a reference may lie about holding it: ask `still_valid()`
after reading. What it says of its own pixels is checked, and cannot reach beyond its own buffers.

Must not know: how pictures are drawn or encoded.
"""

from __future__ import annotations

import collections
import logging
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from framelink import calls_wire, layout, outputs_wire, wire
from framelink.buffers import BufferMap
from framelink.errors import WireError
from framelink.layout import FrameInfo, PixelFormat
from framelink.outputs_wire import Annotations
from framelink.peers import Message, Peer, PeerServer
from framelink.reader import Frame, FrameReader

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes

log = logging.getLogger("framelink")

MAX_IN_FLIGHT = 64
"""Pictures of one sender that are not done: eight cameras, two each, with room."""
MAX_SENDER_BYTES = 512 << 20
"""Memory of one sender's own pictures that the receiver maps; it is the sender's memory."""


@dataclass(frozen=True)
class OutputStats:
    """Counted since the receiver started."""

    senders: int
    received: int
    unresolved: int
    """Pictures by reference whose frame was not there (any more)."""
    malformed: int
    refused: int


class Output:
    """One picture of one application. Arrays are read-only and valid until `done()`."""

    def __init__(
        self,
        receiver: OutputReceiver,
        sender: _Sender,
        put_id: int,
        stream_id: str,
        info: FrameInfo,
        annotations: Annotations,
        frame: Frame | None,
        payload: Bytes | None,
    ) -> None:
        self._receiver = receiver
        self._sender = sender
        self._put_id = put_id
        self._frame = frame
        self._payload = payload
        self._lock = threading.RLock()
        self._done = False
        self.instance_id = sender.instance_id
        self.node = sender.node
        self.stream_id = stream_id
        self.info = info
        """Of the camera's frame; of own pixels: BGR24, with the capture time of the frame they were made from."""
        self.rects = annotations.rects
        """[(left, top, right, bottom)], 0..1"""
        self.labels = annotations.labels
        """[(text, x, y)], 0..1"""

    @property
    def by_reference(self) -> bool:
        """A camera's frame, not the application's own pixels."""
        return self._frame is not None

    def planes(self) -> tuple[Array, ...]:
        """The planes, as `info.format` describes them."""
        if self._frame is not None:
            return self._frame.planes()
        return layout.planes_of(self._own(), self.info.width, self.info.height, self.info.format)

    def bgr(self) -> Array:
        """(height, width, 3), blue first. Where `not info.has_bgr`, converted here, which takes tens of
        milliseconds.
        """
        return self._frame.bgr() if self._frame is not None else self.planes()[0]

    def still_valid(self) -> bool:
        """What was read until now was this picture. For own pixels only the sender itself could spoil that."""
        return self._frame.still_valid() if self._frame is not None else True

    def done(self) -> None:
        """The memory is the sender's again. From any thread; harmless when repeated."""
        with self._lock:
            first, self._done = not self._done, True
        if first:
            self._receiver._finished(self._sender, self._put_id)

    def _own(self) -> Bytes:
        if self._payload is None:
            raise WireError("a picture without pixels")
        return self._payload

    def __del__(self) -> None:
        self.done()


class _Sender(Peer):
    """The receiver's view of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.instance_id = ""
        self.node = ""
        self.buffers = BufferMap(MAX_IN_FLIGHT, MAX_SENDER_BYTES)
        self.open: set[int] = set()


class OutputReceiver(PeerServer):
    """Listens at `path`; gives each picture to `handler`, on its own thread. Raises AddressTaken.

    `rings(camera_id)` gives a FrameReader connected to that camera, or None; it is called on the receiver's thread
    and must not wait. `left(instance_id, node)`, if given, tells on the same thread that a sender's connection has
    ended. What they raise is logged, and costs at most the one connection.
    """

    _largest_message = wire.MAX_MESSAGE

    def __init__(
        self,
        path: str | os.PathLike[str],
        handler: Callable[[Output], None],
        rings: Callable[[str], FrameReader | None],
        *,
        name: str = "outputs",
        max_senders: int = 64,
        left: Callable[[str, str], None] | None = None,
    ) -> None:
        self._handler = handler
        self._rings = rings
        self._on_left = left
        self._limits = calls_wire.Limits(MAX_IN_FLIGHT, MAX_SENDER_BYTES)
        self._received = self._unresolved = 0
        self._departed: collections.deque[_Sender] = collections.deque()
        super().__init__(path, name, max_senders)
        self._start()

    def stats(self) -> OutputStats:
        """A consistent copy of the counters."""
        with self._lock:
            return OutputStats(len(self._peers), self._received, self._unresolved, self._malformed, self._refused)

    def __enter__(self) -> OutputReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _new_peer(self, connection: socket.socket) -> Peer:
        return _Sender(connection)

    def _left(self, peer: Peer) -> None:
        if isinstance(peer, _Sender):
            peer.buffers.close()
            peer.open.clear()
            if peer.introduced:
                self._departed.append(peer)
                self._wake()

    def _turn(self) -> None:
        """Tell of senders that have gone; not in `_left`, where the lock is held."""
        while self._departed:
            sender = self._departed.popleft()
            if self._on_left is not None:
                try:
                    self._on_left(sender.instance_id, sender.node)
                except Exception:
                    log.exception("%s: the leaving of %r could not be handled", self.name, sender.name)

    def _heard(self, peer: Peer, message: Message) -> None:
        if not isinstance(peer, _Sender):
            raise TypeError("%r is no sender" % peer)
        kind, body = message.kind, message.body
        if not peer.introduced:
            if kind != outputs_wire.OUTPUT_HELLO:
                raise WireError("the first message must be OUTPUT_HELLO")
            peer.instance_id, peer.node = outputs_wire.parse_output_hello(body)
            peer.name = "%s/%s" % (peer.instance_id, peer.node)
            peer.introduced = True
            with self._lock:
                self._send(peer, calls_wire.ready(self._limits))
        elif kind == outputs_wire.PUT:
            output = self._output(peer, outputs_wire.parse_put(body))
            if output is not None:
                self._handler(output)
        elif kind == calls_wire.BUFFER:
            announced = wire.parse_ring(body)
            peer.buffers.add(announced, message.take_descriptor())
        elif kind == calls_wire.RETIRE:
            peer.buffers.remove(calls_wire.parse_number(body))
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _output(self, sender: _Sender, put: outputs_wire.Put) -> Output | None:
        with self._lock:
            if put.put_id in sender.open or len(sender.open) >= MAX_IN_FLIGHT:
                raise WireError("%d pictures are not done, and here is number %d" % (len(sender.open), put.put_id))
            sender.open.add(put.put_id)
            self._received += 1
        frame = payload = None
        if put.buffer:
            payload = sender.buffers.payload(put.buffer)
            # Nothing was captured after now, whatever the sender says: latencies are reckoned from it.
            now = time.monotonic_ns()
            captured = min(max(put.capture_ns, 0), now)
            size = (put.width, put.height)
            info = FrameInfo(put.put_id, captured, now, put.pts_us, size[0], size[1], PixelFormat.BGR24, True)
            layout.planes_of(payload, put.width, put.height, PixelFormat.BGR24)
        else:
            reader = self._rings(put.camera_id)
            frame = reader.view(put.slot, put.sequence, put.ring_id) if reader is not None else None
            if frame is None or frame.info.format == PixelFormat.TENSORS:
                with self._lock:
                    self._unresolved += 1
                self._finished(sender, put.put_id)
                return None
            info = frame.info
        return Output(self, sender, put.put_id, put.stream_id, info, put.annotations, frame, payload)

    def _finished(self, sender: _Sender, put_id: int) -> None:
        with self._lock:
            if put_id in sender.open:
                sender.open.discard(put_id)
                self._send(sender, calls_wire.done(put_id))
