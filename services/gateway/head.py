"""A request that has come in whole, read from its bytes: what nearly every call of the API is.

Pure. What it takes is a strict part of HTTP/1.1: printable ASCII, one space where one belongs, a path from the root, a body of a
length that is told once, and nothing that changes what the connection is. It refuses nothing: what it does not take is for a whole
parser to read from its first byte (RFC 9112), so that there are never two opinions of where a request ends.
"""

from __future__ import annotations

import re
from functools import lru_cache

from services.gateway.sigv4 import HttpRequest

HEAD_MAX_BYTES = 32 << 10
HEADERS_MAX = 64
NAMES_KEPT = 512
"""Header names that are not checked and put into lower case again."""
_REQUEST_LINE = re.compile(r"(GET|POST|PUT|DELETE|PATCH) (/[!\"$-~]*) HTTP/1\.1")
"""A target of any visible character but `#`."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_ONCE = frozenset({"host", "content-length"})
_NOT_HERE = frozenset({"transfer-encoding", "expect", "upgrade", "te", "trailer", "keep-alive", "proxy-connection"})
"""Headers of the connection, and of bodies that do not come by themselves."""


def read(data: bytes) -> tuple[HttpRequest, bytes, int] | None:
    """(the request, its body, where the next one begins), or None where the first request in `data` is not whole or not plain."""
    end = data.find(b"\r\n\r\n")
    if not 0 < end <= HEAD_MAX_BYTES:
        return None
    try:
        first, *lines = data[:end].decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    line = _REQUEST_LINE.fullmatch(first)
    if line is None or len(lines) > HEADERS_MAX:
        return None
    headers: list[tuple[str, str]] = []
    named: dict[str, str] = {}
    for text in lines:
        sent, colon, value = text.partition(":")
        name = _lower(sent)
        if not name or not colon or not value.isprintable():
            return None
        value = value.strip(" ")
        headers.append((name, value))
        if name not in named:
            named[name] = value
        elif name in _ONCE:
            return None
        else:
            named[name] = f"{named[name]},{value}"
    if "host" not in named or not _NOT_HERE.isdisjoint(named) or named.get("connection", _KEEP).lower() != _KEEP:
        return None
    method, target = line.groups()
    path, _, query = target.partition("?")
    request = HttpRequest.read(method, path, query, headers, named)
    end += 4
    length = named.get("content-length")
    if length is None:
        return request, b"", end
    if not length.isdecimal() or len(length) > 9 or end + int(length) > len(data):
        return None
    stop = end + int(length)
    return request, data[end:stop], stop


_KEEP = "keep-alive"


@lru_cache(NAMES_KEPT)
def _lower(name: str) -> str:
    """ "" for what is no name of a header."""
    return name.lower() if _NAME.fullmatch(name) else ""
