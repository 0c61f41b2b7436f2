"""S3 through boto3, as Panorama's tools use it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.services.gateway.s3_tls import certificate, tls_in_front
from tests.services.gateway.wire import headers_for, raw, send
from tests.support.cloud import REGION
from tests.support.front_door import Door

BUCKET = "panorama-123456789012-us-east-1"


@pytest.fixture
def s3(door: Door) -> Any:
    return door.client("s3")


@pytest.fixture
def front() -> str:
    """A prefix of the test's own."""
    return f"t/{uuid.uuid4().hex}"


def code_of(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_an_object_comes_back_with_all_that_was_said_of_it(s3: Any, front: str) -> None:
    key, body = f"{front}/ä b+c%2F=.txt", b"hello" * 1000
    put = s3.put_object(
        Bucket=BUCKET,
        Key=key,
        Body=body,
        ContentType="text/plain",
        Metadata={"camera": "south"},
        CacheControl="no-store",
    )
    got = s3.get_object(Bucket=BUCKET, Key=key)
    assert got["Body"].read() == body
    assert got["ETag"] == put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert (got["ContentType"], got["Metadata"], got["CacheControl"]) == ("text/plain", {"camera": "south"}, "no-store")
    head = s3.head_object(Bucket=BUCKET, Key=key)
    assert (head["ContentLength"], head["LastModified"]) == (5000, got["LastModified"])


def test_an_empty_object_is_an_object(s3: Any, front: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=front, Body=b"")
    assert s3.get_object(Bucket=BUCKET, Key=front)["Body"].read() == b""


def test_ranges_give_the_bytes_asked_for(s3: Any, front: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=front, Body=b"0123456789")
    for asked, got, said in [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
    ]:
        answer = s3.get_object(Bucket=BUCKET, Key=front, Range=asked)
        assert (answer["Body"].read(), answer["ContentRange"]) == (got, said)
    assert s3.get_object(Bucket=BUCKET, Key=front, Range="lines=1-2")["Body"].read() == b"0123456789"
    assert code_of(lambda: s3.get_object(Bucket=BUCKET, Key=front, Range="bytes=10-")) == "InvalidRange"


def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(s3: Any, front: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=front, Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key=front)
    s3.delete_object(Bucket=BUCKET, Key=front)
    assert code_of(lambda: s3.get_object(Bucket=BUCKET, Key=front)) == "NoSuchKey"
    assert code_of(lambda: s3.head_object(Bucket=BUCKET, Key=front)) == "404"


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_listings_page_and_fold_at_the_delimiter(s3: Any, front: str, operation: str) -> None:
    keys = [f"{front}/{name}" for name in ("a", "b/1", "b/2", "b/3", "c", "d/e/f", "ä +&<")]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    pages = s3.get_paginator(operation).paginate(Bucket=BUCKET, Prefix=f"{front}/", PaginationConfig={"PageSize": 2})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == sorted(keys)
    folded = s3.get_paginator(operation).paginate(
        Bucket=BUCKET, Prefix=f"{front}/", Delimiter="/", PaginationConfig={"PageSize": 1}
    )
    objects, prefixes = [], []
    for page in folded:
        objects += [entry["Key"] for entry in page.get("Contents", [])]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    assert objects == [f"{front}/a", f"{front}/c", f"{front}/ä +&<"]
    assert prefixes == [f"{front}/b/", f"{front}/d/"]


def test_a_large_file_goes_up_in_parts_and_comes_down_whole(s3: Any, front: str, tmp_path: Path) -> None:
    body = bytes(range(256)) * (13 << 12)
    file = tmp_path / "model.tar.gz"
    file.write_bytes(body)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=3)
    s3.upload_file(str(file), BUCKET, front, Config=config, ExtraArgs={"ContentType": "application/gzip"})
    head = s3.head_object(Bucket=BUCKET, Key=front)
    assert (head["ContentLength"], head["ContentType"]) == (len(body), "application/gzip")
    assert head["ETag"].endswith('-3"')
    back = io.BytesIO()
    s3.download_fileobj(BUCKET, front, back, Config=config)
    assert back.getvalue() == body


