"""Uploads in parts, as `aws s3 cp` makes them above 8 MB.

State lies in StorageService's index under reserved keys of the bucket, bytes in the blob store, so any replica can serve any part.
A part's blob begins with bytes that no other blob begins with: no object can share it, so it may be deleted in the end.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply, read_all
from services.gateway.payload import Upload, declared_hash
from services.gateway.s3 import conditions, failures, part_checksums, parts, slow
from services.gateway.s3.index import Index
from services.gateway.s3.listing import folded, page_size
from services.gateway.s3.names import UPLOADS, Place
from services.gateway.s3.objects import Objects, check_body_hash, content_type, metadata_of, parse_range
from services.gateway.s3.replies import document, iso_time, storage_class

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

COMPLETE_BODY_MAX = 4 << 20
"""Bytes of CompleteMultipartUpload's list of 10,000 parts with checksums."""
SALT_BYTES = 32
_LAST_ID = "~"
"""Sorts after every upload's id."""
_TARGET = ":upload-key"
"""Under this the index entry keeps the key that the object will have; no header has such a name."""


_OF_UPLOADS = part_checksums.MINE | {_TARGET}


class Multipart:
    """The operations on uploads in parts."""

    def __init__(self, index: Index, blobs: BlobStore, objects: Objects) -> None:
        self._index, self._blobs, self._objects = index, blobs, objects
        self._completing: dict[str, tuple[bytes, slow.Work]] = {}
        """By the upload's id: what its client sent, and the work that it began."""

    async def create(self, call: Call, place: Place) -> Reply:
        """CreateMultipartUpload."""
        check_body_hash(call, await read_all(call, 0))
        wish = part_checksums.Wish.of_request(call)
        metadata = metadata_of(call) | {_TARGET: place.key} | wish.to_keep()
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
        answer = document("InitiateMultipartUploadResult", content)
        return replace(answer, headers={**answer.headers, **wish.headers()})

    async def put_part(self, call: Call, place: Place, upload_id: str, number: str) -> Reply:
        """UploadPart. Another upload of the same number replaces it."""
        key = await self._part(place, upload_id, number)
        upload = Upload(call, declared_hash(call))
        digest = await self._put_salted(upload.chunks())
        kept = {f"{part_checksums.KEPT}{name}": value for name, value in upload.checksums.items()}
        await self._replace(place.bucket, key, digest, upload.size, upload.md5, kept)
        headers = {"ETag": f'"{upload.md5}"'}
        headers |= {f"x-amz-checksum-{name}": value for name, value in upload.checksums.items()}
        return Reply(200, headers)

    async def copy_part(self, call: Call, place: Place, upload_id: str, number: str) -> Reply:
        """UploadPartCopy: a part from an object, or a range of it."""
        check_body_hash(call, b"")
        key = await self._part(place, upload_id, number)
        source = await self._objects.copy_source(call)
        asked = call.header("x-amz-copy-source-range")
        span = parse_range(asked, source.size_bytes)
        if asked and span is None:
            raise AwsError("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last")
        start, end = span or (0, source.size_bytes)
        return await slow.answer(call, slow.begin(self._copy_part(place.bucket, key, source, start, end)))

    async def _copy_part(self, bucket: str, key: str, source: storage_pb2.StoredObject, start: int, end: int) -> Reply:
        md5 = hashlib.md5()  # S3's ETag, no defence

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in self._blobs.open(source.digest, start, end):
                md5.update(chunk)
                yield chunk

        digest = await self._put_salted(chunks())
        part = await self._replace(bucket, key, digest, end - start, md5.hexdigest(), {})
        return document("CopyPartResult", [("LastModified", iso_time(part.last_modified)), ("ETag", f'"{part.etag}"')])

    async def _part(self, place: Place, upload_id: str, number: str) -> str:
        """The index's key for a part of an upload that is in progress."""
        if not re.fullmatch(r"\d{1,5}", number) or not 1 <= int(number) <= parts.PARTS_MAX:
            message = f"Part number must be an integer between 1 and {parts.PARTS_MAX}, inclusive"
            raise failures.invalid_argument(message, "partNumber", number)
        await self._find(place, upload_id)
        return _part_key(upload_id, int(number))

    async def _put_salted(self, chunks: AsyncIterator[bytes]) -> str:
        # Of its own salt, not only the upload's: equal parts of one upload must not share a blob either.
        return (await self._blobs.put_stream(_salted(secrets.token_bytes(SALT_BYTES), chunks))).digest

    async def _replace(
        self, bucket: str, key: str, digest: str, size: int, etag: str, kept: Mapping[str, str]
    ) -> storage_pb2.StoredObject:
        before = await self._index.find(bucket, key)
        part = storage_pb2.StoredObject(
            bucket=bucket, key=key, digest=digest, size_bytes=size, etag=etag, metadata=kept
        )
        part.last_modified.GetCurrentTime()
        await self._index.put(part)
        if before is not None:
            await self._blobs.delete(before.digest)
        return part

    async def complete(self, call: Call, place: Place, upload_id: str) -> Reply:
        """CompleteMultipartUpload: the object stands at its key at once and whole."""
        entry = await self._find(place, upload_id)
        uploaded = {part.key: part for part in await self._parts(place.bucket, upload_id)}
        conditions.of_write(call)
        body = await read_all(call, COMPLETE_BODY_MAX)
        check_body_hash(call, body)
        listed = parts.listed(body)
        chosen = [self._chosen(upload_id, uploaded, part) for part in listed]
        parts.check_sizes([(part.number, stored) for part, stored in zip(listed, chosen, strict=True)])
        size, said = sum(part.size_bytes for part in chosen), call.header("x-amz-mp-object-size")
        if said and said != str(size):
            message = (
                f"The provided 'x-amz-mp-object-size' header value {said[:20]} does not match what was computed: {size}"
            )
            raise AwsError("InvalidRequest", message)
        # Without a wait from here on: of two who complete the same upload, the second waits for what the first one does.
        said_before, running = self._completing.get(upload_id, (body, None))
        if said_before != body:
            raise _in_progress()
        if running is None:
            running = slow.begin(self._complete(call, place, entry, chosen, list(uploaded.values())))
            self._completing[upload_id] = body, running
            running.add_done_callback(lambda _: self._completing.pop(upload_id))
        return await slow.answer(call, running)

    async def _complete(
        self,
        call: Call,
        place: Place,
        entry: storage_pb2.StoredObject,
        chosen: list[storage_pb2.StoredObject],
        uploaded: list[storage_pb2.StoredObject],
    ) -> Reply:
        """Makes one object of the chosen parts, and forgets the upload."""
        upload_id = entry.key.removeprefix(UPLOADS)
        if_absent, if_etag = conditions.of_write(call)
        wish = part_checksums.Wish.kept(entry.metadata)
        whole = part_checksums.Whole(wish, [part.metadata for part in chosen])
        blob = await self._blobs.put_stream(self._joined(chosen, whole))
        whole.check(call)
        digests = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen)).hexdigest()
        stored = storage_pb2.StoredObject(
            bucket=place.bucket,
            key=place.key,
            digest=blob.digest,
            size_bytes=sum(part.size_bytes for part in chosen),
            etag=f"{digests}-{len(chosen)}",
            content_type=entry.content_type,
            metadata={name: value for name, value in entry.metadata.items() if name not in _OF_UPLOADS}
            | whole.to_keep()
            | parts.to_keep(chosen, wish),
        )
        await self._index.put(stored, if_absent=if_absent, if_etag=if_etag)
        await self._forget(place.bucket, upload_id, uploaded)
        content = [
            ("Location", f"http://{call.header('host')}{call.path}"),
            ("Bucket", place.bucket),
            ("Key", place.key),
            ("ETag", f'"{stored.etag}"'),
            *whole.told(),
        ]
        return document("CompleteMultipartUploadResult", content)

    async def abort(self, call: Call, place: Place, upload_id: str) -> Reply:
        """AbortMultipartUpload. What is being completed is not taken away from under it."""
        await self._find(place, upload_id)
        if upload_id in self._completing:
            raise _in_progress()
        await self._forget(place.bucket, upload_id, await self._parts(place.bucket, upload_id))
        return Reply(204)

    async def list_parts(self, call: Call, place: Place, upload_id: str) -> Reply:
        """ListParts."""
        upload = await self._find(place, upload_id)
        most, marker = page_size(call, "max-parts"), call.parameter("part-number-marker") or "0"
        if not re.fullmatch(r"\d{1,9}", marker):
            raise AwsError("InvalidArgument", "Provided part-number-marker not an integer or within integer range")
        numbered = [(int(part.key.rpartition("/")[2]), part) for part in await self._parts(place.bucket, upload_id)]
        left = [(number, part) for number, part in numbered if number > int(marker)]
        shown, more = left[:most], len(left) > most
        content: list[tuple[str, xml.Content]] = [("Bucket", place.bucket), ("Key", place.key), ("UploadId", upload_id)]
        content += [("PartNumberMarker", marker), ("MaxParts", str(most)), ("IsTruncated", "true" if more else "false")]
        content += [("NextPartNumberMarker", str(shown[-1][0]))] if shown else []
        content += [*_owners(call), ("StorageClass", storage_class(upload))]
        wish = part_checksums.Wish.kept(upload.metadata)
        if wish.algorithm:
            content += [("ChecksumAlgorithm", wish.algorithm.upper()), ("ChecksumType", wish.type)]
        for number, part in shown:
            entry = [("PartNumber", str(number)), ("LastModified", iso_time(part.last_modified))]
            told = [("ETag", f'"{part.etag}"'), ("Size", str(part.size_bytes)), *part_checksums.of_part(part.metadata)]
            content.append(("Part", [*entry, *told]))
        return document("ListPartsResult", content)

    async def list_uploads(self, call: Call, bucket: str) -> Reply:
        """ListMultipartUploads, by key and id, folded at a delimiter."""
        delimiter = call.parameter("delimiter") or ""
        most, prefix = page_size(call, "max-uploads"), call.parameter("prefix") or ""
        marker = (call.parameter("key-marker") or "", call.parameter("upload-id-marker") or _LAST_ID)
        encode = quote if call.parameter("encoding-type") == "url" else str
        found = [(e.metadata[_TARGET], e.key.removeprefix(UPLOADS), e) for e in await self._uploads(bucket)]
        left = sorted((u for u in found if u[0].startswith(prefix) and u[:2] > marker), key=lambda upload: upload[:2])
        # A page is of uploads and of common prefixes, each with the place where the next page begins.
        shown: dict[tuple[str, str], storage_pb2.StoredObject | None] = {}
        more = False
        for key, upload_id, entry in left:
            common = folded(key, prefix, delimiter)
            if common is not None and (common == marker[0] or (common, "") in shown):
                continue
            if len(shown) == most:
                more = True
                break
            if common is None:
                shown[key, upload_id] = entry
            else:
                shown[common, ""] = None
        content: list[tuple[str, xml.Content]] = [("Bucket", bucket), ("KeyMarker", encode(marker[0]))]
        content += [("Prefix", encode(prefix)), ("MaxUploads", str(most)), ("IsTruncated", "true" if more else "false")]
        content += [("Delimiter", encode(delimiter))] if delimiter else []
        if shown:
            last = list(shown)[-1]
            content += [("NextKeyMarker", encode(last[0])), ("NextUploadIdMarker", last[1])]
        content += [("EncodingType", "url")] if encode is quote else []
        for (key, upload_id), upload in shown.items():
            if upload is None:
                content.append(("CommonPrefixes", [("Prefix", encode(key))]))
            else:
                told = [("Key", encode(key)), ("UploadId", upload_id), ("Initiated", iso_time(upload.last_modified))]
                content.append(("Upload", [*told, *_owners(call), ("StorageClass", storage_class(upload))]))
        return document("ListMultipartUploadsResult", content)

    async def _uploads(self, bucket: str) -> list[storage_pb2.StoredObject]:
        found: list[storage_pb2.StoredObject] = []
        after = ""
        while True:
            page, more = await self._index.page(bucket, UPLOADS, after, 1000)
            uploads = [entry for entry in page if "/" not in entry.key.removeprefix(UPLOADS)]
            found += uploads
            if not more:
                return found
            # Its parts lie behind it: on to the next upload ("0" comes after "/").
            after = f"{uploads[-1].key}0" if uploads else page[-1].key.rpartition("/")[0] + "0"

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
        upload_id: str, uploaded: dict[str, storage_pb2.StoredObject], listed: parts.Listed
    ) -> storage_pb2.StoredObject:
        part = uploaded.get(_part_key(upload_id, listed.number))
        wrong = part is None or part.etag != listed.etag.strip('"')
        if part is None or wrong or not part_checksums.agrees(part.metadata, listed.checksums):
            raise AwsError(
                "InvalidPart",
                "One or more of the specified parts could not be found. The part may not have been uploaded, or its "
                "entity tag may not match.",
                400,
                {"UploadId": upload_id, "PartNumber": listed.number, "ETag": listed.etag.strip('"')[:64]},
            )
        return part

    async def _joined(
        self, chosen: list[storage_pb2.StoredObject], whole: part_checksums.Whole
    ) -> AsyncIterator[bytes]:
        for part in chosen:
            if part.size_bytes:
                async for chunk in self._blobs.open(part.digest, SALT_BYTES, SALT_BYTES + part.size_bytes):
                    whole.update(chunk)
                    yield chunk

    async def _forget(self, bucket: str, upload_id: str, stored: Iterable[storage_pb2.StoredObject]) -> None:
        # The upload first: once it is gone, no new part can join it.
        await self._index.delete(bucket, [f"{UPLOADS}{upload_id}"])
        for part in stored:
            await self._index.delete(bucket, [part.key])
            await self._blobs.delete(part.digest)


def _owners(call: Call) -> list[tuple[str, xml.Content]]:
    """Everything in a bucket is its account's."""
    account = [("ID", call.who.account), ("DisplayName", call.who.account)]
    return [("Initiator", account), ("Owner", account)]


def _in_progress() -> AwsError:
    message = "A conflicting conditional operation is currently in progress against this resource. Try again."
    return AwsError("OperationAborted", message, 409)


def _part_key(upload_id: str, number: int) -> str:
    return f"{UPLOADS}{upload_id}/{number:05d}"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _salted(salt: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield salt
    async for chunk in chunks:
        yield chunk
