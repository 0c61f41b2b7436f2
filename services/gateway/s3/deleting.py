"""DeleteObject and DeleteObjects. Names only: the bytes go with the next collection of garbage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.gateway import xml
from services.gateway.errors import AwsError, GatewayError
from services.gateway.message import Call, Reply
from services.gateway.payload import Upload, declared_hash
from services.gateway.s3 import failures, names
from services.gateway.s3.index import Index
from services.gateway.s3.names import Place
from services.gateway.s3.replies import document

KEYS_MAX = 1000
BODY_MAX = 2 << 20
"""Bytes of DeleteObjects' list of 1,000 keys of 1,024 bytes."""
NOT_SERVED = ("LastModifiedTime", "Size")
"""Conditions of an entry that are S3's directory buckets' alone."""


class Entry(NamedTuple):
    """An object as DeleteObjects lists it."""

    key: str
    etag: str = ""
    """Only what has it is to be deleted; "*": any; empty: whatever is there."""
    version: str = ""
    more: str = ""
    """A condition that is not served."""

    def check(self) -> None:
        """Raises AwsError: KeyTooLongError, InvalidURI, AccessDenied, NoSuchVersion, NotImplemented."""
        names.check_key(self.key)
        if self.version not in ("", "null"):
            raise AwsError("NoSuchVersion", "The specified version does not exist.", 404)
        if self.more:
            raise failures.not_implemented(f"A deletion on condition of {self.more}")


async def delete(index: Index, call: Call, place: Place) -> Reply:
    """DeleteObject: 204 whether or not it was there, unless a condition wants it."""
    if etag := call.header("if-match").strip().strip('"'):
        await index.delete_if(place.bucket, place.key, etag)
    else:
        await index.delete(place.bucket, [place.key])
    return Reply(204)


async def delete_many(index: Index, call: Call, bucket: str) -> Reply:
    """DeleteObjects: each key is asked about and told of by itself."""
    entries, quiet = listed(await _body(call))
    await index.require(bucket)
    plain: list[str] = []
    gone: list[str] = []
    refused: list[tuple[str, xml.Content]] = []
    for entry in entries:
        try:
            entry.check()
            await call.authorize("s3:DeleteObject", f"arn:aws:s3:::{bucket}/{entry.key}")
            if entry.etag:
                await index.delete_if(bucket, entry.key, entry.etag)
            else:
                plain.append(entry.key)
            gone.append(entry.key)
        except GatewayError as error:
            code = error.code if isinstance(error, AwsError) else "AccessDenied"
            refused.append(("Error", [("Key", entry.key), ("Code", code), ("Message", error.message)]))
    await index.delete(bucket, plain)
    told: list[tuple[str, xml.Content]] = [] if quiet else [("Deleted", [("Key", key)]) for key in gone]
    return document("DeleteResult", told + refused)


async def _body(call: Call) -> bytes:
    """Raises AwsError(MaxMessageLengthExceeded)."""
    too_large = AwsError(
        "MaxMessageLengthExceeded", "Your request was too big.", 400, {"MaxMessageLengthBytes": BODY_MAX}
    )
    if (call.content_length or 0) > BODY_MAX:
        raise too_large
    body = bytearray()
    async for chunk in Upload(call, declared_hash(call)).chunks():
        body += chunk
        if len(body) > BODY_MAX:
            raise too_large
    return bytes(body)


def listed(body: bytes) -> tuple[Sequence[Entry], bool]:
    """The entries of DeleteObjects' body, and whether only failures are to be told. Raises AwsError(MalformedXML)."""
    try:
        root = xml.parse(body)
    except xml.MalformedXml as error:
        raise failures.malformed_xml() from error
    entries = [
        Entry(
            found.findtext("Key") or "",
            (found.findtext("ETag") or "").strip().strip('"'),
            found.findtext("VersionId") or "",
            next((name for name in NOT_SERVED if found.find(name) is not None), ""),
        )
        for found in root.findall("Object")
    ]
    if root.tag != "Delete" or not all(entry.key for entry in entries) or not 1 <= len(entries) <= KEYS_MAX:
        raise failures.malformed_xml()
    return list(dict.fromkeys(entries)), root.findtext("Quiet") == "true"
