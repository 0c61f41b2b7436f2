"""FrameWriter: publishes frames into a sealed ring, to up to `max_readers` processes that it does not trust.

A reader asks for one frame (WANT); when there is one newer than its last, it gets a NOTICE and holds that slot until
it sends a RELEASE or its connection ends. `publish` sends the notices itself, from the thread that decodes, without a
hop to another thread; the writer's own thread hears the readers and makes late BGR pictures.

What costs in a hop is Python that has gone cold since the last frame, not pixels and not the message: a bare SEQPACKET message
reaches a waiting process in 60 to 110 µs. So a notice is packed once, straight into the slot, and sent from there to
everybody (`notice.py`); it goes out before the books are kept; a reader recognises what does not change from frame to frame as
bytes; a slot and the next request come back in one message. A receive buffer of 64 KiB cost 30 µs a message, hence
`wire.SMALL_MESSAGE`. docs/performance.md has the figures.

What a hostile reader can do: nothing to the pixels (sealed), nothing to the writer (two slots are never given out),
nothing lasting to the other readers: who holds slots while another goes without a frame for STARVED_S is asked for
them, and disconnected after PRESS_GRACE_S. A message that is not in order closes its connection, and is counted.

Must not know: cameras, codecs, applications.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from typing import Callable

from framelink import layout, notice, wire
from framelink.errors import LayoutError, WireError
from framelink.layout import FrameInfo, PixelFormat
from framelink.peers import Peer, PeerServer
from framelink.ring import Ring
from framelink.slots import SlotTable
from framelink.writable import WritableSlot
from framelink.writer_stats import ReaderStats, WriterStats

log = logging.getLogger("framelink")

HELD_MAX = 4
"""Slots one reader may hold. The SDK needs: the last batch, the new one, and two that the display has not finished
with.
"""
STARVED_S = 1.0
"""A reader that waits this long because others hold the slots makes the writer ask for one back."""
_BGR24, _TENSORS = PixelFormat.BGR24, PixelFormat.TENSORS
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MAX_SIDE, _FLAG_BGR = layout.MAX_SIDE, layout.FLAG_BGR
_pack_notice, _PREFIX_BYTES = notice.pack_behind_prefix, notice.PREFIX_BYTES
_now_ns = time.monotonic_ns
PRESS_GRACE_S = 2.0
"""Who was asked for a slot and has not given it back by then is disconnected."""
PRESS_PATIENCE_S = 0.25
"""Who was asked has so long before the next one is asked too."""


class _Reader(Peer):
    """The writer's view of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.tell = connection.send
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


