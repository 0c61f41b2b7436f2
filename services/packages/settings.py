"""Settings of the packages service: BELVEDERE_PACKAGES_<FIELD>."""

from dataclasses import dataclass

from belvedere.chassis.secret import Secret

ENV = "BELVEDERE_PACKAGES_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    camera_key: Secret[str] | None = None
    """Base64 of the 32 bytes with which camera credentials are encrypted at rest. Absent: the file
    `packages-camera.key` in the data folder's `secrets`, made at first use. Replicas need the same one."""
    document_limit_bytes: int = 1024 * 1024
    """The largest package document or asset descriptor that is read, in bytes."""
    model_import_timeout_s: float = 900.0
    """How long the conversion of one model may take, in seconds."""
    upload_lifetime_s: float = 7 * 86400
    """After how many seconds without a new part an upload in parts that nobody completed is forgotten."""
    garbage_every_s: float = 6 * 3600
    """How often bytes that nothing names any more are looked for and removed, in seconds; 0: never."""
    garbage_grace_s: float = 86400
    """How long such bytes stay after they were last written or asked for, in seconds: at least 12 hours, within which
    an upload or a registration that is going on names what it found."""
