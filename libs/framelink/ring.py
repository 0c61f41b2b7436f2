"""A ring: sealed memory cut into slots of equal size. One process has it for writing, the others for reading.

Must not know: who reads, who waits, or how the descriptor travels.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import numpy as np

from framelink import layout, memory
from framelink.errors import LayoutError, NotSealed

if TYPE_CHECKING:
    from framelink.layout import Bytes

MIN_SLOTS = 1
MAX_SLOTS = 64
PAGE = 4096


class Ring:
    """`slots` slots of `slot_bytes` payload each, in one mapping. Made by `create` or by `open`."""

    def __init__(self, mapping: mmap.mmap, slots: int, slot_bytes: int, ring_id: int, descriptor: int | None) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.ring_id = ring_id
        self.descriptor = descriptor
        stride = stride_of(slot_bytes)
        # Whatever is given out below keeps the mapping alive, and nothing else does: the memory goes with its last
        # user.
        whole = memoryview(mapping)
        self._headers = [whole[i * stride : i * stride + layout.HEADER_BYTES] for i in range(slots)]
        start = layout.HEADER_BYTES
        self._payloads = [
            np.frombuffer(whole[i * stride + start : i * stride + start + slot_bytes], np.uint8) for i in range(slots)
        ]

    @classmethod
    def create(cls, name: str, slots: int, slot_bytes: int) -> Ring:
        """Allocate, map and seal. NoMemory where it does not fit."""
        if not MIN_SLOTS <= slots <= MAX_SLOTS:
            raise LayoutError("a ring of %d slots: %d..%d are possible" % (slots, MIN_SLOTS, MAX_SLOTS))
        if slot_bytes <= 0:
            raise LayoutError("slots of %d bytes hold nothing" % slot_bytes)
        slot_bytes = layout.align(slot_bytes)
        descriptor, mapping = memory.create(name, slots * stride_of(slot_bytes))
        return cls(mapping, slots, slot_bytes, int.from_bytes(os.urandom(8), "little") or 1, descriptor)

    @classmethod
    def open(cls, descriptor: int, slots: int, slot_bytes: int, ring_id: int) -> Ring:
        """Map another process's ring for reading, after checking it. Closes the descriptor in every case."""
        try:
            if not MIN_SLOTS <= slots <= MAX_SLOTS or slot_bytes <= 0 or slot_bytes % layout.ALIGN:
                raise NotSealed("a ring of %d slots of %d bytes was announced" % (slots, slot_bytes))
            mapping = memory.open_sealed(descriptor, slots * stride_of(slot_bytes))
        finally:
            os.close(descriptor)
        return cls(mapping, slots, slot_bytes, ring_id, None)

    def header(self, slot: int) -> memoryview:
        """The slot's header (`framelink.layout`)."""
        return self._headers[slot]

    def payload(self, slot: int) -> Bytes:
        """The slot's payload: uint8, (slot_bytes,), writable only in the process that made the ring."""
        return self._payloads[slot]

    def close_descriptor(self) -> None:
        """Keep the memory, hand it to nobody else."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def close(self) -> None:
        """Let go. Pictures and tensors still in use keep the memory until they go, too."""
        self.close_descriptor()
        self._headers = []
        self._payloads = []


def stride_of(slot_bytes: int) -> int:
    """Bytes from one slot to the next: whole pages."""
    return (layout.HEADER_BYTES + slot_bytes + PAGE - 1) // PAGE * PAGE
