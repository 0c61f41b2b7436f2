"""The address that a client asks, taken apart: where to connect, what to ask for, who asks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from belvedere.secret import Secret

from .errors import AddressInvalid

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322}
_SAFE = "%/:=&?~+!$,;'@()*[]|"


@dataclass(frozen=True, slots=True)
class Target:
    """An RTSP URL without credentials."""

    scheme: str
    host: str
    port: int
    path: str
    """With its leading slash, without the query."""
    query: Secret[str]
    """Some cameras take their password here."""

    @property
    def server(self) -> str:
        """host:port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def reveal(self) -> str:
        """The URL for requests: with its query, without user name and password."""
        query = f"?{self.query.reveal()}" if self.query else ""
        return f"{self.scheme}://{self.server}{self.path}{query}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.server}{self.path}"


def parse_target(url: str) -> tuple[Target, Secret[str], Secret[str]]:
    """The target, and the user name and the password inside the URL. Raises AddressInvalid, whose message repeats
    nothing of the URL.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = (parts.hostname or "").encode("idna" if not (parts.hostname or "").isascii() else "ascii").decode()
    except ValueError:  # also UnicodeError
        raise AddressInvalid("the URL cannot be read; it must look like rtsp://host:554/path") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise AddressInvalid("the URL must begin with rtsp:// or rtsps://")
    if not host or any(character in host for character in " \r\n\0"):
        raise AddressInvalid("the URL names no host; it must look like rtsp://host:554/path")
    target = Target(
        scheme=parts.scheme,
        host=host,
        port=port or DEFAULT_PORTS[parts.scheme],
        path=quote(parts.path or "/", safe=_SAFE),
        query=Secret(quote(parts.query, safe=_SAFE)),
    )
    return target, Secret(unquote(parts.username or "")), Secret(unquote(parts.password or ""))


def check_credentials(username: Secret[str], password: Secret[str]) -> None:
    """Raises AddressInvalid for what no header can carry."""
    for secret in (username, password):
        if any(ord(character) < 0x20 or character == "\x7f" for character in secret.reveal()):
            raise AddressInvalid("the user name or the password has a control character in it")


def resolve(base: str, control: str) -> str:
    """A control attribute's URL (RFC 2326 §C.1.1), as cameras mean it: appended to the base, whatever the base ends
    with. Only an absolute one stands for itself.
    """
    if control in ("", "*"):
        return base
    if control.lower().startswith(("rtsp://", "rtsps://")):
        return control
    return base.rstrip("/") + "/" + control.lstrip("/")
