"""What S3's clients are told when a request fails before it is an operation: XML of S3's, for every way to be refused."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from tests.services.gateway.wire import Answer, headers_for, raw, send
from tests.support.front_door import Door

BUCKET = "refusals"


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    made.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    yield made


def refused(answer: Answer, status: int, code: str) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/xml"
    told = answer.xml
    assert (answer.status, told["Code"]) == (status, code), answer.body
    assert ElementTree.fromstring(answer.body).tag == "Error" and told["Message"]
    assert told["RequestId"] == answer.headers["x-amz-request-id"]
    return told


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [f"/{BUCKET}", f"/{BUCKET}/a%20key"])
def test_unsigned_requests_are_denied_in_xml(door: Door, s3: Any, method: str, path: str) -> None:
    told = refused(send(door, method, path, service=None), 403, "AccessDenied")
    assert (told["Message"], told["Resource"]) == ("Access Denied", path)


def test_a_head_is_refused_without_a_body(door: Door, s3: Any) -> None:
    for path in (f"/{BUCKET}", f"/{BUCKET}/k", "/devices"):
        answer = send(door, "HEAD", path, service=None)
        assert (answer.status, answer.body) == (403, b"")
    anonymous = door.client("s3", signature_version=UNSIGNED)
    calls: list[tuple[Any, str]] = [
        (lambda: anonymous.head_object(Bucket=BUCKET, Key="k"), "403"),
        (lambda: anonymous.get_object(Bucket=BUCKET, Key="k"), "AccessDenied"),
        (lambda: anonymous.list_objects_v2(Bucket=BUCKET), "AccessDenied"),
        (lambda: anonymous.put_object(Bucket=BUCKET, Key="k", Body=b"y"), "AccessDenied"),
    ]
    for call, code in calls:
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == code
    assert s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"x"


def test_a_wrong_signature_is_answered_with_what_should_have_been_signed(door: Door, s3: Any) -> None:
    answer = send(door, "GET", f"/{BUCKET}/k%20%C3%A4", service="s3", secret="another")
    told = refused(answer, 403, "SignatureDoesNotMatch")
    assert told["AWSAccessKeyId"] == door.access_key_id
    assert told["CanonicalRequest"].startswith(f"GET\n/{BUCKET}/k%20%C3%A4\n\nhost:127.0.0.1")
    assert told["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert bytes.fromhex(told["StringToSignBytes"]).decode() == told["StringToSign"]
    assert bytes.fromhex(told["CanonicalRequestBytes"]).decode() == told["CanonicalRequest"]
    assert len(told["SignatureProvided"]) == 64


def test_a_header_that_was_not_signed_is_named(door: Door, s3: Any) -> None:
    path = f"/{BUCKET}/k"
    headers = headers_for(door, "s3", "GET", path, b"", {}) | {"x-amz-acl": "private"}
    told = refused(send(door, "GET", path, headers=headers, service=None), 403, "AccessDenied")
    assert told["HeadersNotSigned"] == "x-amz-acl"


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("Bearer token", 400, "InvalidRequest"),
        ("AWS AKIA:c2lnbmF0dXJl", 400, "InvalidRequest"),
        ("AWS4-HMAC-SHA256", 400, "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=AKIA/2026/x, SignedHeaders=host, Signature=0", 400, "AuthorizationHeaderMalformed"),
        (
            "AWS4-HMAC-SHA256 Credential=AKIA/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, "
            f"Signature={'0' * 64}",
            403,
            "AccessDenied",
        ),
    ],
)  # fmt: skip
def test_an_authorization_that_cannot_be_read_is_refused(
    door: Door, s3: Any, authorization: str, status: int, code: str
) -> None:
    answer = send(door, "GET", f"/{BUCKET}/k", headers={"Authorization": authorization}, service=None)
    told = refused(answer, status, code)
    assert code != "AccessDenied" or "Date" in told["Message"]


def test_unknown_keys_and_tokens_are_told_apart(door: Door, s3: Any) -> None:
    for client, code, status in (
        (door.client("s3", keys=("AKIAUNKNOWN", "x")), "InvalidAccessKeyId", 403),
        (door.client("s3", token="no token of ours"), "InvalidToken", 400),
    ):
        with pytest.raises(ClientError) as caught:
            client.list_objects_v2(Bucket=BUCKET)
        answer = caught.value.response
        assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
        if status == 403:
            assert answer["Error"]["AWSAccessKeyId"] == "AKIAUNKNOWN"


def test_a_skewed_clock_is_told_both_times(door: Door, s3: Any) -> None:
    old = f"{datetime.now(UTC) - timedelta(hours=1):%Y%m%dT%H%M%SZ}"
    scope = f"AKIA/{old[:8]}/us-east-1/s3/aws4_request".replace("AKIA", door.access_key_id)
    headers = {
        "x-amz-date": old,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        f"Signature={'0' * 64}",
    }
    answer = send(door, "GET", f"/{BUCKET}/k", headers=headers, service=None)
    told = refused(answer, 403, "RequestTimeTooSkewed")
    assert (told["RequestTime"], told["MaxAllowedSkewMilliseconds"]) == (old, "900000")
    assert abs(datetime.fromisoformat(told["ServerTime"]).timestamp() - time.time()) < 60


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_an_expired_url_is_told_when_it_ended(door: Door, s3: Any, version: str) -> None:
    client = door.client("s3", signature_version=version)
    url = client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "k"}, ExpiresIn=-1)
    if version == "s3v4":
        url = client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "k"}, ExpiresIn=1)
        stamp = f"{datetime.now(UTC) - timedelta(minutes=1):%Y%m%dT%H%M%SZ}"
        now = url.partition("X-Amz-Date=")[2][:16]
        url = url.replace(f"X-Amz-Date={now}", f"X-Amz-Date={stamp}").replace(now[:8] + "%2F", stamp[:8] + "%2F")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=20)
    told = {e.tag: e.text for e in ElementTree.fromstring(caught.value.read())}
    assert (caught.value.code, told["Code"], told["Message"]) == (403, "AccessDenied", "Request has expired")
    ended = datetime.fromisoformat(str(told["Expires"]))
    assert ended < datetime.fromisoformat(str(told["ServerTime"]))


@pytest.mark.parametrize(
    ("parameter", "value"), [("X-Amz-Expires", "604801"), ("X-Amz-Signature", "no"), ("X-Amz-SignedHeaders", "")]
)
def test_a_presigned_url_that_cannot_be_read_is_refused(door: Door, s3: Any, parameter: str, value: str) -> None:
    url = door.client("s3", signature_version="s3v4").generate_presigned_url(
        "get_object", {"Bucket": BUCKET, "Key": "k"}
    )
    path, _, query = url.removeprefix(door.url).partition("?")
    pairs = dict(pair.split("=", 1) for pair in query.split("&")) | {parameter: quote(value)}
    answer = send(door, "GET", path + "?" + "&".join(f"{n}={v}" for n, v in pairs.items()), service=None)
    refused(answer, 400, "AuthorizationQueryParametersError")


def test_a_method_that_a_resource_does_not_have_is_named(door: Door, s3: Any) -> None:
    for method, path, kind in (
        ("PATCH", f"/{BUCKET}/k", "OBJECT"),
        ("POST", f"/{BUCKET}/k", "OBJECT"),
        ("PATCH", f"/{BUCKET}", "BUCKET"),
        ("PUT", "/", "SERVICE"),
    ):
        answer = send(door, method, path, service="s3")
        told = refused(answer, 405, "MethodNotAllowed")
        assert (told["Method"], told["ResourceType"]) == (method, kind) and "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (f"GET /{BUCKET}/k HTTP/1.1\r\nHost: x\r\nX-Amz-Meta-A: {'a' * 40_000}\r\n\r\n", "RequestHeaderSectionTooLarge"),
        (f"GET /{BUCKET}/k HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 120 + "\r\n", "RequestHeaderSectionTooLarge"),
        (f"GET /{BUCKET}/{'k' * 40_000} HTTP/1.1\r\nHost: x\r\n\r\n", "RequestHeaderSectionTooLarge"),
        (f"GET /{BUCKET}/k HTTP/1.1\r\nHost x\r\n\r\n", "BadRequest"),
        (f"PUT /{BUCKET}/k HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", "BadRequest"),
        ("GET /devices HTTP/1.1\r\nHost x\r\n\r\n", ""),
    ],
)  # fmt: skip
def test_what_is_no_http_gets_s3s_form_where_it_begins_as_s3s(door: Door, s3: Any, request_: str, code: str) -> None:
    head, _, body = raw(door, request_.encode()).partition(b"\r\n\r\n")
    assert b" 400 Bad Request" in head[:30]
    if code:
        assert b"Content-Type: application/xml" in head
        assert ElementTree.fromstring(body).findtext("Code") == code
    else:
        assert body == b'{"Message":"Bad request"}'
