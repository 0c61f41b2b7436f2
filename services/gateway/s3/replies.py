"""Forms that S3's replies share. Pure."""

from __future__ import annotations

from datetime import UTC
from email.utils import format_datetime

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.v1 import storage_pb2
from services.gateway import xml
from services.gateway.message import Reply

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def document(root: str, content: xml.Content) -> Reply:
    """A reply with an XML body."""
    return Reply(200, {"Content-Type": "application/xml"}, xml.document(root, NAMESPACE, content))


def iso_time(stamp: Timestamp) -> str:
    """As it stands in bodies: 2026-11-22T04:00:00.000Z."""
    return stamp.ToDatetime().isoformat(timespec="milliseconds") + "Z"


def http_time(stamp: Timestamp) -> str:
    """As it stands in headers: Sun, 22 Nov 2026 04:00:00 GMT."""
    return format_datetime(stamp.ToDatetime(tzinfo=UTC).replace(microsecond=0), usegmt=True)


KEPT_CLASS = ":x-amz-storage-class"
"""In the index beside metadata, of an object whose class is not STANDARD."""


def storage_class(stored: storage_pb2.StoredObject) -> str:
    """STANDARD, or what its writer said of it."""
    return stored.metadata.get(KEPT_CLASS, "STANDARD")
