"""Buckets: made, listed and deleted. The one that holds an account's packages in a region is there from the start.

Knows StorageService's index only.
"""

from __future__ import annotations

from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply, read_all
from services.gateway.s3 import failures
from services.gateway.s3.index import Index
from services.gateway.s3.listing import make_token, page_size, read_token
from services.gateway.s3.objects import check_body_hash
from services.gateway.s3.replies import document, iso_time

CREATE_BODY_MAX = 64 << 10


class Buckets:
    """The operations on buckets."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def create(self, call: Call, bucket: str) -> Reply:
        """CreateBucket, in the region that the client signed for."""
        body = await read_all(call, CREATE_BODY_MAX)
        check_body_hash(call, body)
        wanted = _location(body) or "us-east-1"
        # us-east-1 is what S3 takes for no location at all; there is one place here, whatever its region is called.
        if wanted not in (call.who.region, "us-east-1"):
            message = f"The {wanted} location constraint is incompatible for the region this request was sent to."
            raise AwsError("IllegalLocationConstraintException", message)
        await self._index.create_bucket(bucket)
        return Reply(200, {"Location": f"/{bucket}"})

    async def head(self, call: Call, bucket: str) -> Reply:
        """HeadBucket."""
        await self._index.require(bucket)
        return Reply(200, {"x-amz-bucket-region": call.who.region})

    async def delete(self, call: Call, bucket: str) -> Reply:
        """DeleteBucket."""
        await self._index.delete_bucket(bucket)
        return Reply(204)

    async def location(self, call: Call, bucket: str) -> Reply:
        """GetBucketLocation; us-east-1 is told as nothing, as S3 does."""
        await self._index.require(bucket)
        return document("LocationConstraint", "" if call.who.region == "us-east-1" else call.who.region)

    async def list(self, call: Call) -> Reply:
        """ListBuckets, by name; in pages for who asks so."""
        most, prefix = page_size(call, "max-buckets"), call.parameter("prefix") or ""
        after = read_token(call.parameter("continuation-token") or "")
        found = sorted(await self._index.buckets(), key=lambda bucket: bucket.name)
        if call.parameter("bucket-region") not in (None, call.who.region):
            found = []
        left = [bucket for bucket in found if bucket.name.startswith(prefix) and bucket.name > after]
        shown = left[:most] if call.parameter("max-buckets") is not None else left
        owner = [("ID", call.who.account), ("DisplayName", call.who.account)]
        # A bucket without a time was always there: that is 1970 for S3's clients.
        buckets: list[tuple[str, xml.Content]] = [
            (
                "Bucket",
                [
                    ("Name", bucket.name),
                    ("CreationDate", iso_time(bucket.created_time)),
                    ("BucketRegion", call.who.region),
                ],
            )
            for bucket in shown
        ]
        content: list[tuple[str, xml.Content]] = [("Owner", owner), ("Buckets", buckets)]
        content += [("Prefix", prefix)] if prefix else []
        content += [("ContinuationToken", make_token(shown[-1].name))] if shown and len(shown) < len(left) else []
        return document("ListAllMyBucketsResult", content)


def _location(body: bytes) -> str:
    if not body.strip():
        return ""
    try:
        return xml.parse(body).findtext("LocationConstraint") or ""
    except xml.MalformedXml as error:
        raise failures.malformed_xml() from error
