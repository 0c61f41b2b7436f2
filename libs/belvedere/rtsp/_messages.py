"""RTSP 1.0 messages (RFC 2326) on a byte stream: requests in, responses out, interleaved data both ways. Everything is
bounded.

Knows nothing of sessions or sources. A message that breaks the framing ends its connection; one that is only wrong is
answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

MAX_LINE = 8 * 1024
MAX_HEADER_LINES = 64
MAX_HEADER_BYTES = 32 * 1024
MAX_BODY = 64 * 1024
MAX_EMPTY_LINES = 8  # some clients send a blank line to keep a connection open

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
    551: "Option not supported",
}


class MessageError(Exception):
    """A request that is answered with `status`; `fatal` when the framing is lost and the connection must end."""

    def __init__(self, status: int, why: str, *, fatal: bool = False, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.fatal = fatal
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True)
class Interleaved:
    """Data of a `$` frame (RFC 2326 §10.12)."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    uri: str
    version: str
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case; of a repeated header the last one."""
    body: bytes = b""

    @property
    def cseq(self) -> int:
        """Raises MessageError(400) when it is missing or no number: every request must have one (§12.17)."""
        text = self.headers.get("cseq", "").strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise MessageError(400, "CSeq is missing or not a number")
        return int(text)

    @property
    def path(self) -> str:
        """The path of the URI, decoded, without slashes at its ends; "" for `*`. Raises MessageError(400)."""
        if self.uri == "*":
            return ""
        try:
            parts = urlsplit(self.uri)
        except ValueError as error:
            raise MessageError(400, "the request's URI cannot be read") from error
        if parts.scheme.lower() not in ("rtsp", "rtsps", "rtspt", "rtspu", "") or not (
            parts.scheme or self.uri.startswith("/")
        ):
            raise MessageError(400, "the request's URI is not an rtsp:// address")
        return unquote(parts.path).strip("/")


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case, as often and in the order as they came."""
    body: bytes = b""

    def every(self, name: str) -> list[str]:
        """The values of a header, which may be repeated; `name` in lower case."""
        return [value for found, value in self.headers if found == name]

    def first(self, name: str) -> str:
        """A header's value; "" when it is missing."""
        return next(iter(self.every(name)), "")


def parse_head(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The first line of a message and its headers: names in lower case, folded lines joined. `head` ends before the
    empty line. Raises ValueError for lines that are no headers.
    """
    first, *lines = head.decode("utf-8", "replace").splitlines()
    if len(lines) > MAX_HEADER_LINES:
        raise ValueError("too many headers")
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if line[:1] in " \t" and headers:
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
        elif colon:
            headers.append((name.strip().lower(), value.strip()))
        else:
            raise ValueError("a header line has no colon")
    return first, tuple(headers)


async def read_message(reader: asyncio.StreamReader) -> Request | Interleaved | None:
    """The next request or interleaved frame, or None at the end of the connection. Raises MessageError.

    `reader` must have been made with `limit=MAX_LINE`.
    """
    for _ in range(MAX_EMPTY_LINES):
        first = await reader.read(1)
        if not first:
            return None
        if first == b"$":
            try:
                head = await reader.readexactly(3)
                return Interleaved(head[0], await reader.readexactly(int.from_bytes(head[1:], "big")))
            except asyncio.IncompleteReadError:
                return None
        line = first if first == b"\n" else first + await _line(reader)
        if line.strip():
            return await _request(reader, line)
    raise MessageError(400, "nothing but empty lines", fatal=True)


async def _request(reader: asyncio.StreamReader, first_line: bytes) -> Request | None:
    try:
        parts = first_line.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise MessageError(400, "the request line is not text", fatal=True) from error
    if len(parts) != 3 or not parts[0].isidentifier() or not parts[2].startswith("RTSP/"):
        raise MessageError(400, "this is no RTSP request", fatal=True)
    headers: dict[str, str] = {}
    total = 0
    for _ in range(MAX_HEADER_LINES + 1):
        raw = await _line(reader)
        if not raw:
            return None
        total += len(raw)
        if total > MAX_HEADER_BYTES:
            break
        text = raw.decode("utf-8", "replace").strip()
        if not text:
            return Request(parts[0], parts[1], parts[2], headers, await _body(reader, headers))
        name, colon, value = text.partition(":")
        if not colon:
            raise MessageError(400, "a header line has no colon", fatal=True)
        headers[name.strip().lower()] = value.strip()
    raise MessageError(413, "the request's headers are too long", fatal=True)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """A line with its end; b"" when the connection ended inside it."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise MessageError(413, "a line of the request is too long", fatal=True) from error


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise MessageError(400, "Content-Length is not a number", fatal=True)
    if int(text) > MAX_BODY:
        raise MessageError(413, "the request's body is too long", fatal=True)
    try:
        return await reader.readexactly(int(text))
    except asyncio.IncompleteReadError:
        return b""


def format_response(status: int, cseq: int | None, headers: Iterable[tuple[str, str]] = (), body: str = "") -> bytes:
    """A response; `Content-Length` is added where there is a body."""
    lines = [f"RTSP/1.0 {status} {REASONS[status]}"]
    if cseq is not None:
        lines.append(f"CSeq: {cseq}")
    lines += ["Server: belvedere", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    encoded = body.encode()
    if encoded:
        lines.append(f"Content-Length: {len(encoded)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + encoded


def format_request(method: str, uri: str, cseq: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """A request without a body."""
    lines = [f"{method} {uri} RTSP/1.0", f"CSeq: {cseq}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def format_interleaved(channel: int, packets: Iterable[bytes]) -> bytes:
    """RTP or RTCP packets as `$` frames, ready to be written at once."""
    chunks = []
    for packet in packets:
        chunks.append(b"$" + bytes([channel]) + len(packet).to_bytes(2, "big"))
        chunks.append(packet)
    return b"".join(chunks)
