"""Bucket and key of a request, and the keys in a bucket that are not objects of users. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from services.gateway.errors import AwsError

RESERVED = ".belvedere/"
"""Keys below it are ours: not listed, not to be read or written from outside."""
UPLOADS = f"{RESERVED}uploads/"
"""`<upload id>` for an upload in parts, `<upload id>/<number>` for its parts."""
KEY_MAX_BYTES = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Place:
    """What a path names: nothing, a bucket, or an object."""

    bucket: str
    key: str


def parse(raw_path: str, bucket_in_host: str = "") -> Place:
    """`/bucket/a%20key` → bucket, "a key"; with a bucket in the host, the path is all key.

    Raises AwsError: InvalidBucketName, KeyTooLongError, InvalidURI, AccessDenied for a reserved key.
    """
    try:
        path = unquote_to_bytes(raw_path.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from error
    bucket, _, key = path.removeprefix("/").partition("/")
    if bucket_in_host:
        bucket, key = bucket_in_host, path.removeprefix("/")
    if bucket and (not _BUCKET.fullmatch(bucket) or ".." in bucket):
        raise AwsError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": bucket[:255]})
    check_key(key)
    return Place(bucket, key)


def check_key(key: str) -> None:
    """Raises AwsError: KeyTooLongError, InvalidURI, AccessDenied for a reserved key."""
    if (size := len(key.encode())) > KEY_MAX_BYTES:
        raise AwsError("KeyTooLongError", "Your key is too long", 400, {"Size": size, "MaxSizeAllowed": KEY_MAX_BYTES})
    if "\0" in key:
        raise AwsError("InvalidURI", "Couldn't parse the specified URI.")
    if key.startswith(RESERVED):
        raise AwsError("AccessDenied", f"Keys below {RESERVED} are reserved.", 403)


def bucket_of_host(host: str, names: Iterable[str]) -> str:
    """The bucket in a Host header, `<bucket>.<name>` or `<bucket>.s3.<name>`, for one of our names; empty where it has none.

    `names` are those by which clients reach the front door; an address has no names below it.
    """
    host = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    host = host.lower().rstrip(".")
    ours = [name.lower() for name in names if not re.fullmatch(r"[0-9.]+|.*:.*", name)]
    ours += [f"s3.{name}" for name in ours]
    if host in ours:
        return ""
    for name in sorted(ours, key=len, reverse=True):
        if host.endswith(f".{name}"):
            return host[: -len(name) - 1]
    return ""


def check_query(query: Iterable[tuple[str, str]]) -> None:
    """Raises AwsError(InvalidURI) for names and values that are no text: no key is like that."""
    for name, value in query:
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name + value):
            raise AwsError("InvalidURI", "Couldn't parse the specified URI.")


def check_version(version: str | None) -> None:
    """Raises AwsError(InvalidArgument) for another version than the one that there is."""
    if version not in (None, "null"):
        members = {"ArgumentName": "versionId", "ArgumentValue": version[:64]}
        raise AwsError("InvalidArgument", "Invalid version id specified", 400, members)
