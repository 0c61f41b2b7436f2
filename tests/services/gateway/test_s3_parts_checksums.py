"""What is said of an upload's checksum when it came in parts, and requests for what S3 does and this does not."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from services.gateway import checksums
from tests.support.front_door import Door

BUCKET = "checked-parts"
PARTS = [b"a" * (5 << 20), b"b" * 500]


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    yield made


def crc32(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def uploaded(s3: Any, key: str, algorithm: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    made = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm=algorithm, **more)
    upload = {"Bucket": BUCKET, "Key": key, "UploadId": made["UploadId"]}
    parts = []
    for number, body in enumerate(PARTS, 1):
        part = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        parts.append({"PartNumber": number, "ETag": part["ETag"], name: part[name]})
    return upload, parts


@pytest.mark.parametrize(
    ("algorithm", "of"), [("CRC32", crc32), ("SHA256", lambda data: hashlib.sha256(data).digest())]
)
def test_the_whole_is_told_the_checksum_of_its_parts_checksums(s3: Any, algorithm: str, of: Any) -> None:
    upload, parts = uploaded(s3, f"composite-{algorithm}", algorithm)
    listed = s3.list_parts(**upload)
    assert listed["ChecksumAlgorithm"] == algorithm
    name = f"Checksum{algorithm}"
    assert [part[name] for part in listed["Parts"]] == [part[name] for part in parts]
    answer = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    expected = base64.b64encode(of(b"".join(of(part) for part in PARTS))).decode() + "-2"
    assert (answer[name], answer["ChecksumType"]) == (expected, "COMPOSITE")
    found = s3.head_object(Bucket=BUCKET, Key=upload["Key"], ChecksumMode="ENABLED")
    assert (found[name], found["ChecksumType"]) == (expected, "COMPOSITE")
    assert s3.get_object(Bucket=BUCKET, Key=upload["Key"], ChecksumMode="ENABLED")["Body"].read() == b"".join(PARTS)
    assert found["Metadata"] == {} and name not in s3.head_object(Bucket=BUCKET, Key=upload["Key"])


def test_a_checksum_of_the_whole_object_is_calculated_and_held_against_the_clients(s3: Any) -> None:
    for said, refused in (("AAAAAA==", True), (base64.b64encode(crc32(b"".join(PARTS))).decode(), False)):
        upload, parts = uploaded(s3, "whole", "CRC32", ChecksumType="FULL_OBJECT")
        finish = {**upload, "MultipartUpload": {"Parts": parts}, "ChecksumCRC32": said, "ChecksumType": "FULL_OBJECT"}
        if refused:
            with pytest.raises(ClientError, match="BadDigest"):
                s3.complete_multipart_upload(**finish)
            with pytest.raises(ClientError, match="404"):
                s3.head_object(Bucket=BUCKET, Key="whole")
        else:
            assert s3.complete_multipart_upload(**finish)["ChecksumCRC32"] == said
    found = s3.head_object(Bucket=BUCKET, Key="whole", ChecksumMode="ENABLED")
    assert (found["ChecksumCRC32"], found["ChecksumType"]) == (said, "FULL_OBJECT")
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"x")
    assert s3.head_object(Bucket=BUCKET, Key="once", ChecksumMode="ENABLED")["ChecksumType"] == "FULL_OBJECT"


def test_a_part_is_taken_only_with_the_checksum_it_came_with(s3: Any) -> None:
    upload, parts = uploaded(s3, "wrong", "CRC32")
    parts[1]["ChecksumCRC32"] = parts[0]["ChecksumCRC32"]
    with pytest.raises(ClientError, match="InvalidPart"):
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    for algorithm, type in (("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        with pytest.raises(ClientError, match="InvalidRequest"):
            s3.create_multipart_upload(Bucket=BUCKET, Key="x", ChecksumAlgorithm=algorithm, ChecksumType=type)


def test_every_algorithm_of_parts_is_one_that_is_calculated_here() -> None:
    from services.gateway.s3.part_checksums import ALGORITHMS

    assert all(checksums.new(algorithm) for algorithm in ALGORITHMS)


def test_what_would_be_promised_and_not_done_is_refused(s3: Any) -> None:
    key = base64.b64encode(b"k" * 32).decode()
    for asked in (
        {"ServerSideEncryption": "aws:kms"},
        {"Tagging": "a=b"},
        {"ObjectLockLegalHoldStatus": "ON"},
    ):
        with pytest.raises(ClientError, match="NotImplemented"):
            s3.put_object(Bucket=BUCKET, Key="promised", Body=b"1", **asked)
    for name in ("put_object", "get_object"):
        with pytest.raises(ClientError, match="NotImplemented"):
            getattr(s3, name)(Bucket=BUCKET, Key="promised", SSECustomerAlgorithm="AES256", SSECustomerKey=key)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="promised")
    s3.put_object(Bucket=BUCKET, Key="plain", Body=b"1", ServerSideEncryption="AES256")
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.get_object(Bucket=BUCKET, Key="plain", VersionId="other")
    assert s3.get_object(Bucket=BUCKET, Key="plain", VersionId="null")["Body"].read() == b"1"


def test_buckets_are_listed_by_prefix_and_in_pages(s3: Any) -> None:
    names = [f"paged-{n}" for n in range(3)]
    for name in names:
        s3.create_bucket(Bucket=name)
    first = s3.list_buckets(Prefix="paged-", MaxBuckets=2)
    assert [bucket["Name"] for bucket in first["Buckets"]] == names[:2]
    rest = s3.list_buckets(Prefix="paged-", MaxBuckets=2, ContinuationToken=first["ContinuationToken"])
    assert [bucket["Name"] for bucket in rest["Buckets"]] == names[2:] and "ContinuationToken" not in rest
