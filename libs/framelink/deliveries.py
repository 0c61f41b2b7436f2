"""Who is given which frame: the readers' side of a FrameWriter, on the writer's own thread or, the lock held, on its owner's.

Must not know: who makes the frames, but for the one function that makes their BGR.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from typing import Callable

from framelink import notice, wire
from framelink.errors import WireError
from framelink.layout import FrameInfo, PixelFormat
from framelink.peers import TICK_S, Peer, PeerServer
from framelink.ring import Ring
from framelink.slots import SlotTable
from framelink.writable import WritableSlot

log = logging.getLogger("framelink")

HELD_MAX = 4
"""Slots one reader may hold. The SDK needs: the last batch, the new one, and two that the display has not finished
with.
"""
STARVED_S = 1.0
"""A reader that waits this long because others hold the slots makes the writer ask for one back."""
PRESS_GRACE_S = 2.0
"""Who was asked for a slot and has not given it back by then is disconnected."""
PRESS_PATIENCE_S = 0.25
"""Who was asked has so long before the next one is asked too."""
_TENSORS = PixelFormat.TENSORS


class Reader(Peer):
    """The writer's view of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.tell = connection.send
        self.asks_only = False
        """A reader's other connection, on which it asks for the BGR of frames it has and gets none."""
        self.wants = False
        self.wants_bgr = False
        self.blocked_since = 0.0
        """Since when it waits only because others hold the slots; 0 while it does not."""
        self.last_sequence = 0
        self.delivered = 0
        self.skipped = 0
        self.held: dict[int, tuple[int, float]] = {}
        """slot → (sequence, since when)"""
        self.pressed: tuple[int, int, float] | None = None
        """(slot, sequence, when it was asked for)"""


