"""Objects: put, get, head, delete, list. Bytes go through the blob store, names through StorageService."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc

from belvedere.chassis.errors import NotFound
from belvedere.v1 import storage_pb2
from belvedere.v1.storage_pb2_grpc import StorageServiceStub
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply
from services.gateway.payload import Upload, declared_hash
from services.gateway.s3 import failures
from services.gateway.s3.names import RESERVED, Place

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
BUCKET = "BUCKET"
"""StorageService's resource type of a bucket in NotFound."""
LIST_MAX = 1000
METADATA_MAX_BYTES = 2048
KEPT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language")
"""Kept with an object beside its metadata, under a name that no metadata can have."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_LAST = "\U0010ffff"
"""Sorts after every character: where listing goes on behind a common prefix."""


class Index:
    """StorageService, in the terms of this package."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._storage = StorageServiceStub(channel)

    async def find(self, bucket: str, key: str) -> storage_pb2.StoredObject | None:
        try:
            answer = await self._storage.GetObject(storage_pb2.GetObjectRequest(bucket=bucket, key=key))
        except NotFound as error:
            if error.resource_type == BUCKET:
                raise failures.no_such_bucket(bucket) from error
            return None
        return answer.object if answer.HasField("object") else None

    async def require(self, bucket: str) -> None:
        """Raises AwsError(NoSuchBucket)."""
        await self.page(bucket, "", "", 1)

    async def put(self, stored: storage_pb2.StoredObject) -> None:
        await self._storage.PutObject(storage_pb2.PutObjectRequest(object=stored))

    async def delete(self, bucket: str, key: str) -> None:
        await self._storage.DeleteObject(storage_pb2.DeleteObjectRequest(bucket=bucket, key=key))

    async def page(
        self, bucket: str, prefix: str, start_after: str, most: int
    ) -> tuple[list[storage_pb2.StoredObject], bool]:
        request = storage_pb2.ListObjectsRequest(bucket=bucket, prefix=prefix, start_after=start_after, max_keys=most)
        try:
            answer = await self._storage.ListObjects(request)
        except NotFound as error:
            raise failures.no_such_bucket(bucket) from error
        return list(answer.objects), answer.truncated


class Objects:
    """The operations on objects."""

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index, self._blobs = index, blobs

    async def put(self, call: Call, place: Place) -> Reply:
        """PutObject. Nothing is stored unless the whole body arrived and every hash held."""
        metadata = metadata_of(call)
        # Before the bytes: a bucket that is not there is told before they are sent.
        present = await self._index.find(place.bucket, place.key)
        if call.header("if-none-match") == "*" and present is not None:
            raise AwsError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
        upload = Upload(call, declared_hash(call))
        blob = await self._blobs.put_stream(upload.chunks())
        stored = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=place.key,
            digest=blob.digest,
            size_bytes=upload.size,
            etag=upload.md5,
            content_type=content_type(call),
            metadata=metadata,
        )
        await self._index.put(stored)
        headers = {"ETag": f'"{upload.md5}"'}
        headers |= {f"x-amz-checksum-{name}": value for name, value in upload.checksums.items()}
        return Reply(200, headers)

    async def get(self, call: Call, place: Place) -> Reply:
        """GetObject and HeadObject."""
        stored = await self._index.find(place.bucket, place.key)
        if stored is None:
            raise failures.no_such_key(place.key)
        headers = _headers(stored)
        if (refused := _condition(call, stored)) is not None:
            return Reply(refused, {"ETag": headers["ETag"], "Last-Modified": headers["Last-Modified"]})
        size = stored.size_bytes
        span = parse_range(call.header("range"), size)
        status, start, end = (206, *span) if span else (200, 0, size)
        if span:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if call.method == "HEAD":
            return Reply(status, headers, length=end - start)
        return Reply(status, headers, self._bytes(stored.digest, start, end), length=end - start)

    async def _bytes(self, digest: str, start: int, end: int) -> AsyncIterator[bytes]:
        if end > start:
            async for chunk in self._blobs.open(digest, start, end):
                yield chunk

    async def delete(self, call: Call, place: Place) -> Reply:
        """DeleteObject: 204 whether or not it was there. The bytes may be shared and stay."""
        await self._index.delete(place.bucket, place.key)
        return Reply(204)

    async def list(self, call: Call, bucket: str) -> Reply:
        """ListObjects and ListObjectsV2."""
        second = call.parameter("list-type") == "2"
        prefix, delimiter = call.parameter("prefix") or "", call.parameter("delimiter") or ""
        encoding = call.parameter("encoding-type")
        if encoding not in (None, "url"):
            raise AwsError("InvalidArgument", "Invalid Encoding Method specified in Request")
        most = _max_keys(call.parameter("max-keys"))
        token = call.parameter("continuation-token")
        after = call.parameter("start-after" if second else "marker") or ""
        if second and token:
            after = _untoken(token)
        listing = Listing(prefix, delimiter, most)
        await self._fill(listing, bucket, after)

        def key(text: str) -> str:
            return quote(text, safe="/") if encoding else text

        content: list[tuple[str, xml.Content]] = [("Name", bucket), ("Prefix", key(prefix))]
        if second:
            content += [("KeyCount", str(len(listing.objects) + len(listing.prefixes)))]
            content += [("ContinuationToken", token)] if token else []
            content += [("StartAfter", key(after))] if call.parameter("start-after") else []
            content += [("NextContinuationToken", _token(listing.last))] if listing.truncated else []
        else:
            content += [("Marker", key(after))]
            content += [("NextMarker", key(listing.last))] if listing.truncated else []
        content += [("MaxKeys", str(most))]
        content += [("Delimiter", key(delimiter))] if delimiter else []
        content += [("EncodingType", encoding)] if encoding else []
        content += [("IsTruncated", "true" if listing.truncated else "false")]
        content += [("Contents", _entry(stored, key(stored.key))) for stored in listing.objects]
        content += [("CommonPrefixes", [("Prefix", key(common))]) for common in listing.prefixes]
        return Reply(200, {"Content-Type": "application/xml"}, xml.document("ListBucketResult", NAMESPACE, content))

    async def _fill(self, listing: Listing, bucket: str, after: str) -> None:
        if listing.most == 0:
            return
        if listing.delimiter and after.endswith(listing.delimiter):
            # The last page ended with a common prefix: everything below it is behind us.
            after += _LAST
        while True:
            page, more = await self._index.page(bucket, listing.prefix, after, LIST_MAX)
            for stored in page:
                if stored.key <= after:
                    continue
                if stored.key.startswith(RESERVED):
                    after = RESERVED + _LAST
                    continue
                if not listing.room:
                    listing.truncated = True
                    return
                after = listing.add(stored)
            if not more:
                return


