"""A reader's connection to one writer: the ring that it was handed, mapped, and what goes back and forth about its frames.

Must not know: which frames are asked for, and when.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, Sequence

from framelink import layout, notice, sockets, wire
from framelink.errors import LayoutError, RingAbsent, RingGone, WireError
from framelink.late_bgr import LateBgr
from framelink.layout import FrameInfo, Geometry, PixelFormat
from framelink.ring import Ring

if TYPE_CHECKING:
    from framelink.layout import Array
    from framelink.reader import Frame

FORMS_MAX = 8
"""Of frames of so many sizes and formats the layout is remembered."""
WELCOME_TIMEOUT_S = 2.0
"""A writer that accepts a connection and does not answer within this is hung."""


class Form:
    """What the frames of one size and format of a ring have in common, found in order once."""

    __slots__ = ("geometry", "has_bgr", "pictures", "prefix", "ring", "slots")

    def __init__(self, prefix: bytes, ring: Ring, info: FrameInfo | None) -> None:
        """`prefix`: how their notices begin."""
        self.prefix = prefix
        self.ring = ring
        self.slots = ring.slots
        self.has_bgr = info is not None and info.has_bgr
        self.geometry: Geometry | None = None
        self.pictures: list[Array | None] = [None] * ring.slots
        """The BGR picture of each slot."""
        if info is not None and info.format is not PixelFormat.TENSORS:
            self.geometry = layout.geometry(info.width, info.height, info.format)
            if self.has_bgr:
                with contextlib.suppress(LayoutError):  # Too small a slot: `bgr()` says so.
                    self.pictures = [self.geometry.bgr(ring.payload(slot)) for slot in range(ring.slots)]


class Connection:
    """One connection to one writer. Frames keep it, so that a release never reaches the wrong one."""

    __slots__ = (
        "_forms", "_gone", "_late_bgr", "_owner", "form", "hear", "lock", "makes_bgr", "pressed", "ring", "socket", "waits_s"
    )  # fmt: skip

    def __init__(self, path: str, name: str, connect_timeout_s: float) -> None:
        # Re-entrant: a forgotten frame's __del__ may run in the midst of anything.
        self.lock = threading.RLock()
        # A forked child has the socket, too; a release of its copy of a frame would take the slot from the parent.
        self._owner = os.getpid()
        self._gone = False
        self.pressed: set[int] = set()
        self.waits_s = -1.0
        """How long `hear` waits."""
        self.makes_bgr = False
        """The writer makes the BGR of frames that it has given out; older ones do not."""
        deadline = time.monotonic() + connect_timeout_s
        while True:
            self.socket = sockets.connect(path, max(0.0, deadline - time.monotonic()))
            try:
                ring = self._introduce(path, name)
            except BaseException:
                self.socket.close()
                raise
            if ring is not None:
                break
            self.socket.close()
            left = deadline - time.monotonic()
            if left <= 0:
                raise RingAbsent("the writer at %s ends each connection; waited %.1f s" % (path, connect_timeout_s))
            select.select([], [], [], min(sockets.CONNECT_RETRY_S, left))
        self.ring = ring
        self._late_bgr = LateBgr(path, name, ring.ring_id)
        self.hear = self.socket.recv
        self._forms: dict[bytes, Form] = {}
        self.form = Form(b"none yet", self.ring, None)
        """Of the last frame; the next one mostly has the same."""

    def _introduce(self, path: str, name: str) -> Ring | None:
        """Its ring; None where it ended before it had heard us, and left no word: its successor is to be asked."""
        with contextlib.suppress(RingGone):  # Refused already: it has left word of why.
            sockets.send(self.socket, wire.hello(name))
        if not sockets.ready(self.socket.fileno(), select.POLLIN, WELCOME_TIMEOUT_S):
            raise RingAbsent("the writer at %s did not answer within %.0f s" % (path, WELCOME_TIMEOUT_S))
        try:
            received = sockets.receive(self.socket, wire.SMALL_MESSAGE)
        except RingGone:
            return None
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
            self.makes_bgr = bool(announced.generation & wire.MAKES_BGR)
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

    def wait_at_most(self, timeout_s: float) -> None:
        """From now on `hear` waits so long."""
        sockets.wait_at_most(self.socket, timeout_s)
        self.waits_s = timeout_s

    def form_of(self, packet: bytes) -> Form:
        """Of a notice. WireError where that is not in order."""
        prefix = packet[: notice.FORM_BYTES]
        form = self._forms.get(prefix)
        if form is None:
            form = Form(prefix, self.ring, notice.parse(packet, self.ring.slots)[1])
            if len(self._forms) >= FORMS_MAX:
                self._forms.clear()
            self._forms[prefix] = form
        return form

    def with_bgr(self, slot: int, sequence: int) -> bytes | None:
        """The notice of a frame that we hold, with BGR. None where there is none, and no having it made."""
        header = self.ring.header(slot)
        packet = notice.read(header)
        if packet is not None and not notice.has_bgr(packet):  # Another reader may have asked before.
            asks = self.makes_bgr and not self.gone
            packet = notice.read(header) if asks and self._late_bgr.made(slot, sequence) else None
        if packet is None or notice.slot_and_sequence(packet) != (slot, sequence) or not notice.has_bgr(packet):
            return None
        return packet

    def release(self, slot: int, sequence: int) -> None:
        with self.lock:
            self.pressed.discard(sequence)
            if not self.gone:
                try:
                    sockets.send(self.socket, wire.release(slot, sequence))
                except (RingGone, OSError):
                    self.close()  # Nothing to give back to; the next take() says so.

    def given_back(self, frames: Sequence[Frame]) -> list[tuple[int, int]]:
        """(slot, sequence) of those that are held of this writer, and are so no longer. The lock is held."""
        given = []
        for frame in frames:
            holder, frame._holder = frame._holder, None
            if holder is self:
                given.append((frame.slot, frame._sequence))
                self.pressed.discard(frame._sequence)
            elif holder is not None:
                holder.release(frame.slot, frame._sequence)
        return given

    def close(self) -> None:
        with self.lock:
            self._gone = True
            self.socket.close()
        self._late_bgr.close()
