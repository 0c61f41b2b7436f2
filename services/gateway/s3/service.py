"""S3 behind the front door: which operation a request means, whether it is allowed, and who answers it.

Path style only (`/bucket/key`). Operations that are not served answer NotImplemented with their name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc

from belvedere.chassis.errors import BelvedereError
from services.gateway.errors import GatewayError
from services.gateway.message import Call, Reply
from services.gateway.s3 import failures, names
from services.gateway.s3.buckets import Buckets
from services.gateway.s3.multipart import Multipart
from services.gateway.s3.objects import Index, Objects

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

Handler = Callable[[], Awaitable[Reply]]

# Query parameters that make another operation of a request; what is not served is named.
BUCKET_SUBRESOURCES = (
    "accelerate", "acl", "analytics", "cors", "delete", "encryption", "intelligent-tiering", "inventory", "lifecycle",
    "logging", "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus",
    "publicAccessBlock", "replication", "requestPayment", "tagging", "uploads", "versioning", "versions", "website",
)  # fmt: skip
OBJECT_SUBRESOURCES = ("acl", "attributes", "legal-hold", "restore", "retention", "select", "tagging", "torrent")


class S3Service:
    """Buckets, objects and uploads in parts."""

    streams = True
    skew_s = 900

    def __init__(self, channel: grpc.aio.Channel, blobs: BlobStore) -> None:
        index = Index(channel)
        self._buckets = Buckets(index)
        self._objects = Objects(index, blobs)
        self._multipart = Multipart(index, blobs)

    async def handle(self, call: Call) -> Reply:
        """Raises GatewayError with S3's codes."""
        place = names.parse(call.path)
        names.check_query(call.query)
        if place.key:
            call.operation, action, handler = self._object_operation(call, place)
            resource = f"arn:aws:s3:::{place.bucket}/{place.key}"
        elif place.bucket:
            call.operation, action, handler = self._bucket_operation(call, place.bucket)
            resource = f"arn:aws:s3:::{place.bucket}"
        elif call.method == "GET":
            call.operation, action, handler = "ListBuckets", "ListAllMyBuckets", lambda: self._buckets.list(call)
            resource = "*"
        else:
            raise failures.not_implemented(f"{call.method} /")
        await call.authorize(f"s3:{action}", resource)
        try:
            return await handler()
        except BelvedereError as error:
            raise failures.from_service(error) from error

    def _object_operation(self, call: Call, place: names.Place) -> tuple[str, str, Handler]:
        parameters = {name for name, _ in call.query}
        upload_id = call.parameter("uploadId")
        if other := parameters.intersection(OBJECT_SUBRESOURCES):
            raise failures.not_implemented(f"{call.method} of an object's {min(other)}")
        match call.method:
            case "PUT" if upload_id is not None:
                number = call.parameter("partNumber") or ""
                _no_copy(call, "UploadPartCopy")
                return "UploadPart", "PutObject", lambda: self._multipart.put_part(call, place, upload_id, number)
            case "PUT":
                _no_copy(call, "CopyObject")
                return "PutObject", "PutObject", lambda: self._objects.put(call, place)
            case "POST" if "uploads" in parameters:
                return "CreateMultipartUpload", "PutObject", lambda: self._multipart.create(call, place)
            case "POST" if upload_id is not None:
                complete = self._multipart.complete
                return "CompleteMultipartUpload", "PutObject", lambda: complete(call, place, upload_id)
            case "DELETE" if upload_id is not None:
                abort = self._multipart.abort
                return "AbortMultipartUpload", "AbortMultipartUpload", lambda: abort(call, place, upload_id)
            case "DELETE":
                return "DeleteObject", "DeleteObject", lambda: self._objects.delete(call, place)
            case "GET" if upload_id is not None:
                raise failures.not_implemented("ListParts")
            case "GET":
                return "GetObject", "GetObject", lambda: self._objects.get(call, place)
            case "HEAD":
                return "HeadObject", "GetObject", lambda: self._objects.get(call, place)
        raise failures.not_implemented(f"{call.method} of an object")

    def _bucket_operation(self, call: Call, bucket: str) -> tuple[str, str, Handler]:
        parameters = {name for name, _ in call.query}
        if other := parameters.intersection(BUCKET_SUBRESOURCES):
            raise failures.not_implemented(f"{call.method} of a bucket's {min(other)}")
        match call.method:
            case "GET" if "location" in parameters:
                return "GetBucketLocation", "GetBucketLocation", lambda: self._buckets.location(call, bucket)
            case "GET":
                name = "ListObjectsV2" if call.parameter("list-type") == "2" else "ListObjects"
                return name, "ListBucket", lambda: self._objects.list(call, bucket)
            case "HEAD":
                return "HeadBucket", "ListBucket", lambda: self._buckets.head(call, bucket)
            case "PUT":
                return "CreateBucket", "CreateBucket", lambda: self._buckets.create(call, bucket)
            case "DELETE":
                raise failures.not_implemented("DeleteBucket")
        raise failures.not_implemented(f"{call.method} of a bucket")

    def failed(self, call: Call, error: GatewayError) -> Reply:
        return failures.reply(call, error)


def _no_copy(call: Call, operation: str) -> None:
    if call.header("x-amz-copy-source"):
        raise failures.not_implemented(operation)
