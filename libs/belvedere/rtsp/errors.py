"""What can go wrong in `belvedere.rtsp`, for its callers. What goes wrong between our server and its clients is an RTSP
status.

RtspError ─┬─ ListenFailed        the address cannot be listened on
           ├─ PathTaken           two sources under one path
           ├─ FaultScriptInvalid  a fault script is wrong: all that is, each with its place
           ├─ SourceError ─┬─ SourceUnreadable     the file or stream behind a path cannot be read
           │               └─ SourceUnsupported    it can be read, but RTSP cannot carry it
           └─ ClientError ─┬─ AddressInvalid       the URL is none that a client can use
                           ├─ ServerUnreachable    nobody answers; `kind` says how far it came
                           ├─ StreamRefused        401, 403
                           ├─ StreamNotFound       404
                           ├─ ServerFailed         another status that is no success
                           ├─ StreamUnsupported    no video that we can take; `found` says what there is
                           ├─ ProtocolError        what comes is no RTSP, or breaks its rules
                           ├─ StreamStalled        connected, but no pictures
                           ├─ StreamEnded          the server has ended the stream
                           └─ ClientClosed         `close` was called while another thread waited

No message of a ClientError holds a user name, a password or a query, nor text that the server has sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

UnreachableKind = Literal["name", "refused", "timeout", "network", "closed", "certificate"]
"""The name is not known · the port is closed · no answer in time · no way there · closed before the stream began · the
TLS certificate is not to be trusted.
"""


class RtspError(Exception):
    """Any error of this package."""


class ListenFailed(RtspError):
    """The server could not listen on `host`:`port`."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"cannot serve RTSP on {host}:{port}: {why}; choose another port or stop what uses it")
        self.host = host
        self.port = port


class FaultScriptInvalid(RtspError):
    """A fault script can't be followed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class PathTaken(RtspError):
    """A source is already served under this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"a source is already served under /{path}: remove it first, or choose another path")
        self.path = path


class SourceError(RtspError):
    """The source behind a path cannot deliver; viewers get 503 with this text."""


class SourceUnreadable(SourceError):
    """The file or stream behind a path cannot be opened or read on."""


class SourceUnsupported(SourceError):
    """The source holds no video, or a codec other than H.264, H.265 and MJPEG."""


class ClientError(RtspError):
    """A client gets no pictures."""


class AddressInvalid(ClientError):
    """The URL, the user name or the settings cannot be used."""


class ServerUnreachable(ClientError):
    """Nobody answers at `server` (host:port)."""

    def __init__(self, server: str, kind: UnreachableKind, why: str) -> None:
        super().__init__(f"{server} {why}")
        self.server = server
        self.kind: UnreachableKind = kind
        self.why = why


class StreamRefused(ClientError):
    """The server wants other credentials (401), or these may not watch (403)."""

    def __init__(self, status: int, *, tried: bool) -> None:
        what = "may not watch this stream: give the user that right" if status == 403 else "wrong user name or password"
        if status == 401 and not tried:
            what = "a user name and a password are needed"
        super().__init__(f"{status} from the server: {what}")
        self.status = status
        self.tried = tried
        """Whether credentials were sent."""


class StreamNotFound(ClientError):
    """The server is there, the stream is not."""

    def __init__(self, path: str) -> None:
        super().__init__(f"404 from the server: it has no stream {path}; check the path of the URL")
        self.path = path


class ServerFailed(ClientError):
    """The server answers a request with an error of its own."""

    def __init__(self, method: str, status: int) -> None:
        super().__init__(f"the server answered {method} with {status}; check the URL, or restart the server")
        self.method = method
        self.status = status


class StreamUnsupported(ClientError):
    """No H.264, H.265 or JPEG that this client can take. `found`: the names of what there is instead."""

    def __init__(self, why: str, found: tuple[str, ...] = (), *, only_sound: bool = False) -> None:
        super().__init__(why)
        self.found = found
        self.only_sound = only_sound


class ProtocolError(ClientError):
    """What the server sends is no RTSP, or breaks its rules."""


class StreamStalled(ClientError):
    """The connection stands, and no picture has come for `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"connected, but no picture for {timeout_s:g} s; connect again")
        self.timeout_s = timeout_s


class StreamEnded(ClientError):
    """The server has closed the connection or said goodbye."""


class ClientClosed(ClientError):
    """The client was closed, by this thread or another."""

    def __init__(self) -> None:
        super().__init__("this client is closed; make another one")