class Deliveries(PeerServer):
    """The readers of one ring. `make_bgr`, `on_wanted`: see `FrameWriter`."""

    _takes_descriptors = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        max_readers: int,
        ring: Ring,
        table: SlotTable,
        make_bgr: Callable[[WritableSlot], None] | None,
        on_wanted: Callable[[], None] | None,
    ) -> None:
        self._make_bgr = make_bgr
        self._on_wanted = on_wanted
        self._ring = ring
        self._table = table
        self._notices = [ring.header(slot)[: notice.BYTES] for slot in range(ring.slots)]
        for header in self._notices:
            notice.prepare(header)
        self._sequence = 0
        self._published_ns = 0
        self._waiting: list[Reader] = []
        """Those that wait for a frame, in the order in which they asked."""
        self._quiet: list[Reader] = []
        """Those that were given the newest frame, and whose next messages `FrameWriter.hear` takes instead of the thread."""
        self._is_due = False
        """Something has happened by which one of them may have the newest frame."""
        self._written = self._evicted = self._late = self._failed = 0
        super().__init__(path, name, max_readers)

    # --- The lock is held -----------------------------------------------------------------------------------------

    def _serve_waiting(self) -> bool:
        """Give the newest frame to all who wait for one. True when a late BGR picture must be made first."""
        late = self._is_due = False
        slot = self._table.newest
        if slot is not None and self._waiting:
            info = self._info(slot)
            for reader in self._waiting[:]:
                late = not self._serve(reader, slot, info) or late
        return late

    def _serve(self, reader: Reader, slot: int, info: FrameInfo) -> bool:
        """Give this reader the newest frame if it is due one. False when its BGR picture must be made first."""
        if info.sequence <= reader.last_sequence or len(reader.held) >= HELD_MAX:
            return True
        if not self._table.may_give(slot):
            reader.blocked_since = reader.blocked_since or time.monotonic()
            return True
        if reader.wants_bgr and not info.has_bgr and self._make_bgr is not None and info.format is not _TENSORS:
            return False
        self._give(reader, slot, info.sequence)
        return True

    def _hush(self, readers: list[Reader]) -> None:
        """From now on it is these that `hear` takes the messages of, and the thread those of all others."""
        before = self._quiet
        if readers != before:
            self._quiet = readers
            for reader in before:
                if reader not in readers and not reader.closed:
                    self._poller.modify(reader.connection, select.EPOLLIN)
            for reader in readers:
                if reader not in before:
                    self._poller.modify(reader.connection, 0)  # its end is heard of all the same

    def _info(self, slot: int) -> FrameInfo:
        """Of a published frame."""
        return notice.parse(bytes(self._notices[slot]), self._ring.slots)[1]

    def _give(self, reader: Reader, slot: int, sequence: int) -> None:
        """The reader holds this frame from now on, and is told so."""
        if self._send(reader, self._notices[slot]):
            self._given(reader, slot, sequence)

    def _given(self, reader: Reader, slot: int, sequence: int) -> None:
        """It was told of this frame."""
        self._table.give(slot)
        reader.held[slot] = (sequence, time.monotonic())
        self._satisfied(reader)
        reader.blocked_since = 0.0
        if reader.last_sequence:
            reader.skipped += sequence - reader.last_sequence - 1
        reader.last_sequence = sequence
        reader.delivered += 1

    def _satisfied(self, reader: Reader) -> None:
        """It waits no more."""
        reader.wants = False
        if reader in self._waiting:
            self._waiting.remove(reader)

    def _readers(self) -> list[Reader]:
        return [peer for peer in self._peers.values() if isinstance(peer, Reader) and not peer.asks_only]

    def _left(self, peer: Peer) -> None:
        """What a reader held is free again, however it ended."""
        if isinstance(peer, Reader):
            self._satisfied(peer)
            self._quiet = [reader for reader in self._quiet if reader is not peer]
            for slot in peer.held:
                self._table.take_back(slot)
            peer.held.clear()
            self._is_due = bool(self._waiting)

    # --- The writer's own thread ----------------------------------------------------------------------------------

    def _new_peer(self, connection: socket.socket) -> Peer:
        return Reader(connection)

    def _turn(self) -> None:
        if self._is_due:
            with self._lock:
                late = self._serve_waiting()
            if late:
                self._paint_newest()

    def _said(self, peer: Peer, packet: bytes) -> None:
        if not isinstance(peer, Reader):
            raise TypeError("%r is no reader" % peer)
        if packet.startswith(wire.WANT_PREFIX):
            with self._lock:
                self._wanted_by(peer, packet)
            if self._on_wanted is not None:
                self._on_wanted()
        else:
            kind, body = wire.parse(packet)
            if kind == wire.MAKE_BGR:
                self._asked_for_bgr(peer, body)
                return
            with self._lock:
                self._obey(peer, kind, body)

    def _wanted_by(self, reader: Reader, packet: bytes) -> None:
        bgr, last_sequence, given_back = wire.parse_want(packet)
        if not reader.introduced or reader.asks_only:
            raise WireError("the first message must be HELLO")
        if last_sequence > self._sequence:
            raise WireError("it asks for a frame after %d, the newest is %d" % (last_sequence, self._sequence))
        for slot, sequence in given_back:
            self._take_back(reader, slot, sequence)
        if last_sequence > reader.last_sequence:
            reader.last_sequence = last_sequence
        reader.wants_bgr = bgr
        if not reader.wants:
            reader.wants = True
            self._waiting.append(reader)
        if reader.last_sequence < self._sequence:  # Mostly it has the newest frame and waits for the next.
            self._is_due = True

    def _obey(self, reader: Reader, kind: int, body: bytes) -> None:
        if not reader.introduced:
            if kind != wire.HELLO:
                raise WireError("the first message must be HELLO")
            reader.name = wire.text(body)
            reader.introduced = True
            can = wire.MAKES_BGR if self._make_bgr is not None else 0
            ring = wire.Announcement(self._ring.slots, self._ring.slot_bytes, self._ring.ring_id, can)
            self._send(reader, wire.ring(wire.WELCOME, ring), self._ring.descriptor)
        elif kind == wire.RELEASE:
            slot, sequence = wire.parse_slot(body)
            self._take_back(reader, slot, sequence)
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _take_back(self, reader: Reader, slot: int, sequence: int) -> None:
        if reader.held.get(slot, (0, 0.0))[0] != sequence:
            raise WireError("it releases slot %d, frame %d, which it does not hold" % (slot, sequence))
        # Somebody may have waited for just this slot.
        scarce = not self._table.givable or (reader.wants and len(reader.held) >= HELD_MAX)
        del reader.held[slot]
        self._table.take_back(slot)
        if reader.pressed is not None and reader.pressed[0] == slot:
            reader.pressed = None
        self._is_due = self._is_due or (scarce and bool(self._waiting))

    def _asked_for_bgr(self, reader: Reader, body: bytes) -> None:
        """Of a frame that has been given out. Not on the connection that brings frames: there a message may wait for the next
        frame (`FrameWriter.hear`), and answers would come among notices that another thread waits for.
        """
        ring_id, slot, sequence, name = wire.parse_make_bgr(body)
        if reader.introduced and not reader.asks_only:
            raise WireError("the BGR of a frame is asked for on a connection of its own")
        reader.asks_only = reader.introduced = True
        reader.name = name
        # Its number is the right to ask, as it is where a model looks at a frame by its name.
        made = ring_id == self._ring.ring_id and self._paint(slot, sequence)
        with self._lock:
            self._send(reader, wire.made_bgr(slot, sequence, made))

    def _paint_newest(self) -> None:
        """For those that wait for a frame with BGR."""
        with self._lock:
            slot = self._table.newest
            sequence = 0 if slot is None else self._info(slot).sequence
        if slot is not None:
            self._paint(slot, sequence, waited_for=True)

    def _paint(self, slot: int, sequence: int, waited_for: bool = False) -> bool:
        """Make the BGR picture of a frame. Its slot counts as held meanwhile, the lock is free. False: it is not in its slot any
        more, or there is no making it. On this thread and nowhere else, so that no two ever write into one published slot.
        """
        with self._lock:
            if self._make_bgr is None or not 0 <= slot < self._ring.slots or not self._table.holds(slot, sequence):
                return False
            info = self._info(slot)
            if info.has_bgr:
                self._is_due = bool(self._waiting)
                return True
            if info.format is _TENSORS or not self._table.may_give(slot):
                return False
            self._table.give(slot)
        made = True
        try:
            self._make_bgr(WritableSlot(slot, self._ring.payload(slot), info))
        except Exception:
            log.exception("%s: no BGR picture could be made of frame %d", self.name, info.sequence)
            made = False
        with self._lock:
            if made:
                self._late += 1
                notice.mark_bgr(self._notices[slot])
            else:
                self._failed += 1
            self._table.take_back(slot)
            self._is_due = bool(self._waiting)
            # It may not be the newest any more; it is newer than what they have, and what they have waited for.
            for reader in self._readers() if waited_for else ():
                if (
                    reader.wants
                    and reader.wants_bgr
                    and sequence > reader.last_sequence
                    and len(reader.held) < HELD_MAX
                ):
                    self._give(reader, slot, sequence)
        return made

    def _tick(self, now: float) -> None:
        """Get slots back for who goes without frames; hear everybody where no frames come."""
        if self._quiet and now - self._published_ns / 1e9 > TICK_S:
            self._hush([])
        for reader in self._readers():
            if reader.pressed is not None and now - reader.pressed[2] > PRESS_GRACE_S:
                log.warning("%s: reader %r keeps slots that others need: disconnected", self.name, reader.name)
                self._evicted += 1
                self._drop(reader, "slots asked for were not given back")
        starved = [
            reader for reader in self._readers() if reader.blocked_since and now - reader.blocked_since > STARVED_S
        ]
        if starved:
            self._press(starved, now)

    def _press(self, starved: list[Reader], now: float) -> None:
        """Ask the reader that holds the most, for longest, for its oldest slot; the next one when it does not answer soon:
        many that keep their slots must not be waited for one after the other.
        """
        if any(reader.pressed is not None and now - reader.pressed[2] < PRESS_PATIENCE_S for reader in self._readers()):
            return
        fewest = min(len(reader.held) for reader in starved)
        holders = [
            reader
            for reader in self._readers()
            if reader.pressed is None and (len(reader.held) > fewest or (reader.held and not reader.wants))
        ]
        if not holders:
            return
        holder = max(holders, key=lambda reader: (len(reader.held), -min(since for _, since in reader.held.values())))
        slot, (sequence, _) = min(holder.held.items(), key=lambda item: item[1][1])
        holder.pressed = (slot, sequence, now)
        self._send(holder, wire.press(slot, sequence))
