"""Settings of the registry service: BELVEDERE_REGISTRY_<FIELD>."""

from dataclasses import dataclass

from belvedere.chassis.secret import Secret

ENV = "BELVEDERE_REGISTRY_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    bundle_s: float = 300.0
    """How long a provisioned device's bundle works, in seconds; it works once."""
    lease_s: float = 7 * 24 * 3600.0
    """How long a device's credentials last, in seconds; the device renews them well before."""
    heartbeat_silence_s: float = 15.0
    """A device that is silent for longer is OFFLINE, in seconds. Devices are heard every 5 s."""
    link_gone_s: float = 0.5
    """How long a device's link must be gone before the device is OFFLINE, in seconds: renewing a lease takes 14 ms."""
    viewer_token_s: float = 3600.0
    """How long an address of a device's video works, in seconds."""
    viewer_key: Secret[str] | None = None
    """Base64 of the 32 bytes from which every device's viewer key follows. Absent: the file `registry.key` in the data
    folder's `secrets`, made at first start. Replicas need the same one."""
    devices_quota: int = 10_000
    """Most devices in one account and region."""
