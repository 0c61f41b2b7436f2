"""An RTSP 1.0 server for encoded video (RFC 2326, 3550, 6184, 7798): the simulated camera, and every application's
video.

    async with RtspServer("127.0.0.1", 8554, users={"viewer": Secret("…")}) as server:
        server.add("front", FileSource("clip.mp4"))

Sources run only while somebody looks, once for all who do. It must not know what its pictures show or where they come
from.
"""

from ._auth import Scheme
from ._file import FileSource
from ._mount import PathStats
from ._nal import is_random_access, join_annexb, parameter_sets, split_annexb
from ._server import RtspServer
from ._source import AccessUnit, Codec, Source, StreamDescription
from .camera import serve_camera
from .errors import ListenFailed, PathTaken, RtspError, SourceError, SourceUnreadable, SourceUnsupported

__all__ = [
    "AccessUnit",
    "Codec",
    "FileSource",
    "ListenFailed",
    "PathStats",
    "PathTaken",
    "RtspError",
    "RtspServer",
    "Scheme",
    "Source",
    "SourceError",
    "SourceUnreadable",
    "SourceUnsupported",
    "StreamDescription",
    "is_random_access",
    "join_annexb",
    "parameter_sets",
    "serve_camera",
    "split_annexb",
]
