"""Settings of the console: environment variables BELVEDERE_CONSOLE_<FIELD>."""

from dataclasses import dataclass

ENV = "BELVEDERE_CONSOLE_"


@dataclass(frozen=True)
class Settings:
    """Limits of the pages and of what they ask for."""

    max_listed: int = 100
    """Devices and applications shown at most; the page says when there are more."""
    peer_timeout_s: float = 5.0
    """For one question to another service; then the page shows an error there and asks again."""
    session_cache_s: float = 10.0
    """A session is asked for again at identity after this time, so that one that was ended stops working."""
    max_requests: int = 32
    """Requests worked on at once; more wait."""
    secure_cookie: bool = False
    """Set where the console stands behind HTTPS: the session cookie is then never sent without it."""
