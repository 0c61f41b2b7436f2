"""Requests signed by botocore, as the front door gets them, and the key that identity would derive."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from services.gateway.sigv4 import HttpRequest

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ACCESS_KEY = "AKIDEXAMPLE"
REGION = "us-east-1"


def signing_key(date: str, service: str, secret: str = SECRET, region: str = REGION) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def signed(
    service: str,
    method: str = "GET",
    url: str = "http://127.0.0.1:8700/",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    presigned: int | None = None,
    token: str | None = None,
) -> HttpRequest:
    """What botocore signs, as it arrives. `presigned`: seconds that a URL lives, None for a header."""
    request = AWSRequest(method=method, url=url, data=body, headers=dict(headers or {}))
    credentials = Credentials(ACCESS_KEY, SECRET, token)
    if presigned is None:
        (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, REGION).add_auth(request)
    else:
        kind = S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth
        kind(credentials, service, REGION, presigned).add_auth(request)
    parts = urlsplit(request.url)
    sent = [(name.lower(), str(value)) for name, value in request.headers.items()]
    if not any(name == "host" for name, _ in sent):
        sent.append(("host", parts.netloc))
    return HttpRequest(method, parts.path or "/", parts.query, sent)