class Listing:
    """One page of keys and common prefixes, as it fills."""

    def __init__(self, prefix: str, delimiter: str, most: int) -> None:
        self.prefix, self.delimiter, self.most = prefix, delimiter, most
        self.objects: list[storage_pb2.StoredObject] = []
        self.prefixes: list[str] = []
        self.truncated = False
        self.last = ""

    @property
    def room(self) -> bool:
        return len(self.objects) + len(self.prefixes) < self.most

    def add(self, stored: storage_pb2.StoredObject) -> str:
        """Takes an entry in; returns the key after which the listing goes on."""
        rest = stored.key[len(self.prefix) :]
        end = rest.find(self.delimiter) if self.delimiter else -1
        if end < 0:
            self.objects.append(stored)
            self.last = stored.key
            return stored.key
        common = self.prefix + rest[: end + len(self.delimiter)]
        self.prefixes.append(common)
        self.last = common
        return common + _LAST


def check_body_hash(call: Call, body: bytes) -> None:
    """Raises AwsError where a small body is not what its hash says."""
    declared = declared_hash(call)
    if re.fullmatch(r"[0-9a-f]{64}", declared) and hashlib.sha256(body).hexdigest() != declared:
        raise AwsError("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' does not match the body.")


def content_type(call: Call) -> str:
    return _text(call.header("content-type")) or "binary/octet-stream"


def metadata_of(call: Call) -> dict[str, str]:
    """x-amz-meta-* and the kept headers. Raises AwsError(MetadataTooLarge)."""
    metadata: dict[str, str] = {}
    for name, value in call.http.headers:
        if name.startswith("x-amz-meta-"):
            metadata[name.removeprefix("x-amz-meta-")] = _text(value)
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_MAX_BYTES:
        raise AwsError("MetadataTooLarge", f"Your metadata headers exceed {METADATA_MAX_BYTES} bytes.")
    for name in KEPT_HEADERS:
        parts = [part.strip() for part in _text(call.header(name)).split(",")]
        if value := ",".join(part for part in parts if part and part != "aws-chunked"):
            metadata[f":{name}"] = value
    return metadata


def _text(header: str) -> str:
    """Bytes beyond ASCII as Latin-1, so that whatever came goes back out the same."""
    return header.encode("utf-8", "surrogateescape").decode("latin-1")


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
    modified = stored.last_modified.ToDatetime(tzinfo=UTC)
    headers = {
        "Content-Type": stored.content_type or "binary/octet-stream",
        "ETag": f'"{stored.etag}"',
        "Last-Modified": format_datetime(modified.replace(microsecond=0), usegmt=True),
        "Accept-Ranges": "bytes",
    }
    for name, value in stored.metadata.items():
        headers[name[1:] if name.startswith(":") else f"x-amz-meta-{name}"] = value
    return headers


def _condition(call: Call, stored: storage_pb2.StoredObject) -> int | None:
    """The status where If-Match or If-None-Match forbid the answer."""
    etag = f'"{stored.etag}"'
    if (wanted := call.header("if-match")) and wanted not in ("*", etag, stored.etag):
        raise AwsError("PreconditionFailed", "At least one of the pre-conditions you specified did not hold", 412)
    if (known := call.header("if-none-match")) and known in ("*", etag, stored.etag):
        return 304
    return None


def _entry(stored: storage_pb2.StoredObject, key: str) -> xml.Content:
    modified = stored.last_modified.ToDatetime().isoformat(timespec="milliseconds") + "Z"
    return [
        ("Key", key),
        ("LastModified", modified),
        ("ETag", f'"{stored.etag}"'),
        ("Size", str(stored.size_bytes)),
        ("StorageClass", "STANDARD"),
    ]


def _max_keys(text: str | None) -> int:
    if text is None:
        return LIST_MAX
    if not re.fullmatch(r"\d{1,9}", text):
        raise AwsError("InvalidArgument", "Provided max-keys not an integer or within integer range")
    return min(int(text), LIST_MAX)


def _token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _untoken(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise AwsError("InvalidArgument", "The continuation token provided is incorrect") from error
