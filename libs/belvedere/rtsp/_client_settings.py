"""What an RTSP client can be told. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ._receive import OnLoss


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a client does it."""

    transport: Literal["tcp", "udp"] = "tcp"
    """`tcp`: inside the RTSP connection, nothing is lost. `udp`: unicast to a pair of ports of ours."""

    open_timeout_s: float = 10.0
    """For all of `open`: name, connection, redirects, requests."""

    connect_timeout_s: float = 10.0
    """Of it, for one TCP connection. Asked again and again in short tries, a camera that comes back is heard at once; within one
    long try the kernel repeats its question after 1, 3 and 7 s.
    """

    stall_timeout_s: float = 5.0
    """Without a picture for so long, `receive` raises StreamStalled."""

    verify_tls: bool = False
    """Whether the certificate behind rtsps:// must be one that this machine trusts. Cameras sign their own."""

    on_loss: OnLoss = "drop"
    """A unit with missing packets is handed on (`mark`, see `ReceivedUnit.lost`), left out (`drop`), or left out with
    all up to the next key frame (`drop_until_key`: never with cameras that refresh without key frames).
    """

    max_unit_bytes: int = 8 * 1024 * 1024
    """Larger units are left out: no camera's key frame comes near it."""
