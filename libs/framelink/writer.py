"""FrameWriter: publishes frames into a sealed ring, to up to `max_readers` processes that it does not trust.

A reader asks for one frame (WANT); when there is one newer than its last, it gets a NOTICE and holds that slot until
it sends a RELEASE or its connection ends. `publish` sends the notices itself, from the thread that decodes, without a
hop to another thread; the writer's own thread hears the readers and makes late BGR pictures. Where frames flow, the owner hears
them itself (`hear`): waking a thread for every frame's request cost more than reading it. `deliveries.py` is the readers' side.

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

import os
import socket
import time
from collections import deque
from typing import Callable

from framelink import layout, notice
from framelink.deliveries import HELD_MAX, Deliveries
from framelink.errors import LayoutError
from framelink.layout import PixelFormat
from framelink.ring import Ring
from framelink.slots import SlotTable
from framelink.writable import WritableSlot
from framelink.writer_stats import ReaderStats, WriterStats

_BGR24, _TENSORS = PixelFormat.BGR24, PixelFormat.TENSORS
_NOW = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MAX_SIDE, _FLAG_BGR = layout.MAX_SIDE, layout.FLAG_BGR
_pack_notice, _PREFIX_BYTES = notice.pack_behind_prefix, notice.PREFIX_BYTES
_now_ns = time.monotonic_ns


class FrameWriter(Deliveries):
    """The one writer of a ring, listening at `path`.

    `slot_bytes`: see `slot_bytes_for`. `make_bgr(slot)` fills `slot.bgr(…)` from `slot.planes(…)` of a published frame
    (`slot.info`); it runs on the writer's own thread. Without it, readers convert for themselves, slowly. `on_wanted` is called
    there, too, or inside `hear`, whenever a reader has asked for a frame; it must not block.
    `kept`: slots beside `slots` for `acquire_kept`. Raises NoMemory, AddressTaken.
    """

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
        slots += kept
        table = SlotTable(slots, kept)
        ring = Ring.create(name, slots, slot_bytes)
        self.slot_bytes = ring.slot_bytes
        self.ring_id = ring.ring_id
        self._let_go: deque[int] = deque()
        self.let_go: Callable[[int], None] = self._let_go.append
        """`let_go(index)`: a kept slot is needed no more; from any thread, also one that is in the midst of another call, and
        after `close`."""
        self._dropped = 0
        self._owner_hears = False
        """`hear` was called since the last frame."""
        try:
            super().__init__(path, name, max_readers, ring, table, make_bgr, on_wanted)
        except BaseException:
            ring.close()
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
            self._owner_hears = False
            self._hush([])

    def hear(self) -> bool:
        """Takes what the readers have said, and tells whether one waits for a frame. For the thread that publishes, before each
        frame, where frames flow: who asks for the next frame before it is there is heard here, and the writer's own thread need not
        be woken for it. Who asks late, and all while no frames come, is heard by the thread as without this.
        """
        self._owner_hears = True
        for reader in self._quiet:
            while not reader.wants and self._hear(reader.connection.fileno()):
                continue
        if self._is_due:
            self._wake()
        return bool(self._waiting)

    def bgr_wanted(self) -> bool:
        """Some reader waits for a frame with BGR: make it before `publish`, while the decoder's output is warm."""
        if self._quiet:
            self.hear()
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
            now_ns = _now_ns()
            _pack_notice(
                packet, _PREFIX_BYTES, width, height, format, flags, index, 0, capture_ns, now_ns, pts_us, sequence
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
            self._published_ns = now_ns
            table.publish(index, sequence)
            self._written += 1
            for reader in told:
                self._given(reader, index, sequence)
            if self._waiting and self._serve_waiting():
                self._is_due = True
                self._wake()
            if self._owner_hears or self._quiet:
                self._hush(told if self._owner_hears else [])
                self._owner_hears = False
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
