"""Bucket and key of a request, and the places in StorageService's index that are not objects of users.

Pure. Buckets of users follow S3's rules for names, so the reserved ones, which do not, cannot meet them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from services.gateway.errors import AwsError

BUCKETS = "_buckets"
"""Reserved: one key a bucket that was created through CreateBucket."""
UPLOADS = "_uploads"
"""Reserved: `<upload id>` for a multipart upload, `<upload id>/<number>` for its parts."""
KEY_MAX_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Place:
    """What a path names: nothing, a bucket, or an object."""

    bucket: str
    key: str


def parse(raw_path: str) -> Place:
    """`/bucket/a%20key` → bucket, "a key". Raises AwsError: InvalidBucketName, KeyTooLongError, InvalidURI."""
    try:
        path = unquote_to_bytes(raw_path.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from error
    bucket, _, key = path.removeprefix("/").partition("/")
    if bucket:
        check_bucket(bucket)
    if len(key.encode()) > KEY_MAX_BYTES:
        raise AwsError("KeyTooLongError", f"Your key is too long: {KEY_MAX_BYTES} bytes at most.")
    if "\0" in key:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.")
    return Place(bucket, key)


def check_bucket(bucket: str) -> None:
    """Raises AwsError(InvalidBucketName) unless S3 would take the name."""
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise AwsError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": bucket[:255]})


def package_bucket(bucket: str, account: str) -> bool:
    """Whether it is where an account's package files go: it is there without having been created."""
    return bucket.startswith(f"panorama-{account}")
