"""S3 behind the front door: which operation a request means, whether it is allowed, and who answers it.

Path style (`/bucket/key`), and virtual-host style where the Host is a bucket below one of our names. Operations that are not
served answer NotImplemented with their name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import grpc

from belvedere.chassis.errors import BelvedereError
from services.gateway import forms
from services.gateway.errors import AuthError, AwsError, GatewayError
from services.gateway.forms import Form
from services.gateway.message import Call, Facts, Named, Reply
from services.gateway.s3 import attributes, deleting, failures, names, post, unproven
from services.gateway.s3.buckets import Buckets
from services.gateway.s3.index import Index
from services.gateway.s3.listing import Listings
from services.gateway.s3.multipart import Multipart
from services.gateway.s3.objects import Objects

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore

Handler = Callable[[], Awaitable[Reply]]

# Query parameters that make another operation of a request; what is not served is named.
BUCKET_SUBRESOURCES = (
    "abac", "accelerate", "acl", "analytics", "cors", "encryption", "intelligent-tiering", "inventory", "lifecycle",
    "logging", "metadataAnnotationTable", "metadataConfiguration", "metadataInventoryTable", "metadataJournalTable",
    "metadataTable", "metrics", "notification", "object-lock", "ownershipControls", "policy", "policyStatus",
    "publicAccessBlock", "replication", "requestPayment", "session", "tagging", "versioning", "versions", "website",
)  # fmt: skip
OBJECT_SUBRESOURCES = (
    "acl",
    "annotation",
    "encryption",
    "legal-hold",
    "renameObject",
    "restore",
    "retention",
    "select",
    "tagging",
    "torrent",
)

COLD = ("GLACIER", "DEEP_ARCHIVE")
"""Classes whose objects can not be read at once."""
NOT_SERVED: Mapping[str, Callable[[str], bool]] = {
    "x-amz-server-side-encryption": lambda value: value in ("", "AES256"),
    "x-amz-server-side-encryption-customer-algorithm": lambda value: not value,
    "x-amz-copy-source-server-side-encryption-customer-algorithm": lambda value: not value,
    "x-amz-object-lock-mode": lambda value: not value,
    "x-amz-object-lock-legal-hold": lambda value: value in ("", "OFF"),
    "x-amz-tagging": lambda value: not value,
    "x-amz-object-lock-retain-until-date": lambda value: not value,
    "x-amz-bucket-object-lock-enabled": lambda value: value.lower() in ("", "false"),
    "x-amz-website-redirect-location": lambda value: not value,
    "x-amz-write-offset-bytes": lambda value: not value,
    "x-amz-rename-source": lambda value: not value,
    "x-amz-storage-class": lambda value: value not in COLD,
}
"""Headers that ask for what is not done here (encryption with the client's key, locks, tags of objects, archives), with what may stand in
them: whoever passed them over would promise it."""


class S3Service:
    """Buckets, objects and uploads in parts."""

    prefix = "s3"
    streams = True
    skew_s = 900

    def __init__(
        self, channel: grpc.aio.Channel, blobs: BlobStore, host_names: Sequence[str], clock: Callable[[], datetime]
    ) -> None:
        """`host_names`: by which clients reach the front door."""
        self._clock = clock
        self._index = index = Index(channel)
        self._host_names = (*host_names, "localhost")
        self._buckets = Buckets(index)
        self._objects = Objects(index, blobs)
        self._listings = Listings(index)
        self._multipart = Multipart(index, blobs, self._objects)

    def signed_path(self, call: Call) -> str:
        """`/bucket/key` as the request has it, still encoded, wherever the bucket stands: what Signature Version 2 signs."""
        bucket = names.bucket_of_host(call.header("host"), self._host_names)
        return f"/{bucket}{call.path}" if bucket else call.path

    async def read_form(self, call: Call) -> Form | None:
        """Of PostObject."""
        return await post.read_form(call) if forms.is_form(call) else None

    async def handle(self, call: Call) -> Reply:
        """Raises GatewayError with S3's codes."""
        call.operation, action, resource, handler = self._operation(call)
        if action:
            prefix = {"s3:prefix": call.parameter("prefix") or ""} if action == "ListBucket" else {}
            await call.authorize(f"s3:{action}", resource, Facts(context=prefix))
        if header := next((name for name, serves in NOT_SERVED.items() if not serves(call.header(name))), ""):
            raise failures.not_implemented(f"The header {header}: {call.header(header)[:64]}")
        for header in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"):
            if call.header(header) not in ("", call.who.account):
                raise failures.access_denied()
        names.check_version(call.parameter("versionId"))
        try:
            return await handler()
        except BelvedereError as error:
            raise failures.from_service(error) from error

    def named(self, call: Call) -> Named | None:
        try:
            operation, action, resource, _ = self._operation(call)
            if operation == "PostObject":
                action, resource = "PutObject", f"{resource}/{post.key_of(call.form)}" if call.form else resource
        except AwsError:
            return None
        return Named(f"{self.prefix}:{action or 'DeleteObject'}", resource)

    def _operation(self, call: Call) -> tuple[str, str, str, Handler]:
        """(operation, action, resource, what does it). An empty action: policies are asked about each key of the body. Raises
        AwsError."""
        place = names.parse(call.path, names.bucket_of_host(call.header("host"), self._host_names))
        names.check_query(call.query)
        if place.key:
            operation, action, handler = self._object_operation(call, place)
            return operation, action, f"arn:aws:s3:::{place.bucket}/{place.key}", handler
        if place.bucket:
            operation, action, handler = self._bucket_operation(call, place.bucket)
            return operation, action, f"arn:aws:s3:::{place.bucket}", handler
        if call.method == "GET":
            return "ListBuckets", "ListAllMyBuckets", "*", lambda: self._buckets.list(call)
        raise failures.method_not_allowed(call.method, "SERVICE", "GET")

    def _object_operation(self, call: Call, place: names.Place) -> tuple[str, str, Handler]:
        parameters = {name for name, _ in call.query}
        upload_id = call.parameter("uploadId")
        if other := parameters.intersection(OBJECT_SUBRESOURCES):
            raise failures.not_implemented(f"{call.method} of an object's {min(other)}")
        match call.method:
            case "PUT" if upload_id is not None:
                number = call.parameter("partNumber") or ""
                if call.header("x-amz-copy-source"):
                    copy_part = self._multipart.copy_part
                    return "UploadPartCopy", "PutObject", lambda: copy_part(call, place, upload_id, number)
                return "UploadPart", "PutObject", lambda: self._multipart.put_part(call, place, upload_id, number)
            case "PUT" if call.header("x-amz-copy-source"):
                return "CopyObject", "PutObject", lambda: self._objects.copy(call, place)
            case "PUT":
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
                return "DeleteObject", "DeleteObject", lambda: deleting.delete(self._index, call, place)
            case "GET" if "attributes" in parameters:
                return "GetObjectAttributes", "GetObjectAttributes", lambda: attributes.get(self._index, call, place)
            case "GET" if upload_id is not None:
                parts = self._multipart.list_parts
                return "ListParts", "ListMultipartUploadParts", lambda: parts(call, place, upload_id)
            case "GET":
                return "GetObject", "GetObject", lambda: self._objects.get(call, place)
            case "HEAD":
                return "HeadObject", "GetObject", lambda: self._objects.get(call, place)
        raise failures.method_not_allowed(call.method, "OBJECT", "DELETE, GET, HEAD, PUT")

    def _bucket_operation(self, call: Call, bucket: str) -> tuple[str, str, Handler]:
        parameters = {name for name, _ in call.query}
        if other := parameters.intersection(BUCKET_SUBRESOURCES):
            raise failures.not_implemented(f"{call.method} of a bucket's {min(other)}")
        match call.method:
            case "GET" if "location" in parameters:
                return "GetBucketLocation", "GetBucketLocation", lambda: self._buckets.location(call, bucket)
            case "GET" if "uploads" in parameters:
                uploads = self._multipart.list_uploads
                return "ListMultipartUploads", "ListBucketMultipartUploads", lambda: uploads(call, bucket)
            case "GET":
                name = "ListObjectsV2" if call.parameter("list-type") == "2" else "ListObjects"
                return name, "ListBucket", lambda: self._listings.list(call, bucket)
            case "HEAD":
                return "HeadBucket", "ListBucket", lambda: self._buckets.head(call, bucket)
            case "PUT":
                return "CreateBucket", "CreateBucket", lambda: self._buckets.create(call, bucket)
            case "DELETE":
                return "DeleteBucket", "DeleteBucket", lambda: self._buckets.delete(call, bucket)
            case "POST" if call.form is not None or forms.is_form(call):
                # What is written, and where, the form says.
                return "PostObject", "", lambda: post.put(self._objects, call, bucket, self._clock())
            case "POST" if "delete" in parameters:
                # Policies are asked about every key by itself.
                return "DeleteObjects", "", lambda: deleting.delete_many(self._index, call, bucket)
        raise failures.method_not_allowed(call.method, "BUCKET", "DELETE, GET, HEAD, POST, PUT")

    def failed(self, call: Call, error: GatewayError) -> Reply:
        told = unproven.told(call, error, self.signed_path(call)) if isinstance(error, AuthError) else error
        assert isinstance(told, AwsError)
        return failures.reply(call.method, call.path, call.request_id, told)

    def broken(self, method: str, path: str, request_id: str, *, too_large: bool) -> Reply:
        """The answer to what begins as a request for S3 and is no valid HTTP."""
        return failures.reply(method, path, request_id, unproven.broken(too_large=too_large))
