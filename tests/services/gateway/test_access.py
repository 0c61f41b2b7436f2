"""Who gets in, on the wire: real identity behind, boto3 and hand-made requests in front."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.services.gateway.wire import Answer, raw, send
from tests.support.front_door import Door


def code_of(answer: Answer) -> str:
    if "x-amzn-errortype" in answer.headers:
        return answer.headers["x-amzn-errortype"]
    return answer.xml["Code"]


def test_the_administrator_is_who_he_says(door: Door) -> None:
    identity = door.client("sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == ("123456789012", "arn:aws:iam::123456789012:user/admin")


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("panorama", "list_packages", "InvalidSignatureException"),
        ("s3", "list_buckets", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
        ("logs", "describe_log_groups", "InvalidSignatureException"),
        ("cloudwatch", "list_metrics", "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_secret_is_refused_in_each_services_words(door: Door, service: str, operation: str, code: str) -> None:
    client = door.client(service, keys=(door.access_key_id, "wrong"))
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("panorama", "list_packages", "UnrecognizedClientException"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
    ],
)
def test_an_unknown_key_is_refused_in_each_services_words(door: Door, service: str, operation: str, code: str) -> None:
    client = door.client(service, keys=("AKIAUNKNOWN", door.secret_access_key))
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)()
    assert caught.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("path", ["/", "/devices", "/packages/metadata/x"])
def test_without_a_signature_nobody_gets_in(door: Door, path: str) -> None:
    answer = send(door, "GET", path, service=None)
    assert (answer.status, code_of(answer)) == (403, "MissingAuthenticationTokenException")


@pytest.mark.parametrize(
    ("service", "method", "path", "body", "headers"),
    [
        ("panorama", "POST", "/packages", b'{"PackageName": "a"}', {"Content-Type": "application/json"}),
        (
            "sts",
            "POST",
            "/",
            b"Action=GetCallerIdentity&Version=2011-06-15",
            {"Content-Type": "application/x-www-form-urlencoded"},
        ),
        ("logs", "POST", "/", b'{"logGroupName": "/a"}', {"X-Amz-Target": "Logs_20140328.CreateLogGroup"}),
        ("s3", "PUT", "/panorama-123456789012-us-east-1/k", b"content", {}),
    ],
)
def test_a_body_changed_on_the_way_is_refused(
    door: Door, service: str, method: str, path: str, body: bytes, headers: dict[str, str]
) -> None:
    changed = body.replace(b"a", b"b").replace(b"c", b"d")
    answer = send(door, method, path, body=body, headers=headers, service=service, changed_body=changed)
    assert answer.status in (400, 403)
    assert code_of(answer) in ("InvalidSignatureException", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch")


@pytest.mark.parametrize(
    ("minutes", "service", "code"),
    [
        (-6, "panorama", "InvalidSignatureException"),
        (6, "panorama", "InvalidSignatureException"),
        (-16, "s3", "RequestTimeTooSkewed"),
    ],
)
def test_a_clock_that_is_off_is_told_so(
    door: Door, monkeypatch: pytest.MonkeyPatch, minutes: int, service: str, code: str
) -> None:
    import botocore.auth

    wrong = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: wrong)
    answer = send(door, "GET", "/", service=service)
    assert (answer.status, code_of(answer)) == (403, code)


def test_temporary_credentials_work_within_their_role_and_no_further(door: Door) -> None:
    role = "arn:aws:iam::123456789012:role/BelvedereApplication"
    assumed = door.client("sts").assume_role(RoleArn=role, RoleSessionName="camera-app")
    given = assumed["Credentials"]
    assert assumed["AssumedRoleUser"]["Arn"].endswith(":assumed-role/BelvedereApplication/camera-app")
    assert given["Expiration"] > datetime.now(UTC) + timedelta(minutes=50)
    keys = (given["AccessKeyId"], given["SecretAccessKey"])

    def as_role(service: str, token: str = given["SessionToken"]) -> object:
        return door.client(service, keys=keys, token=token)

    arn = as_role("sts").get_caller_identity()["Arn"]  # type: ignore[attr-defined]
    assert arn == assumed["AssumedRoleUser"]["Arn"]
    as_role("cloudwatch").put_metric_data(Namespace="App", MetricData=[{"MetricName": "m", "Value": 1}])  # type: ignore[attr-defined]
    for service, call, code in [
        ("panorama", lambda c: c.create_package(PackageName="no"), "AccessDeniedException"),
        ("s3", lambda c: c.list_buckets(), "AccessDenied"),
        ("logs", lambda c: c.describe_log_groups(), "AccessDeniedException"),
        ("cloudwatch", lambda c: c.list_metrics(), "AccessDenied"),
    ]:
        with pytest.raises(ClientError) as caught:
            call(as_role(service))
        assert caught.value.response["Error"]["Code"] == code
        message = caught.value.response["Error"]["Message"]
        assert arn in message and "is not authorized to perform" in message
    with pytest.raises(ClientError, match="invalid"):
        as_role("sts", token="forged").get_caller_identity()  # type: ignore[attr-defined]


def test_a_session_that_is_to_be_allowed_less_than_its_role_is_refused_and_not_given_all(door: Door) -> None:
    sts = door.client("sts")
    for narrowed in ({"Policy": "{}"}, {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/a"}]}, {"TokenCode": "123456"}):
        with pytest.raises(ClientError) as caught:
            sts.assume_role(
                RoleArn="arn:aws:iam::123456789012:role/BelvedereApplication", RoleSessionName="less", **narrowed
            )
        assert caught.value.response["Error"]["Code"] == "ValidationError"
        assert next(iter(narrowed)) in caught.value.response["Error"]["Message"]


def test_a_role_that_is_not_there_is_access_denied(door: Door) -> None:
    with pytest.raises(ClientError) as caught:
        door.client("sts").assume_role(RoleArn="arn:aws:iam::123456789012:role/none", RoleSessionName="session")
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_what_is_not_served_answers_with_the_operations_name(door: Door) -> None:
    for service, operation, name in [("dynamodb", "list_tables", "ListTables"), ("iam", "list_users", "ListUsers")]:
        with pytest.raises(ClientError, match=name) as caught:
            getattr(door.client(service), operation)()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert code_of(send(door, "GET", "/functions", service="lambda")) == "UnknownOperationException"


def test_a_body_of_ten_megabytes_is_refused_without_being_read(door: Door) -> None:
    answer = send(door, "POST", "/devices", body=b" " * (10 << 20), headers={"Content-Type": "application/json"})
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert "larger than" in answer.json["Message"] and answer.json["Reason"] == "CANNOT_PARSE"


def test_broken_http_gets_a_plain_400(door: Door) -> None:
    for data in (
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ):
        answer = raw(door, data + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ") or answer.startswith(b"HTTP/1.0 400 "), answer[:100]
        assert b"x-amzn-RequestId" in answer and b"Traceback" not in answer
    assert json.loads(raw(door, b"nonsense\r\n\r\n").split(b"\r\n\r\n")[1]) == {"Message": "Bad request"}
