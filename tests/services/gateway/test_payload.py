"""Bodies of uploads: every form that clients send, and every way in which they can be wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from belvedere.v1 import identity_pb2
from services.gateway import payload, sigv4
from services.gateway.errors import AwsError
from services.gateway.message import Call, Proof
from services.gateway.payload import SIGNED_CHUNKS, SIGNED_CHUNKS_TRAILER, UNSIGNED_TRAILER, Upload
from tests.services.gateway.signing import signed, signing_key

BODY = bytes(range(256)) * 700


def call(body: bytes, headers: dict[str, str], *, length: int | None = -1, piece: int = 1000) -> Call:
    """An upload whose body arrives in pieces."""
    http = signed("s3", "PUT", "http://127.0.0.1/bucket/key")
    # botocore writes its own x-amz-content-sha256; what the upload says of itself is put in afterwards.
    kept = [(name, value) for name, value in http.headers if name not in headers and name != "x-amz-content-sha256"]
    http = replace(http, headers=[*kept, *headers.items()])
    signature = sigv4.parse(http)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    async def authorize(call: Call, action: str, resource: str) -> None:
        return

    result = Call(http, "id", "127.0.0.1", chunks, len(body) if length == -1 else length, authorize)
    signer = sigv4.Signer(signing_key(signature.scope.date, "s3"))
    result.proof = Proof(signature, signer, identity_pb2.Principal())
    return result


async def received(call: Call) -> tuple[bytes, Upload]:
    upload = Upload(call, payload.declared_hash(call))
    return b"".join([chunk async for chunk in upload.chunks()]), upload


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def chunked(call: Call, body: bytes, size: int, *, trailer: dict[str, str] | None = None) -> bytes:
    """aws-chunked with signatures, written from AWS's description."""
    assert call.proof is not None
    signature = call.proof.signature
    front, previous = f"{signature.amz_date}\n{signature.scope}", signature.value
    key, empty = signing_key(signature.scope.date, "s3"), hashlib.sha256(b"").hexdigest()
    out = b""
    for start in [*range(0, len(body), size), len(body)]:
        chunk = body[start : start + size]
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{front}\n{previous}\n{empty}\n{hashlib.sha256(chunk).hexdigest()}"
        previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        out += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailer is not None:
        lines = "".join(f"{name}:{value}\n" for name, value in trailer.items())
        text = f"AWS4-HMAC-SHA256-TRAILER\n{front}\n{previous}\n{hashlib.sha256(lines.encode()).hexdigest()}"
        last = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        out += lines.replace("\n", "\r\n").encode() + f"x-amz-trailer-signature:{last}\r\n".encode()
    return out + b"\r\n"


def signed_upload(body: bytes, word: str, trailer: dict[str, str] | None = None, size: int = 8192) -> Call:
    headers = {"x-amz-content-sha256": word, "x-amz-decoded-content-length": str(len(body))}
    if trailer:
        headers["x-amz-trailer"] = ",".join(trailer)
    front = call(b"", headers)
    framed = chunked(front, body, size, trailer=trailer if word == SIGNED_CHUNKS_TRAILER else None)
    result = call(framed, headers)
    # The same moment, hence the same seed of the chain.
    result.http, result.proof = front.http, front.proof
    return result


async def code_of(call: Call) -> str:
    with pytest.raises(AwsError) as caught:
        await received(call)
    return caught.value.code


async def test_a_hash_in_the_header_is_checked() -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    data, upload = await received(call(BODY, {"x-amz-content-sha256": digest}))
    assert data == BODY and upload.md5 == hashlib.md5(BODY).hexdigest() and upload.size == len(BODY)
    assert await code_of(call(BODY[:-1] + b"x", {"x-amz-content-sha256": digest})) == "XAmzContentSHA256Mismatch"


