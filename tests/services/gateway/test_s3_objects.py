"""Objects held against what S3 documents of them: ranges, conditions, checksums, metadata, copies, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from services.gateway import checksums
from tests.services.gateway.s3_forms import FORM, encoded
from tests.services.gateway.wire import raw, send
from tests.support.cloud import ACCOUNT
from tests.support.front_door import Door

BUCKET = "objects"
BODY = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    made.put_object(Bucket=BUCKET, Key="k", Body=BODY)
    made.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    yield made


def error_of(call: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", (0, 1)), ("bytes=5-9", (5, 10)), ("bytes=10000-99999", (10_000, 10_240)), ("bytes=-5", (10_235, 10_240)),
        ("bytes=-99999", (0, 10_240)), ("bytes=0-", (0, 10_240)), ("bytes=7-3", None), ("bytes=0-1,4-5", None), ("lines=1-2", None),
    ],
)  # fmt: skip
def test_a_range_is_answered_with_its_bytes(s3: Any, asked: str, span: tuple[int, int] | None) -> None:
    got = s3.get_object(Bucket=BUCKET, Key="k", Range=asked)
    start, end = span or (0, len(BODY))
    assert got["Body"].read() == BODY[start:end] and got["ContentLength"] == end - start
    assert got["ResponseMetadata"]["HTTPStatusCode"] == (206 if span else 200)
    assert got.get("ContentRange") == (f"bytes {start}-{end - 1}/{len(BODY)}" if span else None)
    head = s3.head_object(Bucket=BUCKET, Key="k", Range=asked)
    assert (head["ContentLength"], head.get("ContentRange")) == (end - start, got.get("ContentRange"))


def test_a_range_that_is_not_there_is_416(door: Door, s3: Any) -> None:
    for key, asked in (("k", "bytes=10240-"), ("k", "bytes=-0"), ("empty", "bytes=0-"), ("empty", "bytes=-1")):
        assert error_of(lambda key=key, asked=asked: s3.get_object(Bucket=BUCKET, Key=key, Range=asked)) == (
            "InvalidRange",
            416,
        )
    told = send(door, "GET", f"/{BUCKET}/k", headers={"Range": "bytes=20000-"}, service="s3").xml
    assert (told["RangeRequested"], told["ActualObjectSize"]) == ("bytes=20000-", "10240")


def test_heads_have_a_status_and_no_body(door: Door, s3: Any) -> None:
    tag = s3.head_object(Bucket=BUCKET, Key="k")["ETag"]
    for path, headers, status in (
        (f"/{BUCKET}", {}, 200),
        ("/no-such-bucket", {}, 404),
        (f"/{BUCKET}/k", {}, 200),
        (f"/{BUCKET}/empty", {}, 200),
        (f"/{BUCKET}/none", {}, 404),
        ("/no-such-bucket/k", {}, 404),
        (f"/{BUCKET}/k", {"If-None-Match": tag}, 304),
        (f"/{BUCKET}/k", {"If-None-Match": "*"}, 304),
        (f"/{BUCKET}/k", {"If-Match": '"0"'}, 412),
        (f"/{BUCKET}/k", {"Range": "bytes=99999-"}, 416),
        (f"/{BUCKET}/k?versionId=x", {}, 400),
        (f"/{BUCKET}?acl", {}, 501),
    ):
        answer = send(door, "HEAD", path, headers=headers, service="s3")
        assert (answer.status, answer.body) == (status, b""), path
    not_modified = send(door, "GET", f"/{BUCKET}/k", headers={"If-None-Match": tag}, service="s3")
    assert (not_modified.status, not_modified.body, not_modified.headers["etag"]) == (304, b"", tag)


def test_deleting_and_empty_answers_have_no_body(door: Door, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="gone", Body=b"x")
    for method, path, status in (
        ("DELETE", f"/{BUCKET}/gone", 204),
        ("DELETE", f"/{BUCKET}/gone", 204),
        ("PUT", f"/{BUCKET}/put", 200),
        ("PUT", "/made-empty", 200),
        ("DELETE", "/made-empty", 204),
    ):
        answer = send(door, method, path, service="s3")
        assert (answer.status, answer.body) == (status, b""), path


def trailing(body: bytes, name: str, value: str) -> bytes:
    pieces = [body[at : at + 3000] for at in range(0, len(body), 3000)]
    framed = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return framed + f"0\r\n{name}:{value}\r\n\r\n".encode()


@pytest.mark.parametrize("algorithm", checksums.ALGORITHMS)
@pytest.mark.parametrize("body", [b"", BODY], ids=["empty", "some"])
def test_every_checksum_is_verified_and_told_in_a_header_and_in_a_trailer(
    door: Door, s3: Any, algorithm: str, body: bytes
) -> None:
    running = checksums.new(algorithm)
    running.update(body)
    name, value = f"x-amz-checksum-{algorithm}", checksums.encoded(running)
    wrong = base64.b64encode(bytes(len(base64.b64decode(value)))).decode()
    if wrong == value:
        wrong = base64.b64encode(b"\1" * len(base64.b64decode(value))).decode()
    framing = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "x-amz-decoded-content-length": str(len(body)),
        "x-amz-trailer": name,
        "Content-Encoding": "aws-chunked",
    }
    path = f"/{BUCKET}/sum-{algorithm}"

    def trailed(said: str) -> Any:
        return send(door, "PUT", path, body=trailing(body, name, said), headers=framing, service="s3")

    assert send(door, "PUT", path, body=body, headers={name: wrong}, service="s3").xml["Code"] == "BadDigest"
    assert trailed(wrong).xml["Code"] == "BadDigest"
    for answer in (send(door, "PUT", path, body=body, headers={name: value}, service="s3"), trailed(value)):
        assert (answer.status, answer.headers[name], answer.headers["x-amz-checksum-type"]) == (
            200,
            value,
            "FULL_OBJECT",
        )
        head = send(door, "HEAD", path, headers={"x-amz-checksum-mode": "ENABLED"}, service="s3")
        assert (head.headers[name], head.headers["x-amz-checksum-type"]) == (value, "FULL_OBJECT")
        assert head.headers["content-length"] == str(len(body)) and "content-encoding" not in head.headers
    answer = send(door, "PUT", path, body=body, headers={name: "no base64"}, service="s3")
    assert answer.status == 400


def test_a_wrong_md5_is_refused_and_nothing_is_stored(s3: Any) -> None:
    put = {"Bucket": BUCKET, "Key": "md5", "Body": b"body"}
    right = base64.b64encode(hashlib.md5(b"body").digest()).decode()
    other = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    assert error_of(lambda: s3.put_object(**put, ContentMD5=other)) == ("BadDigest", 400)
    assert error_of(lambda: s3.put_object(**put, ContentMD5="none")) == ("InvalidDigest", 400)
    assert error_of(lambda: s3.head_object(Bucket=BUCKET, Key="md5")) == ("404", 404)
    assert s3.put_object(**put, ContentMD5=right)["ETag"] == f'"{hashlib.md5(b"body").hexdigest()}"'


def test_metadata_goes_in_and_out(door: Door, s3: Any) -> None:
    said: Mapping[str, Any] = {
        "ContentType": "text/plain; charset=utf-8", "CacheControl": "no-cache", "ContentDisposition": 'attachment; filename="a b"',
        "ContentEncoding": "gzip", "ContentLanguage": "de, en", "Metadata": {"a-b": "c d", "empty": ""}, "StorageClass": "STANDARD_IA",
    }  # fmt: skip
    s3.put_object(Bucket=BUCKET, Key="said", Body=b"x", **said)
    head = s3.head_object(Bucket=BUCKET, Key="said")
    assert {name: head[name] for name in said} == {**said, "ContentLanguage": "de,en"}
    copied = s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/said", ChecksumAlgorithm="SHA256")
    digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    assert copied["CopyObjectResult"]["ChecksumSHA256"] == digest
    head = s3.head_object(Bucket=BUCKET, Key="copy", ChecksumMode="ENABLED")
    assert head["Metadata"] == said["Metadata"] and "StorageClass" not in head
    assert (head["ChecksumSHA256"], head["ChecksumType"]) == (digest, "FULL_OBJECT")
    s3.copy_object(Bucket=BUCKET, Key="said", CopySource=f"{BUCKET}/said", StorageClass="ONEZONE_IA")
    assert s3.head_object(Bucket=BUCKET, Key="said")["StorageClass"] == "ONEZONE_IA"


def test_text_beyond_ascii_is_told_as_s3_tells_it(door: Door, s3: Any) -> None:
    url = door.client("s3", signature_version="s3v4").generate_presigned_url(
        "put_object", {"Bucket": BUCKET, "Key": "utf8"}
    )  # fmt: skip
    head = f"PUT {url.removeprefix(door.url)} HTTP/1.1\r\nHost: {door.url.removeprefix('http://')}\r\nContent-Length: 1\r\n"
    head += 'Content-Disposition: attachment; filename="ä"\r\nConnection: close\r\n\r\nx'
    assert b" 200 OK" in raw(door, head.encode())
    got = send(door, "GET", f"/{BUCKET}/utf8", service="s3")
    assert got.headers["content-disposition"].encode("latin-1").decode() == 'attachment; filename="ä"'
    # The example of S3's user guide: the bytes of UTF-8, taken for Latin-1.
    head = head.replace(
        "Content-Disposition: attachment", "x-amz-meta-nonascii: ÄMÄZÕÑ S3\r\nContent-Disposition: attachment"
    )
    assert b"HeadersNotSigned" in raw(door, head.encode())
    post = encoded(signed_form(door), b"x")
    assert send(door, "POST", f"/{BUCKET}", body=post, headers={"Content-Type": FORM}, service=None).status == 204
    told = s3.head_object(Bucket=BUCKET, Key="utf8")["Metadata"]["nonascii"]
    assert told == "=?UTF-8?B?w4PChE3Dg8KEWsODwpXDg8KRIFMz?="


def signed_form(door: Door) -> dict[str, str]:
    fields = {"x-amz-meta-nonascii": "ÄMÄZÕÑ S3"}
    return dict(door.client("s3").generate_presigned_post(BUCKET, "utf8", fields, [fields])["fields"])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-amz-meta-a": "a" * 2050}, 400, "MetadataTooLarge"),
        ({"Cache-Control": "a" * 9000}, 400, "RequestHeaderSectionTooLarge"),
        ({"Content-Type": "a" * 256}, 400, "InvalidArgument"),
        ({"x-amz-storage-class": "LUKEWARM"}, 400, "InvalidStorageClass"),
        ({"x-amz-storage-class": "GLACIER"}, 501, "NotImplemented"),
        ({"x-amz-website-redirect-location": "/x"}, 501, "NotImplemented"),
        ({"x-amz-object-lock-retain-until-date": "2030-01-01T00:00:00Z"}, 501, "NotImplemented"),
        ({"x-amz-expected-bucket-owner": "210987654321"}, 403, "AccessDenied"),
        ({"x-amz-copy-source": f"{BUCKET}/k?versionId=other"}, 400, "InvalidArgument"),
        ({"x-amz-copy-source": f"{BUCKET}/k", "x-amz-metadata-directive": "MERGE"}, 400, "InvalidArgument"),
        ({"x-amz-copy-source": f"{BUCKET}/k", "x-amz-source-expected-bucket-owner": "210987654321"}, 403, "AccessDenied"),
        ({"x-amz-copy-source": f"{BUCKET}/k", "x-amz-checksum-algorithm": "CRC7"}, 400, "InvalidRequest"),
        ({"x-amz-copy-source": f"{BUCKET}/k", "x-amz-copy-source-if-match": '"0"'}, 412, "PreconditionFailed"),
        ({"x-amz-copy-source": "none"}, 400, "InvalidArgument"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_not_passed_over(
    door: Door, s3: Any, headers: dict[str, str], status: int, code: str
) -> None:
    answer = send(door, "PUT", f"/{BUCKET}/refused", headers=headers, service="s3")
    assert (answer.status, answer.xml["Code"]) == (status, code)
    assert error_of(lambda: s3.head_object(Bucket=BUCKET, Key="refused")) == ("404", 404)


def test_a_bucket_of_ones_own_account_is_expected(s3: Any) -> None:
    assert s3.get_object(Bucket=BUCKET, Key="k", ExpectedBucketOwner=ACCOUNT)["Body"].read() == BODY
    assert error_of(lambda: s3.list_objects_v2(Bucket=BUCKET, ExpectedBucketOwner="210987654321"))[0] == "AccessDenied"


def test_a_deletion_with_a_condition_is_not_done_without_it(s3: Any) -> None:
    tag = s3.put_object(Bucket=BUCKET, Key="cond", Body=b"x")["ETag"]
    place = {"Bucket": BUCKET, "Key": "cond"}
    assert error_of(lambda: s3.delete_object(**place, IfMatch='"0"')) == ("PreconditionFailed", 412)
    told = s3.delete_objects(
        Bucket=BUCKET,
        Delete={"Objects": [{"Key": "cond", "ETag": '"0"'}, {"Key": "k", "VersionId": "x"}, {"Key": "k", "Size": 1}]},
    )["Errors"]
    assert [entry["Code"] for entry in told] == ["PreconditionFailed", "NoSuchVersion", "NotImplemented"]
    assert s3.head_object(**place)["ETag"] == tag and s3.head_object(Bucket=BUCKET, Key="k")
    s3.delete_object(**place, IfMatch=tag)
    assert error_of(lambda: s3.head_object(**place)) == ("404", 404)


SERVED = {
    "AbortMultipartUpload", "CompleteMultipartUpload", "CopyObject", "CreateBucket", "CreateMultipartUpload", "DeleteBucket",
    "DeleteObject", "DeleteObjects", "GetBucketLocation", "GetObject", "GetObjectAttributes", "HeadBucket", "HeadObject",
    "ListBuckets", "ListMultipartUploads", "ListObjects", "ListObjectsV2", "ListParts", "PutObject", "UploadPart", "UploadPartCopy",
}  # fmt: skip
ELSEWHERE = {"ListDirectoryBuckets", "WriteGetObjectResponse"}
"""Of other endpoints of AWS's; their paths mean other operations here."""


