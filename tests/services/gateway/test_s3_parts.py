"""Uploads in parts as S3 takes them, and what is known of the parts afterwards."""

from __future__ import annotations

import asyncio
import base64
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from belvedere.v1 import storage_pb2
from services.gateway.s3 import parts, slow
from services.gateway.s3.multipart import Multipart
from services.gateway.s3.part_checksums import Wish
from tests.services.gateway.wire import send
from tests.support.cloud import ACCOUNT
from tests.support.front_door import Door

BUCKET = "in-parts"
LEAST = 5 << 20
WAIT_S = 20.0
BODIES = [b"a" * LEAST, b"b" * LEAST, b"c" * 7]


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    yield made


def begun(s3: Any, key: str, **more: Any) -> dict[str, str]:
    made = s3.create_multipart_upload(Bucket=BUCKET, Key=key, **more)
    return {"Bucket": BUCKET, "Key": key, "UploadId": made["UploadId"]}


def error_of(call: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return {**answer["Error"], "status": answer["ResponseMetadata"]["HTTPStatusCode"]}


@pytest.fixture(scope="module")
def whole(s3: Any) -> dict[str, str]:
    upload = begun(s3, "whole", ChecksumAlgorithm="CRC32")
    sent = []
    for number, body in enumerate(BODIES, 1):
        part = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        sent.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]})
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": sent}, MpuObjectSize=2 * LEAST + 7)
    return {"Bucket": BUCKET, "Key": "whole"}


def test_a_small_part_that_is_not_the_last_keeps_an_upload_from_completing(s3: Any) -> None:
    upload = begun(s3, "small")
    tags = [
        s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]
        for number, body in ((1, b"a" * (LEAST - 1)), (2, b"tail"), (4, b"a" * LEAST))
    ]
    listed = [{"PartNumber": number, "ETag": tag} for number, tag in zip((1, 2, 4), tags, strict=True)]
    told = s3.list_parts(**upload)
    assert (told["Owner"]["ID"], told["Initiator"]["ID"], told["StorageClass"]) == (ACCOUNT, ACCOUNT, "STANDARD")
    (told,) = (each for each in s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"] if each["Key"] == "small")
    assert (told["Owner"]["ID"], told["StorageClass"]) == (ACCOUNT, "STANDARD")

    def complete(chosen: list[dict[str, Any]], **more: Any) -> Any:
        return s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": chosen}, **more)

    told = error_of(lambda: complete(listed[:2]))
    assert (told["Code"], told["status"], told["PartNumber"]) == ("EntityTooSmall", 400, "1")
    assert (told["ProposedSize"], told["MinSizeAllowed"]) == (str(LEAST - 1), str(LEAST))
    assert error_of(lambda: complete([listed[2], listed[1]]))["Code"] == "InvalidPartOrder"
    assert error_of(lambda: complete([listed[2], listed[2]]))["Code"] == "InvalidPartOrder"
    wrong = error_of(lambda: complete([{"PartNumber": 3, "ETag": tags[1]}]))
    assert (wrong["Code"], wrong["PartNumber"], wrong["UploadId"]) == ("InvalidPart", "3", upload["UploadId"])
    assert error_of(lambda: complete([listed[2]], MpuObjectSize=1))["Code"] == "InvalidRequest"
    # Nothing of it has ended the upload; parts that are not listed are left out.
    complete([listed[2]], MpuObjectSize=LEAST)
    assert s3.head_object(Bucket=BUCKET, Key="small")["ContentLength"] == LEAST
    gone = error_of(lambda: complete([listed[2]]))
    assert (gone["Code"], gone["status"], gone["UploadId"]) == ("NoSuchUpload", 404, upload["UploadId"])
    for call in (
        lambda: s3.upload_part(**upload, PartNumber=1, Body=b"x"),
        lambda: s3.list_parts(**upload),
        lambda: s3.abort_multipart_upload(**upload),
    ):
        assert error_of(call)["Code"] == "NoSuchUpload"


def test_what_takes_long_is_answered_with_blanks_and_then_with_what_it_came_to(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(slow, "BLANK_EVERY_S", 0.001)
    source = {"Bucket": BUCKET, "Key": "slow-source"}
    s3.put_object(**source, Body=b"a" * LEAST)
    upload = begun(s3, "slow", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    copied = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source)["CopyPartResult"]
    listed = {"Parts": [{"PartNumber": 1, "ETag": copied["ETag"]}]}
    # With the status gone out, an error stands in the body, where S3's clients look for it.
    wrong = {"ChecksumCRC32": "AAAAAA==", "ChecksumType": "FULL_OBJECT"}
    assert (
        error_of(lambda: s3.complete_multipart_upload(**upload, MultipartUpload=listed, **wrong))["Code"] == "BadDigest"
    )
    done = s3.complete_multipart_upload(**upload, MultipartUpload=listed)
    assert done["ETag"].endswith('-1"') and done["Key"] == "slow"
    assert s3.head_object(Bucket=BUCKET, Key="slow")["ETag"] == done["ETag"]


def test_who_completes_an_upload_twice_at_once_hears_the_same_of_it(door: Door, s3: Any) -> None:
    upload = begun(s3, "twice")
    tags = [s3.upload_part(**upload, PartNumber=n, Body=body)["ETag"] for n, body in enumerate(BODIES, 1)]
    listed = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, 1)]}
    clients = [door.client("s3") for _ in range(2)]

    def complete(client: Any) -> str:
        try:
            return str(client.complete_multipart_upload(**upload, MultipartUpload=listed)["ETag"])
        except ClientError as error:
            # The other one was done before this one came.
            assert error.response["Error"]["Code"] == "NoSuchUpload"
            return ""

    with ThreadPoolExecutor(2) as pool:
        heard = set(pool.map(complete, clients)) - {""}
    assert heard == {s3.head_object(Bucket=BUCKET, Key="twice")["ETag"]}


