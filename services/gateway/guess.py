"""Which AWS service a request is for, where no credential scope says so: unsigned requests, broken signatures, broken HTTP.

Pure. The answer decides the form of an error only: nothing is done for a request that nobody has signed (but a form upload, which
signs in its own way and is S3's). The rule, first match:

 1. a credential scope, in the Authorization header or in X-Amz-Credential: the service that it names;
 2. what only one service's clients send: `AWSAccessKeyId` in the query or `Authorization: AWS …` (S3's older signature), a multipart/form-data
    body (S3's form upload), `X-Amz-Target: Logs_…` or `Granite…`, `smithy-protocol` with CloudWatch's path, `api/s3` in the
    User-Agent (what newer SDKs say of themselves), a header of S3's own (`S3_HEADERS`);
 3. a bucket in the Host: S3;
 4. the method HEAD: S3, no other API has it;
 5. the root: a form is STS's, the rest Panorama's;
 6. the first segment of the path: Panorama's resources (`devices`, `packages`, …) are Panorama's, all others are S3's buckets. A
    bucket may be called `devices` too: a request for one that says nothing else of itself gets Panorama's form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.gateway.s3.names import bucket_of_host
from services.gateway.sigv4 import HttpRequest, query_pairs

S3_HEADERS = (
    "x-amz-copy-source",
    "x-amz-acl",
    "x-amz-storage-class",
    "x-amz-object-attributes",
    "x-amz-decoded-content-length",
)
S3_FRONTS = (
    "x-amz-checksum-",
    "x-amz-meta-",
    "x-amz-sdk-checksum-",
    "x-amz-server-side-encryption",
    "x-amz-object-lock-",
)
"""Of headers that no other API has."""
FORM = "application/x-www-form-urlencoded"
UPLOAD_FORM = "multipart/form-data"

_SCOPE = re.compile(r"Credential=[^/\s]+/\d{8}/[a-z0-9-]+/([a-z0-9.-]+)/aws4_request")
_TARGETS = (("Logs_", "logs"), ("GraniteService", "monitoring"))
_GRANITE_PATH = "/service/GraniteService"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,16384})")


@dataclass(frozen=True)
class Guess:
    """The rule, with what it has to know of this front door."""

    panorama_segments: frozenset[str]
    """First segments of the paths of Panorama's API."""
    host_names: Sequence[str]
    """By which clients reach the front door."""

    def service(self, request: HttpRequest) -> str:
        """The signing name of the service."""
        named = request.named
        authorization = named.get("authorization", "")
        if match := _SCOPE.search(authorization):
            return match[1]
        query = dict(reversed(query_pairs(request.query)))
        credential = query.get("X-Amz-Credential", "").split("/")
        if len(credential) == 5:
            return credential[3]
        content_type = named.get("content-type", "").lower()
        if "AWSAccessKeyId" in query or authorization.startswith("AWS ") or content_type.startswith(UPLOAD_FORM):
            return "s3"
        for front, name in _TARGETS:
            if named.get("x-amz-target", "").startswith(front):
                return name
        if request.path.startswith(_GRANITE_PATH) and "smithy-protocol" in named:
            return "monitoring"
        if " api/s3" in named.get("user-agent", "").lower() or any(map(_is_s3s, named)):
            return "s3"
        if bucket_of_host(named.get("host", ""), self.host_names) or request.method == "HEAD":
            return "s3"
        segment = request.path.removeprefix("/").partition("/")[0]
        if not segment:
            return "sts" if content_type.startswith(FORM) else "panorama"
        return "panorama" if segment in self.panorama_segments else "s3"

    def of_bytes(self, front: bytes) -> HttpRequest | None:
        """The request that begins with `front` and is no valid HTTP from some place on; as many of its headers as stand there."""
        line = _REQUEST_LINE.match(front)
        if line is None:
            return None
        path, _, query = line[2].decode().partition("?")
        lines = front.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")[1:]
        headers = [
            (name.lower(), value.strip()) for name, colon, value in (each.partition(":") for each in lines) if colon
        ]
        return HttpRequest(line[1].decode(), path, query, headers)


def _is_s3s(name: str) -> bool:
    return name in S3_HEADERS or name.startswith(S3_FRONTS)
