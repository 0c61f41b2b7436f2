"""Which service a request is for, where no signature says so."""

from __future__ import annotations

import pytest

from services.gateway.guess import Guess
from services.gateway.sigv4 import HttpRequest

GUESS = Guess(frozenset({"devices", "packages", "tags"}), ("cloud.example.org", "localhost"))
SCOPE = "AWS4-HMAC-SHA256 Credential=AKIA/20261122/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"


@pytest.mark.parametrize(
    ("service", "method", "target", "headers"),
    [
        ("logs", "PUT", "/bucket/key", {"authorization": SCOPE.format("logs")}),
        ("s3", "GET", "/devices?X-Amz-Credential=AKIA%2F20261122%2Fus-east-1%2Fs3%2Faws4_request", {}),
        ("s3", "GET", "/devices?AWSAccessKeyId=AKIA&Signature=x", {}),
        ("s3", "GET", "/devices", {"authorization": "AWS AKIA:signature"}),
        ("s3", "POST", "/", {"content-type": "multipart/form-data; boundary=x"}),
        ("logs", "POST", "/", {"x-amz-target": "Logs_20140328.GetLogEvents"}),
        ("monitoring", "POST", "/", {"x-amz-target": "GraniteServiceVersion20100801.PutMetricData"}),
        ("monitoring", "POST", "/service/GraniteServiceVersion20100801/operation/X", {"smithy-protocol": "rpc-v2-cbor"}),
        ("s3", "GET", "/devices", {"user-agent": "aws-sdk-js/3.9 ua/2.1 os/linux api/s3#3.9"}),
        ("s3", "PUT", "/devices/x", {"x-amz-checksum-crc32": "AAAAAA=="}),
        ("s3", "GET", "/", {"host": "videos.cloud.example.org:8700"}),
        ("s3", "GET", "/devices/x", {"host": "videos.s3.localhost"}),
        ("s3", "HEAD", "/devices", {}),
        ("panorama", "GET", "/", {"host": "cloud.example.org:8700"}),
        ("sts", "POST", "/", {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}),
        ("panorama", "GET", "/devices", {}),
        ("panorama", "POST", "/packages/none/such", {"content-type": "application/json"}),
        ("panorama", "GET", "/devices", {"authorization": "Bearer x"}),
        ("s3", "GET", "/videos", {}),
        ("s3", "PUT", "/videos/a.json", {"content-type": "application/json", "authorization": "AWS4-HMAC-SHA256 x"}),
        ("s3", "POST", "/videos?delete", {"content-type": "application/xml"}),
        ("s3", "PATCH", "/devices-of-mine", {}),
    ],
)  # fmt: skip
def test_a_request_is_for_the_service_whose_marks_it_has(
    service: str, method: str, target: str, headers: dict[str, str]
) -> None:
    path, _, query = target.partition("?")
    assert GUESS.service(HttpRequest(method, path, query, list(headers.items()))) == service


def test_broken_http_is_read_as_far_as_it_goes() -> None:
    begun = GUESS.of_bytes(b"GET /devices?a=b HTTP/1.1\r\nHost: videos.localhost\r\nX-Long: aaaa")
    assert begun is not None and (begun.path, begun.query) == ("/devices", "a=b")
    assert GUESS.service(begun) == "s3"
    for front in (b"", b"\x16\x03\x01", b"GET devices", b"get /x"):
        assert GUESS.of_bytes(front) is None