def test_parts_leave_no_bytes_behind_and_are_not_seen(door: Door, s3: Any, front: str) -> None:
    blobs = door.cloud.runtime.paths.blobs

    def stored() -> int:
        return sum(1 for file in blobs.rglob("*") if file.is_file())

    def upload(key: str) -> str:
        upload_id = str(s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"])
        for number in (1, 2, 2):
            s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload_id, PartNumber=number, Body=uuid.uuid4().bytes)
        return upload_id

    s3.create_multipart_upload(Bucket=BUCKET, Key="first-makes-the-empty-blob")
    before = stored()
    upload_id = upload(front)
    assert code_of(lambda: s3.get_object(Bucket=BUCKET, Key=front)) == "NoSuchKey"
    seen = s3.list_objects_v2(Bucket=BUCKET)
    assert not [entry for entry in seen.get("Contents", []) if upload_id in entry["Key"]]
    s3.abort_multipart_upload(Bucket=BUCKET, Key=front, UploadId=upload_id)
    assert stored() == before
    assert code_of(lambda: s3.abort_multipart_upload(Bucket=BUCKET, Key=front, UploadId=upload_id)) == "NoSuchUpload"


def test_an_upload_completes_only_with_the_parts_it_has(s3: Any, front: str) -> None:
    upload_id = s3.create_multipart_upload(Bucket=BUCKET, Key=front)["UploadId"]
    etag = s3.upload_part(Bucket=BUCKET, Key=front, UploadId=upload_id, PartNumber=1, Body=b"one")["ETag"]

    def complete(*parts: tuple[int, str], key: str = front) -> Any:
        listed = [{"PartNumber": number, "ETag": tag} for number, tag in parts]
        return s3.complete_multipart_upload(
            Bucket=BUCKET, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
        )

    assert code_of(lambda: complete((1, '"0123"'))) == "InvalidPart"
    assert code_of(lambda: complete((1, etag), (2, etag))) == "InvalidPart"
    assert code_of(lambda: complete((2, etag), (1, etag))) == "InvalidPartOrder"
    assert code_of(lambda: complete()) == "MalformedXML"
    assert code_of(lambda: complete((1, etag), key=f"{front}-other")) == "NoSuchUpload"
    complete((1, etag))
    assert s3.get_object(Bucket=BUCKET, Key=front)["Body"].read() == b"one"


def test_presigned_urls_put_and_get_and_replaying_a_put_is_harmless(door: Door, front: str) -> None:
    s3 = door.client("s3", signature_version="s3v4")
    place = {"Bucket": BUCKET, "Key": f"{front}/a b"}
    url = s3.generate_presigned_url("put_object", Params=place)
    for _ in range(2):
        request = urllib.request.Request(url, data=b"by url", method="PUT", headers={"Content-Type": ""})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", Params=place), timeout=20) as answer:
        assert answer.read() == b"by url"
    wrong = s3.generate_presigned_url("get_object", Params=place).replace("a%20b", "other")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(wrong, timeout=20)
    assert caught.value.code == 403


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_checksums_are_verified_and_told(s3: Any, front: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=BUCKET, Key=front, Body=b"checked", ChecksumAlgorithm=algorithm)
    assert put[f"Checksum{algorithm}"]
    wrong = {f"Checksum{algorithm}": put[f"Checksum{algorithm}"]}
    assert code_of(lambda: s3.put_object(Bucket=BUCKET, Key=front, Body=b"other", **wrong)) == "BadDigest"
    assert s3.get_object(Bucket=BUCKET, Key=front)["Body"].read() == b"checked"


def test_checksums_of_newer_clients_are_verified_too(door: Door, front: str) -> None:
    path = f"/{BUCKET}/{front}"
    for name, value in [("crc32c", "4waSgw=="), ("crc64nvme", "rosUhgp5mIg=")]:
        headers = {f"x-amz-checksum-{name}": value}
        answer = send(door, "PUT", path, body=b"123456789", headers=headers, service="s3")
        assert (answer.status, answer.headers[f"x-amz-checksum-{name}"]) == (200, value)
        assert send(door, "PUT", path, body=b"12345678", headers=headers, service="s3").xml["Code"] == "BadDigest"


