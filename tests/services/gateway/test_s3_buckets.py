"""Ordinary buckets through boto3: made, filled, copied between, emptied, deleted; conditions; the bucket in the host."""

from __future__ import annotations

import http.client
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from services.gateway.s3.names import bucket_of_host
from tests.services.gateway.wire import send
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

PACKAGES = f"panorama-{ACCOUNT}-{REGION}"


@pytest.fixture
def s3(door: Door) -> Any:
    return door.client("s3")


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    name = f"b-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    yield name


def code_of(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def put(s3: Any, bucket: str, key: str, body: bytes = b"x", **more: Any) -> str:
    return str(s3.put_object(Bucket=bucket, Key=key, Body=body, **more)["ETag"])


def test_a_bucket_is_made_found_filled_emptied_and_deleted(s3: Any, bucket: str) -> None:
    listed = {entry["Name"]: entry["CreationDate"] for entry in s3.list_buckets()["Buckets"]}
    assert abs((datetime.now(UTC) - listed[bucket]).total_seconds()) < 60
    assert PACKAGES in listed and list(listed) == sorted(listed)
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == REGION
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    put(s3, bucket, "k")
    assert code_of(lambda: s3.delete_bucket(Bucket=bucket)) == "BucketNotEmpty"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.create_multipart_upload(Bucket=bucket, Key="never completed")
    s3.delete_bucket(Bucket=bucket)
    assert code_of(lambda: s3.head_bucket(Bucket=bucket)) == "404"
    for call in (
        lambda: put(s3, bucket, "k"),
        lambda: s3.get_object(Bucket=bucket, Key="k"),
        lambda: s3.list_objects_v2(Bucket=bucket),
        lambda: s3.delete_object(Bucket=bucket, Key="k"),
        lambda: s3.delete_bucket(Bucket=bucket),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="k"),
        lambda: s3.list_multipart_uploads(Bucket=bucket),
    ):
        assert code_of(call) == "NoSuchBucket"
    s3.create_bucket(Bucket=bucket)
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_the_bucket_of_packages_is_there_and_stays(s3: Any) -> None:
    s3.head_bucket(Bucket=PACKAGES)
    assert code_of(lambda: s3.create_bucket(Bucket=PACKAGES)) == "BucketAlreadyOwnedByYou"
    assert code_of(lambda: s3.delete_bucket(Bucket=PACKAGES)) == "InvalidRequest"


def test_names_are_taken_once(door: Door, s3: Any, bucket: str) -> None:
    assert code_of(lambda: s3.create_bucket(Bucket=bucket)) == "BucketAlreadyOwnedByYou"
    assert code_of(lambda: s3.create_bucket(Bucket="panorama-210987654321-us-east-1")) == "BucketAlreadyExists"
    wrong = {"LocationConstraint": "eu-west-1"}
    refused = code_of(lambda: s3.create_bucket(Bucket=f"{bucket}-2", CreateBucketConfiguration=wrong))
    assert refused == "IllegalLocationConstraintException"
    for name in ("Upper", "a", "a..b", "-a-"):
        assert send(door, "PUT", f"/{name}", service="s3").xml["Code"] == "InvalidBucketName"
    assert send(door, "PUT", f"/{bucket}-3", body=b"<broken", service="s3").xml["Code"] == "MalformedXML"


def test_two_who_take_a_name_at_once_do_not_both_get_it(door: Door) -> None:
    clients, name = [door.client("s3") for _ in range(4)], f"b-{uuid.uuid4().hex}"

    def take(client: Any) -> bool:
        try:
            client.create_bucket(Bucket=name)
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, clients)) == [False, False, False, True]


def test_a_copy_has_the_bytes_and_what_was_said_of_them(s3: Any, bucket: str) -> None:
    tag = put(s3, bucket, "from +ä", b"bytes", ContentType="text/plain", Metadata={"k": "v"}, CacheControl="no-store")
    copied = s3.copy_object(Bucket=PACKAGES, Key=f"{bucket}/to", CopySource={"Bucket": bucket, "Key": "from +ä"})
    assert copied["CopyObjectResult"]["ETag"] == tag
    s3.delete_object(Bucket=bucket, Key="from +ä")
    got = s3.get_object(Bucket=PACKAGES, Key=f"{bucket}/to")
    assert got["Body"].read() == b"bytes"
    assert (got["ContentType"], got["Metadata"], got["CacheControl"]) == ("text/plain", {"k": "v"}, "no-store")
    itself = {"Bucket": PACKAGES, "Key": f"{bucket}/to", "CopySource": f"{PACKAGES}/{bucket}/to"}
    assert code_of(lambda: s3.copy_object(**itself)) == "InvalidRequest"
    s3.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"n": "w"}, ContentType="text/html")
    head = s3.head_object(Bucket=PACKAGES, Key=f"{bucket}/to")
    assert (head["Metadata"], head["ContentType"]) == ({"n": "w"}, "text/html")
    assert code_of(lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/none")) == "NoSuchKey"
    assert code_of(lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource="b-none/k")) == "NoSuchBucket"
    reserved = f"{PACKAGES}/.belvedere/uploads/x"
    assert code_of(lambda: s3.copy_object(Bucket=bucket, Key="k", CopySource=reserved)) == "AccessDenied"