def test_no_operation_that_is_not_served_is_taken_for_another(door: Door, s3: Any) -> None:
    model = botocore.session.get_session().get_service_model("s3")
    seen = 0
    for name in set(model.operation_names) - SERVED - ELSEWHERE:
        http = model.operation_model(name).http
        path = http["requestUri"].replace("{Bucket}", BUCKET).replace("{Key+}", "k")
        answer = send(door, http["method"], path, service="s3")
        assert (answer.status, answer.xml["Code"]) == (501, "NotImplemented"), name
        seen += 1
    assert seen > 60 and s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == BODY


def test_bodies_that_end_early_or_late_are_refused(door: Door, s3: Any) -> None:
    url = door.client("s3", signature_version="s3v4").generate_presigned_url(
        "put_object", {"Bucket": BUCKET, "Key": "cut"}
    )  # fmt: skip
    front = f"PUT {url.removeprefix(door.url)} HTTP/1.1\r\nHost: {door.url.removeprefix('http://')}\r\n"
    answer = raw(door, f"{front}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\nx\r\n0\r\n\r\n".encode())
    assert b" 411 " in answer and b"MissingContentLength" in answer
    with socket.create_connection(("127.0.0.1", door.cloud.runtime.ports.gateway), 20) as connection:
        connection.sendall(f"{front}Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"data")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert s3.get_object(Bucket=BUCKET, Key="cut")["Body"].read() == b"data"
