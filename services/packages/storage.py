"""The index over stored objects: which buckets there are, and which digest stands at which bucket and key. The bytes are the
blob store's.

Must not know what the objects are, nor S3's wire format. Every account has a bucket for its packages in every region,
without making it; others are made and deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.blobs import BlobStore
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.v1 import storage_pb2 as pb
from belvedere.v1 import storage_pb2_grpc as rpc
from services.packages import objects, rules
from services.packages.objects import BucketRow, ObjectRow
from services.packages.sweeping import delete_parts
from services.packages.wire import timestamp

BUCKET, OWN_BUCKET, OBJECT = "BUCKET", "OWN_BUCKET", "OBJECT"
"""Resource types in errors. OWN_BUCKET: the conflict is with a bucket of the caller's own."""
KEY_LIMIT_BYTES = 1024
PAGE_LIMIT = 1000
"""Most keys of a page, as S3 has it."""


class StorageHandlers(rpc.StorageServiceServicer):
    """StorageService. NotFound and Conflict have the resource type BUCKET, OWN_BUCKET or OBJECT."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def CreateBucket(self, request: pb.CreateBucketRequest, context: Any) -> pb.CreateBucketResponse:
        who, name = caller(), request.name
        rules.check_bucket_name(name)
        async with self._database.session() as session, session.begin():
            row = await session.get(BucketRow, name)
            owners = (row.account, row.region) if row is not None else None
            if name == rules.bucket_name(who.account, who.region) or owners == (who.account, who.region):
                raise Conflict(OWN_BUCKET, name, f"The bucket {name} is yours already.")
            if row is not None or rules.is_package_bucket(name):
                raise Conflict(BUCKET, name, f"The name {name} is taken: choose another one.")
            session.add(BucketRow(name=name, account=who.account, region=who.region, created=self._clock()))
        return pb.CreateBucketResponse()

    async def GetBucket(self, request: pb.GetBucketRequest, context: Any) -> pb.GetBucketResponse:
        who, name = caller(), request.name
        if name == rules.bucket_name(who.account, who.region):
            return pb.GetBucketResponse(bucket=pb.Bucket(name=name))
        async with self._database.session(read_only=True) as session:
            row = await objects.find_bucket(session, who.account, who.region, name)
        if row is None:
            raise NotFound(BUCKET, name)
        return pb.GetBucketResponse(bucket=_bucket(row))

    async def DeleteBucket(self, request: pb.DeleteBucketRequest, context: Any) -> pb.DeleteBucketResponse:
        who, name = caller(), request.name
        if name == rules.bucket_name(who.account, who.region):
            raise Invalid(f"{name} holds this account's packages and stays.", fields=[("Bucket", "holds packages")])
        async with self._database.session() as session, session.begin():
            row = await objects.find_bucket(session, who.account, who.region, name)
            if row is None:
                raise NotFound(BUCKET, name)
            if await objects.has_objects(session, who.account, who.region, name, rules.RESERVED_KEYS):
                raise Conflict(BUCKET, name, f"The bucket {name} is not empty: delete what is in it first.")
            taken = await objects.take_objects(session, who.account, who.region, name, rules.RESERVED_KEYS)
            await session.delete(row)
        await delete_parts(self._blobs, taken)
        return pb.DeleteBucketResponse()

    async def ListBuckets(self, request: pb.ListBucketsRequest, context: Any) -> pb.ListBucketsResponse:
        who = caller()
        own = pb.Bucket(name=rules.bucket_name(who.account, who.region))
        async with self._database.session(read_only=True) as session:
            made = [_bucket(row) for row in await objects.list_buckets(session, who.account, who.region)]
        return pb.ListBucketsResponse(buckets=sorted([own, *made], key=lambda bucket: bucket.name))

    async def PutObject(self, request: pb.PutObjectRequest, context: Any) -> pb.PutObjectResponse:
        who, given = caller(), request.object
        if not 1 <= len(given.key.encode()) <= KEY_LIMIT_BYTES:
            raise Invalid(f"A key has 1 to {KEY_LIMIT_BYTES} bytes.", fields=[("Key", f"1 to {KEY_LIMIT_BYTES} bytes")])
        if not await self._blobs.renew(given.digest):
            raise Invalid(
                f"No blob {given.digest} is stored: store the bytes first.", fields=[("Digest", "not stored")]
            )
        async with self._database.session() as session, session.begin():
            await self._check_bucket(session, who, given.bucket)
            if request.if_absent or request.if_etag:
                present = await objects.find_object(session, who.account, who.region, given.bucket, given.key)
                if present is None and request.if_etag:
                    raise NotFound(OBJECT, given.key)
                if present is not None and (request.if_absent or present.etag != request.if_etag):
                    raise Conflict(OBJECT, given.key, f"Something else stands at {given.key} already.")
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
        async with self._database.session(read_only=True) as session:
            await self._check_bucket(session, who, request.bucket)
            row = await objects.find_object(session, who.account, who.region, request.bucket, request.key)
        if row is None:
            raise NotFound(OBJECT, request.key)
        return pb.GetObjectResponse(object=_stored(row))

    async def DeleteObject(self, request: pb.DeleteObjectRequest, context: Any) -> pb.DeleteObjectResponse:
        await self._delete(request.bucket, [request.key], request.if_etag)
        return pb.DeleteObjectResponse()

    async def DeleteObjects(self, request: pb.DeleteObjectsRequest, context: Any) -> pb.DeleteObjectsResponse:
        if len(request.keys) > PAGE_LIMIT:
            raise Invalid(f"At most {PAGE_LIMIT} keys at once.", fields=[("Keys", f"at most {PAGE_LIMIT}")])
        await self._delete(request.bucket, list(request.keys))
        return pb.DeleteObjectsResponse()

    async def _delete(self, bucket: str, keys: list[str], if_etag: str = "") -> None:
        who = caller()
        async with self._database.session() as session, session.begin():
            await self._check_bucket(session, who, bucket)
            for key in keys if if_etag else ():
                present = await objects.find_object(session, who.account, who.region, bucket, key)
                if present is None:
                    raise NotFound(OBJECT, key)
                if if_etag not in ("*", present.etag):
                    raise Conflict(OBJECT, key, f"Something else stands at {key}.")
            await objects.delete_objects(session, who.account, who.region, bucket, keys)

    async def ListObjects(self, request: pb.ListObjectsRequest, context: Any) -> pb.ListObjectsResponse:
        who = caller()
        size = min(request.max_keys, PAGE_LIMIT) if request.max_keys > 0 else PAGE_LIMIT
        async with self._database.session(read_only=True) as session:
            await self._check_bucket(session, who, request.bucket)
            found = await objects.list_objects(
                session, who.account, who.region, request.bucket, request.prefix, request.start_after, size + 1
            )
        return pb.ListObjectsResponse(objects=[_stored(row) for row in found[:size]], truncated=len(found) > size)

    async def _check_bucket(self, session: AsyncSession, who: Caller, bucket: str) -> None:
        """In the same transaction as what is done in it, so that nothing is left in a bucket that is deleted."""
        if bucket == rules.bucket_name(who.account, who.region):
            return
        if await objects.find_bucket(session, who.account, who.region, bucket) is None:
            raise NotFound(BUCKET, bucket)


def _bucket(row: BucketRow) -> pb.Bucket:
    return pb.Bucket(name=row.name, created_time=timestamp(row.created))


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
