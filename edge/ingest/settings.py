"""What `edge.ingest` can be told from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment: `BELVEDERE_INGEST_<FIELD>`."""

    open_timeout_s: float = 10.0
    """How long a camera may take from the connection to the first description of its stream. Slow cameras wake in 3 to
    6 s.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    """How cameras send. Over TCP nothing is lost; UDP is for those that cannot. One camera alone: `rtspu://` (UDP) or
    `rtspt://` (TCP) in its stream URL.
    """

    verify_tls: bool = False
    """Whether the certificates behind rtsps:// must be ones that the appliance trusts. Cameras sign their own."""

    stall_s: float = 5.0
    """A stream without a frame for this long is dead: it is closed and opened again. The slowest cameras send one frame
    a second.
    """

    first_frame_s: float = 75.0
    """How long the first frame of a connection may take, since there are cameras that send one key frame a minute, and some
    that need as long to begin. Meanwhile the camera is shown as stalled, with the reason.
    """

    connect_timeout_s: float = 2.0
    """Of `open_timeout_s`, for the TCP connection alone: tried often rather than long, so that a camera that is back is heard
    soon.
    """

    retry_max_s: float = 0.8
    """The longest wait between two tries of a camera that does not answer: with its next key frame, that is how soon it is seen
    again. One try costs it a connection; for a camera that is hurt by that, set more.
    """

    refused_retry_max_s: float = 30.0
    """The longest wait after a refused password. Longer, since many cameras lock an account after a few wrong ones in a
    minute.
    """

    slots: int = 8
    """Frames in a camera's ring, 3 to 64. The memory is taken when the first frame comes, and refused with a message where
    there is not enough: 8 of 1920×1080 are 75 MB, and three more for the decoder, which writes into them, 28 MB (its own
    memory, 12 MB and more, is not needed then).
    """

    idle: Literal["warm", "drop"] = "warm"
    """While no reader asks for frames: `warm` keeps the connection and decodes nothing, so that the next reader has the newest
    frame at once; `drop` closes the connection until somebody asks.
    """

    idle_after_s: float = 3.0
    """How long nobody may ask before nobody is there."""

    gop_buffer_mb: int = 16
    """Of packets since the last key frame that are kept while nothing is decoded. 0: none, and the next reader waits for the next
    key frame.
    """

    decode_threads: int = 2
    """Threads a camera's decoder may use within one frame (never across frames: that would add a frame of delay for
    each).
    """

    decode_device: str = "auto"
    """What decodes: `auto` (hardware where the appliance has some, else the processor), `none` (the processor), or a device
    type of FFmpeg's, with or without which one: `cuda`, `vaapi:/dev/dri/renderD128`. What cannot be had falls back to the
    processor, with a message in the log and in `ingest.status`. PyAV's wheels decode on NVIDIA's only (`cuda`); VA-API takes a
    PyAV that was built with the distribution's FFmpeg.
    """

    worker_restart_max_s: float = 10.0
    """The longest wait before a camera's process that died is started again."""
