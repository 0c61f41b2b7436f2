"""Buckets, as little of them as clients need: each account and region has one, which is there from the start.

Knows StorageService's index only.
"""

from __future__ import annotations

from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply, read_all
from services.gateway.s3 import failures
from services.gateway.s3.names import package_bucket
from services.gateway.s3.objects import NAMESPACE, Index, check_body_hash

CREATE_BODY_MAX = 64 << 10
EPOCH = "1970-01-01T00:00:00.000Z"
"""When the bucket was made: it always was."""


class Buckets:
    """The operations on buckets."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def create(self, call: Call, bucket: str) -> Reply:
        """CreateBucket: for scripts that make sure of the bucket. Another one is not made."""
        check_body_hash(call, await read_all(call, CREATE_BODY_MAX))
        if bucket != package_bucket(call.who.account, call.who.region):
            raise failures.not_implemented(f"CreateBucket of buckets other than {_own(call)}")
        message = "Your previous request to create the named bucket succeeded and you already own it."
        raise AwsError("BucketAlreadyOwnedByYou", message, 409, {"BucketName": bucket})

    async def head(self, call: Call, bucket: str) -> Reply:
        """HeadBucket."""
        await self._index.require(bucket)
        return Reply(200, {"x-amz-bucket-region": call.who.region})

    async def location(self, call: Call, bucket: str) -> Reply:
        """GetBucketLocation; us-east-1 is told as nothing, as S3 does."""
        await self._index.require(bucket)
        region = "" if call.who.region == "us-east-1" else call.who.region
        body = xml.document("LocationConstraint", NAMESPACE, region)
        return Reply(200, {"Content-Type": "application/xml"}, body)

    async def list(self, call: Call) -> Reply:
        """ListBuckets."""
        owner = [("ID", call.who.account), ("DisplayName", call.who.account)]
        bucket = [("Name", _own(call)), ("CreationDate", EPOCH)]
        content: list[tuple[str, xml.Content]] = [("Owner", owner), ("Buckets", [("Bucket", bucket)])]
        body = xml.document("ListAllMyBucketsResult", NAMESPACE, content)
        return Reply(200, {"Content-Type": "application/xml"}, body)


def _own(call: Call) -> str:
    return package_bucket(call.who.account, call.who.region)
