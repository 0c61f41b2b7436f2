"""Configuration of the agent. Read from BELVEDERE_AGENT_* in the environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentSettings:
    """How the agent behaves; every field has a default that suits an appliance."""

    link_check_s: float = 5.0
    """Between heartbeats, and between reads of the target when no change was announced."""
    deleted_check_s: float = 10.0
    """Between two questions, while the link is away, whether the device was deleted in the cloud."""
    report_s: float = 2.0
    """Shortest time between two reports to the cloud; a changed state goes out at once."""
    device_active_s: float = 60.0
    """Between two DeviceActive data points."""
    figures_s: float = 10.0
    """Between two values of each application's figures (frame rate, result rate, drops, latency)."""
    stages_s: float = 60.0
    """Between two values of what each camera, model, application and video measures."""
    metrics_host: str = "127.0.0.1"
    """Address where Prometheus may ask for the same; "" = nowhere."""
    metrics_port: int = 9464
    """Its port; a free one where it is in use."""
    asset_check_delay_s: float = 300.0
    """After the start, until everything in the asset store is read once and compared with its digests."""
    asset_check_s: float = 7 * 86400.0
    """Between two such readings."""
    lease_renewal_fraction: float = 0.5
    """Part of the lease after which it is renewed."""
    fetch_parallel: int = 3
    """Assets fetched at once."""
    delivery_limit_s: float = 600.0
    """An application that is to replace another and has not delivered for this long, once all of it is here, is given up:
    the other runs on. Longer than the first load of a large model."""
    retry_min_s: float = 1.0
    """First pause after a failed step."""
    retry_max_s: float = 30.0
    """Longest pause after a failed step."""
    asset_cache_mb: int = 4096
    """What is kept of assets that no application uses any more."""
    log_window: int = 64
    """Messages of logs and metrics in flight to the cloud."""
