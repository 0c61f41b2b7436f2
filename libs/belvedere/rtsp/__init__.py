"""RTSP 1.0 for encoded video (RFC 2326, 3550, 2435, 6184, 7798): a server, which is the simulated camera and every
application's video, and a client, which reads cameras.

    async with RtspServer("127.0.0.1", 8554, users={"viewer": Secret("…")}) as server:
        server.add("front", FileSource("clip.mp4"))

    with RtspClient("rtsp://camera/stream", "viewer", Secret("…")) as client:
        client.open()
        for unit in client.units(): ...

Sources run only while somebody looks, once for all who do. It must not know what its pictures show or where they come
from.
"""

from ._auth import Scheme
from ._client import RtspClient
from ._client_settings import ClientSettings
from ._file import FileSource
from ._mount import PathStats
from ._nal import is_random_access, join_annexb, parameter_sets, split_annexb
from ._receive import ReceivedUnit, ReceiverStats
from ._server import RtspServer
from ._source import AccessUnit, Codec, Source, StreamDescription
from ._target import Target, parse_target
from .camera import serve_camera
from .errors import (
    AddressInvalid,
    ClientClosed,
    ClientError,
    FaultScriptInvalid,
    ListenFailed,
    PathTaken,
    ProtocolError,
    RtspError,
    ServerFailed,
    ServerUnreachable,
    SourceError,
    SourceUnreadable,
    SourceUnsupported,
    StreamEnded,
    StreamNotFound,
    StreamRefused,
    StreamStalled,
    StreamUnsupported,
)
from .faults import Fault, FaultScript

__all__ = [
    "AccessUnit",
    "AddressInvalid",
    "ClientClosed",
    "ClientError",
    "ClientSettings",
    "Codec",
    "Fault",
    "FaultScript",
    "FaultScriptInvalid",
    "FileSource",
    "ListenFailed",
    "PathStats",
    "PathTaken",
    "ProtocolError",
    "ReceivedUnit",
    "ReceiverStats",
    "RtspClient",
    "RtspError",
    "RtspServer",
    "Scheme",
    "ServerFailed",
    "ServerUnreachable",
    "Source",
    "SourceError",
    "SourceUnreadable",
    "SourceUnsupported",
    "StreamDescription",
    "StreamEnded",
    "StreamNotFound",
    "StreamRefused",
    "StreamStalled",
    "StreamUnsupported",
    "Target",
    "is_random_access",
    "join_annexb",
    "parameter_sets",
    "parse_target",
    "serve_camera",
    "split_annexb",
]
