"""Two equal names at the same moment: one wins, all others are told, in the words of their service."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from belvedere.chassis.errors import Conflict
from belvedere.v1 import identity_pb2 as pb
from tests.services.gateway.persons import BUCKET, ask
from tests.support.cloud import REGION
from tests.support.front_door import Door

AT_ONCE = 6
LIMIT_S = 20.0
ANYTHING = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "a:B", "Resource": "*"}})


def outcomes(work: Callable[[], Any]) -> list[Any]:
    """What `work` gave or raised, called by AT_ONCE threads that start together."""
    together = threading.Barrier(AT_ONCE)

    def one(_: int) -> Any:
        together.wait(LIMIT_S)
        try:
            return work()
        except (ClientError, Conflict) as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


def code_of(outcome: Any) -> str:
    if isinstance(outcome, ClientError):
        return str(outcome.response["Error"]["Code"])
    return "Conflict" if isinstance(outcome, Conflict) else ""


def name() -> str:
    return f"same-{uuid.uuid4().hex[:10]}"


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "code"),
    [
        ("panorama", "provision_device", lambda n: {"Name": n}, "ConflictException"),
        ("panorama", "create_package", lambda n: {"PackageName": n}, "ConflictException"),
        ("s3", "create_bucket", lambda n: {"Bucket": n}, "BucketAlreadyOwnedByYou"),
        ("s3", "put_object", lambda n: {"Bucket": BUCKET, "Key": n, "IfNoneMatch": "*"}, "PreconditionFailed"),
        ("logs", "create_log_group", lambda n: {"logGroupName": n}, "ResourceAlreadyExistsException"),
    ],
)
def test_of_equal_names_one_wins(
    door: Door, service: str, operation: str, arguments: Callable[[str], dict[str, Any]], code: str
) -> None:
    client, given = door.client(service, max_pool_connections=AT_ONCE), arguments(name())
    found = sorted(code_of(outcome) for outcome in outcomes(lambda: getattr(client, operation)(**given)))
    if service == "s3" and operation == "create_bucket" and REGION == "us-east-1":
        # There S3 takes a bucket that one has already for a success.
        assert set(found) <= {"", code}
    else:
        assert found == ["", *[code] * (AT_ONCE - 1)]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda n: pb.CreateUserRequest(user_name=n),
        lambda n: pb.CreateRoleRequest(role_name=n),
        lambda n: pb.CreatePolicyRequest(policy_name=n, policy_document=ANYTHING),
    ],
    ids=["user", "role", "policy"],
)
def test_of_equal_users_roles_and_policies_one_wins(door: Door, request_of: Callable[[str], Any]) -> None:
    request = request_of(name())
    method = request.DESCRIPTOR.name.removesuffix("Request")
    found = sorted(code_of(outcome) for outcome in outcomes(lambda: ask(door, method, request)))
    assert found == ["", *["Conflict"] * (AT_ONCE - 1)]


def test_one_token_makes_one_import_and_everybody_is_told_of_it(door: Door) -> None:
    client, token = door.client("panorama", max_pool_connections=AT_ONCE), name()
    job = {
        "JobType": "NODE_PACKAGE_VERSION",
        "InputConfig": {"PackageVersionInputConfig": {"S3Location": {"BucketName": BUCKET, "ObjectKey": token}}},
        "OutputConfig": {"PackageVersionOutputConfig": {"PackageName": token, "PackageVersion": "1.0"}},
    }
    found = outcomes(lambda: client.create_package_import_job(ClientToken=token, **job)["JobId"])
    assert len(set(found)) == 1 and isinstance(found[0], str)


def test_a_camera_registered_twice_at_once_is_one_camera(door: Door) -> None:
    client, camera = door.client("panorama", max_pool_connections=AT_ONCE), name()
    job = {
        "TemplateType": "RTSP_CAMERA_STREAM",
        "NodeName": camera,
        "OutputPackageName": camera,
        "OutputPackageVersion": "1.0",
        "TemplateParameters": {"StreamUrl": "rtsp://192.0.2.1/s"},
    }
    found = outcomes(lambda: client.create_node_from_template_job(**job)["JobId"])
    assert len({outcome for outcome in found if isinstance(outcome, str)}) == AT_ONCE
    assert len(client.list_nodes(PackageName=camera)["Nodes"]) == 1
