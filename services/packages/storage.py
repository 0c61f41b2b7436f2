"""The index over stored objects: which digest stands at which bucket and key. The bytes are the blob store's.

Must not know what the objects are, nor S3's wire format. Every account has one bucket a region.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from belvedere.blobs import BlobStore
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid, NotFound
from belvedere.v1 import storage_pb2 as pb
from belvedere.v1 import storage_pb2_grpc as rpc
from services.packages import rules, store
from services.packages.store import ObjectRow
from services.packages.wire import timestamp

KEY_LIMIT_BYTES = 1024
PAGE_LIMIT = 1000
"""Most keys of a page, as S3 has it."""


class StorageHandlers(rpc.StorageServiceServicer):
    """StorageService. NotFound has the resource type BUCKET or OBJECT."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def PutObject(self, request: pb.PutObjectRequest, context: Any) -> pb.PutObjectResponse:
        who, given = caller(), request.object
        self._check_bucket(who, given.bucket)
        if not 1 <= len(given.key.encode()) <= KEY_LIMIT_BYTES:
            raise Invalid(f"A key has 1 to {KEY_LIMIT_BYTES} bytes.", fields=[("Key", f"1 to {KEY_LIMIT_BYTES} bytes")])
        if not await self._blobs.exists(given.digest):
            raise Invalid(
                f"No blob {given.digest} is stored: store the bytes first.", fields=[("Digest", "not stored")]
            )
        async with self._database.session() as session, session.begin():
            await session.merge(
                ObjectRow(
                    account=who.account,
                    region=who.region,
                    bucket=given.bucket,
                    key=given.key,
                    digest=given.digest,
                    size_bytes=given.size_bytes,
                    etag=given.etag,
                    content_type=given.content_type,
                    user_metadata=dict(given.metadata),
                    modified=given.last_modified.ToDatetime(self._clock().tzinfo)
                    if given.HasField("last_modified")
                    else self._clock(),
                )
            )
        return pb.PutObjectResponse()

    async def GetObject(self, request: pb.GetObjectRequest, context: Any) -> pb.GetObjectResponse:
        who = caller()
        self._check_bucket(who, request.bucket)
        async with self._database.session(read_only=True) as session:
            row = await session.get(ObjectRow, (who.account, who.region, request.bucket, request.key))
        if row is None:
            raise NotFound("OBJECT", request.key)
        return pb.GetObjectResponse(object=_stored(row))

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Any) -> pb.DeleteObjectResponse:
        who = caller()
        self._check_bucket(who, request.bucket)
        async with self._database.session() as session, session.begin():
            row = await session.get(ObjectRow, (who.account, who.region, request.bucket, request.key))
            if row is not None:
                await session.delete(row)
        return pb.DeleteObjectResponse()

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Any) -> pb.ListObjectsResponse:
        who = caller()
        self._check_bucket(who, request.bucket)
        size = min(request.max_keys, PAGE_LIMIT) if request.max_keys > 0 else PAGE_LIMIT
        async with self._database.session(read_only=True) as session:
            found = await store.list_objects(
                session, who.account, who.region, request.bucket, request.prefix, request.start_after, size + 1
            )
        return pb.ListObjectsResponse(objects=[_stored(row) for row in found[:size]], truncated=len(found) > size)

    def _check_bucket(self, who: Caller, bucket: str) -> None:
        if bucket != rules.bucket_name(who.account, who.region):
            raise NotFound("BUCKET", bucket)


def _stored(row: ObjectRow) -> pb.StoredObject:
    return pb.StoredObject(
        bucket=row.bucket,
        key=row.key,
        digest=row.digest,
        size_bytes=row.size_bytes,
        etag=row.etag,
        content_type=row.content_type,
        metadata=row.user_metadata,
        last_modified=timestamp(row.modified),
    )
