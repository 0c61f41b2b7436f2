"""Frames and tensors between processes: sealed shared memory, one writer, many readers that need not be trusted.

Standard library and numpy only; Python 3.7 and up. `docs/architecture.md` §4 describes what every room may rely on.
Must not know: cameras, models, applications, NATS.
"""

from framelink.errors import (
    AddressTaken,
    CallError,
    CallTimeout,
    FramelinkError,
    FrameTimeout,
    LayoutError,
    NoMemory,
    NotSealed,
    RingAbsent,
    RingGone,
    TensorError,
    WireError,
)
from framelink.layout import FrameInfo, PixelFormat, slot_bytes_for
from framelink.reader import Frame, FrameReader
from framelink.writer import HELD_MAX, FrameWriter, ReaderStats, WritableSlot, WriterStats

__all__ = [
    "HELD_MAX",
    "AddressTaken",
    "CallError",
    "CallTimeout",
    "Frame",
    "FrameInfo",
    "FrameReader",
    "FrameTimeout",
    "FrameWriter",
    "FramelinkError",
    "LayoutError",
    "NoMemory",
    "NotSealed",
    "PixelFormat",
    "ReaderStats",
    "RingAbsent",
    "RingGone",
    "TensorError",
    "WireError",
    "WritableSlot",
    "WriterStats",
    "slot_bytes_for",
]
