"""Every call leaves one line in the audit trail: who, what, on what, allowed or not, from where. Through boto3 and raw HTTP."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from belvedere import awsmodel
from tests.services.gateway.persons import BUCKET, PANORAMA, Person, statement
from tests.services.gateway.trail import (
    ALARM_ARN,
    ALWAYS_ALLOWED,
    BUCKET_ARN,
    DEVICE,
    GROUP,
    GROUP_ARN,
    OBJECT,
    OBJECT_ARN,
    OTHER_DEVICE,
    PANORAMA_OPERATIONS,
    ROLE,
    RPC_OPERATIONS,
    S3_OPERATIONS,
    STRANGER,
    Callers,
    Operation,
    new_lines,
    one_line,
    request_id,
    told,
)
from tests.services.gateway.wire import TIMEOUT_S, headers_for, send
from tests.support.cloud import ACCOUNT
from tests.support.front_door import Door, front_door

HERE = "127.0.0.1"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def callers(door: Door) -> Iterator[Callers]:
    yield Callers(door)


def test_the_table_names_every_operation_of_the_api() -> None:
    assert {o.action.partition(":")[2] for o in PANORAMA_OPERATIONS} == set(awsmodel.panorama().operations)


@pytest.mark.parametrize("operation", (*PANORAMA_OPERATIONS, *S3_OPERATIONS, *RPC_OPERATIONS), ids=str)
def test_every_call_leaves_one_line_with_its_operation_however_it_ends(
    door: Door, callers: Callers, operation: Operation
) -> None:
    expected = [
        ("allowed", f"arn:aws:iam::{ACCOUNT}:user/admin", True),
        ("denied", callers.nobody.arn, False),
        ("wrong", f"unproven/{door.access_key_id}", False),
        ("unknown", f"unproven/{STRANGER}", False),
        ("unsigned", "unproven", False),
    ]
    ids = []
    with new_lines(door) as found:
        for kind, _, _ in expected:
            client = callers.client(kind, operation.service)
            ids.append(request_id(partial(operation.call, client)))
    assert [(line.principal, *told(line), line.source_address, line.request_id) for line in found] == [
        (who, operation.action, operation.resource, allowed, HERE, id)
        for (_, who, allowed), id in zip(expected, ids, strict=True)
    ]
    assert not any(line.decisions for line in found)


def test_who_asks_only_who_he_is_leaves_his_line_too(door: Door, callers: Callers) -> None:
    with new_lines(door) as found:
        for kind in ("allowed", "denied", "wrong", "unknown", "unsigned"):
            request_id(partial(ALWAYS_ALLOWED.call, callers.client(kind, "sts")))
    assert [told(line) for line in found] == [("sts:GetCallerIdentity", "*", n < 2) for n in range(5)]


@pytest.mark.parametrize("operation", (PANORAMA_OPERATIONS[1], S3_OPERATIONS[8], *RPC_OPERATIONS[:2]), ids=str)
def test_a_clock_that_is_off_leaves_the_operations_line(
    door: Door, callers: Callers, monkeypatch: pytest.MonkeyPatch, operation: Operation
) -> None:
    import botocore.auth

    wrong = datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: wrong)
    with new_lines(door) as found:
        request_id(lambda: operation.call(callers.client("allowed", operation.service)))
    (line,) = found
    assert (line.principal, *told(line)) == (
        f"unproven/{door.access_key_id}",
        operation.action,
        operation.resource,
        False,
    )


CREATE_GROUP = json.dumps({"logGroupName": GROUP}).encode()
UNPROVEN = [
    # The query protocol: a form at the root, of three services.
    ("POST", "/", FORM, b"Action=AssumeRole&RoleArn=" + ROLE.encode(), "sts:AssumeRole", ROLE),
    ("POST", "/", FORM, b"Action=DeleteAlarms&AlarmNames.member.1=trail-alarm", "cloudwatch:DeleteAlarms", ALARM_ARN),
    ("POST", "/", FORM, b"Version=2010-05-15&Action=DescribeStacks", "cloudformation:DescribeStacks", None),
    ("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", {}, b"", "sts:GetCallerIdentity", "*"),
    ("POST", "/", FORM, b"Action=GetSessionToken", "sts:GetSessionToken", "*"),
    ("POST", "/", FORM, b"Action=%00<script>", "sts:POST", "/"),
    ("POST", "/", FORM, b"\xff" * 300, "sts:POST", "/"),
    ("POST", "/", FORM, b"Action=AssumeRole&RoleArn=" + b"x" * 300_000, "sts:AssumeRole", None),
    # X-Amz-Target, rpc-v2-cbor.
    ("POST", "/", {"X-Amz-Target": "Logs_20140328.CreateLogGroup"}, CREATE_GROUP, "logs:CreateLogGroup", GROUP_ARN),
    ("POST", "/", {"X-Amz-Target": "Logs_20140328.CreateLogGroup"}, b"{broken", "logs:CreateLogGroup", "*"),
    ("POST", "/", {"X-Amz-Target": "Logs_20140328.CreateExportTask"}, b"{}", "logs:CreateExportTask", "*"),
    ("POST", "/service/GraniteServiceVersion20100801/operation/ListMetrics", {"smithy-protocol": "rpc-v2-cbor"}, b"\xa0",
     "cloudwatch:ListMetrics", "*"),
    # Paths.
    ("DELETE", f"/devices/{DEVICE}", {}, b"", "panorama:DeleteDevice", f"{PANORAMA}:device/{DEVICE}"),
    ("POST", "/jobs", {}, json.dumps({"DeviceIds": [DEVICE, OTHER_DEVICE]}).encode(), "panorama:CreateJobForDevices", "*"),
    ("GET", "/packages/metadata/packageName%2Fcode", {}, b"", "panorama:DescribePackage",
     f"{PANORAMA}:package/packageName/code"),
    ("PATCH", "/devices", {}, b"", "panorama:PATCH", "/devices"),
    ("GET", "/", {}, b"", "s3:ListAllMyBuckets", "*"),
    ("PUT", f"/{BUCKET}/a%20key", {}, b"x" * 300_000, "s3:PutObject", f"{BUCKET_ARN}/a key"),
    ("POST", f"/{BUCKET}?delete", {}, b"<Delete/>", "s3:DeleteObject", BUCKET_ARN),
    ("GET", "/Not_A_Bucket/key", {}, b"", "s3:GET", "/Not_A_Bucket/key"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "headers", "body", "action", "resource"), UNPROVEN)
def test_what_nobody_signed_is_named_by_what_it_would_have_been(
    door: Door, method: str, path: str, headers: dict[str, str], body: bytes, action: str, resource: str | None
) -> None:
    with new_lines(door) as found:
        answer = send(door, method, path, headers=headers, body=body, service=None)
    assert 400 <= answer.status < 500
    (line,) = found
    assert (line.principal, line.action, line.allowed) == ("unproven", action, False)
    assert resource is None or line.resource == resource
    assert line.request_id == answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize(
    ("service", "method", "path", "headers", "body", "action", "resource"),
    [
        ("panorama", "POST", "/nowhere", {}, b"", "panorama:POST", "/nowhere"),
        ("panorama", "POST", "/devices", {}, b"{broken", "panorama:ProvisionDevice", "*"),
        ("panorama", "POST", "/devices", {}, b" " * (8 << 20), "panorama:ProvisionDevice", "*"),
        ("logs", "POST", "/", {"X-Amz-Target": "Logs_20140328.CreateExportTask"}, b"{}", "logs:CreateExportTask", "*"),
        ("logs", "POST", "/", {"X-Amz-Target": "Logs_20140328.CreateLogGroup"}, b"{", "logs:CreateLogGroup", "*"),
        ("logs", "GET", "/nothing", {}, b"", "logs:GET", "/nothing"),
        ("monitoring", "POST", "/", FORM, b"Action=PutDashboard", "cloudwatch:PutDashboard", "*"),
        ("sts", "POST", "/", FORM, b"", "sts:POST", "/"),
        ("sts", "POST", "/", FORM, b"Action=GetSessionToken&" + b"x" * (8 << 20), "sts:GetSessionToken", "*"),
        ("iam", "POST", "/", FORM, b"Action=ListUsers", "iam:ListUsers", "*"),
        ("lambda", "GET", "/functions", {}, b"", "lambda:GET", "/functions"),
        ("s3", "GET", f"/{BUCKET}?policy", {}, b"", "s3:GET", f"/{BUCKET}"),
        ("s3", "POST", f"/{BUCKET}?delete", {}, b"<Delete/>", "s3:DeleteObject", BUCKET_ARN),
        (
            "s3",
            "POST",
            f"/{BUCKET}?delete",
            {},
            b"<Delete><Object><Key>" + b"k" * 1025 + b"</Key></Object></Delete>",
            "s3:DeleteObject",
            BUCKET_ARN,
        ),
    ],
)
def test_what_is_wrong_or_not_served_leaves_one_line_as_well(
    door: Door, service: str, method: str, path: str, headers: dict[str, str], body: bytes, action: str, resource: str
) -> None:
    with new_lines(door) as found:
        answer = send(door, method, path, headers=headers, body=body, service=service)
    (line,) = found
    assert (line.action, line.resource, line.source_address) == (action, resource, HERE)
    assert line.request_id == answer.headers["x-amzn-requestid"]


def test_presigned_urls_that_are_not_good_are_named_by_the_object(door: Door, callers: Callers) -> None:
    urls = [
        door.client("s3", keys=(door.access_key_id, "wrong"), signature_version=version).generate_presigned_url(
            "get_object", Params=OBJECT
        )
        for version in ("s3", "s3v4")
    ]
    for url in urls:
        with new_lines(door) as found:
            assert send(door, "GET", url.removeprefix(door.url), service=None).status == 403
        (line,) = found
        assert (line.principal, *told(line)) == (f"unproven/{door.access_key_id}", "s3:GetObject", OBJECT_ARN, False)


def test_a_call_whose_body_breaks_off_leaves_its_line(door: Door) -> None:
    body = b"Action=AssumeRole&RoleSessionName=broken"
    headers = headers_for(door, "sts", "POST", "/", body, FORM)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    data = f"POST / HTTP/1.1\r\nHost: {HERE}\r\nContent-Length: {len(body) + 100}\r\n{head}\r\n".encode() + body
    address = (HERE, door.cloud.runtime.ports.gateway)
    with new_lines(door) as found, socket.create_connection(address, TIMEOUT_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    (line,) = found
    assert (line.principal, line.action.partition(":")[0], line.allowed) == (
        f"unproven/{door.access_key_id}",
        "sts",
        False,
    )


def test_an_upload_that_waits_to_be_asked_for_is_not_asked_for_and_leaves_its_line(door: Door) -> None:
    connection = http.client.HTTPConnection(HERE, door.cloud.runtime.ports.gateway, timeout=TIMEOUT_S)
    with new_lines(door) as found:
        connection.putrequest("POST", "/")
        for name, value in {**FORM, "Expect": "100-continue", "Content-Length": "40"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 403
        connection.close()
    assert [told(line) for line in found] == [("sts:POST", "/", False)]


def test_a_call_that_cannot_be_decided_for_want_of_another_service_leaves_one_line(tmp_path: Path) -> None:
    with front_door(tmp_path, ["identity", "gateway"]) as door:
        tagged = {"StringEquals": {"aws:ResourceTag/Site": "north"}}
        person = Person(door, statement("panorama:*", Condition=tagged), name="trail-tagged")
        client = person.client("panorama")
        package = "packageName/code"
        for call, action, resource in (
            (partial(client.describe_device, DeviceId=DEVICE), "DescribeDevice", f"device/{DEVICE}"),
            (partial(client.describe_package, PackageId=package), "DescribePackage", f"package/{package}"),
        ):
            line = one_line(door, call)
            assert (line.principal, *told(line)) == (person.arn, f"panorama:{action}", f"{PANORAMA}:{resource}", False)


def test_a_refusal_that_no_operation_can_be_read_from_says_so(door: Door) -> None:
    with pytest.raises((ClientError, BotoCoreError)):
        door.client("sns", keys=(STRANGER, "secret")).list_topics()
    with new_lines(door) as found:
        request_id(lambda: door.client("sns", keys=(STRANGER, "secret")).list_topics())
    assert [(line.principal, *told(line)) for line in found] == [(f"unproven/{STRANGER}", "sns:ListTopics", "*", False)]
