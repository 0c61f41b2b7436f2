"""What is being computed at this moment, written where it outlives the process: a small file that is mapped by the worker and
read by its keeper after the worker's end. Must not know models; a name is a text.

A name costs two writes into memory, so that each computation can afford it. Nothing is flushed: the pages belong to the kernel,
which keeps them however the process ends.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator
from pathlib import Path

SLOTS = 256
"""Computations side by side that are named; more are computed all the same."""
SLOT_BYTES = 128
"""One byte for the length, then the name; longer ones are cut short."""


class Board:
    """The writer's side. From any thread."""

    def __init__(self, path: Path) -> None:
        """Made anew. Raises OSError."""
        with path.open("wb+") as file:
            file.truncate(SLOTS * SLOT_BYTES)
            self._memory = mmap.mmap(file.fileno(), SLOTS * SLOT_BYTES)
        self._lock = threading.Lock()
        self._free = list(range(SLOTS))

    @contextlib.contextmanager
    def shows(self, name: str) -> Iterator[None]:
        """`name` stands on the board as long as the block runs."""
        with self._lock:
            slot = self._free.pop() if self._free else None
        if slot is None:
            yield
            return
        at, text = slot * SLOT_BYTES, cut(name)
        self._memory[at + 1 : at + 1 + len(text)] = text
        self._memory[at] = len(text)
        try:
            yield
        finally:
            self._memory[at] = 0
            with self._lock:
                self._free.append(slot)


def cut(name: str) -> bytes:
    """The name as it stands on the board."""
    return name.encode()[: SLOT_BYTES - 1]


def names(path: Path) -> set[bytes]:
    """What stood there last, each as `cut` has it. Nothing where there is no board."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return set()
    slots = (data[at : at + SLOT_BYTES] for at in range(0, len(data), SLOT_BYTES))
    return {slot[1 : 1 + slot[0]] for slot in slots if slot[0]}
