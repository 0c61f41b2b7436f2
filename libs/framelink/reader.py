"""FrameReader: takes frames from a FrameWriter's ring, which it can read and nothing else.

    reader = FrameReader("cameras/door/frames.sock", "my application")
    with reader.get(timeout_s=2.0) as frame:
        picture = frame.bgr()          # read-only (height, width, 3), straight from the shared memory
                                       # when the block ends, the slot goes back to the writer

To wait for several cameras at once: `request()` each, poll their `fileno()`s, `take()` from whichever is readable.

A frame is its taker's until `release()`: the writer does not touch the slot. If the writer asks for it back
(`pressed`) and does not get it within two seconds, it disconnects the reader, and `still_valid()` tells whether the
pixels are still the frame's.

`writer.py` says what was measured.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING

from framelink import layout, sockets, wire
from framelink.errors import FramelinkError, FrameTimeout, LayoutError, RingAbsent, RingGone, WireError
from framelink.layout import FrameInfo, Geometry, PixelFormat
from framelink.ring import Ring
from framelink.wire import Notice

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes

CONNECT_TIMEOUT_S = 5.0
"""How long a new reader waits for its writer, unless told otherwise."""
_LIMIT = wire.SMALL_MESSAGE
WELCOME_TIMEOUT_S = 2.0
"""A writer that accepts a connection and does not answer within this is hung."""


class Frame:
    """One frame in shared memory. Arrays are read-only and valid until `release()`; copy what must live longer."""

    __slots__ = ("__weakref__", "_geometry", "_has_bgr", "_holder", "_notice", "_ring", "_sequence", "slot")

    def __init__(
        self,
        ring: Ring,
        slot: int,
        sequence: int,
        has_bgr: bool,
        geometry: Geometry | None,
        notice: Notice | bytes,
        holder: _Connection | None,
    ) -> None:
        """`notice`: its packet, whose geometry was found in order; most of it is read when it is asked for."""
        self._ring = ring
        self._holder = holder
        self.slot = slot
        self._sequence = sequence
        self._has_bgr = has_bgr
        self._geometry = geometry
        self._notice = notice

    def _read(self) -> Notice:
        notice = self._notice
        if not isinstance(notice, Notice):
            notice = self._notice = wire.parse_notice(notice, self._ring.slots)
        return notice

    @property
    def info(self) -> FrameInfo:
        """What its writer said of it."""
        return self._read().info

    @property
    def skipped(self) -> int:
        """Frames published since the last one that this reader took, which it did not see."""
        return self._read().skipped

    @property
    def ring_id(self) -> int:
        """Which ring it lies in: with slot and sequence it names a frame for good."""
        return self._ring.ring_id

    @property
    def held(self) -> bool:
        """The writer keeps this frame for us: taken, not released, and the writer still there."""
        return self._holder is not None and not self._holder.gone

    def planes(self) -> tuple[Array, ...]:
        """The planes, as `PixelFormat` describes them."""
        return self._picture().planes(self._ring.payload(self.slot))

    def bgr(self) -> Array:
        """(height, width, 3), blue first. A view where `info.has_bgr`; else converted here, which takes tens of
        milliseconds.
        """
        geometry = self._geometry or self._picture()
        if self._has_bgr:
            return geometry.bgr(self._ring.payload(self.slot))
        return layout.bgr_from_planes(self.planes(), self.info.format)

    def _picture(self) -> Geometry:
        if self._geometry is None:
            raise LayoutError("this frame holds tensors, no picture: read its payload()")
        return self._geometry

    def payload(self) -> Bytes:
        """The whole slot, for `PixelFormat.TENSORS`: `framelink.tensors.decode` reads it."""
        return self._ring.payload(self.slot)

    def still_valid(self) -> bool:
        """The slot holds this frame at this moment. To be asked after reading, by who looks at a frame that others
        hold.
        """
        return layout.sequence_of(self._ring.header(self.slot)) == self._sequence

    def release(self) -> None:
        """Give the slot back. Harmless when repeated, and when the writer has gone."""
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.release(self.slot, self._sequence)

    def __enter__(self) -> Frame:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class _Connection:
    """One connection to one writer. Frames keep it, so that a release never reaches the wrong one."""

    def __init__(self, path: str, name: str, connect_timeout_s: float) -> None:
        # Re-entrant: a forgotten frame's __del__ may run in the midst of anything.
        self.lock = threading.RLock()
        # A forked child has the socket, too; a release of its copy of a frame would take the slot from the parent.
        self._owner = os.getpid()
        self._gone = False
        self.pressed: set[int] = set()
        self.socket = sockets.connect(path, connect_timeout_s)
        self._waits_s = -1.0
        self.known = b""
        """Width, height and format of the last notice, which was found in order; the next one mostly has the same."""
        self.geometry: Geometry | None = None
        try:
            self.ring = self._introduce(path, name)
        except BaseException:
            self.socket.close()
            raise

    def _introduce(self, path: str, name: str) -> Ring:
        with contextlib.suppress(RingGone):  # Refused already: it has left word of why.
            sockets.send(self.socket, wire.hello(name))
        if not sockets.ready(self.socket.fileno(), select.POLLIN, WELCOME_TIMEOUT_S):
            raise RingAbsent("the writer at %s did not answer within %.0f s" % (path, WELCOME_TIMEOUT_S))
        received = sockets.receive(self.socket, wire.SMALL_MESSAGE)
        if received is None:
            raise RingAbsent("the writer at %s did not answer" % path)
        packet, descriptor = received
        try:
            kind, body = wire.parse(packet)
            if kind == wire.GOODBYE:
                raise RingGone("the writer at %s refused: %s" % (path, wire.text(body, 512)))
            if kind != wire.WELCOME or descriptor is None:
                raise WireError("the writer at %s answered with message %d instead of its ring" % (path, kind))
            announced = wire.parse_ring(body)
            given, descriptor = descriptor, None
            return Ring.open(given, announced.slots, announced.slot_bytes, announced.ring_id)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @property
    def gone(self) -> bool:
        return self._gone or self._owner != os.getpid()

    def send(self, packet: bytes) -> None:
        with self.lock:
            if self.gone:
                raise RingGone("the writer has gone")
            try:
                sockets.send(self.socket, packet)
            except RingGone:
                self.close()
                raise

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message; None where there is none in time. The lock is not held meanwhile."""
        if timeout_s != self._waits_s:
            sockets.wait_at_most(self.socket, timeout_s)
            self._waits_s = timeout_s
        return sockets.receive_small(self.socket, _LIMIT, 0)

    def release(self, slot: int, sequence: int) -> None:
        with self.lock:
            self.pressed.discard(sequence)
            if not self.gone:
                try:
                    sockets.send(self.socket, wire.release(slot, sequence))
                except (RingGone, OSError):
                    self.close()  # Nothing to give back to; the next take() says so.

    def close(self) -> None:
        with self.lock:
            self._gone = True
            self.socket.close()


