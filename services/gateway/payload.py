"""The body of an upload: what the client signed about it, checked while it flows by.

Four ways in use: a SHA-256 of the whole in a header; no hash; pieces, each with its own signature (aws-chunked); pieces
without, followed by a trailer with a checksum (what today's AWS CLI and boto3 send over TLS). Memory stays bounded: one
piece's worth. Every mismatch is raised from the iterator before it ends, so that whoever stores the bytes gives up.
Source: AWS's public description of SigV4 for S3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from services.gateway import checksums, sigv2
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.sigv4 import EMPTY_SHA256, UNSIGNED

UPLOAD_MAX_BYTES = 5 << 30
"""One PUT, as with S3."""
TOO_LARGE = "Your proposed upload exceeds the maximum allowed size"
CHUNK_LINE_MAX = 4096
"""Bytes of a chunk's first line and of a line of the trailer."""
CHUNK_MAX_BYTES = 16 << 20
"""A signed chunk is held until its signature is known. Clients send 64 KiB to 1 MiB."""
FORWARD_BYTES = 1 << 16
TRAILER_LINES_MAX = 16

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING = frozenset({SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_TRAILER})

_CHECKSUM_HEADER = re.compile(r"x-amz-checksum-(crc32|crc32c|crc64nvme|sha1|sha256)")


def declared_hash(call: Call) -> str:
    """What the client signed for the body. Raises AwsError where it is neither a hash nor a known word."""
    value = call.http.header("x-amz-content-sha256") or call.parameter("X-Amz-Content-Sha256")
    if sigv2.is_signed(call.http):
        # Signature Version 2 knows nothing of bodies.
        if value in (None, UNSIGNED):
            return UNSIGNED
        raise AwsError(
            "InvalidArgument", f"x-amz-content-sha256 must be {UNSIGNED} or absent in a URL that is signed so."
        )
    if value is None:
        if call.parameter("X-Amz-Algorithm") is not None:
            return UNSIGNED
        raise AwsError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if value == UNSIGNED or value in STREAMING or re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    raise AwsError(
        "InvalidArgument",
        f"x-amz-content-sha256 must be {UNSIGNED}, {', '.join(sorted(STREAMING))}, or a valid sha256 value.",
    )


@dataclass(frozen=True)
class File:
    """A file inside of a request's body, of a size that nobody has announced."""

    chunks: AsyncIterator[bytes]
    least: int
    most: int
    """Bytes."""
    about_bytes: int
    """Its size, if nothing follows it."""


@dataclass
class Upload:
    """The decoded bytes of an upload, and what was learnt of them once they have all gone by."""

    call: Call
    declared: str
    file: File | None = None
    """Where the bytes are not the request's body but a file in it."""
    size: int = 0
    md5: str = ""
    """Hexadecimal; complete once `chunks` has ended."""
    checksums: dict[str, str] = field(default_factory=dict)
    """Those that the client sent and that held: {"crc32": base64}."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """The decoded body. Raises AwsError at the first thing that does not hold."""
        least, most = self._sizes()
        wanted = _checksums_in(dict(self.call.http.headers))
        trailers = _announced(self.call)
        running = {name: checksums.new(name) for name in wanted.keys() | trailers}
        sha256, md5 = hashlib.sha256(), hashlib.md5()  # MD5 is S3's ETag, no defence
        trailer: dict[str, str] = {}
        if self.file is not None:
            body = self.file.chunks
        else:
            body = _plain(self.call) if self.declared not in STREAMING else _decoded(self.call, self.declared, trailer)
        async for chunk in body:
            self.size += len(chunk)
            if self.size > most:
                raise self._too_large(most)
            sha256.update(chunk)
            md5.update(chunk)
            for checksum in running.values():
                checksum.update(chunk)
            yield chunk
        self.md5 = md5.hexdigest()
        if self.size < least:
            raise self._too_small(least)
        if re.fullmatch(r"[0-9a-f]{64}", self.declared) and sha256.hexdigest() != self.declared:
            raise AwsError(
                "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match the body."
            )
        _check_md5(self.call, md5.digest())
        sent = wanted | _checksums_in(trailer)
        if absent := trailers - sent.keys():
            raise AwsError("MalformedTrailerError", f"The trailer lacks x-amz-checksum-{', '.join(sorted(absent))}.")
        for name, value in sent.items():
            if name in running and checksums.encoded(running[name]) != value:
                raise AwsError("BadDigest", f"The {name.upper()} you specified did not match what we received.")
        self.checksums = {name: value for name, value in sent.items() if name in running}

    def _sizes(self) -> tuple[int, int]:
        if self.file is not None:
            return self.file.least, min(self.file.most, UPLOAD_MAX_BYTES)
        expected = _expected_size(self.call, self.declared)
        return expected, expected

    def _too_large(self, most: int) -> AwsError:
        if self.file is None:
            return AwsError("IncompleteBody", f"The body is longer than the {most} bytes announced.")
        sizes = {"ProposedSize": max(self.file.about_bytes, self.size), "MaxSizeAllowed": most}
        return AwsError("EntityTooLarge", TOO_LARGE, 400, sizes)

    def _too_small(self, least: int) -> AwsError:
        if self.file is None:
            return AwsError("IncompleteBody", f"The body has {self.size} of the {least} bytes announced.")
        sizes = {"ProposedSize": self.size, "MinSizeAllowed": least}
        return AwsError("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", 400, sizes)


def _checksums_in(headers: Mapping[str, str]) -> dict[str, str]:
    return {match[1]: value for name, value in headers.items() if (match := _CHECKSUM_HEADER.fullmatch(name))}


def _announced(call: Call) -> set[str]:
    names = (name.strip().lower() for name in call.header("x-amz-trailer").split(","))
    return {match[1] for name in names if (match := _CHECKSUM_HEADER.fullmatch(name))}


def _expected_size(call: Call, declared: str) -> int:
    if declared in STREAMING:
        text = call.header("x-amz-decoded-content-length")
        if not re.fullmatch(r"\d{1,15}", text):
            raise AwsError("MissingContentLength", "You must provide x-amz-decoded-content-length.", 411)
        size = int(text)
    elif call.content_length is None:
        raise AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    else:
        size = call.content_length
    if size > UPLOAD_MAX_BYTES:
        raise AwsError("EntityTooLarge", TOO_LARGE, 400, {"ProposedSize": size, "MaxSizeAllowed": UPLOAD_MAX_BYTES})
    return size


def _check_md5(call: Call, digest: bytes) -> None:
    sent = call.header("content-md5")
    if not sent:
        return
    try:
        wanted = base64.b64decode(sent, validate=True)
    except binascii.Error:
        wanted = b""
    if len(wanted) != len(digest):
        raise AwsError("InvalidDigest", "The Content-MD5 you specified is not valid.")
    if wanted != digest:
        raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")


async def _plain(call: Call) -> AsyncIterator[bytes]:
    async for chunk in call.chunks():
        yield chunk


class _Lines:
    """Reads lines and counted bytes from a stream of chunks, holding no more than it must."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source, self._buffer = source, bytearray()

    async def _more(self) -> None:
        try:
            self._buffer += await anext(self._source)
        except StopAsyncIteration:
            raise AwsError("IncompleteBody", "The body ended inside a chunk.") from None

    async def line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > CHUNK_LINE_MAX:
                break
            await self._more()
        if end < 0 or end > CHUNK_LINE_MAX:
            raise AwsError("InvalidChunk", f"A line between chunks is longer than {CHUNK_LINE_MAX} bytes.")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    async def some(self, most: int) -> bytes:
        """Between 1 and `most` bytes."""
        if not self._buffer:
            await self._more()
        part = bytes(self._buffer[:most])
        del self._buffer[: len(part)]
        return part

    async def drain(self) -> int:
        """What is left, counted."""
        left = len(self._buffer)
        self._buffer.clear()
        async for chunk in self._source:
            left += len(chunk)
        return left