async def test_an_unsigned_body_is_taken_with_its_checksums() -> None:
    headers = {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-checksum-crc32": crc32(BODY)}
    _, upload = await received(call(BODY, headers))
    assert upload.checksums == {"crc32": crc32(BODY)}
    assert await code_of(call(BODY, headers | {"x-amz-checksum-crc32": crc32(b"")})) == "BadDigest"
    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    await received(call(BODY, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD", "content-md5": md5}))
    assert await code_of(call(BODY[1:], headers | {"content-md5": md5})) in ("BadDigest", "IncompleteBody")
    assert await code_of(call(BODY, headers | {"content-md5": "short"})) == "InvalidDigest"


@pytest.mark.parametrize("size", [1, 777, 8192, 1 << 17])
async def test_unsigned_chunks_with_a_trailer_come_out_as_the_body(size: int) -> None:
    body = BODY[: 20 * size]
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    framed += f"0\r\nx-amz-checksum-crc32:{crc32(body)}\r\n\r\n".encode()
    headers = {
        "x-amz-content-sha256": UNSIGNED_TRAILER,
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "content-encoding": "aws-chunked",
    }
    data, upload = await received(call(framed, headers, length=None))
    assert data == body and upload.checksums == {"crc32": crc32(body)}
    wrong = framed.replace(crc32(body).encode(), crc32(b"no").encode())
    assert await code_of(call(wrong, headers)) == "BadDigest"
    assert await code_of(call(framed[:-20], headers)) in ("IncompleteBody", "MalformedTrailerError")
    assert await code_of(call(framed + b"more", headers)) == "InvalidChunk"
    longer = headers | {"x-amz-decoded-content-length": str(len(body) + 1)}
    assert await code_of(call(framed, longer)) == "IncompleteBody"
    untold = framed.split(b"x-amz-checksum")[0] + b"\r\n"
    assert await code_of(call(untold, headers)) == "MalformedTrailerError"


async def test_signed_chunks_come_out_and_each_signature_counts() -> None:
    good = signed_upload(BODY, SIGNED_CHUNKS)
    assert (await received(good))[0] == BODY
    tampered = signed_upload(BODY, SIGNED_CHUNKS)
    source = tampered.chunks

    async def changed() -> AsyncIterator[bytes]:
        position = 0
        async for chunk in source():
            yield chunk.replace(bytes([7]), bytes([8])) if position > 50_000 else chunk
            position += len(chunk)

    tampered.chunks = changed
    assert await code_of(tampered) == "SignatureDoesNotMatch"


async def test_signed_chunks_with_a_signed_trailer_come_out() -> None:
    data, upload = await received(signed_upload(BODY, SIGNED_CHUNKS_TRAILER, {"x-amz-checksum-crc32": crc32(BODY)}))
    assert data == BODY and upload.checksums == {"crc32": crc32(BODY)}
    assert (
        await code_of(signed_upload(BODY, SIGNED_CHUNKS_TRAILER, {"x-amz-checksum-crc32": crc32(b"")})) == "BadDigest"
    )


async def test_a_body_without_a_length_or_a_hash_is_refused() -> None:
    assert (
        await code_of(call(BODY, {"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}, length=None)) == "MissingContentLength"
    )
    assert await code_of(call(BODY, {"x-amz-content-sha256": UNSIGNED_TRAILER})) == "MissingContentLength"
    assert await code_of(call(BODY, {"x-amz-content-sha256": "nonsense"})) == "InvalidArgument"
    huge = {"x-amz-content-sha256": UNSIGNED_TRAILER, "x-amz-decoded-content-length": "9" * 14}
    assert await code_of(call(BODY, huge)) == "EntityTooLarge"


@pytest.mark.parametrize(
    "framed", [b"", b"\r\n", b"zz\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"f" * 5000, b"5\r\nhel", b"-1\r\n"]
)
async def test_broken_framing_is_refused(framed: bytes) -> None:
    headers = {"x-amz-content-sha256": UNSIGNED_TRAILER, "x-amz-decoded-content-length": "5"}
    assert await code_of(call(framed, headers)) in ("InvalidChunk", "IncompleteBody")
