"""Settings of the gateway: BELVEDERE_GATEWAY_<FIELD>."""

from __future__ import annotations

from dataclasses import dataclass

ENV = "BELVEDERE_GATEWAY_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    key_cache_entries: int = 1024
    """How many signing keys are remembered; the one unused longest goes first."""
    key_cache_s: float = 60.0
    """For how many seconds at most. A deleted access key is refused as soon as the bus says so; this is for when it cannot."""
    idle_timeout_s: float = 75.0
    """After how many seconds without a request a connection is closed. Longer than clients keep theirs."""
    read_timeout_s: float = 30.0
    """How many seconds a client may be silent in the middle of a body."""
    write_timeout_s: float = 60.0
    """How many seconds a client may take nothing of an answer."""
    stay_awake_us: int = 150
    """How many microseconds after an answer the process looks for the next request before it sleeps, while requests come that
    fast (`awake.py`); 1000 at most. 0: not at all, where cores are paid for by use or kept for others."""
