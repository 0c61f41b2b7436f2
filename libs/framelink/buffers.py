"""Buffers that one process writes and one other reads: what calls and outputs send their tensors and pictures in.

Each buffer is a ring of one slot, made when it is first needed and announced to the other side once, together with its
descriptor; after that a message only names it. Its owner decides when it is free again.

Must not know: sockets, or what is in the buffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from framelink.errors import NoMemory, WireError
from framelink.ring import Ring
from framelink.wire import Announcement

if TYPE_CHECKING:
    from framelink.layout import Bytes

GRAIN_BYTES = 1 << 16
"""Sizes are rounded up to this, so that a request a little larger than the last one fits where that one was."""


class BufferPool:
    """The owner's side. Not thread-safe: the caller has a lock around it.

    `announce(announcement, descriptor)` and `retire(number)` tell the other side, in order, before the buffer is used.
    """

    def __init__(
        self,
        name: str,
        max_buffers: int,
        max_bytes: int,
        announce: Callable[[Announcement, int], None],
        retire: Callable[[int], None],
    ) -> None:
        self._name = name
        self._max_buffers = max_buffers
        self._max_bytes = max_bytes
        self._announce = announce
        self._retire = retire
        self._rings: dict[int, Ring] = {}
        self._free: set[int] = set()
        self._next = 1

    @property
    def in_use(self) -> int:
        """Buffers that were acquired and not released."""
        return len(self._rings) - len(self._free)

    def acquire(self, size: int) -> int | None:
        """A free buffer of at least `size` bytes; None while all of them are in use. NoMemory where it does not fit."""
        fitting = [number for number in self._free if self._rings[number].slot_bytes >= size]
        if fitting:
            number = min(fitting, key=lambda free: self._rings[free].slot_bytes)
            self._free.discard(number)
            return number
        if self.in_use >= self._max_buffers:
            return None
        wanted = max(1, (size + GRAIN_BYTES - 1) // GRAIN_BYTES) * GRAIN_BYTES
        # Free ones are all too small: they make room, smallest first.
        for number in sorted(self._free, key=lambda free: self._rings[free].slot_bytes):
            if len(self._rings) < self._max_buffers and self._total() + wanted <= self._max_bytes:
                break
            self._discard(number)
        if self._total() + wanted > self._max_bytes:
            if self.in_use:
                return None
            raise NoMemory("%s: %d bytes in one piece; at most %d are possible" % (self._name, size, self._max_bytes))
        ring = Ring.create(self._name, 1, wanted)
        number, self._next = self._next, self._next + 1
        try:
            if ring.descriptor is not None:
                self._announce(Announcement(1, ring.slot_bytes, ring.ring_id, number), ring.descriptor)
        except BaseException:
            ring.close()
            raise
        # The other side has it now, we write through our mapping: nobody needs the descriptor any more.
        ring.close_descriptor()
        self._rings[number] = ring
        return number

    def payload(self, number: int) -> Bytes:
        """The buffer's memory, writable."""
        return self._rings[number].payload(0)

    def ring(self, number: int) -> Ring:
        """The buffer as a ring of one slot."""
        return self._rings[number]

    def release(self, number: int) -> None:
        """The buffer may be used again."""
        if number in self._rings:
            self._free.add(number)

    def close(self) -> None:
        """Forget all buffers; the other side's mappings keep what it still reads."""
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._free.clear()

    def _total(self) -> int:
        return sum(ring.slot_bytes for ring in self._rings.values())

    def _discard(self, number: int) -> None:
        self._free.discard(number)
        self._rings.pop(number).close()
        self._retire(number)


class BufferMap:
    """The other side: buffers as they were announced, mapped for reading, within limits."""

    def __init__(self, max_buffers: int, max_bytes: int) -> None:
        self._max_buffers = max_buffers
        self._max_bytes = max_bytes
        self._rings: dict[int, Ring] = {}

    def add(self, announced: Announcement, descriptor: int) -> None:
        """Map a new buffer. Takes the descriptor. WireError, NotSealed."""
        # Opened first, whatever comes of it: Ring.open closes the descriptor in every case.
        ring = Ring.open(descriptor, announced.slots, announced.slot_bytes, announced.ring_id)
        total = sum(known.slot_bytes for known in self._rings.values()) + ring.slot_bytes
        if announced.slots != 1 or announced.generation in self._rings:
            raise WireError("buffer %d with %d slots" % (announced.generation, announced.slots))
        if len(self._rings) >= self._max_buffers or total > self._max_bytes:
            raise WireError("too many buffers: %d, %d bytes" % (len(self._rings) + 1, total))
        self._rings[announced.generation] = ring

    def remove(self, number: int) -> None:
        """The owner has retired a buffer. Arrays that are still in use keep its memory."""
        if self._rings.pop(number, None) is None:
            raise WireError("buffer %d is not there" % number)

    def ring(self, number: int) -> Ring:
        """The buffer as a ring of one slot. WireError where there is none of this number."""
        ring = self._rings.get(number)
        if ring is None:
            raise WireError("buffer %d is not there" % number)
        return ring

    def payload(self, number: int) -> Bytes:
        """The buffer's memory, read-only. WireError where there is none of this number."""
        return self.ring(number).payload(0)

    def close(self) -> None:
        """Forget all of them."""
        self._rings.clear()
