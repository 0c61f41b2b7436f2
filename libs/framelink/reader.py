"""FrameReader: takes frames from a FrameWriter's ring, which it can read and nothing else.

    reader = FrameReader("cameras/door/frames.sock", "my application")
    with reader.get(timeout_s=2.0) as frame:
        picture = frame.bgr()          # read-only (height, width, 3), straight from the shared memory
                                       # when the block ends, the slot goes back to the writer

A frame that was taken without BGR (`get(…, bgr=False)`) can have it made as long as it is held: `bgr()` asks the writer
(`late_bgr.py`), and all who look into the slot have it from then on.

To wait for several cameras at once: `request()` each, poll their `fileno()`s, `take()` from whichever is readable.

A frame is its taker's until `release()`: the writer does not touch the slot. If the writer asks for it back
(`pressed`) and does not get it within two seconds, it disconnects the reader, and `still_valid()` tells whether the
pixels are still the frame's.

`writer.py` says what was measured.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Sequence

from framelink import layout, notice, sockets, wire
from framelink.connection import Connection, Form
from framelink.errors import FramelinkError, FrameTimeout, LayoutError, RingGone, WireError
from framelink.layout import FrameInfo, Geometry

if TYPE_CHECKING:
    from framelink.layout import Array, Bytes

CONNECT_TIMEOUT_S = 5.0
"""How long a new reader waits for its writer, unless told otherwise."""
_LIMIT = wire.SMALL_MESSAGE
_NOTICE_PREFIX = wire.PREFIX.pack(wire.MAGIC, wire.VERSION, wire.NOTICE)
_slot_and_sequence = notice.slot_and_sequence
_new = object.__new__
_BROKEN = (FramelinkError, OSError, struct.error)


class Frame:
    """One frame in shared memory. Arrays are read-only and valid until `release()`; copy what must live longer."""

    __slots__ = ("__weakref__", "_after", "_form", "_holder", "_info", "_packet", "_sequence", "slot")

    def __init__(
        self, form: Form, slot: int, sequence: int, after: int, packet: bytes, holder: Connection | None
    ) -> None:
        """`after`: the sequence that its taker had before, or 0. `packet`: its notice, read when it is asked for."""
        self._form = form
        self._holder = holder
        self.slot = slot
        self._sequence = sequence
        self._after = after
        self._packet = packet
        self._info: FrameInfo | None = None

    @property
    def info(self) -> FrameInfo:
        """What its writer said of it."""
        known = self._info
        if known is None:
            known = self._info = notice.parse(self._packet, self._form.slots)[1]
        return known

    @property
    def skipped(self) -> int:
        """Frames published since the last one that this reader took, which it did not see."""
        return self._sequence - self._after - 1 if self._after else 0

    @property
    def ring_id(self) -> int:
        """Which ring it lies in: with slot and sequence it names a frame for good."""
        return self._form.ring.ring_id

    @property
    def held(self) -> bool:
        """The writer keeps this frame for us: taken, not released, and the writer still there."""
        return self._holder is not None and not self._holder.gone

    def planes(self) -> tuple[Array, ...]:
        """The planes, as `PixelFormat` describes them."""
        return self._picture().planes(self.payload())

    def bgr(self) -> Array:
        """(height, width, 3), blue first. A view where there is BGR in the slot (`make_bgr`); else converted here, which takes
        tens of milliseconds.
        """
        form = self._form
        picture = form.pictures[self.slot]
        if picture is not None:
            return picture.view()
        if form.has_bgr:
            return self._picture().bgr(self.payload())
        if self.make_bgr():
            return self.bgr()
        return layout.bgr_from_planes(self.planes(), self.info.format)

    def make_bgr(self) -> bool:
        """There is BGR in the slot from now on (`info.has_bgr`), for everybody: made by the writer where there was none.

        False: the frame is not held, or the writer does not answer (`late_bgr.BGR_TIMEOUT_S`), or it makes none.
        """
        if self._form.has_bgr:
            return True
        holder = self._holder
        if holder is None or self._form.geometry is None:
            return False
        packet = holder.with_bgr(self.slot, self._sequence)
        if packet is None:
            return False
        form = holder.form_of(packet)
        self._packet = packet
        self._form = form
        self._info = None
        return True

    def _picture(self) -> Geometry:
        geometry = self._form.geometry
        if geometry is None:
            raise LayoutError("this frame holds tensors, no picture: read its payload()")
        return geometry

    def payload(self) -> Bytes:
        """The whole slot, for `PixelFormat.TENSORS`: `framelink.tensors.decode` reads it."""
        return self._form.ring.payload(self.slot)

    def still_valid(self) -> bool:
        """The slot holds this frame at this moment. To be asked after reading, by who looks at a frame that others
        hold.
        """
        return notice.sequence_of(self._form.ring.header(self.slot)) == self._sequence

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
        self._connection = Connection(self.path, name, connect_timeout_s)

    @property
    def ring_id(self) -> int:
        """The ring that this reader is connected to: every writer that starts has another."""
        return self._connection.ring.ring_id

    @property
    def gone(self) -> bool:
        """The writer has ended, as far as we have noticed: `reconnect()`."""
        return self._connection.gone

    @property
    def makes_bgr(self) -> bool:
        """Frames taken without BGR can have it made (`Frame.make_bgr`): the writer is no older one, and knows how."""
        return self._connection.makes_bgr

    @property
    def last_sequence(self) -> int:
        """Of the frame taken last; 0 before the first, and after `reconnect` to another ring."""
        return self._last_sequence

    def newest(self) -> int:
        """The highest sequence in the ring at this moment, without asking the writer; 0 where nothing is published."""
        ring = self._connection.ring
        return max(notice.sequence_of(ring.header(slot)) for slot in range(ring.slots))

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

    def request(self, bgr: bool = True, giving_back: Sequence[Frame] = ()) -> None:
        """Ask for one frame newer than the last one taken. Repeating it before the frame came changes nothing.

        `giving_back`: frames that are released in the same message, where there is one.
        """
        connection = self._connection
        with connection.lock:
            if self._pending is None or (bgr and not self._pending):
                given = connection.given_back(giving_back) if giving_back else ()
                connection.send(wire.want(bgr, self._last_sequence, given))
                self._pending = bgr
                return
        for frame in giving_back:
            frame.release()

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
            except _BROKEN as error:
                connection.close()
                raise RingGone("%s: %s" % (self.path, error)) from error

    def get(self, timeout_s: float, bgr: bool = True, giving_back: Sequence[Frame] = ()) -> Frame:
        """Wait for one frame newer than the last one taken; `giving_back` as in `request`. FrameTimeout, RingGone."""
        deadline = time.monotonic() + timeout_s
        connection = self._connection
        left = timeout_s
        try:
            self.request(bgr, giving_back)
            while True:
                packet = None
                if left > 0:
                    if left != connection.waits_s:
                        connection.wait_at_most(left)
                    try:
                        packet = connection.hear(_LIMIT)  # Outside of the lock: other threads may release and ask.
                    except OSError:
                        packet = None  # The time is over, or what follows knows what it means.
                packet = packet or sockets.receive_small(connection.socket, _LIMIT)
                if packet is not None:
                    frame = self._obey(connection, packet)
                    if frame is not None:
                        return frame
                left = deadline - time.monotonic()
                if left <= 0:
                    raise FrameTimeout("%s: no new frame within %.3f s" % (self.path, timeout_s))
        except FrameTimeout:
            raise
        except _BROKEN as error:
            connection.close()
            raise RingGone("%s: %s" % (self.path, error)) from error

    def view(self, slot: int, sequence: int, ring_id: int | None = None) -> Frame | None:
        """A frame that somebody else holds, by its name. None where the slot has moved on or the ring is another.

        Nothing is held by this: ask `still_valid()` after reading.
        """
        connection = self._connection
        ring = connection.ring
        if not 0 <= slot < ring.slots or (ring_id is not None and ring_id != ring.ring_id):
            return None
        packet = notice.read(ring.header(slot))
        if packet is None or _slot_and_sequence(packet) != (slot, sequence):
            return None
        return Frame(connection.form_of(packet), slot, sequence, 0, packet, None)

    def reconnect(self, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Let go of the writer and wait for its successor. RingAbsent where none comes; it may be called again."""
        self._connection.close()
        connection = Connection(self.path, self.name, timeout_s)
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

    def _obey(self, connection: Connection, packet: bytes) -> Frame | None:
        form = connection.form
        if not packet.startswith(form.prefix):
            if not packet.startswith(_NOTICE_PREFIX):
                self._told(connection, packet)
                return None
            form = connection.form = connection.form_of(packet)
        slot, sequence = _slot_and_sequence(packet)
        if slot >= form.slots or not sequence:
            raise WireError("a frame in slot %d with sequence %d; the ring has %d slots" % (slot, sequence, form.slots))
        self._pending = None
        after, self._last_sequence = self._last_sequence, sequence
        frame = _new(Frame)
        frame._form = form
        frame._holder = connection
        frame.slot = slot
        frame._sequence = sequence
        frame._after = after
        frame._packet = packet
        frame._info = None
        return frame

    def _told(self, connection: Connection, packet: bytes) -> None:
        kind, body = wire.parse(packet)
        if kind == wire.PRESS:
            connection.pressed.add(wire.parse_slot(body)[1])
            return
        if kind == wire.GOODBYE:
            raise RingGone(wire.text(body, 512) or "the writer closed the connection")
        raise WireError("an unknown kind of message: %d" % kind)