def test_parts_can_be_copied_and_listed(s3: Any, bucket: str) -> None:
    least = 5 << 20
    put(s3, bucket, "from", b"01" + b"2" * least + b"3456789")
    upload = {
        "Bucket": bucket,
        "Key": "to",
        "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="to")["UploadId"],
    }
    source = f"{bucket}/from"
    first = s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=2-{least + 2}")
    second = s3.upload_part(**upload, PartNumber=2, Body=b"-end")
    wrong = {"PartNumber": 3, "CopySource": source, "CopySourceRange": "2-4"}
    assert code_of(lambda: s3.upload_part_copy(**upload, **wrong)) == "InvalidArgument"
    etags = [first["CopyPartResult"]["ETag"], second["ETag"]]
    listed = s3.list_parts(**upload)
    assert [(p["PartNumber"], p["ETag"], p["Size"]) for p in listed["Parts"]] == [
        (1, etags[0], least + 1),
        (2, etags[1], 4),
    ]
    page = s3.list_parts(**upload, MaxParts=1)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 1
    assert s3.list_parts(**upload, PartNumberMarker=1)["Parts"][0]["PartNumber"] == 2
    parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(etags, 1)]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"2" * least + b"3-end"
    assert code_of(lambda: s3.list_parts(**upload)) == "NoSuchUpload"


def test_uploads_in_progress_are_listed_in_pages(s3: Any, bucket: str) -> None:
    made = []
    for key in ("b/1", "a ä", "b/1"):
        upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=1, Body=b"x")
        made.append((key, upload_id))
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
    assert [(u["Key"], u["UploadId"]) for page in pages for u in page.get("Uploads", [])] == sorted(made)
    below = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]
    assert [upload["Key"] for upload in below] == ["b/1", "b/1"]


def test_uploads_in_parts_are_folded_at_a_delimiter(s3: Any, bucket: str) -> None:
    for key in ("a", "in/1", "in/2", "in/deep/3", "out/4", "z"):
        s3.create_multipart_upload(Bucket=bucket, Key=key)

    def seen(**options: Any) -> list[str]:
        pages = list(s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Delimiter="/", **options))
        return [
            *(entry["Key"] for page in pages for entry in page.get("Uploads", [])),
            *(entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])),
        ]

    assert seen() == ["a", "z", "in/", "out/"]
    assert seen(PaginationConfig={"PageSize": 1}) == ["a", "z", "in/", "out/"]
    assert seen(Prefix="in/") == ["in/1", "in/2", "in/deep/"]


def test_many_keys_are_deleted_at_once(door: Door, s3: Any, bucket: str) -> None:
    for key in ("a", "b &<", "c"):
        put(s3, bucket, key)
    asked = {"Objects": [{"Key": key} for key in ("a", "b &<", "none", ".belvedere/uploads/x")]}
    answer = s3.delete_objects(Bucket=bucket, Delete=asked)
    assert [entry["Key"] for entry in answer["Deleted"]] == ["a", "b &<", "none"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [(".belvedere/uploads/x", "AccessDenied")]
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["c"]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "c"}], "Quiet": True})
    assert "Deleted" not in quiet and "Errors" not in quiet
    assert code_of(lambda: s3.delete_objects(Bucket="b-none", Delete=asked)) == "NoSuchBucket"
    for body in (b"<Delete/>", b"", b"<Delete><Object/></Delete>"):
        assert send(door, "POST", f"/{bucket}?delete", body=body, service="s3").xml["Code"] == "MalformedXML"


def test_who_may_not_delete_or_read_is_told_for_every_key(door: Door, s3: Any, bucket: str) -> None:
    put(s3, bucket, "k")
    role = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"
    session = door.client("sts").assume_role(RoleArn=role, RoleSessionName="camera-app")["Credentials"]
    other = door.client("s3", keys=(session["AccessKeyId"], session["SecretAccessKey"]), token=session["SessionToken"])
    errors = other.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}, {"Key": "l"}]})["Errors"]
    assert [(entry["Key"], entry["Code"]) for entry in errors] == [("k", "AccessDenied"), ("l", "AccessDenied")]
    assert "s3:DeleteObject" in errors[0]["Message"]
    assert code_of(lambda: other.copy_object(Bucket=bucket, Key="l", CopySource=f"{bucket}/k")) == "AccessDenied"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_reader_gets_only_what_its_conditions_allow(s3: Any, bucket: str) -> None:
    tag = put(s3, bucket, "k")
    long_ago, later = datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)
    get = {"Bucket": bucket, "Key": "k"}
    for passing in (
        {"IfMatch": tag},
        {"IfNoneMatch": '"0"'},
        {"IfModifiedSince": long_ago},
        {"IfUnmodifiedSince": later},
    ):
        assert s3.get_object(**get, **passing)["Body"].read() == b"x"
    assert s3.get_object(**get, IfMatch=tag, IfUnmodifiedSince=long_ago)["Body"].read() == b"x"
    for condition, code in [
        ({"IfMatch": '"0"'}, "PreconditionFailed"),
        ({"IfUnmodifiedSince": long_ago}, "PreconditionFailed"),
        ({"IfNoneMatch": tag}, "304"),
        ({"IfModifiedSince": later}, "304"),
    ]:
        assert code_of(lambda condition=condition: s3.get_object(**get, **condition)) == code
    copy = {"Bucket": bucket, "Key": "l", "CopySource": f"{bucket}/k"}
    assert code_of(lambda: s3.copy_object(**copy, CopySourceIfMatch='"0"')) == "PreconditionFailed"
    assert code_of(lambda: s3.copy_object(**copy, CopySourceIfNoneMatch=tag)) == "PreconditionFailed"


