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
    """How cameras send. Over TCP nothing is lost; UDP is for those that cannot."""

    verify_tls: bool = False
    """Whether the certificates behind rtsps:// must be ones that the appliance trusts. Cameras sign their own."""

    stall_s: float = 5.0
    """A stream without a frame for this long is dead: it is closed and opened again. The slowest cameras send one frame
    a second.
    """

    retry_max_s: float = 10.0
    """The longest wait between two tries of a camera that does not answer."""

    refused_retry_max_s: float = 30.0
    """The longest wait after a refused password. Longer, since many cameras lock an account after a few wrong ones in a
    minute.
    """

    slots: int = 8
    """Frames in a camera's ring."""

    decode_threads: int = 2
    """Threads a camera's decoder may use within one frame (never across frames: that would add a frame of delay for
    each).
    """

    worker_restart_max_s: float = 10.0
    """The longest wait before a camera's process that died is started again."""