def _geometry_of(info: FrameInfo) -> Geometry | None:
    """None for tensors."""
    if info.format is PixelFormat.TENSORS:
        return None
    return layout.geometry(info.width, info.height, info.format)


class FrameReader:
    """A reader of the ring at `path`. `name` is what the writer shows in its statistics.

    Several threads may use one reader; each frame goes to one of them.
    Raises RingAbsent (nobody there in time), RingGone (refused), NotSealed, WireError.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str, *, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        self.path = os.fspath(path)
        self.name = name
        self._last_sequence = 0
        self._pending: bool | None = None
        self._connection = _Connection(self.path, name, connect_timeout_s)

    @property
    def ring_id(self) -> int:
        """The ring that this reader is connected to: every writer that starts has another."""
        return self._connection.ring.ring_id

    @property
    def gone(self) -> bool:
        """The writer has ended, as far as we have noticed: `reconnect()`."""
        return self._connection.gone

    @property
    def last_sequence(self) -> int:
        """Of the frame taken last; 0 before the first, and after `reconnect` to another ring."""
        return self._last_sequence

    def newest(self) -> int:
        """The highest sequence in the ring at this moment, without asking the writer; 0 where nothing is published."""
        ring = self._connection.ring
        return max(layout.sequence_of(ring.header(slot)) for slot in range(ring.slots))

    @property
    def pressed(self) -> frozenset[int]:
        """Sequences of held frames that the writer wants back, because another reader goes without. Copy, then
        release.
        """
        with self._connection.lock:
            return frozenset(self._connection.pressed)

    def fileno(self) -> int:
        """To poll for reading: ready means `take()` has something to say. RingGone where there is no connection."""
        descriptor = self._connection.socket.fileno()
        if descriptor < 0:
            raise RingGone("%s: the writer has gone: reconnect()" % self.path)
        return descriptor

    def request(self, bgr: bool = True) -> None:
        """Ask for one frame newer than the last one taken. Repeating it before the frame came changes nothing."""
        connection = self._connection
        with connection.lock:
            if self._pending is None or (bgr and not self._pending):
                connection.send(wire.want(bgr, self._last_sequence))
                self._pending = bgr

    def take(self) -> Frame | None:
        """The frame asked for, or None if it is not there yet. Never waits. RingGone when the writer has ended."""
        connection = self._connection
        with connection.lock:
            if connection.gone:
                raise RingGone("%s: the writer has gone: reconnect()" % self.path)
            try:
                while True:
                    packet = sockets.receive_small(connection.socket, _LIMIT)
                    if packet is None:
                        return None
                    frame = self._obey(connection, packet)
                    if frame is not None:
                        return frame
            except (FramelinkError, OSError) as error:
                connection.close()
                raise RingGone("%s: %s" % (self.path, error)) from error

    def get(self, timeout_s: float, bgr: bool = True) -> Frame:
        """Wait for one frame newer than the last one taken. FrameTimeout, RingGone."""
        deadline = time.monotonic() + timeout_s
        connection = self._connection
        left = timeout_s
        try:
            self.request(bgr)
            while True:
                # Outside of the lock: other threads may release and ask meanwhile.
                packet = connection.receive(left) if left > 0 else sockets.receive_small(connection.socket, _LIMIT)
                if packet is not None:
                    frame = self._obey(connection, packet)
                    if frame is not None:
                        return frame
                left = deadline - time.monotonic()
                if left <= 0:
                    raise FrameTimeout("%s: no new frame within %.3f s" % (self.path, timeout_s))
        except FrameTimeout:
            raise
        except (FramelinkError, OSError) as error:
            connection.close()
            raise RingGone("%s: %s" % (self.path, error)) from error

    def view(self, slot: int, sequence: int, ring_id: int | None = None) -> Frame | None:
        """A frame that somebody else holds, by its name. None where the slot has moved on or the ring is another.

        Nothing is held by this: ask `still_valid()` after reading.
        """
        ring = self._connection.ring
        if not 0 <= slot < ring.slots or (ring_id is not None and ring_id != ring.ring_id):
            return None
        found = layout.read_header(ring.header(slot))
        if found is None or found[0].sequence != sequence:
            return None
        info = found[0]
        return Frame(ring, slot, sequence, info.has_bgr, _geometry_of(info), Notice(slot, info, 0), None)

    def reconnect(self, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Let go of the writer and wait for its successor. RingAbsent where none comes; it may be called again."""
        self._connection.close()
        connection = _Connection(self.path, self.name, timeout_s)
        if connection.ring.ring_id != self._connection.ring.ring_id:
            self._last_sequence = 0
        self._pending = None
        self._connection = connection

    def close(self) -> None:
        """Disconnect. Frames not released stay readable, but the writer may overwrite them."""
        self._connection.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _obey(self, connection: _Connection, packet: bytes) -> Frame | None:
        if packet.startswith(wire.NOTICE_PREFIX):
            ring = connection.ring
            if packet[wire.NOTICE_GEOMETRY] != connection.known or len(packet) != wire.NOTICE_BYTES:
                connection.geometry = _geometry_of(wire.parse_notice(packet, ring.slots).info)
                connection.known = packet[wire.NOTICE_GEOMETRY]
            slot, flags, sequence = wire.NOTICE_HEAD.unpack_from(packet, wire.NOTICE_HEAD_AT)
            if slot >= ring.slots or not sequence:
                raise WireError(
                    "a frame in slot %d with sequence %d; the ring has %d slots" % (slot, sequence, ring.slots)
                )
            self._pending = None
            self._last_sequence = sequence
            return Frame(ring, slot, sequence, bool(flags & layout.FLAG_BGR), connection.geometry, packet, connection)
        kind, body = wire.parse(packet)
        if kind == wire.PRESS:
            connection.pressed.add(wire.parse_slot(body)[1])
            return None
        if kind == wire.GOODBYE:
            raise RingGone(wire.text(body, 512) or "the writer closed the connection")
        raise WireError("an unknown kind of message: %d" % kind)