def test_a_writer_can_ask_that_nothing_or_only_what_it_knows_is_overwritten(s3: Any, bucket: str) -> None:
    tag = put(s3, bucket, "k", IfNoneMatch="*")
    assert code_of(lambda: put(s3, bucket, "k", IfNoneMatch="*")) == "PreconditionFailed"
    assert code_of(lambda: put(s3, bucket, "k", IfMatch='"0"')) == "PreconditionFailed"
    assert code_of(lambda: put(s3, bucket, "none", IfMatch=tag)) == "NoSuchKey"
    put(s3, bucket, "k", b"new", IfMatch=tag)
    upload = {"Bucket": bucket, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    part = {"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]}
    complete = {**upload, "MultipartUpload": {"Parts": [part]}}
    assert code_of(lambda: s3.complete_multipart_upload(**complete, IfNoneMatch="*")) == "PreconditionFailed"
    s3.complete_multipart_upload(**complete)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_of_writers_at_the_same_moment_one_is_first(door: Door, bucket: str) -> None:
    clients = [door.client("s3") for _ in range(4)]

    def write(client: Any) -> bool:
        try:
            put(client, bucket, "lock", uuid.uuid4().bytes, IfNoneMatch="*")
        except ClientError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(write, clients)) == [False, False, False, True]


def test_a_reader_may_choose_the_headers_of_a_download(door: Door, s3: Any, bucket: str) -> None:
    put(s3, bucket, "k", ChecksumAlgorithm="SHA256")
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentDisposition="attachment", ResponseContentType="a/b")
    assert (got["ContentDisposition"], got["ContentType"]) == ("attachment", "a/b")
    path = f"/{bucket}/k?response-content-type=a%0D%0Ab"
    assert send(door, "GET", path, service="s3").xml["Code"] == "InvalidArgument"


def test_the_checksum_of_an_upload_is_told_to_who_asks(s3: Any, bucket: str) -> None:
    told = s3.put_object(Bucket=bucket, Key="k", Body=b"0123", ChecksumAlgorithm="SHA256")["ChecksumSHA256"]
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == told
    assert "ChecksumSHA256" not in s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", Range="bytes=1-2")
    s3.copy_object(Bucket=bucket, Key="l", CopySource=f"{bucket}/k")
    assert s3.head_object(Bucket=bucket, Key="l", ChecksumMode="ENABLED")["ChecksumSHA256"] == told


def test_a_bucket_may_stand_in_the_host(door: Door, s3: Any, bucket: str) -> None:
    port = door.cloud.runtime.ports.gateway

    def ask(method: str, url: str, body: bytes = b"") -> bytes:
        request = AWSRequest(method=method, url=url, data=body)
        S3SigV4Auth(Credentials(door.access_key_id, door.secret_access_key), "s3", REGION).add_auth(request)
        parts = urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body, {**dict(request.headers), "Host": parts.netloc})
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == 200, data
        finally:
            connection.close()
        return data

    base = f"http://{bucket}.localhost:{port}"
    ask("PUT", f"{base}/dir/k", b"by host")
    assert ask("GET", f"{base}/dir/k") == b"by host"
    assert b"<Key>dir/k</Key>" in ask("GET", f"{base}/?list-type=2")
    assert s3.get_object(Bucket=bucket, Key="dir/k")["Body"].read() == b"by host"


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("b.cloud.example.org:8700", "b"),
        ("my.data.s3.cloud.example.org", "my.data"),
        ("cloud.example.org", ""),
        ("s3.cloud.example.org", ""),
        ("cloud.example.org.", ""),
        ("B.LOCALHOST:1", "b"),
        ("127.0.0.1:8700", ""),
        ("1.127.0.0.1", ""),
        ("[::1]:8700", ""),
        ("elsewhere.com", ""),
    ],
)
def test_only_names_below_ours_hold_a_bucket(host: str, bucket: str) -> None:
    assert bucket_of_host(host, ["127.0.0.1", "::1", "example.org", "cloud.example.org", "localhost"]) == bucket