def test_bodies_in_chunks_with_a_trailer_as_boto3_sends_them_over_tls(door: Door, front: str, tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    port, done = [0], asyncio.Event()
    ready = threading.Event()

    async def proxy() -> None:
        async with tls_in_front(door.cloud.runtime.ports.gateway, pem) as own:
            port[0] = own
            ready.set()
            await done.wait()

    running = asyncio.run_coroutine_threadsafe(proxy(), door.loop)
    assert ready.wait(10)
    client = boto3.client(
        "s3",
        endpoint_url=f"https://127.0.0.1:{port[0]}",
        verify=str(pem),
        region_name=REGION,
        aws_access_key_id=door.access_key_id,
        aws_secret_access_key=door.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )
    sent: list[str] = []
    client.meta.events.register(
        "before-send", lambda request, **_: sent.append(str(request.headers["X-Amz-Content-SHA256"]))
    )
    body = bytes(range(256)) * 5000
    try:
        client.put_object(Bucket=BUCKET, Key=front, Body=io.BytesIO(body))
        assert client.get_object(Bucket=BUCKET, Key=front)["Body"].read() == body
    finally:
        client.close()
        door.loop.call_soon_threadsafe(done.set)
        running.result(10)
    assert "STREAMING-UNSIGNED-PAYLOAD-TRAILER" in sent[0]


def test_an_upload_that_may_not_be_is_refused_before_its_body_is_sent(door: Door) -> None:
    head = f"PUT /{BUCKET}/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    answer = raw(door, head.encode(), until=b"</Error>")
    assert answer.startswith(b"HTTP/1.1 403 ") and b"100 Continue" not in answer
    assert b"connection: close" in answer.lower()


def test_what_is_not_served_is_named(s3: Any) -> None:
    for call, name in [
        (lambda: s3.get_object_tagging(Bucket=BUCKET, Key="k"), "tagging"),
        (lambda: s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}), "versioning"),
    ]:
        with pytest.raises(ClientError, match=name) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == "NotImplemented"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/Bad_Bucket/k", "InvalidBucketName"),
        (f"/{BUCKET}/" + "k" * 1025, "KeyTooLongError"),
        (f"/{BUCKET}/%FF", "InvalidURI"),
        (f"/{BUCKET}/a%00b", "InvalidURI"),
        (f"/{BUCKET}/.belvedere/uploads/x", "AccessDenied"),
        (f"/{BUCKET}?prefix=%FF", "InvalidURI"),
        (f"/{BUCKET}?prefix=%00", "InvalidURI"),
        (f"/{BUCKET}?list-type=2&max-keys=many", "InvalidArgument"),
        (f"/{BUCKET}?list-type=2&continuation-token=%25", "InvalidArgument"),
        (f"/{BUCKET}?list-type=2&encoding-type=rot13", "InvalidArgument"),
    ],
)
def test_bad_requests_get_s3s_own_errors(door: Door, path: str, code: str) -> None:
    answer = send(door, "GET", path, service="s3")
    assert 400 <= answer.status < 500 and answer.xml["Code"] == code
    assert answer.xml["RequestId"] == answer.headers["x-amzn-requestid"]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing(door: Door, s3: Any, front: str) -> None:
    path, body = f"/{BUCKET}/{front}", b"x" * 1_000_000
    headers = headers_for(door, "s3", "PUT", path, body, {"Content-Length": str(len(body))})
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{door.cloud.runtime.ports.gateway}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", door.cloud.runtime.ports.gateway), 20) as connection:
        connection.sendall(head.encode() + body[:500_000])
    incoming = door.cloud.runtime.paths.blobs / "incoming"
    until = time.monotonic() + 30
    while incoming.exists() and any(incoming.iterdir()) and time.monotonic() < until:
        threading.Event().wait(0.02)
    assert not incoming.exists() or not any(incoming.iterdir())
    assert code_of(lambda: s3.get_object(Bucket=BUCKET, Key=front)) == "NoSuchKey"
