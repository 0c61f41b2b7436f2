"""Frames and tensors between processes: sealed shared memory, one writer, many readers that need not be trusted.

Standard library and numpy only; Python 3.7 and up. `docs/architecture.md` §4 describes what every room may rely on.
Must not know: cameras, models, applications, NATS.
"""

from framelink.calls_client import CallClient
from framelink.calls_server import CallServer, CallStats, Request
from framelink.calls_wire import FrameName
from framelink.deliveries import HELD_MAX
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
    ServerGone,
    TensorError,
    WireError,
)
from framelink.layout import FrameInfo, PixelFormat, slot_bytes_for
from framelink.output_receiver import Output, OutputReceiver, OutputStats
from framelink.output_sender import FramePicture, OutputSender, Picture, PixelPicture, SenderStats
from framelink.outputs_wire import Annotations
from framelink.reader import Frame, FrameReader
from framelink.writable import WritableSlot
from framelink.writer import FrameWriter
from framelink.writer_stats import ReaderStats, WriterStats

__all__ = [
    "HELD_MAX",
    "AddressTaken",
    "Annotations",
    "CallClient",
    "CallError",
    "CallServer",
    "CallStats",
    "CallTimeout",
    "Frame",
    "FrameInfo",
    "FrameName",
    "FramePicture",
    "FrameReader",
    "FrameTimeout",
    "FrameWriter",
    "FramelinkError",
    "LayoutError",
    "NoMemory",
    "NotSealed",
    "Output",
    "OutputReceiver",
    "OutputSender",
    "OutputStats",
    "Picture",
    "PixelFormat",
    "PixelPicture",
    "ReaderStats",
    "Request",
    "RingAbsent",
    "RingGone",
    "SenderStats",
    "ServerGone",
    "TensorError",
    "WireError",
    "WritableSlot",
    "WriterStats",
    "slot_bytes_for",
]