class FrameWriter(PeerServer):
    """The one writer of a ring, listening at `path`.

    `slot_bytes`: see `slot_bytes_for`. `make_bgr(slot)` fills `slot.bgr(…)` from `slot.planes(…)` of a published frame
    (`slot.info`); it runs on the writer's own thread. Without it, readers convert for themselves, slowly. `on_wanted` is called
    there, too, whenever a reader has asked for a frame; it must not block.
    `kept`: slots beside `slots` for `acquire_kept`. Raises NoMemory, AddressTaken.
    """

    _takes_descriptors = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        *,
        slots: int = 8,
        slot_bytes: int,
        kept: int = 0,
        max_readers: int = 32,
        make_bgr: Callable[[WritableSlot], None] | None = None,
        on_wanted: Callable[[], None] | None = None,
    ) -> None:
        self._make_bgr = make_bgr
        self._on_wanted = on_wanted
        slots += kept
        self._table = SlotTable(slots, kept)
        self._let_go: deque[int] = deque()
        self.let_go: Callable[[int], None] = self._let_go.append
        """`let_go(index)`: a kept slot is needed no more; from any thread, also one that is in the midst of another call, and
        after `close`."""
        self._ring = Ring.create(name, slots, slot_bytes)
        self.slot_bytes = self._ring.slot_bytes
        self.ring_id = self._ring.ring_id
        self._notices = [self._ring.header(slot)[: notice.BYTES] for slot in range(slots)]
        for header in self._notices:
            notice.prepare(header)
        self._sequence = 0
        self._waiting: list[_Reader] = []
        """Those that wait for a frame, in the order in which they asked."""
        self._is_due = False
        """Something has happened by which one of them may have the newest frame."""
        self._written = self._dropped = self._evicted = self._late = self._failed = 0
        try:
            super().__init__(path, name, max_readers)
        except BaseException:
            self._ring.close()
            raise
        self._start()

    # --- The decoding thread -----------------------------------------------------------------------------------

    def acquire(self) -> WritableSlot | None:
        """A slot to write the next frame into; None (and counted) where every slot is in use. Publish or discard it."""
        with self._lock:
            self._take_back_kept()
            index = self._table.acquire()
            if index is None:
                self._dropped += 1
                return None
            return self._in_hand(index)

    def acquire_kept(self) -> WritableSlot | None:
        """A slot that is not written again before `let_go`, published or not: for a decoder that writes into it and refers to it
        later. None where `kept` slots are kept, or every slot is in use; several may be in hand at a time.
        """
        with self._lock:
            self._take_back_kept()
            index = self._table.acquire_kept()
            return None if index is None else self._in_hand(index)

    def _take_back_kept(self) -> None:
        while self._let_go:
            self._table.let_go(self._let_go.popleft())

    def _in_hand(self, index: int) -> WritableSlot:
        notice.forget(self._notices[index])
        return WritableSlot(index, self._ring.payload(index))

    def discard(self, slot: WritableSlot) -> None:
        """Give a slot back without publishing it."""
        with self._lock:
            self._table.discard(slot.index)

    def wanted(self) -> bool:
        """Some reader waits for a frame."""
        return bool(self._waiting)

    def retire(self) -> None:
        """The newest frame is old news: it is given to nobody any more, who asks waits for the next one. Who holds it keeps
        it.
        """
        with self._lock:
            self._table.newest = None

    def bgr_wanted(self) -> bool:
        """Some reader waits for a frame with BGR: make it before `publish`, while the decoder's output is warm."""
        # Without the lock: who is missed because another one leaves at this moment has it made late.
        return any(reader.wants_bgr for reader in self._waiting)

    def publish(
        self,
        slot: WritableSlot,
        *,
        capture_ns: int,
        pts_us: int,
        width: int,
        height: int,
        format: PixelFormat,
        has_bgr: bool,
    ) -> int:
        """The frame in `slot` is the newest from now on; whoever waits for one is told. Returns its sequence."""
        if type(format) is not PixelFormat:
            format = PixelFormat(format)
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE) and format is not _TENSORS:
            layout.check_size(width, height)
        index = slot.index
        flags = _FLAG_BGR if has_bgr or format is _BGR24 else 0
        with self._lock:
            table = self._table
            if not table.in_hand[index]:
                raise LayoutError("slot %d is not in the writer's hand: acquire() first, publish once" % index)
            sequence = self._sequence + 1
            packet = self._notices[index]
            _pack_notice(
                packet, _PREFIX_BYTES, width, height, format, flags, index, 0, capture_ns, _now_ns(), pts_us, sequence
            )
            # The word goes out first: all that follows happens while the readers wake up.
            told = []
            if table.givable:
                for reader in self._waiting:
                    if (flags or not reader.wants_bgr) and len(reader.held) < HELD_MAX:
                        try:
                            reader.tell(packet, _NOW)
                        except OSError:
                            continue  # It waits on, and `_serve` finds out what the failure means.
                        told.append(reader)
            self._sequence = sequence
            table.publish(index, sequence)
            self._written += 1
            for reader in told:
                self._given(reader, index, sequence)
            if self._waiting and self._serve_waiting():
                self._is_due = True
                self._wake()
        return sequence

    def stats(self) -> WriterStats:
        """A consistent copy of the counters."""
        with self._lock:
            readers = [
                ReaderStats(reader.name, reader.delivered, reader.skipped, len(reader.held), reader.wants)
                for reader in self._readers()
                if reader.introduced
            ]
            return WriterStats(
                self._written,
                self._dropped,
                readers,
                self._malformed,
                self._refused,
                self._evicted,
                self._late,
                self._failed,
            )

    def close(self) -> None:
        """Disconnect every reader and remove the socket. Readers keep what they hold."""
        super().close()
        self._ring.close()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Deliveries; the lock is held ---------------------------------------------------------------------------

    def _serve_waiting(self) -> bool:
        """Give the newest frame to all who wait for one. True when a late BGR picture must be made first."""
        late = self._is_due = False
        slot = self._table.newest
        if slot is not None and self._waiting:
            info = self._info(slot)
            for reader in self._waiting[:]:
                late = not self._serve(reader, slot, info) or late
        return late

    def _serve(self, reader: _Reader, slot: int, info: FrameInfo) -> bool:
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

    def _info(self, slot: int) -> FrameInfo:
        """Of a published frame."""
        return notice.parse(bytes(self._notices[slot]), self._ring.slots)[1]

    def _give(self, reader: _Reader, slot: int, sequence: int) -> None:
        """The reader holds this frame from now on, and is told so."""
        if self._send(reader, self._notices[slot]):
            self._given(reader, slot, sequence)

    def _given(self, reader: _Reader, slot: int, sequence: int) -> None:
        """It was told of this frame."""
        self._table.give(slot)
        reader.held[slot] = (sequence, time.monotonic())
        self._satisfied(reader)
        reader.blocked_since = 0.0
        if reader.last_sequence:
            reader.skipped += sequence - reader.last_sequence - 1
        reader.last_sequence = sequence
        reader.delivered += 1

    def _satisfied(self, reader: _Reader) -> None:
        """It waits no more."""
        reader.wants = False
        if reader in self._waiting:
            self._waiting.remove(reader)

    def _readers(self) -> list[_Reader]:
        return [peer for peer in self._peers.values() if isinstance(peer, _Reader)]

    def _left(self, peer: Peer) -> None:
        """What a reader held is free again, however it ended."""
        if isinstance(peer, _Reader):
            self._satisfied(peer)
            for slot in peer.held:
                self._table.take_back(slot)
            peer.held.clear()
            self._is_due = bool(self._waiting)

    # --- The writer's own thread ----------------------------------------------------------------------------------

    def _new_peer(self, connection: socket.socket) -> Peer:
        return _Reader(connection)

    def _turn(self) -> None:
        if self._is_due:
            with self._lock:
                late = self._serve_waiting()
            if late:
                self._paint()

    def _said(self, peer: Peer, packet: bytes) -> None:
        if not isinstance(peer, _Reader):
            raise TypeError("%r is no reader" % peer)
        if packet.startswith(wire.WANT_PREFIX):
            with self._lock:
                self._wanted_by(peer, packet)
            if self._on_wanted is not None:
                self._on_wanted()
        else:
            kind, body = wire.parse(packet)
            with self._lock:
                self._obey(peer, kind, body)

    def _wanted_by(self, reader: _Reader, packet: bytes) -> None:
        bgr, last_sequence, given_back = wire.parse_want(packet)
        if not reader.introduced:
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

    def _obey(self, reader: _Reader, kind: int, body: bytes) -> None:
        if not reader.introduced:
            if kind != wire.HELLO:
                raise WireError("the first message must be HELLO")
            reader.name = wire.text(body)
            reader.introduced = True
            ring = wire.Announcement(self._ring.slots, self._ring.slot_bytes, self._ring.ring_id)
            self._send(reader, wire.ring(wire.WELCOME, ring), self._ring.descriptor)
        elif kind == wire.RELEASE:
            slot, sequence = wire.parse_slot(body)
            self._take_back(reader, slot, sequence)
        else:
            raise WireError("an unknown kind of message: %d" % kind)

    def _take_back(self, reader: _Reader, slot: int, sequence: int) -> None:
        if reader.held.get(slot, (0, 0.0))[0] != sequence:
            raise WireError("it releases slot %d, frame %d, which it does not hold" % (slot, sequence))
        del reader.held[slot]
        self._table.take_back(slot)
        if reader.pressed is not None and reader.pressed[0] == slot:
            reader.pressed = None
        # Somebody may have waited for just this slot.
        self._is_due = self._is_due or bool(self._waiting)

    def _paint(self) -> None:
        """Make the BGR picture of the newest frame. Its slot counts as held meanwhile, the lock is free."""
        with self._lock:
            slot = self._table.newest
            if slot is None or not self._table.may_give(slot) or self._make_bgr is None:
                return
            info = self._info(slot)
            if info.has_bgr:
                self._is_due = True
                return
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
            else:
                self._failed += 1
            if made:
                notice.mark_bgr(self._notices[slot])
            self._table.take_back(slot)
            self._is_due = bool(self._waiting)
            # It may not be the newest any more; it is newer than what they have, and what they have waited for.
            for reader in self._readers():
                if (
                    reader.wants
                    and reader.wants_bgr
                    and info.sequence > reader.last_sequence
                    and len(reader.held) < HELD_MAX
                ):
                    self._give(reader, slot, info.sequence)

    def _tick(self, now: float) -> None:
        """Get slots back for who goes without frames."""
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

    def _press(self, starved: list[_Reader], now: float) -> None:
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