def test_an_upload_that_is_being_completed_is_not_taken_away(
    door: Door, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begun(s3, "held")
    listed = {"Parts": [{"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}]}
    under_way, go_on = threading.Event(), threading.Event()
    joined = Multipart._joined

    async def held(self: Multipart, *given: Any) -> AsyncIterator[bytes]:
        under_way.set()
        await asyncio.to_thread(go_on.wait, WAIT_S)
        async for chunk in joined(self, *given):
            yield chunk

    monkeypatch.setattr(Multipart, "_joined", held)
    with ThreadPoolExecutor(1) as pool:
        completed = pool.submit(door.client("s3").complete_multipart_upload, **upload, MultipartUpload=listed)
        try:
            assert under_way.wait(WAIT_S)
            told = error_of(lambda: s3.abort_multipart_upload(**upload))
        finally:
            go_on.set()
        assert (told["Code"], told["status"]) == ("OperationAborted", 409)
        assert completed.result(WAIT_S)["Key"] == "held"
    assert s3.get_object(Bucket=BUCKET, Key="held")["Body"].read() == b"x"


def test_one_part_may_be_as_small_as_it_likes(s3: Any) -> None:
    upload = begun(s3, "empty")
    part = {"PartNumber": 7, "ETag": s3.upload_part(**upload, PartNumber=7, Body=b"")["ETag"]}
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})
    assert s3.get_object(Bucket=BUCKET, Key="empty")["Body"].read() == b""


def test_a_part_is_read_by_its_number(s3: Any, whole: dict[str, str]) -> None:
    for number, body in enumerate(BODIES, 1):
        got = s3.get_object(**whole, PartNumber=number)
        assert got["Body"].read() == body and got["PartsCount"] == 3
        start = sum(map(len, BODIES[: number - 1]))
        assert got["ContentRange"] == f"bytes {start}-{start + len(body) - 1}/{2 * LEAST + 7}"
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert s3.head_object(**whole, PartNumber=3)["ContentLength"] == 7
    s3.copy_object(Bucket=BUCKET, Key="copied", CopySource=whole)
    assert s3.get_object(Bucket=BUCKET, Key="copied", PartNumber=3)["Body"].read() == b"c" * 7
    s3.put_object(Bucket=BUCKET, Key="one", Body=b"all")
    one = {"Bucket": BUCKET, "Key": "one"}
    got = s3.get_object(**one, PartNumber=1)
    assert got["Body"].read() == b"all" and "PartsCount" not in got
    for place, number, status in ((whole, 4, 416), (one, 2, 416), (one, 0, 400), (one, 10_001, 400)):
        told = error_of(lambda place=place, number=number: s3.get_object(**place, PartNumber=number))
        assert (told["Code"], told["status"]) == ("InvalidPartNumber" if status == 416 else "InvalidArgument", status)
    assert error_of(lambda: s3.get_object(**whole, PartNumber=1, Range="bytes=0-1"))["Code"] == "InvalidRequest"


def test_attributes_tell_of_an_object_and_its_parts(s3: Any, whole: dict[str, str]) -> None:
    every = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    head = s3.head_object(**whole, ChecksumMode="ENABLED")
    told = s3.get_object_attributes(**whole, ObjectAttributes=every)
    assert (told["ETag"], told["ObjectSize"]) == (head["ETag"].strip('"'), 2 * LEAST + 7)
    assert (told["StorageClass"], told["LastModified"]) == ("STANDARD", head["LastModified"])
    assert told["Checksum"] == {"ChecksumCRC32": head["ChecksumCRC32"], "ChecksumType": "COMPOSITE"}
    listed = told["ObjectParts"]
    crcs = [base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode() for body in BODIES]
    assert [(part["PartNumber"], part["Size"], part["ChecksumCRC32"]) for part in listed["Parts"]] == [
        (number, len(body), crc) for number, (body, crc) in enumerate(zip(BODIES, crcs, strict=True), 1)
    ]
    assert (listed["TotalPartsCount"], listed["IsTruncated"], listed["MaxParts"]) == (3, False, 1000)
    page = s3.get_object_attributes(**whole, ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=1)
    assert set(page) & set(every) == {"ObjectParts"}
    listed = page["ObjectParts"]
    assert [part["PartNumber"] for part in listed["Parts"]] == [2]
    assert (listed["IsTruncated"], listed["NextPartNumberMarker"], listed["PartNumberMarker"]) == (True, 2, 1)


def test_attributes_of_what_came_in_one_piece_or_is_not_there(door: Door, s3: Any) -> None:
    put = s3.put_object(Bucket=BUCKET, Key="plain", Body=b"plain", ChecksumAlgorithm="SHA256")
    told = s3.get_object_attributes(Bucket=BUCKET, Key="plain", ObjectAttributes=["Checksum", "ObjectParts"])
    assert told["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in told and "ETag" not in told
    for bucket, code in ((BUCKET, "NoSuchKey"), ("none-such", "NoSuchBucket")):
        asked = {"Bucket": bucket, "Key": "none", "ObjectAttributes": ["ETag"]}
        assert error_of(lambda asked=asked: s3.get_object_attributes(**asked))["Code"] == code
    for value in ("", "ETag,Colour"):
        answer = send(
            door, "GET", f"/{BUCKET}/plain?attributes", headers={"x-amz-object-attributes": value}, service="s3"
        )
        assert (answer.status, answer.xml["Code"]) == (400, "InvalidArgument")


def test_what_is_kept_of_parts_is_small_whatever_their_number() -> None:
    sent = [
        storage_pb2.StoredObject(size_bytes=8 << 20, metadata={":x-amz-checksum-sha256": base64.b64encode(bytes([n % 256] * 32)).decode()})
        for n in range(parts.PARTS_MAX)
    ]  # fmt: skip
    kept = parts.to_keep(sent, Wish("sha256", "COMPOSITE"))
    assert kept == {parts.KEPT_SIZES: f"{8 << 20}x10000"}
    few = parts.to_keep(sent[:96], Wish("sha256", "COMPOSITE"))
    known = parts.of_object(storage_pb2.StoredObject(metadata={**few, ":x-amz-checksum-sha256": "x-96"}))
    assert len(few[parts.KEPT_CHECKSUMS]) <= parts.CHECKSUMS_MAX
    assert known[95] == (
        96,
        95 * (8 << 20),
        8 << 20,
        ("ChecksumSHA256", sent[95].metadata[":x-amz-checksum-sha256"]),
    )
