"""ListObjects and ListObjectsV2: pages of keys, folded at a delimiter."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import quote

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.message import Call, Reply
from services.gateway.s3 import failures
from services.gateway.s3.index import Index
from services.gateway.s3.names import RESERVED
from services.gateway.s3.part_checksums import FULL_OBJECT, KEPT, KEPT_TYPE
from services.gateway.s3.replies import document, iso_time, storage_class

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
            message = "Invalid Encoding Method specified in Request"
            raise failures.invalid_argument(message, "encoding-type", encoding)
        most = page_size(call, "max-keys")
        token = call.parameter("continuation-token")
        begin = call.parameter("start-after" if second else "marker") or ""
        # An empty token is what no answer gave.
        after = read_token(token) if second and token is not None else begin
        listing = Listing(prefix, delimiter, most)
        await self._fill(listing, bucket, after)
        owner = call.who.account if not second or call.parameter("fetch-owner") == "true" else ""

        def key(text: str) -> str:
            return quote(text, safe="/") if encoding else text

        content: list[tuple[str, xml.Content]] = [("Name", bucket), ("Prefix", key(prefix))]
        if second:
            content += [("KeyCount", str(len(listing.objects) + len(listing.prefixes)))]
            content += [("ContinuationToken", token)] if token else []
            content += [("StartAfter", key(begin))] if begin else []
            content += [("NextContinuationToken", make_token(listing.last))] if listing.truncated else []
        else:
            content += [("Marker", key(begin))]
            # As S3 has it: without a delimiter the last key is the next marker.
            content += [("NextMarker", key(listing.last))] if listing.truncated and delimiter else []
        content += [("MaxKeys", str(most))]
        content += [("Delimiter", key(delimiter))] if delimiter else []
        content += [("EncodingType", encoding)] if encoding else []
        content += [("IsTruncated", "true" if listing.truncated else "false")]
        content += [("Contents", _entry(stored, key(stored.key), owner)) for stored in listing.objects]
        content += [("CommonPrefixes", [("Prefix", key(common))]) for common in listing.prefixes]
        return document("ListBucketResult", content)

    async def _fill(self, listing: Listing, bucket: str, after: str) -> None:
        if listing.most == 0:
            return
        if folded(after, listing.prefix, listing.delimiter) == after:
            # The last page ended with a common prefix: everything below it is behind us. The key `prefix` itself is none, though it
            # may end with the delimiter, as what stands for a folder does.
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
        if common is not None and self.prefixes[-1:] == [common]:
            return stored.key
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


def _entry(stored: storage_pb2.StoredObject, key: str, owner: str) -> xml.Content:
    """`owner`: to be told; empty: not."""
    entry: list[tuple[str, xml.Content]] = [
        ("Key", key),
        ("LastModified", iso_time(stored.last_modified)),
        ("ETag", f'"{stored.etag}"'),
    ]
    algorithms = [name.removeprefix(KEPT).upper() for name in stored.metadata if name.startswith(KEPT)]
    entry += [("ChecksumAlgorithm", name) for name in algorithms]
    entry += [("ChecksumType", stored.metadata.get(KEPT_TYPE, FULL_OBJECT))] if algorithms else []
    entry += [("Size", str(stored.size_bytes))]
    entry += [("Owner", [("ID", owner), ("DisplayName", owner)])] if owner else []
    return [*entry, ("StorageClass", storage_class(stored))]


def page_size(call: Call, name: str) -> int:
    """The number in a query parameter, LIST_MAX at most. Raises AwsError(InvalidArgument)."""
    text = call.parameter(name)
    if text is None:
        return LIST_MAX
    if not re.fullmatch(r"\d{1,9}", text):
        message = f"Provided {name} not an integer or within integer range"
        raise failures.invalid_argument(message, name, text)
    return min(int(text), LIST_MAX)


def make_token(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def read_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        message = "The continuation token provided is incorrect"
        raise failures.invalid_argument(message, "continuation-token", token) from error
