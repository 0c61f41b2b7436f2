"""URLs that boto3 presigns where it is told nothing else: in us-east-1 by Signature Version 2."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import sigv2
from services.gateway.errors import AuthError
from services.gateway.sigv4 import HttpRequest
from tests.services.gateway.persons import Person, statement
from tests.support.cloud import REGION
from tests.support.front_door import Door

BUCKET = "older-urls"


def client(door: Door, keys: tuple[str, str] | None = None, token: str | None = None) -> Any:
    """As a script has it that says no more than it must."""
    key, secret = keys or (door.access_key_id, door.secret_access_key)
    session = boto3.Session(key, secret, token, REGION, Session())
    return session.client("s3", endpoint_url=door.url)


def ask(
    url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.fixture(scope="module")
def s3(door: Door) -> Iterator[Any]:
    made = client(door)
    made.create_bucket(Bucket=BUCKET)
    yield made


def url(s3: Any, operation: str, key: str, seconds: int = 60, **parameters: Any) -> str:
    made: str = s3.generate_presigned_url(
        operation, Params={"Bucket": BUCKET, "Key": key, **parameters}, ExpiresIn=seconds
    )
    assert "AWSAccessKeyId=" in made and "X-Amz-Signature" not in made
    return made


def test_it_puts_and_gets_deletes_and_is_harmless_when_replayed(s3: Any) -> None:
    key = "a b/ü+%41.txt"
    upload = url(s3, "put_object", key)
    assert [ask(upload, "PUT", b"bytes")[0] for _ in range(2)] == [200, 200]
    status, body, headers = ask(url(s3, "get_object", key, ResponseContentType="text/x; y=1"))
    assert (status, body, headers["Content-Type"]) == (200, b"bytes", "text/x; y=1")
    assert ask(url(s3, "head_object", key), "HEAD")[0] == 200
    assert ask(url(s3, "delete_object", key), "DELETE")[0] == 204
    assert ask(url(s3, "get_object", key))[0] == 404


def test_what_the_signer_said_of_the_object_holds(s3: Any) -> None:
    made = url(s3, "put_object", "said", ContentType="text/plain", Metadata={"from": "gate"})
    assert ask(made, "PUT", b"x", {"Content-Type": "text/html"})[0] == 403
    assert ask(made, "PUT", b"x", {"Content-Type": "text/plain"})[0] == 200
    found = s3.head_object(Bucket=BUCKET, Key="said")
    assert (found["ContentType"], found["Metadata"]) == ("text/plain", {"from": "gate"})


def test_it_is_good_for_what_was_signed_until_its_time_and_for_nothing_else(s3: Any, door: Door) -> None:
    s3.put_object(Bucket=BUCKET, Key="mine", Body=b"1")
    good = url(s3, "get_object", "mine")
    assert ask(good)[0] == 200
    for bad, code in (
        (good.replace("/mine?", "/said?"), b"SignatureDoesNotMatch"),
        (good.replace("Expires=1", "Expires=2"), b"SignatureDoesNotMatch"),
        (f"{good}&uploadId=1", b"SignatureDoesNotMatch"),
        (good.replace("Signature=", "Signature=AAAA"), b"SignatureDoesNotMatch"),
        (good.replace("AWSAccessKeyId=", "AWSAccessKeyId=X"), b"InvalidAccessKeyId"),
        (url(s3, "get_object", "mine", seconds=-1), b"Request has expired"),
    ):
        status, body, _ = ask(bad)
        assert (status, code in body) == (403, True), (bad, body)
    assert ask(good, "PUT", b"2")[0] == 403
    assert ask(good, headers={"x-amz-meta-a": "b"})[0] == 403
    for part in ("Signature=", "Expires="):
        assert ask(good.replace(part, f"{part}%20"))[0] == 403
    wrong = client(door, (door.access_key_id, "another secret"))
    assert ask(url(wrong, "get_object", "mine"))[0] == 403


def test_it_may_what_its_signer_may_and_ends_with_his_session(s3: Any, door: Door) -> None:
    s3.put_object(Bucket=BUCKET, Key="open/1", Body=b"1")
    person = Person(door, statement("s3:GetObject", f"arn:aws:s3:::{BUCKET}/open/*"))
    his = client(door, person.keys)
    assert ask(url(his, "get_object", "open/1"))[:2] == (200, b"1")
    status, body, _ = ask(url(his, "put_object", "open/2"), "PUT", b"2")
    assert status == 403 and b"is not authorized to perform: s3:PutObject" in body
    role = "arn:aws:iam::123456789012:role/BelvedereApplication"
    made = door.client("sts").assume_role(RoleArn=role, RoleSessionName="ab")["Credentials"]
    session = client(door, (made["AccessKeyId"], made["SecretAccessKey"]), made["SessionToken"])
    status, body, _ = ask(url(session, "get_object", "open/1"))
    assert status == 403 and b"assumed-role/BelvedereApplication/ab is not authorized" in body


@given(
    st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.dictionaries(st.text(max_size=8), st.text())
)
def test_no_query_breaks_the_reader(key: str, signature: str, expires: str, more: dict[str, str]) -> None:
    query = urllib.parse.urlencode({"AWSAccessKeyId": key, "Signature": signature, "Expires": expires, **more})
    request = HttpRequest("GET", "/a/b", f"{query}&x-amz-meta-%FF=%FF&&=&%", [("host", "h"), ("x-amz-acl", "\udcff")])
    with contextlib.suppress(AuthError):
        sigv2.string_to_sign(sigv2.parse(request), request.path)
