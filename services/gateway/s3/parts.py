"""The parts of an object that came in parts: as a client lists them in the end, and as they are known afterwards.

Their sizes are kept beside the object's metadata, equal ones that follow each other as one (`8388608x127,53421`); their checksums
too, where they are few enough. Parts are counted from 1 without gaps, whatever numbers they were sent under. Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple
from xml.etree import ElementTree

from belvedere.v1 import storage_pb2
from services.gateway import checksums, xml
from services.gateway.errors import AwsError
from services.gateway.s3 import failures, part_checksums
from services.gateway.s3.part_checksums import KEPT, Wish

PARTS_MAX = 10_000
PART_MIN_BYTES = 5 << 20
"""Of each part but the last, as with S3."""
KEPT_SIZES, KEPT_CHECKSUMS = ":parts", ":part-checksums"
"""In the index beside metadata. Of checksums: their bytes one after another, in base64."""
CHECKSUMS_MAX = 4096
"""Characters of KEPT_CHECKSUMS: 768 parts with CRC-32, 96 with SHA-256. A page of 1,000 objects has to fit into one message."""


class Listed(NamedTuple):
    """A part as CompleteMultipartUpload lists it."""

    number: int
    etag: str
    checksums: Mapping[str, str] = {}
    """By their elements: ChecksumCRC32."""


class Part(NamedTuple):
    """A part of an object."""

    number: int
    start: int
    size: int
    checksum: tuple[str, str] | None = None
    """(ChecksumCRC32, base64)"""


def listed(body: bytes) -> list[Listed]:
    """The parts in CompleteMultipartUpload's body. Raises AwsError: MalformedXML, InvalidPartOrder."""
    malformed = failures.malformed_xml()
    try:
        root = xml.parse(body)
    except xml.MalformedXml as error:
        raise malformed from error
    found = root.findall("Part")
    if not 1 <= len(found) <= PARTS_MAX or not all(
        re.fullmatch(r"[0-9]{1,5}", _text(part, "PartNumber")) for part in found
    ):
        raise malformed
    numbers = [int(_text(part, "PartNumber")) for part in found]
    if numbers != sorted(set(numbers)):
        message = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise AwsError("InvalidPartOrder", message)
    names = [part_checksums.member(algorithm) for algorithm in checksums.ALGORITHMS]
    return [
        Listed(number, _text(part, "ETag"), {name: text for name in names if (text := _text(part, name))})
        for number, part in zip(numbers, found, strict=True)
    ]


def check_sizes(chosen: Sequence[tuple[int, storage_pb2.StoredObject]]) -> None:
    """(number, part) of an upload that is to be completed. Raises AwsError(EntityTooSmall)."""
    for number, part in chosen[:-1]:
        if part.size_bytes < PART_MIN_BYTES:
            sizes = {"ProposedSize": part.size_bytes, "MinSizeAllowed": PART_MIN_BYTES}
            message = "Your proposed upload is smaller than the minimum allowed size"
            raise AwsError("EntityTooSmall", message, 400, {**sizes, "PartNumber": number, "ETag": part.etag})


def to_keep(parts: Sequence[storage_pb2.StoredObject], wish: Wish) -> dict[str, str]:
    """For the index: of the parts of an upload that is complete."""
    runs = [(size, len(list(run))) for size, run in groupby(part.size_bytes for part in parts)]
    kept = {KEPT_SIZES: ",".join(f"{size}x{count}" if count > 1 else str(size) for size, count in runs)}
    told = [part.metadata.get(f"{KEPT}{wish.algorithm}", "") for part in parts] if wish.algorithm else [""]
    if all(told):
        packed = base64.b64encode(b"".join(base64.b64decode(value) for value in told)).decode()
        if len(packed) <= CHECKSUMS_MAX:
            kept[KEPT_CHECKSUMS] = packed
    return kept


def of_object(stored: storage_pb2.StoredObject) -> list[Part]:
    """The parts of an object; none of one that came in one piece, or in parts of which nothing was kept."""
    sizes: list[int] = []
    for run in filter(None, stored.metadata.get(KEPT_SIZES, "").split(",")):
        each, _, count = run.partition("x")
        sizes += [int(each)] * int(count or "1")
    told = _checksums(stored.metadata, len(sizes))
    parts, start = [], 0
    for index, size in enumerate(sizes):
        parts.append(Part(index + 1, start, size, told[index] if told else None))
        start += size
    return parts


def _checksums(metadata: Mapping[str, str], count: int) -> list[tuple[str, str]]:
    packed = base64.b64decode(metadata.get(KEPT_CHECKSUMS, ""))
    algorithm = next((name.removeprefix(KEPT) for name in metadata if name.startswith(KEPT)), "")
    if not packed or not algorithm:
        return []
    size = len(packed) // count
    each = (packed[at : at + size] for at in range(0, len(packed), size))
    return [(part_checksums.member(algorithm), base64.b64encode(value).decode()) for value in each]


def find(stored: storage_pb2.StoredObject, text: str) -> tuple[Part, int]:
    """(the part with this number, how many there are; 0 of an object that came in one piece, which is its own first part).

    Raises AwsError: InvalidArgument, InvalidPartNumber.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= PARTS_MAX:
        message = f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive"
        raise failures.invalid_argument(message, "partNumber", text)
    known = of_object(stored)
    if not known and "-" in stored.etag:
        raise failures.not_implemented("GET of one part of an object that an earlier version took in")
    parts = known or [Part(1, 0, stored.size_bytes)]
    if int(text) > len(parts):
        members = {"ActualPartCount": len(parts), "PartNumberRequested": text}
        raise AwsError("InvalidPartNumber", "The requested partnumber is not satisfiable", 416, members)
    return parts[int(text) - 1], len(known)


def _text(element: ElementTree.Element, name: str) -> str:
    return (element.findtext(name) or "").strip()
