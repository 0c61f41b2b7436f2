"""Uploads by a form, as `generate_presigned_post` lets strangers make them."""

from __future__ import annotations

import base64
import http.client
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from services.gateway.errors import AwsError
from services.gateway.s3 import post_policy
from tests.services.gateway.persons import Person, statement
from tests.services.gateway.s3_forms import BOUNDARY, FORM, encoded
from tests.services.gateway.wire import Answer
from tests.support.front_door import Door

BUCKET = "by-form"


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = door.client("s3")
    made.create_bucket(Bucket=BUCKET)
    yield made


def post(door: Door, body: bytes, path: str = f"/{BUCKET}", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", door.cloud.runtime.ports.gateway, timeout=20)
    try:
        sent = {"Content-Type": FORM, **headers}
        connection.request("POST", path, body, sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def refused(answer: Answer, status: int, code: str, text: str = "") -> dict[str, str]:
    assert (answer.status, answer.xml["Code"]) == (status, code), answer.body
    assert text in answer.xml["Message"]
    return answer.xml


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_form_that_somebody_signed_puts_an_object(door: Door, s3: Any, version: str) -> None:
    signer = door.client("s3", signature_version=version)
    fields = {"Content-Type": "text/plain", "x-amz-meta-from": "gäte", "acl": "private", "Cache-Control": "no-store"}
    conditions = [
        ["starts-with", "$Content-Type", "text/"], {"x-amz-meta-from": "gäte"}, {"acl": "private"},
        ["eq", "$cache-control", "no-store"], ["content-length-range", 1, 100],
    ]  # fmt: skip
    made = signer.generate_presigned_post(BUCKET, f"in/{version}/${{filename}}", fields, conditions)
    assert made["url"] == f"{door.url}/{BUCKET}"
    answer = post(door, encoded(made["fields"], b"con\r\n--tent", "C:\\dir\\ä b.txt"))
    assert (answer.status, answer.body) == (204, b"")
    got = s3.get_object(Bucket=BUCKET, Key=f"in/{version}/ä b.txt")
    assert got["Body"].read() == b"con\r\n--tent" and got["ETag"] == answer.headers["etag"]
    assert (got["ContentType"], got["CacheControl"]) == ("text/plain", "no-store")
    told = str(make_header(decode_header(got["Metadata"]["from"])))
    assert told.encode("latin-1").decode() == "gäte"
    assert urlsplit(answer.headers["location"]).path == f"/{BUCKET}/in/{version}/%C3%A4%20b.txt"


def test_who_uploads_is_answered_as_the_form_says(door: Door, s3: Any) -> None:
    def made(**fields: str) -> dict[str, str]:
        answer = s3.generate_presigned_post(BUCKET, "answered", fields, [{n: v} for n, v in fields.items()])
        return dict(answer["fields"])

    created = post(door, encoded(made(success_action_status="201"), b"x"))
    assert created.status == 201 and created.headers["content-type"] == "application/xml"
    assert (created.xml["Bucket"], created.xml["Key"]) == (BUCKET, "answered")
    assert created.xml["ETag"] == created.headers["etag"] and created.xml["Location"] == created.headers["location"]
    assert post(door, encoded(made(success_action_status="200"), b"x")).status == 200
    assert post(door, encoded(made(success_action_status="999"), b"x")).status == 204
    sent = post(door, encoded(made(success_action_redirect="https://example.org/done?a=b"), b"x"))
    assert sent.status == 303 and sent.headers["location"].startswith("https://example.org/done?a=b&")
    told = dict(parse_qsl(urlsplit(sent.headers["location"]).query))
    assert told == {"a": "b", "bucket": BUCKET, "key": "answered", "etag": created.headers["etag"]}
    assert post(door, encoded(made(success_action_redirect="javascript:1"), b"x")).status == 204
    again = post(door, encoded(made(success_action_redirect="https://example.org/\r\nA: b"), b"x"))
    assert again.status == 204 and "a" not in again.headers


def test_a_file_is_taken_only_within_its_bounds(door: Door, s3: Any) -> None:
    made = s3.generate_presigned_post(BUCKET, "sized", None, [["content-length-range", 10, 200_000]])
    for size in (10, 200_000):
        assert post(door, encoded(made["fields"], b"x" * size)).status == 204
    told = refused(post(door, encoded(made["fields"], b"y" * 200_001)), 400, "EntityTooLarge", "maximum allowed size")
    assert (told["ProposedSize"], told["MaxSizeAllowed"]) == ("200001", "200000")
    told = refused(post(door, encoded(made["fields"], b"y" * 9)), 400, "EntityTooSmall", "minimum allowed size")
    assert (told["ProposedSize"], told["MinSizeAllowed"]) == ("9", "10")
    assert s3.get_object(Bucket=BUCKET, Key="sized")["Body"].read() == b"x" * 200_000


def test_a_policy_holds_for_every_field(door: Door, s3: Any) -> None:
    made = s3.generate_presigned_post(BUCKET, "held/${filename}", {"acl": "private"}, [{"acl": "private"}])["fields"]
    denied = [
        ({**made, "key": "elsewhere"}, 'Policy Condition failed: ["starts-with", "$key", "held/"]'),
        ({**made, "acl": "public-read"}, 'Policy Condition failed: ["eq", "$acl", "private"]'),
        ({name: value for name, value in made.items() if name != "acl"}, "Policy Condition failed"),
        ({**made, "x-amz-meta-more": "1"}, "Extra input fields: x-amz-meta-more"),
    ]
    for fields, text in denied:
        refused(post(door, encoded(fields, b"x")), 403, "AccessDenied", f"Invalid according to Policy: {text}")
    assert post(door, encoded({**made, "x-ignore-me": "1"}, b"x")).status == 204
    other = door.client("s3")
    other.create_bucket(Bucket=f"{BUCKET}-2")
    refused(post(door, encoded(made, b"x"), f"/{BUCKET}-2"), 403, "AccessDenied", 'failed: ["eq", "$bucket"')
    late = s3.generate_presigned_post(BUCKET, "held/x", ExpiresIn=-1)["fields"]
    refused(post(door, encoded(late, b"x")), 403, "AccessDenied", "Invalid according to Policy: Policy expired.")


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_a_form_without_its_signers_signature_is_refused(door: Door, s3: Any, version: str) -> None:
    signer = door.client("s3", signature_version=version)
    made = signer.generate_presigned_post(BUCKET, "unsigned")["fields"]
    refused(post(door, encoded({"key": "unsigned"}, b"x")), 403, "AccessDenied", "Access Denied")
    signature = "x-amz-signature" if version == "s3v4" else "signature"
    without = {name: value for name, value in made.items() if name != signature}
    told = refused(post(door, encoded(without, b"x")), 400, "InvalidArgument", "must contain a field named")
    assert told["ArgumentName"] == signature
    policy = json.loads(base64.b64decode(made["policy"])) | {"expiration": "2099-01-01T00:00:00Z"}
    changed = {**made, "policy": base64.b64encode(json.dumps(policy).encode()).decode()}
    told = refused(post(door, encoded(changed, b"x")), 403, "SignatureDoesNotMatch")
    assert (told["StringToSign"], told["AWSAccessKeyId"]) == (changed["policy"], door.access_key_id)
    stranger = door.client("s3", keys=("AKIAUNKNOWN", "x"), signature_version=version)
    unknown = stranger.generate_presigned_post(BUCKET, "unsigned")["fields"]
    refused(post(door, encoded(unknown, b"x")), 403, "InvalidAccessKeyId")


def test_a_form_may_what_its_signer_may(door: Door, s3: Any) -> None:
    person = Person(door, statement("s3:PutObject", f"arn:aws:s3:::{BUCKET}/open/*"))
    for version in ("s3v4", "s3"):
        signer = door.client("s3", keys=person.keys, signature_version=version)
        may = signer.generate_presigned_post(BUCKET, "open/k")["fields"]
        assert post(door, encoded(may, b"x")).status == 204
        may_not = signer.generate_presigned_post(BUCKET, "closed/k")["fields"]
        refused(post(door, encoded(may_not, b"x")), 403, "AccessDenied", "s3:PutObject")


def test_what_is_said_of_the_bytes_is_checked(door: Door, s3: Any) -> None:
    crc = base64.b64encode(zlib.crc32(b"right").to_bytes(4, "big")).decode()
    said = {"x-amz-checksum-crc32": crc}
    made = s3.generate_presigned_post(BUCKET, "summed", said, [said])["fields"]
    refused(post(door, encoded(made, b"wrong")), 400, "BadDigest")
    assert post(door, encoded(made, b"right")).status == 204
    assert s3.head_object(Bucket=BUCKET, Key="summed", ChecksumMode="ENABLED")["ChecksumCRC32"] == crc
    tagged = s3.generate_presigned_post(BUCKET, "k", {"tagging": "<x/>"}, [{"tagging": "<x/>"}])["fields"]
    refused(post(door, encoded(tagged, b"x")), 501, "NotImplemented")
    broken = s3.generate_presigned_post(BUCKET, "k", {"x-amz-meta-a": "b\r\nc"}, [["starts-with", "$x-amz-meta-a", ""]])
    refused(post(door, encoded(broken["fields"], b"x")), 400, "InvalidArgument")


def test_forms_that_are_none_are_refused(door: Door, s3: Any) -> None:
    made = s3.generate_presigned_post(BUCKET, "formed")["fields"]
    good = encoded(made, b"x")
    for body, code in (
        (b"no form at all", "MalformedPOSTRequest"),
        (good[: good.index(b"\r\n\r\nx\r\n") + 5], "MalformedPOSTRequest"),
        (f"--{BOUNDARY}--\r\n".encode(), "InvalidArgument"),
        (f"--{BOUNDARY}\r\nX: y\r\n\r\n1\r\n--{BOUNDARY}--\r\n".encode(), "MalformedPOSTRequest"),
        (encoded({**made, "x-amz-meta-a": "a" * 21_000}, b"x"), "MaxPostPreDataLengthExceeded"),
        (encoded({**made, "KEY": "other"}, b"x"), "MalformedPOSTRequest"),
        (encoded(made, b"x", after=b"z" * 300_000), "MalformedPOSTRequest"),
    ):
        refused(post(door, body), 400, code)
    assert post(door, encoded(made, b"x", after=f"--{BOUNDARY}\r\n\r\nlate".encode())).status == 204
    refused(post(door, good, **{"Content-Type": "multipart/form-data"}), 400, "MalformedPOSTRequest")
    refused(post(door, good, "/none-such-bucket"), 403, "AccessDenied")
    elsewhere = s3.generate_presigned_post("none-such-bucket", "k")["fields"]
    refused(post(door, encoded(elsewhere, b"x"), "/none-such-bucket"), 404, "NoSuchBucket")
    reserved = s3.generate_presigned_post(BUCKET, ".belvedere/uploads/x")["fields"]
    refused(post(door, encoded(reserved, b"x")), 403, "AccessDenied", "reserved")


def document(**changes: Any) -> str:
    whole = {"expiration": "2099-01-01T00:00:00Z", "conditions": [], **changes}
    return base64.b64encode(json.dumps({k: v for k, v in whole.items() if v is not None}).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "", "!", base64.b64encode(b"[1]").decode(), base64.b64encode(b"[" * 5000).decode(), document(expiration=None),
        document(expiration="soon"), document(expiration=5), document(conditions=None), document(conditions={}),
        document(conditions=[1]), document(conditions=[{}]), document(conditions=[{"a": 1}]), document(conditions=[[]]),
        document(conditions=[["eq", "key", "x"]]), document(conditions=[["ends-with", "$key", "x"]]),
        document(conditions=[["content-length-range", 2, 1]]), document(conditions=[["content-length-range", 1]]),
        document(conditions=[["content-length-range", "a", "b"]]),
    ],
)  # fmt: skip
def test_a_policy_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(AwsError) as caught:
        post_policy.read(text)
    assert caught.value.code == "InvalidPolicyDocument" and caught.value.message.startswith("Invalid Policy: ")


def test_a_policy_is_met_by_every_entry_of_a_list_of_types() -> None:
    policy = post_policy.read(document(conditions=[["starts-with", "$Content-Type", "image/"]]))
    now = datetime.now(UTC)
    policy.check({"content-type": "image/png,image/jpeg"}, now)
    with pytest.raises(AwsError):
        policy.check({"content-type": "image/png,text/html"}, now)
    with pytest.raises(AwsError, match="expired"):
        policy.check({"content-type": "image/png"}, now + timedelta(days=40_000))
