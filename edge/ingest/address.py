"""A camera's address, with its credentials inside and no way for them to get out by accident. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from belvedere.chassis.secret import Secret
from edge.ingest.errors import CameraUnsupported

DEFAULT_PORTS = {"rtsp": 554, "rtsps": 322, "rtspt": 554, "rtspu": 554}
TRANSPORTS: dict[str, Literal["tcp", "udp"]] = {"rtspt": "tcp", "rtspu": "udp"}
"""GStreamer's and VLC's way to say how one camera is to send; to the camera itself it is rtsp://."""


@dataclass(frozen=True, slots=True)
class Address:
    """An RTSP URL taken apart. `repr` and `str` show no credentials."""

    scheme: str
    host: str
    port: int
    path: str
    """With its leading slash, without the query: some cameras take the password there."""
    username: Secret[str]
    password: Secret[str]
    query: Secret[str]
    transport: Literal["tcp", "udp"] | None = None
    """As the scheme says it; None: as the settings say."""

    @classmethod
    def parse(cls, url: str, username: str = "", password: str = "") -> Address:
        """Credentials given beside the URL go before those inside it. Raises CameraUnsupported for what is no RTSP
        URL.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            # The text of the exception would repeat parts of the URL.
            raise CameraUnsupported("the stream URL cannot be read; it must look like rtsp://host:554/path") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise CameraUnsupported("the stream URL must begin with rtsp:// or rtsps:// (or rtspt://, rtspu://)")
        if not parts.hostname:
            raise CameraUnsupported("the stream URL names no host; it must look like rtsp://host:554/path")
        inside = not (username or password)
        return cls(
            scheme="rtsp" if parts.scheme in TRANSPORTS else parts.scheme,
            host=parts.hostname,
            port=port or DEFAULT_PORTS[parts.scheme],
            path=parts.path or "/",
            username=Secret(unquote(parts.username or "") if inside else username),
            password=Secret(unquote(parts.password or "") if inside else password),
            query=Secret(parts.query),
            transport=TRANSPORTS.get(parts.scheme),
        )

    @property
    def server(self) -> str:
        """host:port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def reveal(self) -> str:
        """The whole URL, with the credentials: for the client that reads the camera, and for nothing else."""
        login = ""
        if self.username or self.password:
            login = f"{quote(self.username.reveal(), safe='')}:{quote(self.password.reveal(), safe='')}@"
        query = f"?{self.query.reveal()}" if self.query else ""
        return f"{self.scheme}://{login}{self.server}{self.path}{query}"

    def redact(self, text: str) -> str:
        """`text` without the credentials, however they are written in it."""
        secrets = [self.reveal(), self.password.reveal(), self.username.reveal(), self.query.reveal()]
        for secret in [*secrets, *(quote(secret, safe="") for secret in secrets)]:
            text = text.replace(secret, "***") if secret else text
        return text

    def __str__(self) -> str:
        return f"{self.scheme}://{self.server}{self.path}"
