"""Conditional requests: If-Match and its kin, on reading, copying and writing. Pure. Source: RFC 9110, section 13."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from belvedere.v1 import storage_pb2
from services.gateway.message import Call
from services.gateway.s3 import failures

COPY_SOURCE = "x-amz-copy-source-"


def unchanged(call: Call, stored: storage_pb2.StoredObject, front: str = "") -> bool:
    """Whether a reader who names what it has needs no more: 304. Raises AwsError(PreconditionFailed).

    `front`: before the headers' names, COPY_SOURCE for the source of a copy.
    """
    modified = stored.last_modified.ToDatetime(tzinfo=UTC).replace(microsecond=0)
    if wanted := call.header(f"{front}if-match"):
        if not _names(wanted, stored.etag):
            raise failures.precondition_failed("If-Match")
    elif (since := _time(call.header(f"{front}if-unmodified-since"))) and modified > since:
        raise failures.precondition_failed("If-Unmodified-Since")
    if known := call.header(f"{front}if-none-match"):
        return _names(known, stored.etag)
    since = _time(call.header(f"{front}if-modified-since"))
    return since is not None and modified <= since


def of_write(call: Call) -> tuple[bool, str]:
    """(only where nothing is, only over this ETag) of a write. Raises AwsError(NotImplemented) for what S3 does not take."""
    absent, etag = call.header("if-none-match"), call.header("if-match").strip().strip('"')
    if absent and absent != "*":
        raise failures.not_implemented("If-None-Match with anything but * on a write")
    if etag == "*" or (absent and etag):
        raise failures.not_implemented("If-Match with * or beside If-None-Match on a write")
    return bool(absent), etag


def check_write(call: Call, present: storage_pb2.StoredObject | None, key: str) -> None:
    """Tells before the bytes are sent what StorageService would tell after them. Raises AwsError."""
    absent, etag = of_write(call)
    if absent and present is not None:
        raise failures.precondition_failed("If-None-Match")
    if etag and present is None:
        raise failures.no_such_key(key)
    if etag and present is not None and present.etag != etag:
        raise failures.precondition_failed("If-Match")


def _names(header: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
    return "*" in tags or etag in tags


def _time(header: str) -> datetime | None:
    """None for what is no HTTP date: such a header is ignored, as HTTP has it."""
    if not header:
        return None
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
