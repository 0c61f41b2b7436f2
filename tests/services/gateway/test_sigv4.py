"""Signature verification, with botocore's signer as the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import sigv4
from services.gateway.errors import AuthError, AuthKind
from services.gateway.sigv4 import UNSIGNED, HttpRequest
from tests.services.gateway.signing import ACCESS_KEY, SECRET, signed, signing_key

BASE = "http://127.0.0.1:8700"


def check(request: HttpRequest, payload: str = sigv4.EMPTY_SHA256, secret: str = SECRET) -> sigv4.Signature:
    signature = sigv4.parse(request)
    key = signing_key(signature.scope.date, signature.scope.service, secret)
    sigv4.verify(request, signature, sigv4.Signer(key), payload)
    return signature


def kind_of(action: Callable[[], object]) -> AuthKind:
    with pytest.raises(AuthError) as caught:
        action()
    return caught.value.kind


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "/devices",
        "/devices?MaxResults=5&NextToken=a%2Bb%3D%3D",
        "/packages/metadata/packageName%2Fcode1",
        "/tags/arn%3Aaws%3Apanorama%3Aus-east-1%3A123456789012%3Adevice%2Fd?tagKeys=b&tagKeys=a%20c",
        "/a//b/./c/../d/",
    ],
)
def test_a_request_signed_in_its_headers_holds(path: str) -> None:
    signature = check(signed("panorama", "GET", BASE + path))
    assert (signature.scope.access_key_id, signature.scope.service, signature.expires_s) == (
        ACCESS_KEY,
        "panorama",
        None,
    )


@pytest.mark.parametrize(
    "path", ["/bucket/a/b%20c%2Bd.txt", "/bucket/%C3%A9~x", "/bucket//double/./dots/..", "/bucket?uploads"]
)
def test_s3_paths_are_signed_as_they_are(path: str) -> None:
    body = b"hello"
    check(signed("s3", "PUT", BASE + path, body), sha(body))


def test_a_session_token_is_signed_and_handed_on() -> None:
    assert check(signed("sts", "POST", token="token/+=="), sigv4.EMPTY_SHA256).session_token == "token/+=="


@pytest.mark.parametrize(("service", "payload"), [("s3", UNSIGNED), ("panorama", sigv4.EMPTY_SHA256)])
def test_a_presigned_url_holds_until_its_time(service: str, payload: str) -> None:
    signature = check(signed(service, "GET", BASE + "/bucket/a%20key?x=1", presigned=60, token="t"), payload)
    assert (signature.expires_s, signature.session_token) == (60, "t")
    sigv4.verify_time(signature, signature.time + timedelta(seconds=59), 900)
    late = signature.time + timedelta(seconds=61)
    assert kind_of(lambda: sigv4.verify_time(signature, late, 900)) is AuthKind.EXPIRED_URL


def test_whatever_is_changed_breaks_the_signature() -> None:
    body = b'{"Name": "a"}'
    good = signed("panorama", "POST", BASE + "/devices?x=1", body, {"Content-Type": "application/json"})
    check(good, sha(body))
    changed = [
        (replace(good, method="PUT"), sha(body)),
        (replace(good, path="/device"), sha(body)),
        (replace(good, query="x=2"), sha(body)),
        (replace(good, query="x=1&y="), sha(body)),
        (good, sha(b"other")),
        (replace(good, headers=[(n, "evil" if n == "host" else v) for n, v in good.headers]), sha(body)),
        (replace(good, headers=[(n, v) for n, v in good.headers if n != "host"]), sha(body)),
        (replace(good, headers=[*good.headers, ("x-amz-copy-source", "/b/k")]), sha(body)),
    ]
    for request, payload in changed:
        assert kind_of(lambda r=request, p=payload: check(r, p)) is AuthKind.MISMATCH  # type: ignore[misc]
    assert kind_of(lambda: check(good, sha(body), secret="another")) is AuthKind.MISMATCH


def test_a_clock_may_be_off_by_the_skew_and_no_more() -> None:
    signature = check(signed("panorama"))
    for seconds in (-299, 0, 299):
        sigv4.verify_time(signature, signature.time + timedelta(seconds=seconds), 300)
    for seconds in (-301, 301):
        now = signature.time + timedelta(seconds=seconds)
        assert kind_of(lambda n=now: sigv4.verify_time(signature, n, 300)) is AuthKind.SKEWED  # type: ignore[misc]


def request_with(**headers: str) -> HttpRequest:
    return HttpRequest("GET", "/", "", [(name.replace("_", "-"), value) for name, value in headers.items()])


CREDENTIAL = "AKID/20260101/us-east-1/panorama/aws4_request"
SIGNATURE = "0" * 64


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (HttpRequest("GET", "/", "", []), AuthKind.MISSING),
        (request_with(authorization="Basic abc"), AuthKind.UNSUPPORTED),
        (request_with(authorization="AWS4-HMAC-SHA256 nonsense"), AuthKind.INCOMPLETE),
        (
            request_with(
                authorization=f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=host, Signature={SIGNATURE}"
            ),
            AuthKind.INCOMPLETE,
        ),
        (
            request_with(
                authorization=f"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature={SIGNATURE}",
                x_amz_date="20260101T000000Z",
            ),
            AuthKind.INCOMPLETE,
        ),
        (
            request_with(
                authorization=f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=host, Signature={SIGNATURE}",
                x_amz_date="20260102T000000Z",
            ),
            AuthKind.INCOMPLETE,
        ),
        (
            request_with(
                authorization=f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=date, Signature={SIGNATURE}",
                x_amz_date="20260101T000000Z",
            ),
            AuthKind.INCOMPLETE,
        ),
        (HttpRequest("GET", "/b/k", "AWSAccessKeyId=A&Signature=s&Expires=1", []), AuthKind.UNSUPPORTED),
        (HttpRequest("GET", "/", "X-Amz-Algorithm=AWS4-HMAC-SHA256", []), AuthKind.INCOMPLETE),
        (HttpRequest("GET", "/", "X-Amz-Algorithm=AWS5", []), AuthKind.UNSUPPORTED),
    ],
)
def test_what_is_no_signature_is_refused_by_its_kind(request_: HttpRequest, kind: AuthKind) -> None:
    assert kind_of(lambda: sigv4.parse(request_)) is kind


def test_a_presigned_url_lives_a_week_at_most() -> None:
    request = signed("s3", url=BASE + "/b/k", presigned=604_801)
    assert kind_of(lambda: sigv4.parse(request)) is AuthKind.INCOMPLETE


@settings(max_examples=150)
@given(
    st.text(max_size=60),
    st.text(max_size=80),
    st.lists(
        st.tuples(st.sampled_from(["authorization", "x-amz-date", "host", "date"]), st.text(max_size=120)), max_size=4
    ),
)
def test_no_request_breaks_the_reader(path: str, query: str, headers: list[tuple[str, str]]) -> None:
    request = HttpRequest("GET", path, query, headers)
    try:
        signature = sigv4.parse(request)
        sigv4.verify_time(signature, datetime.now(UTC), 300)
        sigv4.verify(request, signature, sigv4.Signer(b"key"), sigv4.EMPTY_SHA256)
    except AuthError:
        return
    raise AssertionError("a made-up signature held")


@settings(max_examples=60)
@given(
    st.text(min_size=1, max_size=30), st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=4)
)
def test_any_key_and_any_query_hold_as_botocore_signs_them(key: str, query: dict[str, str]) -> None:
    from urllib.parse import quote, urlencode

    try:
        path = quote(key, safe="/~")
        text = urlencode(query, quote_via=quote, safe="-_.~")
    except UnicodeEncodeError:
        return
    check(signed("s3", "GET", f"{BASE}/bucket/{path}" + (f"?{text}" if text else "")))
