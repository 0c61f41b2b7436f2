"""Listings with keys as nobody should choose them, page by page, through boto3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from services.packages.objects import _behind
from tests.services.gateway.wire import send
from tests.support.cloud import ACCOUNT
from tests.support.front_door import Door

BUCKET = "odd-keys"
KEYS = sorted(
    [
        "/", "//", "/lead", "a", "a/", "a//", "a//b", "a/b", "a/b/", "a/b/c", "a/./b", "a/../b", "..", ".", "a b", "a+b", "a%2Fb", "a%20b",
        "a&<>\"'b", "a?b=c", "a#b", "a;b", "a:b@c", "a~b", "a*(b)!", "a\\b", "ä/ö", "日本/語", "🎥/clip", "a\tb", "z" * 1000, "a\ud7ffb",
    ],
    key=str.encode,
)  # fmt: skip


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    for key in KEYS:
        made.put_object(Bucket=BUCKET, Key=key, Body=key.encode())
    yield made


def listed(s3: Any, operation: str, size: int, **options: Any) -> tuple[list[str], list[str]]:
    pages = list(
        s3.get_paginator(operation).paginate(Bucket=BUCKET, PaginationConfig={"PageSize": size}, **options)
    )  # fmt: skip
    return (
        [entry["Key"] for page in pages for entry in page.get("Contents", [])],
        [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])],
    )


def expected(prefix: str, delimiter: str, after: str = "") -> tuple[list[str], list[str]]:
    """What S3 documents: keys after `after`, by their bytes, those with the delimiter behind the prefix rolled up once."""
    keys, prefixes = [], []
    for key in KEYS:
        if not key.startswith(prefix) or key.encode() <= after.encode():
            continue
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            keys.append(key)
        elif (common := key[: end + len(delimiter)]) not in prefixes and common != after:
            prefixes.append(common)
    return keys, prefixes


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_every_key_is_listed_once_and_in_order(s3: Any, operation: str, size: int) -> None:
    for prefix, delimiter in (
        ("", ""),
        ("", "/"),
        ("a/", "/"),
        ("a//", "/"),
        ("a", "b"),
        ("/", "/"),
        ("日", "語"),
        ("x", "/"),
    ):
        assert listed(s3, operation, size, Prefix=prefix, Delimiter=delimiter) == expected(prefix, delimiter), prefix


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_put_got_and_found_by_its_prefix(s3: Any, key: str) -> None:
    assert s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == key.encode()
    assert key in [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]]


def test_a_listing_begins_behind_any_text(s3: Any) -> None:
    for after in ("", "a", "a/", "a/b", "b", "zz", "日"):
        assert listed(s3, "list_objects_v2", 2, StartAfter=after) == expected("", "", after)
    page = s3.list_objects_v2(Bucket=BUCKET, StartAfter="a", MaxKeys=1)
    more = s3.list_objects_v2(
        Bucket=BUCKET, StartAfter="a", MaxKeys=1, ContinuationToken=page["NextContinuationToken"]
    )  # fmt: skip
    assert (page["StartAfter"], more["StartAfter"]) == ("a", "a") and more["KeyCount"] == 1
    assert more["ContinuationToken"] == page["NextContinuationToken"]


def test_what_a_listing_tells_of_an_object(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="told/one", Body=b"x", ChecksumAlgorithm="SHA1", StorageClass="STANDARD_IA")
    first = s3.list_objects(Bucket=BUCKET, Prefix="told/")
    entry = first["Contents"][0]
    assert entry["Owner"]["ID"] == ACCOUNT and (entry["Size"], entry["StorageClass"]) == (1, "STANDARD_IA")
    assert (entry["ChecksumAlgorithm"], entry["ChecksumType"]) == (["SHA1"], "FULL_OBJECT")
    assert "Owner" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="told/")["Contents"][0]
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="told/", FetchOwner=True)["Contents"][0]["Owner"]["ID"] == ACCOUNT
    s3.delete_object(Bucket=BUCKET, Key="told/one")
    assert "NextMarker" not in s3.list_objects(Bucket=BUCKET, MaxKeys=1)
    assert s3.list_objects(Bucket=BUCKET, Prefix="a", MaxKeys=1, Delimiter="/")["NextMarker"] == "a"
    none = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    assert (none["IsTruncated"], none["KeyCount"]) == (False, 0)


def test_keys_come_as_they_are_unless_encoding_is_asked_for(door: Door, s3: Any) -> None:
    plain = ElementTree.fromstring(send(door, "GET", f"/{BUCKET}?list-type=2&prefix=a%26", service="s3").body)
    space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    assert [e.text for e in plain.iter(f"{space}Key")] == ["a&<>\"'b"]
    asked = f"/{BUCKET}?list-type=2&encoding-type=url&prefix=a%26"
    encoded = ElementTree.fromstring(send(door, "GET", asked, service="s3").body)
    assert [e.text for e in encoded.iter(f"{space}Key")] == ["a%26%3C%3E%22%27b"]
    assert encoded.findtext(f"{space}EncodingType") == "url" and encoded.findtext(f"{space}Prefix") == "a%26"


def test_a_bucket_with_many_keys_is_paged_without_a_gap(s3: Any) -> None:
    bucket, keys = f"many-{uuid.uuid4().hex}", [f"{n % 7}/{n:04}" for n in range(60)]
    s3.create_bucket(Bucket=bucket)
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == sorted(keys)
    folded = s3.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}
    )  # fmt: skip
    assert [entry["Prefix"] for page in folded for entry in page["CommonPrefixes"]] == [f"{n}/" for n in range(7)]


@pytest.mark.parametrize(
    ("prefix", "after"),
    [("a", "b"), ("a/", "a0"), ("a\ud7ff", "a\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", ""), ("é", "ê")],
)
def test_the_end_of_a_prefix_is_known(prefix: str, after: str) -> None:
    assert _behind(prefix) == after
