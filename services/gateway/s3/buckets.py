"""Buckets, as little of them as clients need: a name that exists. Knows StorageService's index only."""

from __future__ import annotations

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply, read_all
from services.gateway.s3 import failures
from services.gateway.s3.multipart import check_body_hash
from services.gateway.s3.names import BUCKETS, package_bucket
from services.gateway.s3.objects import NAMESPACE, Index

CREATE_BODY_MAX = 64 << 10
EMPTY_BLOB = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class Buckets:
    """The operations on buckets."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def require(self, call: Call, bucket: str) -> None:
        """Raises AwsError(NoSuchBucket). The bucket of an account's packages is always there."""
        if package_bucket(bucket, call.who.account):
            return
        if await self._index.find(BUCKETS, bucket) is None:
            raise failures.no_such_bucket(bucket)

    async def create(self, call: Call, bucket: str) -> Reply:
        """CreateBucket; a location in the body is taken as said, there is one place only."""
        check_body_hash(call, await read_all(call, CREATE_BODY_MAX))
        if package_bucket(bucket, call.who.account) or await self._index.find(BUCKETS, bucket) is not None:
            message = "Your previous request to create the named bucket succeeded and you already own it."
            raise AwsError("BucketAlreadyOwnedByYou", message, 409, {"BucketName": bucket})
        await self._index.put(storage_pb2.StoredObject(bucket=BUCKETS, key=bucket, digest=EMPTY_BLOB))
        return Reply(200, {"Location": f"/{bucket}"})

    async def head(self, call: Call) -> Reply:
        return Reply(200, {"x-amz-bucket-region": call.who.region})

    async def location(self, call: Call) -> Reply:
        region = "" if call.who.region == "us-east-1" else call.who.region
        return Reply(200, {"Content-Type": "application/xml"}, xml.document("LocationConstraint", NAMESPACE, region))

    async def list(self, call: Call) -> Reply:
        """ListBuckets: those that were created."""
        buckets: list[xml.Content] = []
        after = ""
        while True:
            page, more = await self._index.page(BUCKETS, "", after, 1000)
            for entry in page:
                created = entry.last_modified.ToDatetime().isoformat(timespec="milliseconds") + "Z"
                buckets.append([("Name", entry.key), ("CreationDate", created)])
            if not more or not page:
                break
            after = page[-1].key
        owner = [("ID", call.who.account), ("DisplayName", call.who.account)]
        content: list[tuple[str, xml.Content]] = [("Owner", owner), ("Buckets", [("Bucket", b) for b in buckets])]
        body = xml.document("ListAllMyBucketsResult", NAMESPACE, content)
        return Reply(200, {"Content-Type": "application/xml"}, body)
