"""Settings of the device_jobs service: BELVEDERE_DEVICE_JOBS_<FIELD>."""

from dataclasses import dataclass

import belvedere

ENV = "BELVEDERE_DEVICE_JOBS_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    image_versions: tuple[str, ...] = (belvedere.__version__,)
    """Software versions that appliances can be brought to: those that there are."""
    retry_s: float = 15.0
    """How often jobs that could not be written into their device's target are tried again, in seconds."""
