"""Uploads in parts, as `aws s3 cp` makes them above 8 MB.

State lies in StorageService's index under reserved keys of the bucket, bytes in the blob store, so any replica can serve any part.
A part's blob begins with bytes that no other blob begins with: no object can share it, so it may be deleted in the end.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply, read_all
from services.gateway.payload import Upload, declared_hash
from services.gateway.s3 import failures
from services.gateway.s3.names import UPLOADS, Place
from services.gateway.s3.objects import NAMESPACE, Index, check_body_hash, content_type, metadata_of

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

PARTS_MAX = 10_000
COMPLETE_BODY_MAX = 4 << 20
"""Bytes of CompleteMultipartUpload's list of 10,000 parts with checksums."""
SALT_BYTES = 32
_TARGET = ":upload-key"
"""Under this the index entry keeps the key that the object will have; no header has such a name."""


class Multipart:
    """The operations on uploads in parts."""

    def __init__(self, index: Index, blobs: BlobStore) -> None:
        self._index, self._blobs = index, blobs

    async def create(self, call: Call, place: Place) -> Reply:
        """CreateMultipartUpload."""
        metadata = metadata_of(call) | {_TARGET: place.key}
        upload_id = secrets.token_hex(SALT_BYTES)
        blob = await self._blobs.put_stream(_once(b""))
        entry = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=f"{UPLOADS}{upload_id}",
            digest=blob.digest,
            content_type=content_type(call),
            metadata=metadata,
        )
        await self._index.put(entry)
        content = [("Bucket", place.bucket), ("Key", place.key), ("UploadId", upload_id)]
        return _xml("InitiateMultipartUploadResult", content)

    async def put_part(self, call: Call, place: Place, upload_id: str, number: str) -> Reply:
        """UploadPart. Another upload of the same number replaces it."""
        if not re.fullmatch(r"\d{1,5}", number) or not 1 <= int(number) <= PARTS_MAX:
            raise AwsError("InvalidArgument", f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive")
        await self._find(place, upload_id)
        key = _part_key(upload_id, int(number))
        upload = Upload(call, declared_hash(call))
        # Of its own salt, not only the upload's: equal parts of one upload must not share a blob either.
        blob = await self._blobs.put_stream(_salted(secrets.token_bytes(SALT_BYTES), upload.chunks()))
        before = await self._index.find(place.bucket, key)
        part = storage_pb2.StoredObject(
            bucket=place.bucket, key=key, digest=blob.digest, size_bytes=upload.size, etag=upload.md5
        )
        await self._index.put(part)
        if before is not None:
            await self._blobs.delete(before.digest)
        headers = {"ETag": f'"{upload.md5}"'}
        headers |= {f"x-amz-checksum-{name}": value for name, value in upload.checksums.items()}
        return Reply(200, headers)

    async def complete(self, call: Call, place: Place, upload_id: str) -> Reply:
        """CompleteMultipartUpload: the object stands at its key at once and whole."""
        entry = await self._find(place, upload_id)
        uploaded = {part.key: part for part in await self._parts(place.bucket, upload_id)}
        body = await read_all(call, COMPLETE_BODY_MAX)
        check_body_hash(call, body)
        parts = [self._chosen(upload_id, uploaded, number, etag) for number, etag in listed_parts(body)]
        blob = await self._blobs.put_stream(self._joined(parts))
        digests = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in parts)).hexdigest()
        stored = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=place.key,
            digest=blob.digest,
            size_bytes=sum(part.size_bytes for part in parts),
            etag=f"{digests}-{len(parts)}",
            content_type=entry.content_type,
            metadata={name: value for name, value in entry.metadata.items() if name != _TARGET},
        )
        await self._index.put(stored)
        await self._forget(place.bucket, upload_id, uploaded.values())
        content = [
            ("Location", call.path),
            ("Bucket", place.bucket),
            ("Key", place.key),
            ("ETag", f'"{stored.etag}"'),
        ]
        return _xml("CompleteMultipartUploadResult", content)

    async def abort(self, call: Call, place: Place, upload_id: str) -> Reply:
        """AbortMultipartUpload."""
        await self._find(place, upload_id)
        await self._forget(place.bucket, upload_id, await self._parts(place.bucket, upload_id))
        return Reply(204)

    async def _find(self, place: Place, upload_id: str) -> storage_pb2.StoredObject:
        known = re.fullmatch(r"[0-9a-f]{64}", upload_id)
        entry = await self._index.find(place.bucket, f"{UPLOADS}{upload_id}") if known else None
        if entry is None or entry.metadata[_TARGET] != place.key:
            raise failures.no_such_upload(upload_id[:128])
        return entry

    async def _parts(self, bucket: str, upload_id: str) -> list[storage_pb2.StoredObject]:
        found: list[storage_pb2.StoredObject] = []
        after = ""
        while True:
            page, more = await self._index.page(bucket, f"{UPLOADS}{upload_id}/", after, 1000)
            found += page
            if not more or not page:
                return found
            after = page[-1].key

    @staticmethod
    def _chosen(
        upload_id: str, uploaded: dict[str, storage_pb2.StoredObject], number: int, etag: str
    ) -> storage_pb2.StoredObject:
        part = uploaded.get(_part_key(upload_id, number))
        if part is None or part.etag != etag.strip('"'):
            raise AwsError(
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded, or its "
                "entity tag may not match.",
                400,
                {"PartNumber": number},
            )
        return part

    async def _joined(self, parts: list[storage_pb2.StoredObject]) -> AsyncIterator[bytes]:
        for part in parts:
            if part.size_bytes:
                async for chunk in self._blobs.open(part.digest, SALT_BYTES, SALT_BYTES + part.size_bytes):
                    yield chunk

    async def _forget(self, bucket: str, upload_id: str, parts: Iterable[storage_pb2.StoredObject]) -> None:
        # The upload first: once it is gone, no new part can join it.
        await self._index.delete(bucket, f"{UPLOADS}{upload_id}")
        for part in parts:
            await self._index.delete(bucket, part.key)
            await self._blobs.delete(part.digest)


def listed_parts(body: bytes) -> list[tuple[int, str]]:
    """(number, ETag) of CompleteMultipartUpload's body. Raises AwsError: MalformedXML, InvalidPartOrder."""
    malformed = AwsError("MalformedXML", "The XML you provided was not well-formed or did not validate.")
    try:
        root = xml.parse(body)
    except xml.MalformedXml as error:
        raise malformed from error
    parts = [(_text(part, "PartNumber"), _text(part, "ETag")) for part in root.findall("Part")]
    if not parts or len(parts) > PARTS_MAX or not all(re.fullmatch(r"\d{1,5}", number) for number, _ in parts):
        raise malformed
    numbers = [int(number) for number, _ in parts]
    if numbers != sorted(set(numbers)):
        raise AwsError("InvalidPartOrder", "The list of parts was not in ascending order.")
    return [(int(number), etag) for number, etag in parts]


def _text(element: ElementTree.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _part_key(upload_id: str, number: int) -> str:
    return f"{UPLOADS}{upload_id}/{number:05d}"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _salted(salt: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield salt
    async for chunk in chunks:
        yield chunk


def _xml(root: str, content: xml.Content) -> Reply:
    return Reply(200, {"Content-Type": "application/xml"}, xml.document(root, NAMESPACE, content))
