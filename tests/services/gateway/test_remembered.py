"""What the front door keeps between requests never shows: neither in answers, nor in decisions, nor in the audit trail."""

from __future__ import annotations

import http.client
import io
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from belvedere.v1 import identity_pb2 as pb
from tests.services.gateway.persons import PANORAMA, Person, ask, refused, statement
from tests.services.gateway.wire import TIMEOUT_S, Answer, headers_for, raw, send
from tests.support.front_door import Door

REPEATS = 3


def described(door: Door, device: str) -> Any:
    """The same answer each time it is asked for."""
    answers = [send(door, "GET", f"/devices/{device}") for _ in range(REPEATS)]
    assert len({answer.body for answer in answers}) == 1
    assert len({answer.headers["x-amzn-requestid"] for answer in answers}) == REPEATS
    return answers[0]


def signed_for(door: Door, region: str, path: str) -> Answer:
    request = AWSRequest("GET", door.url + path)
    SigV4Auth(Credentials(door.access_key_id, door.secret_access_key), "panorama", region).add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", door.cloud.runtime.ports.gateway, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={name: str(value) for name, value in request.headers.items()})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def test_an_answer_shows_each_change_of_the_device_at_once(door: Door) -> None:
    panorama = door.client("panorama")
    made = panorama.provision_device(Name="remembered-changes", Description="first", Tags={"a": "1"})
    device = made["DeviceId"]
    path = "/devices?NameFilter=remembered-changes"
    assert described(door, device).json["Description"] == "first"
    assert [d["Description"] for d in send(door, "GET", path).json["Devices"]] == ["first"]
    panorama.update_device_metadata(DeviceId=device, Description="second")
    assert described(door, device).json["Description"] == "second"
    assert [d["Description"] for d in send(door, "GET", path).json["Devices"]] == ["second"]
    panorama.tag_resource(ResourceArn=made["Arn"], Tags={"a": "2"})
    assert described(door, device).json["Tags"] == {"a": "2"}
    panorama.delete_device(DeviceId=device)
    assert described(door, device).status == 404
    assert send(door, "GET", path).json["Devices"] == []


def test_a_region_is_not_answered_with_anothers_answer(door: Door) -> None:
    device = door.client("panorama").provision_device(Name="remembered-region")["DeviceId"]
    path = f"/devices/{device}"
    for _ in range(REPEATS):
        assert send(door, "GET", path).status == 200
        assert signed_for(door, "eu-west-1", path).status == 404
        assert signed_for(door, "eu-west-1", "/devices").json["Devices"] == []


def test_who_is_allowed_lends_it_to_nobody_else(door: Door) -> None:
    device = door.client("panorama").provision_device(Name="remembered-lent")["DeviceId"]
    may = Person(door, statement("panorama:DescribeDevice", f"{PANORAMA}:device/{device}")).client("panorama")
    other = Person(door, statement("panorama:ListDevices")).client("panorama")
    for _ in range(REPEATS):
        assert may.describe_device(DeviceId=device)["Name"] == "remembered-lent"
        refused(lambda: other.describe_device(DeviceId=device))
        refused(lambda: may.list_devices())
        other.list_devices()


def test_every_repetition_leaves_its_own_line(door: Door) -> None:
    person = Person(door, statement("panorama:ListDevices"))
    client = person.client("panorama")
    ids = [client.list_devices()["ResponseMetadata"]["RequestId"] for _ in range(REPEATS)]
    with pytest.raises(ClientError) as denied:
        client.list_packages()
    ids.append(denied.value.response["ResponseMetadata"]["RequestId"])
    entries = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(user_name=person.name)).entries
    assert [entry.request_id for entry in reversed(entries)] == ids
    assert [entry.allowed for entry in reversed(entries)] == [True] * REPEATS + [False]


def test_a_key_that_is_known_still_has_to_sign_this_request_and_now(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    import botocore.auth

    def code(path: str, headers: dict[str, str]) -> str:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        host = f"127.0.0.1:{door.cloud.runtime.ports.gateway}"
        answer = raw(door, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 ")
        return http.client.parse_headers(io.BytesIO(answer.partition(b"\r\n")[2])).get("x-amzn-errortype", "")

    good = headers_for(door, "panorama", "GET", "/devices", b"", {})
    assert code("/devices", good) == code("/devices", good) == ""
    assert code("/packages", good) == "InvalidSignatureException"
    assert code("/devices?MaxResults=1", good) == "InvalidSignatureException"
    assert code("/devices", {**good, "X-Amz-Target": "x"}) == "InvalidSignatureException"
    assert code("/devices", {**good, "X-Amz-Date": "20000101T000000Z"}) == "IncompleteSignatureException"
    wrong = good["Authorization"][:-1] + ("0" if good["Authorization"][-1] != "0" else "1")
    assert code("/devices", {**good, "Authorization": wrong}) == "InvalidSignatureException"
    for minutes in (-6, 6):
        now = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=minutes)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda now=now: now)
        old = headers_for(door, "panorama", "GET", "/devices", b"", {})
        assert code("/devices", old) in ("InvalidSignatureException", "IncompleteSignatureException")


def test_requests_in_a_row_on_one_connection_are_answered_in_order(door: Door) -> None:
    host = f"127.0.0.1:{door.cloud.runtime.ports.gateway}"

    def request(path: str, *more: str) -> bytes:
        headers = {"Host": host, **headers_for(door, "panorama", "GET", path, b"", {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"GET {path} HTTP/1.1\r\n{lines}{''.join(more)}\r\n".encode()

    paths = ("/devices", "/nodes", "/devices", "/no-such-thing", "/packages")
    data = b"".join(request(path) for path in paths) + request("/devices", "Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", door.cloud.runtime.ports.gateway), TIMEOUT_S) as connection:
        connection.sendall(data)
        stream = connection.makefile("rb")
        found = []
        for _ in range(len(paths) + 1):
            status = stream.readline()
            headers = http.client.parse_headers(stream)
            body = stream.read(int(headers["Content-Length"]))
            found.append((int(status.split()[1]), body[:12]))
            assert headers["Date"].endswith("GMT") and headers["Server"] == "Belvedere"
            assert headers["x-amzn-RequestId"] == headers["x-amz-request-id"]
        assert stream.read() == b""
    assert [status for status, _ in found] == [200, 200, 200, 400, 200, 200]
    assert [body[:10] for _, body in found if body][:3] == [b'{"Devices"', b'{"Nodes": ', b'{"Devices"']


def test_a_client_of_http_1_0_gets_its_answer_and_the_end_of_the_connection(door: Door) -> None:
    headers = headers_for(door, "panorama", "GET", "/devices", b"", {})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    host = f"127.0.0.1:{door.cloud.runtime.ports.gateway}"
    answer = raw(door, f"GET /devices HTTP/1.0\r\nHost: {host}\r\n{lines}\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 200") and b'{"Devices"' in answer
