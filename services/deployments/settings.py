"""Settings of the deployments service: BELVEDERE_DEPLOYMENTS_<FIELD>."""

from dataclasses import dataclass

ENV = "BELVEDERE_DEPLOYMENTS_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    retry_s: float = 15.0
    """How often instances that wait (for their device's enrolment, or for a peer that was away) are tried again, in
    seconds. Enrolment itself is heard of at once; this is for what was missed."""
    rollout_tick_s: float = 2.0
    """How often rollouts under way look at their devices, in seconds."""
