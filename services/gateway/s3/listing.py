"""ListObjects and ListObjectsV2: pages of keys, folded at a delimiter."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import quote

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.message import Call, Reply
from services.gateway.s3.index import Index
from services.gateway.s3.names import RESERVED
from services.gateway.s3.replies import document, iso_time

LIST_MAX = 1000
_LAST = "\U0010ffff"
"""Sorts after every character: where listing goes on behind a common prefix."""


class Listings:
    """The operations that list."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def list(self, call: Call, bucket: str) -> Reply:
        """ListObjects and ListObjectsV2."""
        second = call.parameter("list-type") == "2"
        prefix, delimiter = call.parameter("prefix") or "", call.parameter("delimiter") or ""
        encoding = call.parameter("encoding-type")
        if encoding not in (None, "url"):
            raise AwsError("InvalidArgument", "Invalid Encoding Method specified in Request")
        most = page_size(call, "max-keys")
        token = call.parameter("continuation-token")
        after = call.parameter("start-after" if second else "marker") or ""
        if second and token:
            after = read_token(token)
        listing = Listing(prefix, delimiter, most)
        await self._fill(listing, bucket, after)

        def key(text: str) -> str:
            return quote(text, safe="/") if encoding else text

        content: list[tuple[str, xml.Content]] = [("Name", bucket), ("Prefix", key(prefix))]
        if second:
            content += [("KeyCount", str(len(listing.objects) + len(listing.prefixes)))]
            content += [("ContinuationToken", token)] if token else []
            content += [("StartAfter", key(after))] if call.parameter("start-after") else []
            content += [("NextContinuationToken", make_token(listing.last))] if listing.truncated else []
        else:
            content += [("Marker", key(after))]
            content += [("NextMarker", key(listing.last))] if listing.truncated else []
        content += [("MaxKeys", str(most))]
        content += [("Delimiter", key(delimiter))] if delimiter else []
        content += [("EncodingType", encoding)] if encoding else []
        content += [("IsTruncated", "true" if listing.truncated else "false")]
        content += [("Contents", _entry(stored, key(stored.key))) for stored in listing.objects]
        content += [("CommonPrefixes", [("Prefix", key(common))]) for common in listing.prefixes]
        return document("ListBucketResult", content)

    async def _fill(self, listing: Listing, bucket: str, after: str) -> None:
        if listing.most == 0:
            return
        if listing.delimiter and after.endswith(listing.delimiter):
            # The last page ended with a common prefix: everything below it is behind us.
            after += _LAST
        while True:
            page, more = await self._index.page(bucket, listing.prefix, after, LIST_MAX)
            for stored in page:
                if stored.key <= after:
                    continue
                if stored.key.startswith(RESERVED):
                    after = RESERVED + _LAST
                    continue
                if not listing.room:
                    listing.truncated = True
                    return
                after = listing.add(stored)
            if not more:
                return


class Listing:
    """One page of keys and common prefixes, as it fills."""

    def __init__(self, prefix: str, delimiter: str, most: int) -> None:
        self.prefix, self.delimiter, self.most = prefix, delimiter, most
        self.objects: list[storage_pb2.StoredObject] = []
        self.prefixes: list[str] = []
        self.truncated = False
        self.last = ""

    @property
    def room(self) -> bool:
        return len(self.objects) + len(self.prefixes) < self.most

    def add(self, stored: storage_pb2.StoredObject) -> str:
        """Takes an entry in; returns the key after which the listing goes on."""
        common = folded(stored.key, self.prefix, self.delimiter)
        if common is None:
            self.objects.append(stored)
            self.last = stored.key
            return stored.key
        self.prefixes.append(common)
        self.last = common
        return common + _LAST


def folded(key: str, prefix: str, delimiter: str) -> str | None:
    """The common prefix under which a listing shows a key, up to the first delimiter behind `prefix`; None: itself."""
    end = key.find(delimiter, len(prefix)) if delimiter else -1
    return None if end < 0 else key[: end + len(delimiter)]


def _entry(stored: storage_pb2.StoredObject, key: str) -> xml.Content:
    return [
        ("Key", key),
        ("LastModified", iso_time(stored.last_modified)),
        ("ETag", f'"{stored.etag}"'),
        ("Size", str(stored.size_bytes)),
        ("StorageClass", "STANDARD"),
    ]


def page_size(call: Call, name: str) -> int:
    """The number in a query parameter, LIST_MAX at most. Raises AwsError(InvalidArgument)."""
    text = call.parameter(name)
    if text is None:
        return LIST_MAX
    if not re.fullmatch(r"\d{1,9}", text):
        raise AwsError("InvalidArgument", f"Provided {name} not an integer or within integer range")
    return min(int(text), LIST_MAX)


def make_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def read_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise AwsError("InvalidArgument", "The continuation token provided is incorrect") from error
