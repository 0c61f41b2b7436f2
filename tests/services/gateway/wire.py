"""Requests on the wire as no well-behaved client sends them, signed by botocore where that is wanted."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.cloud import REGION
from tests.support.front_door import Door

TIMEOUT_S = 60.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def xml(self) -> dict[str, str]:
        """Texts by element name, of all depths."""
        return {e.tag.rpartition("}")[2]: e.text or "" for e in ElementTree.fromstring(self.body).iter()}


def headers_for(
    door: Door, service: str, method: str, path: str, body: bytes, headers: Mapping[str, str], secret: str = ""
) -> dict[str, str]:
    """The headers with botocore's signature."""
    request = AWSRequest(method=method, url=door.url + path, data=body, headers=dict(headers))
    if "x-amz-trailer" in headers:
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    credentials = Credentials(door.access_key_id, secret or door.secret_access_key)
    (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, REGION).add_auth(request)
    return {name: str(value) for name, value in request.headers.items()}


def send(
    door: Door,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    service: str | None = "panorama",
    secret: str = "",
    changed_body: bytes | None = None,
) -> Answer:
    """Signs for `service` (None: not at all) and sends; `changed_body` goes out instead of the one that was signed."""
    sent = dict(headers or {})
    if service is not None:
        sent = headers_for(door, service, method, path, body, sent, secret)
    connection = http.client.HTTPConnection("127.0.0.1", door.cloud.runtime.ports.gateway, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body if changed_body is None else changed_body, sent)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()
    assert answer.headers["x-amzn-requestid"]
    assert b"Traceback" not in answer.body
    return answer


def raw(door: Door, data: bytes, until: bytes | None = None) -> bytes:
    """Bytes out, bytes in until the server closes, or until its answer ends with `until`."""
    with socket.create_connection(("127.0.0.1", door.cloud.runtime.ports.gateway), TIMEOUT_S) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
            if until is not None and received.endswith(until):
                break
    return received
