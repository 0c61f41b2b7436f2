"""What can go wrong in `belvedere.rtsp`, for its callers. What goes wrong between server and client is an RTSP status.

RtspError ─┬─ ListenFailed        the address cannot be listened on
           ├─ PathTaken           two sources under one path
           └─ SourceError ─┬─ SourceUnreadable     the file or stream behind a path cannot be read
                           └─ SourceUnsupported    it can be read, but RTSP cannot carry it
"""

from __future__ import annotations


class RtspError(Exception):
    """Any error of this package."""


class ListenFailed(RtspError):
    """The server could not listen on `host`:`port`."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"cannot serve RTSP on {host}:{port}: {why}; choose another port or stop what uses it")
        self.host = host
        self.port = port


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
    """The source holds no video, or a codec other than H.264 and H.265."""
