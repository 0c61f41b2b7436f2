"""AWS Signature Version 2 in the query, the verifying side: what boto3 and the AWS CLI make of a presigned S3 URL in the older
regions, us-east-1 among them, unless they are told `signature_version="s3v4"`.

    GET /bucket/key?AWSAccessKeyId=AKIA…&Signature=…&Expires=1795354468

Pure: says what was signed; the secret that it is signed with never leaves identity, which compares. Headers signed this way do
not exist here: no client of today sends them. Source: AWS's public description of signing and authenticating REST requests.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.gateway.errors import AuthError, AuthKind
from services.gateway.sigv4 import HttpRequest, iso, query_pairs

SUBRESOURCES = frozenset(
    {
        "acl", "cors", "defaultObjectAcl", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy",
        "replication", "requestPayment", "response-cache-control", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-content-type", "response-expires", "restore", "select", "select-type",
        "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning", "versions", "website",
        "accelerate", "analytics", "inventory", "metrics", "object-lock",
    }
)  # fmt: skip
"""Query parameters that are signed, as a part of the resource; others are not."""
AS_HEADERS = ("content-md5", "content-type")
"""Query parameters besides x-amz-* that stand for headers of these names."""

_KEY_ID = re.compile(r"[\w+=,.@-]{1,128}")
_EXPIRES = re.compile(r"[0-9]{1,10}", re.ASCII)
_TOKEN = re.compile(r"[ -~]{0,4096}")


@dataclass(frozen=True)
class SignatureV2:
    """A URL's signature, taken apart but not yet verified."""

    access_key_id: str
    value: bytes
    """HMAC-SHA1, 20 bytes."""
    expires: datetime
    session_token: str
    request: HttpRequest
    """The request as its signer meant it: with the headers that the query stands for."""


def is_signed(request: HttpRequest) -> bool:
    """Whether the query says that it is signed this way, and no header says that it is signed another way."""
    return "AWSAccessKeyId=" in request.query and "authorization" not in request.named


def parse(request: HttpRequest) -> SignatureV2:
    """Raises AuthError: INCOMPLETE, UNKNOWN_KEY."""
    query = dict(query_pairs(request.query))
    if missing := [name for name in ("AWSAccessKeyId", "Signature", "Expires") if not query.get(name)]:
        raise AuthError(AuthKind.INCOMPLETE, f"Query-string authentication requires {', '.join(missing)}.")
    if not _EXPIRES.fullmatch(query["Expires"]):
        raise AuthError(AuthKind.INCOMPLETE, "Expires must be a time in seconds since 1970.")
    try:
        value = base64.b64decode(query["Signature"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuthError(AuthKind.INCOMPLETE, "Signature must be base64.") from error
    token = query.get("x-amz-security-token") or request.named.get("x-amz-security-token") or ""
    if not _KEY_ID.fullmatch(query["AWSAccessKeyId"]) or not _TOKEN.fullmatch(token):
        raise AuthError(AuthKind.UNKNOWN_KEY, "The AWS Access Key Id you provided does not exist in our records.")
    meant = [
        (name.lower(), text)
        for name, text in query.items()
        if name.lower().startswith("x-amz-") or (name.lower() in AS_HEADERS and name.lower() not in request.named)
    ]
    return SignatureV2(
        access_key_id=query["AWSAccessKeyId"],
        value=value,
        expires=datetime.fromtimestamp(int(query["Expires"]), UTC),
        session_token=token,
        request=replace(request, headers=[*request.headers, *meant]) if meant else request,
    )


def verify_time(signature: SignatureV2, now: datetime) -> None:
    """Raises AuthError: EXPIRED_URL."""
    if now >= signature.expires:
        times = {"Expires": iso(signature.expires), "ServerTime": iso(now)}
        raise AuthError(AuthKind.EXPIRED_URL, "Request has expired", times)


def string_to_sign(signature: SignatureV2, resource_path: str) -> str:
    """What the client put its key to. `resource_path`: `/bucket/key`, still percent-encoded, wherever the bucket stood."""
    request = signature.request
    named = request.named
    amz = "".join(f"{name}:{named[name].strip()}\n" for name in sorted(named) if name.startswith("x-amz-"))
    parts = sorted((name, value) for name, value in query_pairs(request.query) if name in SUBRESOURCES)
    bare = {part for part in request.query.split("&") if "=" not in part}
    listed = "&".join(name if name in bare else f"{name}={value}" for name, value in parts)
    return "\n".join(
        (
            request.method,
            named.get("content-md5", ""),
            named.get("content-type", ""),
            str(int(signature.expires.timestamp())),
            f"{amz}{resource_path}" + (f"?{listed}" if listed else ""),
        )
    )