async def _decoded(call: Call, declared: str, trailer: dict[str, str]) -> AsyncIterator[bytes]:
    """The bytes inside aws-chunked framing; fills `trailer`. Signed chunks are handed on once their signature held."""
    lines = _Lines(call.chunks())
    signer = None if declared == UNSIGNED_TRAILER else _ChunkSigner(call)
    while True:
        size, signature = _chunk_line(await lines.line(), signed=signer is not None)
        held: list[bytes] = []
        left = size
        while left:
            part = await lines.some(min(left, FORWARD_BYTES))
            left -= len(part)
            if signer is None:
                yield part
            else:
                held.append(part)
        if signer is not None:
            signer.check(b"".join(held), signature)
            for part in held:
                yield part
        if size == 0:
            break
        if await lines.line():
            raise AwsError("InvalidChunk", "A chunk is longer than its size says.")
    await _trailer(lines, trailer, signer if declared == SIGNED_CHUNKS_TRAILER else None)


def _chunk_line(line: bytes, *, signed: bool) -> tuple[int, str]:
    match = re.fullmatch(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?", line)
    if match is None or (signed and match[2] is None):
        raise AwsError("InvalidChunk", "A chunk must begin with its size in hexadecimal, and its signature if signed.")
    size = int(match[1], 16)
    if signed and size > CHUNK_MAX_BYTES:
        raise AwsError("InvalidChunk", f"A signed chunk may have {CHUNK_MAX_BYTES} bytes at most.")
    return size, (match[2] or b"").decode()


async def _trailer(lines: _Lines, trailer: dict[str, str], signer: _ChunkSigner | None) -> None:
    signature = ""
    for _ in range(TRAILER_LINES_MAX):
        line = (await lines.line()).rstrip(b"\n").decode("latin-1")
        if not line:
            break
        name, separator, value = line.partition(":")
        if not separator:
            raise AwsError("MalformedTrailerError", "A line of the trailer is no header.")
        if name.lower() == "x-amz-trailer-signature":
            signature = value.strip()
        else:
            trailer[name.lower()] = value.strip()
    else:
        raise AwsError("MalformedTrailerError", f"The trailer has more than {TRAILER_LINES_MAX} lines.")
    if signer is not None:
        signer.check_trailer(trailer, signature)
    if await lines.drain():
        raise AwsError("InvalidChunk", "There are bytes after the trailer.")


class _ChunkSigner:
    """The chain of signatures: each chunk's is made over the one before, the first over the request's."""

    def __init__(self, call: Call) -> None:
        if call.proof is None:
            raise AssertionError("the call was not verified")
        self._signer = call.proof.signer
        signature = call.proof.signature
        self._front = f"{signature.amz_date}\n{signature.scope}"
        self._previous = signature.value

    def check(self, chunk: bytes, signature: str) -> None:
        digest = hashlib.sha256(chunk).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self._front}\n{self._previous}\n{EMPTY_SHA256}\n{digest}"
        self._advance(self._signer.sign(text), signature)

    def check_trailer(self, trailer: Mapping[str, str], signature: str) -> None:
        canonical = "".join(f"{name}:{trailer[name]}\n" for name in sorted(trailer))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{self._front}\n{self._previous}\n{digest}"
        self._advance(self._signer.sign(text), signature)

    def _advance(self, expected: str, signature: str) -> None:
        if not hmac.compare_digest(expected, signature):
            raise AwsError("SignatureDoesNotMatch", "The signature of a chunk does not match what we calculated.", 403)
        self._previous = signature
