"""OutputSender: hands an application's pictures to whoever shows them, and never makes the application wait.

    sender = OutputSender("display/outputs.sock", instance_id, "video_out")
    sender.put(FramePicture("door", "stream-1", frame), Annotations(rects=[(0.1, 0.1, 0.4, 0.8)]))

A camera's frame goes by name: not a pixel is copied, and the slot stays held until the receiver is done with it. Own
pixels are copied into a buffer of the sender. At most PER_STREAM_IN_FLIGHT pictures of a stream are under way; what
comes while the receiver is behind, or absent, is dropped and counted. `collect()` takes in what the receiver has
finished.

Must not know: how a picture is shown, or what an application is beyond its name.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Union

from framelink import calls_wire, layout, outputs_wire, sockets, wire
from framelink.buffers import BufferPool
from framelink.errors import FramelinkError, LayoutError, RingGone, WireError
from framelink.layout import PixelFormat
from framelink.outputs_wire import Annotations
from framelink.reader import Frame

if TYPE_CHECKING:
    import socket

    from framelink.layout import Array

PER_STREAM_IN_FLIGHT = 2
"""One is being drawn, one waits. More would only be older when it is seen; see also `HELD_MAX`."""
RECONNECT_S = 0.5
"""Between two attempts to reach a receiver that is not there. One attempt takes microseconds."""


@dataclass(frozen=True)
class FramePicture:
    """A camera's frame, untouched. It must be held (`frame.held`) by the sender's process."""

    camera_id: str
    stream_id: str
    frame: Frame


@dataclass(frozen=True)
class PixelPicture:
    """Pixels of the application's own."""

    stream_id: str
    pixels: Array
    """(height, width, 3) uint8, blue first; copied."""
    capture_ns: int
    """When the picture that they were made from was captured."""
    pts_us: int = 0


Picture = Union[FramePicture, PixelPicture]


@dataclass(frozen=True)
class SenderStats:
    """Counted since the sender was made."""

    sent: int
    dropped_absent: int
    """Pictures for which there was no receiver."""
    dropped_behind: int
    """Pictures that came while the receiver was behind."""
    annotations_left_out: int
    in_flight: int
    connected: bool


class _Way:
    """One picture under way."""

    def __init__(
        self, stream_id: str, frame: Frame | None, buffer: int | None, done: Callable[[], None] | None
    ) -> None:
        self.stream_id = stream_id
        # Kept: a frame that everybody has forgotten releases itself, and its slot would be another picture before the
        # receiver has looked.
        self.frame = frame
        self.buffer = buffer
        self.done = done


