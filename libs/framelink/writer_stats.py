"""What a frame writer says of itself and of its readers. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReaderStats:
    """One connected reader, counted since it connected."""

    name: str
    delivered: int
    skipped: int
    """Frames that were published between two deliveries and that this reader never saw."""
    held: int
    """Slots it holds at this moment."""
    waiting: bool
    """It has asked for a frame that has not come yet."""


@dataclass(frozen=True)
class WriterStats:
    """Counted since the writer started."""

    frames_written: int
    dropped_no_slot: int
    """`acquire` found every slot in use."""
    readers: list[ReaderStats]
    malformed: int
    """Connections closed because of a message that is not in order."""
    refused: int
    """Connections refused because `max_readers` were there."""
    evicted: int
    """Readers disconnected because they did not give back a slot, or did not read their messages."""
    bgr_late: int
    """BGR pictures made after publishing, on demand."""
    bgr_failed: int
    """Demands for which `make_bgr` raised; the frame went out without BGR."""
