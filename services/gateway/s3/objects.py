"""Objects: put, get, head, copy. Bytes go through the blob store, names through StorageService.

Bytes may be shared by many objects (they are stored by their digest), so that a copy costs nothing and a deletion frees none.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.v1 import storage_pb2
from services.gateway import checksums
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply
from services.gateway.payload import Upload, declared_hash
from services.gateway.s3 import conditions, failures, names, parts
from services.gateway.s3.failures import HEADER_SECTION_MAX_BYTES
from services.gateway.s3.index import Index
from services.gateway.s3.names import Place
from services.gateway.s3.part_checksums import FULL_OBJECT, KEPT_TYPE, of_part
from services.gateway.s3.replies import KEPT_CLASS, document, http_time, iso_time
from services.gateway.sigv4 import query_pairs

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

METADATA_MAX_BYTES = 2048
KEPT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
"""Kept with an object beside its metadata, under a name that no metadata can have: with a colon in front."""
OVERRIDES = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires")
"""Headers that a reader may ask to be told differently: ?response-content-type=…"""
CLASSES = ("", "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR")
"""Taken and told again; all bytes lie in one place."""
CONTENT_TYPE_MAX = 255
_CHECKSUM = ":x-amz-checksum-"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Objects:
    """The operations on objects."""

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index, self._blobs = index, blobs

    async def put(self, call: Call, place: Place) -> Reply:
        """PutObject. Nothing is stored unless the whole body arrived and every hash held."""
        upload = Upload(call, declared_hash(call))
        await self.write(call, place, upload)
        headers = {"ETag": f'"{upload.md5}"'}
        headers |= {f"x-amz-checksum-{name}": value for name, value in upload.checksums.items()}
        return Reply(200, headers | ({"x-amz-checksum-type": FULL_OBJECT} if upload.checksums else {}))

    async def write(self, call: Call, place: Place, upload: Upload) -> None:
        """Stores an upload with what the call's headers say of it, if its conditions hold. Raises AwsError."""
        metadata = metadata_of(call)
        if_absent, if_etag = conditions.of_write(call)
        # Before the bytes: a bucket that is not there is told before they are sent.
        conditions.check_write(call, await self._index.find(place.bucket, place.key), place.key)
        blob = await self._blobs.put_stream(upload.chunks())
        stored = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=place.key,
            digest=blob.digest,
            size_bytes=upload.size,
            etag=upload.md5,
            content_type=content_type(call),
            metadata=metadata | {f"{_CHECKSUM}{name}": value for name, value in upload.checksums.items()},
        )
        await self._index.put(stored, if_absent=if_absent, if_etag=if_etag)

    async def get(self, call: Call, place: Place) -> Reply:
        """GetObject and HeadObject."""
        stored = await self._index.get(place.bucket, place.key)
        headers = _headers(stored)
        if conditions.unchanged(call, stored):
            return Reply(304, {"ETag": headers["ETag"], "Last-Modified": headers["Last-Modified"]})
        for name in OVERRIDES:
            if (value := call.parameter(f"response-{name}")) is not None:
                headers[name.title()] = _header_text(value)
        size, number = stored.size_bytes, call.parameter("partNumber")
        if number is not None:
            if call.header("range"):
                raise AwsError("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
            part, count = parts.find(stored, number)
            span = (part.start, part.start + part.size) if part.size else None
            headers |= {"x-amz-mp-parts-count": str(count)} if count else {}
        else:
            span = parse_range(call.header("range"), size) if _range_holds(call, stored) else None
        status, start, end = (206, *span) if span else (200, 0, size)
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if (not span or span == (0, size)) and call.header("x-amz-checksum-mode").upper() == "ENABLED":
            # Only with the whole: a client would hold it against the part that it got.
            told = {name[1:]: value for name, value in stored.metadata.items() if name.startswith(_CHECKSUM)}
            headers |= told | ({"x-amz-checksum-type": stored.metadata.get(KEPT_TYPE, FULL_OBJECT)} if told else {})
        if call.method == "HEAD":
            return Reply(status, headers, length=end - start)
        return Reply(status, headers, self._bytes(stored.digest, start, end), length=end - start)

    async def _bytes(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        if end > start:
            async for chunk in self._blobs.open(digest, start, end):
                yield chunk

    async def copy(self, call: Call, place: Place) -> Reply:
        """CopyObject: another name for the same bytes."""
        check_body_hash(call, b"")
        source = await self.copy_source(call)
        directive = call.header("x-amz-metadata-directive") or "COPY"
        if directive not in ("COPY", "REPLACE"):
            raise failures.invalid_argument("Unknown metadata directive.", "x-amz-metadata-directive", directive)
        replace = directive == "REPLACE"
        itself = (source.bucket, source.key) == (place.bucket, place.key)
        if itself and not replace and not call.header("x-amz-storage-class"):
            message = (
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
                "metadata, storage class, website redirect location or encryption attributes."
            )
            raise AwsError("InvalidRequest", message)
        if_absent, if_etag = conditions.of_write(call)
        metadata = metadata_of(call) if replace else class_of(call)
        for name, value in source.metadata.items():
            # A copy is of the class that is asked for, or STANDARD.
            if _is_of_bytes(name) or (not replace and name != KEPT_CLASS):
                metadata[name] = value
        await self._sum(call, source, metadata)
        now = Timestamp()
        now.GetCurrentTime()
        stored = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=place.key,
            digest=source.digest,
            size_bytes=source.size_bytes,
            etag=source.etag,
            content_type=content_type(call) if replace else source.content_type,
            metadata=metadata,
            last_modified=now,
        )
        await self._index.put(stored, if_absent=if_absent, if_etag=if_etag)
        told = [("LastModified", iso_time(now)), ("ETag", f'"{source.etag}"')]
        if summed := of_part(metadata):
            told += [*summed, ("ChecksumType", metadata.get(KEPT_TYPE, FULL_OBJECT))]
        return document("CopyObjectResult", told)

    async def _sum(self, call: Call, source: storage_pb2.StoredObject, metadata: dict[str, str]) -> None:
        """The checksum that a copy is asked to have, in place of its source's. Raises AwsError(InvalidRequest)."""
        algorithm = call.header("x-amz-checksum-algorithm").lower()
        if not algorithm or (f"{_CHECKSUM}{algorithm}" in metadata and KEPT_TYPE not in metadata):
            return
        if algorithm not in checksums.ALGORITHMS:
            raise AwsError("InvalidRequest", "Checksum algorithm provided is unsupported.")
        running = checksums.new(algorithm)
        async for chunk in self._bytes(source.digest, 0, source.size_bytes):
            running.update(chunk)
        for name in [name for name in metadata if name.startswith(_CHECKSUM)]:
            del metadata[name]
        for name in (KEPT_TYPE, parts.KEPT_CHECKSUMS):
            metadata.pop(name, None)
        metadata[f"{_CHECKSUM}{algorithm}"] = checksums.encoded(running)

    async def copy_source(self, call: Call) -> storage_pb2.StoredObject:
        """What x-amz-copy-source names, if the caller may read it and its conditions hold. Raises AwsError."""
        text, _, query = call.header("x-amz-copy-source").partition("?")
        names.check_version(dict(query_pairs(query)).get("versionId"))
        place = names.parse(text if text.startswith("/") else f"/{text}")
        if not place.bucket or not place.key:
            raise AwsError(
                "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
            )
        await call.authorize("s3:GetObject", f"arn:aws:s3:::{place.bucket}/{place.key}")
        source = await self._index.get(place.bucket, place.key)
        if conditions.unchanged(call, source, conditions.COPY_SOURCE):
            raise failures.precondition_failed("x-amz-copy-source-If-None-Match")
        return source


def check_body_hash(call: Call, body: bytes) -> None:
    """Raises AwsError where a small body is not what its hash says."""
    declared = declared_hash(call)
    if re.fullmatch(r"[0-9a-f]{64}", declared) and hashlib.sha256(body).hexdigest() != declared:
        raise AwsError("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match the body.")


def content_type(call: Call) -> str:
    """Raises AwsError(InvalidArgument)."""
    text = _text(call.header("content-type"))
    if len(text) > CONTENT_TYPE_MAX:
        raise failures.invalid_argument(f"Content-Type has {CONTENT_TYPE_MAX} bytes at most here", "Content-Type", text)
    return text or "binary/octet-stream"


def metadata_of(call: Call) -> dict[str, str]:
    """x-amz-meta-*, the kept headers, the class. Raises AwsError: MetadataTooLarge, RequestHeaderSectionTooLarge, InvalidStorageClass."""
    metadata: dict[str, str] = {}
    for name, value in call.http.headers:
        if name.startswith("x-amz-meta-"):
            metadata[name.removeprefix("x-amz-meta-")] = _text(value)
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_MAX_BYTES:
        text = "Your metadata headers exceed the maximum allowed metadata size"
        raise AwsError("MetadataTooLarge", text, 400, {"MaxSizeAllowed": METADATA_MAX_BYTES})
    for name in KEPT_HEADERS:
        parts = [part.strip() for part in _text(call.header(name)).split(",")]
        if value := ",".join(part for part in parts if part and part != "aws-chunked"):
            metadata[f":{name}"] = value
    if sum(map(len, metadata.values())) + len(call.header("content-type")) > HEADER_SECTION_MAX_BYTES:
        raise failures.headers_too_large()
    return metadata | class_of(call)


def class_of(call: Call) -> dict[str, str]:
    """The class that is asked for, as it is kept. Raises AwsError(InvalidStorageClass)."""
    asked = call.header("x-amz-storage-class")
    if asked not in CLASSES:
        raise AwsError("InvalidStorageClass", "The storage class you specified is not valid")
    return {KEPT_CLASS: asked} if asked and asked != "STANDARD" else {}


def _text(header: str) -> str:
    """Bytes beyond ASCII as Latin-1, whatever they are."""
    return header.encode("utf-8", "surrogateescape").decode("latin-1")


def _as_sent(value: str) -> str:
    """What goes out, in UTF-8, as the bytes that came. Bytes that were no UTF-8 are told as if they had been Latin-1."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _rfc2047(value: str) -> str:
    """As S3 tells metadata beyond ASCII; it takes the bytes that came for Latin-1."""
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, end) of a single range, end exclusive; None for the whole. Raises AwsError(InvalidRange, 416)."""
    match = _RANGE.fullmatch(header)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= size or (not match[1] and int(match[2]) == 0):
        members = {"RangeRequested": header, "ActualObjectSize": size}
        raise AwsError("InvalidRange", "The requested range is not satisfiable", 416, members)
    return start, end


def _headers(stored: storage_pb2.StoredObject) -> dict[str, str]:
    headers = {
        "Content-Type": _as_sent(stored.content_type) or "binary/octet-stream",
        "ETag": f'"{stored.etag}"',
        "Last-Modified": http_time(stored.last_modified),
        "Accept-Ranges": "bytes",
    }
    for name, value in stored.metadata.items():
        if not name.startswith(":"):
            headers[f"x-amz-meta-{name}"] = value if value.isascii() else _rfc2047(value)
        elif not _is_of_bytes(name):
            headers[name[1:].title()] = _as_sent(value)
    return headers


def _is_of_bytes(name: str) -> bool:
    """Whether the index keeps it of an object's bytes, not of what a client said of them: it goes with them, and is no header."""
    return name.startswith(_CHECKSUM) or name in (KEPT_TYPE, parts.KEPT_SIZES, parts.KEPT_CHECKSUMS)


def _header_text(value: str) -> str:
    """A parameter that becomes a header. Raises AwsError for line breaks and their like."""
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise AwsError("InvalidArgument", "A response header can not hold control characters.")
    return value


def _range_holds(call: Call, stored: storage_pb2.StoredObject) -> bool:
    """If-Range: the part is wanted only of what the reader has the rest of."""
    wanted = call.header("if-range")
    return not wanted or wanted in (f'"{stored.etag}"', http_time(stored.last_modified))
