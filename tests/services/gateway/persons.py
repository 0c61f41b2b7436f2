"""Users with less than everything: their policies, their keys, and boto3 that signs with them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from belvedere.v1 import identity_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.cloud import ACCOUNT, REGION, RunningCloud
from tests.support.front_door import Door

PANORAMA = f"arn:aws:panorama:{REGION}:{ACCOUNT}"
BUCKET = f"panorama-{ACCOUNT}-{REGION}"
numbers = itertools.count()


def ask(door: Door, method: str, request: Any) -> Any:
    async def work(cloud: RunningCloud) -> Any:
        return await getattr(IdentityServiceStub(cloud.channel), method)(request)

    return door.call(work)


def statement(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def make_policy(door: Door, name: str, *statements: dict[str, Any]) -> str:
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    made = ask(door, "CreatePolicy", pb.CreatePolicyRequest(policy_name=name, policy_document=text))
    return str(made.policy.arn)


class Person:
    """A user with one policy and one key."""

    def __init__(self, door: Door, *statements: dict[str, Any], policy: str = "", name: str = "") -> None:
        self.door, self.name = door, name or f"user-{next(numbers)}"
        self.arn = ask(door, "CreateUser", pb.CreateUserRequest(user_name=self.name)).user.arn
        self.policy = policy or make_policy(door, f"{self.name}-policy", *statements)
        ask(door, "AttachPolicy", pb.AttachPolicyRequest(policy_arn=self.policy, user_name=self.name))
        key = ask(door, "CreateAccessKey", pb.CreateAccessKeyRequest(user_name=self.name))
        self.keys = (key.access_key_id, key.secret_access_key)

    def client(self, service: str) -> Any:
        return self.door.client(service, keys=self.keys)


def refused(call: Callable[[], Any]) -> str:
    """The message of the refusal."""
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.response["Error"]["Code"] in ("AccessDeniedException", "AccessDenied"), caught.value
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return str(caught.value.response["Error"]["Message"])