class OutputSender:
    """Sends the pictures of one output node to the receiver at `path`; connects, again and again, by itself."""

    def __init__(self, path: str | os.PathLike[str], instance_id: str, node: str) -> None:
        self.path = os.fspath(path)
        self.instance_id = instance_id
        self.node = node
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._limits: calls_wire.Limits | None = None
        self._pool: BufferPool | None = None
        self._under_way: dict[int, _Way] = {}
        self._next_id = 1
        self._next_attempt = 0.0
        self._closed = False
        self._sent = self._absent = self._behind = self._left_out = 0

    def put(
        self, picture: Picture, annotations: Annotations | None = None, done: Callable[[], None] | None = None
    ) -> bool:
        """Send one picture. False where it was dropped. Returns at once.

        `done` is called once, when the picture's frame is no longer needed, be it because it was dropped; it may be
        called before this returns, and on any thread that uses the sender. Without it, a FramePicture's frame is
        released. Until then the sender keeps the frame, whoever else forgets it. Raises LayoutError for pixels of another
        shape or type, NoMemory.
        """
        if done is None and isinstance(picture, FramePicture):
            done = picture.frame.release
        with self._lock:
            try:
                sent = self._put(picture, annotations or Annotations(), done)
            except RingGone:
                self._lose()
                sent = False
                self._absent += 1
            except BaseException:
                self._finish(done)
                raise
        if not sent:
            self._finish(done)
        return sent

    def collect(self) -> None:
        """Take in what the receiver has finished with; connect if it is time to. Never waits."""
        with self._lock:
            self._hear()

    def fileno(self) -> int:
        """To poll for reading, then `collect()`; -1 while there is no receiver."""
        with self._lock:
            return self._socket.fileno() if self._socket is not None else -1

    def stats(self) -> SenderStats:
        """A consistent copy of the counters."""
        with self._lock:
            connected = self._limits is not None
            return SenderStats(self._sent, self._absent, self._behind, self._left_out, len(self._under_way), connected)

    def close(self) -> None:
        """Disconnect. What is under way counts as done."""
        with self._lock:
            self._closed = True
            self._lose()

    def __enter__(self) -> OutputSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- The lock is held
    # ----------------------------------------------------------------------------------------------

    def _put(self, picture: Picture, annotations: Annotations, done: Callable[[], None] | None) -> bool:
        if isinstance(picture, PixelPicture):
            _check_pixels(picture.pixels)
        self._hear()
        if self._socket is None or self._limits is None or self._pool is None:
            self._absent += 1
            return False
        ahead = sum(1 for way in self._under_way.values() if way.stream_id == picture.stream_id)
        if ahead >= PER_STREAM_IN_FLIGHT or len(self._under_way) >= self._limits.max_in_flight:
            self._behind += 1
            return False
        put_id = self._next_id
        frame = buffer = None
        if isinstance(picture, FramePicture):
            frame = picture.frame
            info = frame.info
            described = outputs_wire.Put(
                put_id,
                picture.stream_id,
                info.capture_ns,
                info.pts_us,
                info.width,
                info.height,
                camera_id=picture.camera_id,
                slot=frame.slot,
                sequence=info.sequence,
                ring_id=frame.ring_id,
                annotations=annotations,
            )
        else:
            height, width = picture.pixels.shape[:2]
            buffer = self._pool.acquire(width * height * 3)
            if buffer is None:
                self._behind += 1
                return False
            layout.planes_of(self._pool.payload(buffer), width, height, PixelFormat.BGR24)[0][...] = picture.pixels
            described = outputs_wire.Put(
                put_id,
                picture.stream_id,
                picture.capture_ns,
                picture.pts_us,
                width,
                height,
                buffer=buffer,
                annotations=annotations,
            )
            # Copied: whoever gave the pixels may go on.
        packet, left_out = outputs_wire.put(described)
        sockets.send(self._socket, packet, timeout_s=0)
        self._next_id += 1
        self._left_out += left_out
        self._sent += 1
        self._under_way[put_id] = _Way(picture.stream_id, frame, buffer, done)
        return True

    def _hear(self) -> None:
        if self._socket is None:
            self._connect()
        try:
            while self._socket is not None:
                packet = sockets.receive_plain(self._socket, wire.SMALL_MESSAGE)
                if packet is None:
                    return
                self._obey(*wire.parse(packet))
        except (FramelinkError, OSError):
            self._lose()

    def _connect(self) -> None:
        now = time.monotonic()
        if self._closed or now < self._next_attempt:
            return
        self._next_attempt = now + RECONNECT_S
        try:
            connection = sockets.connect(self.path, 0)
        except FramelinkError:
            return  # Nobody there: that is counted with each picture that it costs.
        try:
            sockets.send(connection, outputs_wire.output_hello(self.instance_id, self.node), timeout_s=0)
        except (FramelinkError, OSError):
            connection.close()
            return
        self._socket = connection

    def _obey(self, kind: int, body: bytes) -> None:
        if kind == calls_wire.READY and self._limits is None:
            self._limits = calls_wire.parse_ready(body)
            self._pool = BufferPool(
                "framelink-output",
                self._limits.max_in_flight,
                self._limits.max_bytes,
                lambda ring, descriptor: self._tell(wire.ring(calls_wire.BUFFER, ring), descriptor),
                lambda number: self._tell(calls_wire.retire(number)),
            )
        elif kind == calls_wire.DONE:
            way = self._under_way.pop(calls_wire.parse_number(body), None)
            if way is None:
                raise WireError("the receiver is done with a picture that it was not given")
            if way.buffer is not None and self._pool is not None:
                self._pool.release(way.buffer)
            self._finish(way.done)
        elif kind == wire.GOODBYE:
            raise RingGone(wire.text(body, 512))
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _tell(self, packet: bytes, descriptor: int | None = None) -> None:
        if self._socket is None:
            raise RingGone("%s: the receiver has gone" % self.path)
        sockets.send(self._socket, packet, descriptor, timeout_s=0)

    def _lose(self) -> None:
        """The receiver has gone: nothing is under way any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._pool is not None:
            self._pool.close()
        self._limits = self._pool = None
        under_way, self._under_way = self._under_way, {}
        for way in under_way.values():
            self._finish(way.done)

    @staticmethod
    def _finish(done: Callable[[], None] | None) -> None:
        if done is not None:
            done()


def _check_pixels(pixels: Array) -> None:
    shape = getattr(pixels, "shape", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or pixels.dtype.name != "uint8":
        raise LayoutError(
            "pixels must be (height, width, 3) uint8, these are %s %s" % (shape, getattr(pixels, "dtype", ""))
        )
    layout.check_size(shape[1], shape[0])
