"""StorageService in the terms of S3: what is not there becomes S3's error. Knows its gRPC, no HTTP."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from belvedere.chassis.errors import Conflict, NotFound
from belvedere.v1 import storage_pb2
from belvedere.v1.storage_pb2_grpc import StorageServiceStub
from services.gateway.errors import AwsError
from services.gateway.s3 import failures

BUCKET, OWN_BUCKET = "BUCKET", "OWN_BUCKET"
"""StorageService's resource types of a bucket."""


class Index:
    """The names of buckets and objects."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._storage = StorageServiceStub(channel)

    async def create_bucket(self, name: str) -> None:
        """Raises AwsError: BucketAlreadyExists, BucketAlreadyOwnedByYou."""
        try:
            await self._storage.CreateBucket(storage_pb2.CreateBucketRequest(name=name))
        except Conflict as error:
            if error.resource_type == OWN_BUCKET:
                message = "Your previous request to create the named bucket succeeded and you already own it."
                raise AwsError("BucketAlreadyOwnedByYou", message, 409, {"BucketName": name}) from error
            message = "The requested bucket name is not available. Please select a different name and try again."
            raise AwsError("BucketAlreadyExists", message, 409, {"BucketName": name}) from error

    async def require(self, name: str) -> None:
        """Raises AwsError(NoSuchBucket)."""
        try:
            await self._storage.GetBucket(storage_pb2.GetBucketRequest(name=name))
        except NotFound as error:
            raise failures.no_such_bucket(name) from error

    async def delete_bucket(self, name: str) -> None:
        """Raises AwsError: NoSuchBucket, BucketNotEmpty."""
        try:
            await self._storage.DeleteBucket(storage_pb2.DeleteBucketRequest(name=name))
        except NotFound as error:
            raise failures.no_such_bucket(name) from error
        except Conflict as error:
            message = "The bucket you tried to delete is not empty"
            raise AwsError("BucketNotEmpty", message, 409, {"BucketName": name}) from error

    async def buckets(self) -> list[storage_pb2.Bucket]:
        return list((await self._storage.ListBuckets(storage_pb2.ListBucketsRequest())).buckets)

    async def find(self, bucket: str, key: str) -> storage_pb2.StoredObject | None:
        """Raises AwsError(NoSuchBucket)."""
        try:
            answer = await self._storage.GetObject(storage_pb2.GetObjectRequest(bucket=bucket, key=key))
        except NotFound as error:
            if error.resource_type == BUCKET:
                raise failures.no_such_bucket(bucket) from error
            return None
        return answer.object

    async def get(self, bucket: str, key: str) -> storage_pb2.StoredObject:
        """Raises AwsError: NoSuchBucket, NoSuchKey."""
        stored = await self.find(bucket, key)
        if stored is None:
            raise failures.no_such_key(key)
        return stored

    async def put(self, stored: storage_pb2.StoredObject, *, if_absent: bool = False, if_etag: str = "") -> None:
        """Raises AwsError: NoSuchBucket; with a condition PreconditionFailed, NoSuchKey."""
        request = storage_pb2.PutObjectRequest(object=stored, if_absent=if_absent, if_etag=if_etag)
        try:
            await self._storage.PutObject(request)
        except NotFound as error:
            if error.resource_type == BUCKET:
                raise failures.no_such_bucket(stored.bucket) from error
            raise failures.no_such_key(stored.key) from error
        except Conflict as error:
            raise failures.precondition_failed("If-None-Match" if if_absent else "If-Match") from error

    async def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """No error for keys that are not there. Raises AwsError(NoSuchBucket)."""
        try:
            await self._storage.DeleteObjects(storage_pb2.DeleteObjectsRequest(bucket=bucket, keys=keys))
        except NotFound as error:
            raise failures.no_such_bucket(bucket) from error

    async def delete_if(self, bucket: str, key: str, etag: str) -> None:
        """Only what has this ETag; "*": any. Raises AwsError: NoSuchBucket, NoSuchKey, PreconditionFailed."""
        try:
            await self._storage.DeleteObject(storage_pb2.DeleteObjectRequest(bucket=bucket, key=key, if_etag=etag))
        except NotFound as error:
            raise (
                failures.no_such_bucket(bucket) if error.resource_type == BUCKET else failures.no_such_key(key)
            ) from error
        except Conflict as error:
            raise failures.precondition_failed("If-Match") from error

    async def page(
        self, bucket: str, prefix: str, start_after: str, most: int
    ) -> tuple[list[storage_pb2.StoredObject], bool]:
        """Objects by key, and whether there are more. Raises AwsError(NoSuchBucket)."""
        request = storage_pb2.ListObjectsRequest(bucket=bucket, prefix=prefix, start_after=start_after, max_keys=most)
        try:
            answer = await self._storage.ListObjects(request)
        except NotFound as error:
            raise failures.no_such_bucket(bucket) from error
        return list(answer.objects), answer.truncated
