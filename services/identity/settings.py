"""Settings of the identity service: BELVEDERE_IDENTITY_<FIELD>."""

from dataclasses import dataclass

from belvedere.chassis.secret import Secret

ENV = "BELVEDERE_IDENTITY_"


@dataclass(frozen=True)
class Settings:
    """Configuration, read once at start."""

    key: Secret[str] | None = None
    """Base64 of the 32 bytes with which secrets and session tokens are encrypted. Absent: the file `identity.key` in the
    data folder's `secrets`, made at first start. Replicas need the same one."""
    login_token_s: float = 300.0
    """How long a console login link works, in seconds; it works once."""
    console_session_s: float = 12 * 3600.0
    """How long a console session lasts, in seconds."""
    application_session_s: int = 3600
    """How long the credentials last that an application gets for its role, in seconds."""
    audit_days: float = 90.0
    """How long calls stay in the audit trail, in days."""
    audit_rows: int = 5_000_000
    """How many calls the audit trail keeps at most, the newest ones, about 250 bytes each; and how many further decisions of them."""
    audit_unproven_rows: int = 100_000
    """How many lines of callers whom nothing has proven it keeps at most, the newest ones: whoever reaches the port can make them,
    and they are not to push out the others."""
