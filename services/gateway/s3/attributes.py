"""GetObjectAttributes: what is known of an object and its parts, without its bytes. Knows the index only."""

from __future__ import annotations

import re

from services.gateway import xml
from services.gateway.message import Call, Reply
from services.gateway.s3 import failures, parts
from services.gateway.s3.index import Index
from services.gateway.s3.names import Place
from services.gateway.s3.part_checksums import FULL_OBJECT, KEPT_TYPE, of_part
from services.gateway.s3.replies import document, http_time, storage_class

KNOWN = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})
PARTS_MAX = 1000
"""Of one answer."""
HEADER = "x-amz-object-attributes"


async def get(index: Index, call: Call, place: Place) -> Reply:
    """GetObjectAttributes. Policies must allow to read the object, too."""
    asked = {name.strip() for name in call.header(HEADER).split(",")} - {""}
    if not asked or not asked <= KNOWN:
        message = f"{HEADER} must name some of {', '.join(sorted(KNOWN))}"
        raise failures.invalid_argument(message, HEADER, call.header(HEADER))
    most, marker = _number(call, "x-amz-max-parts", PARTS_MAX), _number(call, "x-amz-part-number-marker", 0)
    await call.authorize("s3:GetObject", f"arn:aws:s3:::{place.bucket}/{place.key}")
    stored = await index.get(place.bucket, place.key)
    content: list[tuple[str, xml.Content]] = [("ETag", stored.etag)] if "ETag" in asked else []
    if "Checksum" in asked and (told := of_part(stored.metadata)):
        content.append(("Checksum", [*told, ("ChecksumType", stored.metadata.get(KEPT_TYPE, FULL_OBJECT))]))
    found = parts.of_object(stored)
    if "ObjectParts" in asked and found:
        content.append(("ObjectParts", _parts(found, min(most, PARTS_MAX), marker)))
    content += [("StorageClass", storage_class(stored))] if "StorageClass" in asked else []
    content += [("ObjectSize", str(stored.size_bytes))] if "ObjectSize" in asked else []
    answer = document("GetObjectAttributesResponse", content)
    return Reply(200, {**answer.headers, "Last-Modified": http_time(stored.last_modified)}, answer.body)


def _parts(found: list[parts.Part], most: int, marker: int) -> xml.Content:
    content: list[tuple[str, xml.Content]] = [("PartsCount", str(len(found)))]
    # As S3 has it: single parts are told of where they have checksums.
    if any(part.checksum is None for part in found):
        return content
    left = [part for part in found if part.number > marker]
    shown, more = left[:most], len(left) > most
    content += [("PartNumberMarker", str(marker)), ("MaxParts", str(most))]
    content += [("NextPartNumberMarker", str(shown[-1].number if shown else 0))]
    content += [("IsTruncated", "true" if more else "false")]
    for part in shown:
        assert part.checksum is not None
        content.append(("Part", [part.checksum, ("PartNumber", str(part.number)), ("Size", str(part.size))]))
    return content


def _number(call: Call, name: str, default: int) -> int:
    text = call.header(name)
    if text and not re.fullmatch(r"[0-9]{1,9}", text):
        raise failures.invalid_argument(f"{name} must be a number", name, text)
    return int(text) if text else default
