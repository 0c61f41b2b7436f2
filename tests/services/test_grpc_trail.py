"""Every call to the gRPC port leaves one line in the audit trail, however it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from belvedere.chassis.context import Caller, new_request_id
from belvedere.chassis.errors import Internal
from belvedere.chassis.gate import Policies, Visitor
from belvedere.chassis.permissions import PREFIXES, Need, is_public
from belvedere.v1 import (
    deployments_pb2,
    device_jobs_pb2,
    identity_pb2,
    logs_metrics_pb2,
    packages_pb2,
    registry_pb2,
    rollouts_pb2,
)
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.public_grpc import channel, cloud, refusal, token, user

__all__ = ["channel", "cloud"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

FILES = (
    deployments_pb2, device_jobs_pb2, identity_pb2, logs_metrics_pb2, packages_pb2, registry_pb2, rollouts_pb2,
)  # fmt: skip
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if is_public(service.name, method.name)
]
DEVICE = "device-" + "a" * 26
DESCRIBE = "/belvedere.v1.RegistryService/DescribeDevice"
OWN = {"AssumeRole": "sts:AssumeRole", "AttachPolicy": "iam:AttachUserPolicy", "DetachPolicy": "iam:DetachUserPolicy"}


def action_of(method: MethodDescriptor) -> str:
    """By the rule, and the few that have another."""
    service, name = method.containing_service.name, method.name
    for front in ("Tag", "Untag"):
        if PREFIXES[service] == "panorama" and name.startswith(front):
            return f"panorama:{front}Resource"
    return OWN.get(name) or f"{PREFIXES[service]}:{name}"


@asynccontextmanager
async def new_lines(cloud: RunningCloud) -> AsyncIterator[list[identity_pb2.AuditEntry]]:
    """What the block leaves in the trail, oldest first, once it has ended."""

    async def newest(count: int) -> list[identity_pb2.AuditEntry]:
        with cloud.caller():
            asked = identity_pb2.ListAuditEntriesRequest(max_results=count)
            return list((await IdentityServiceStub(cloud.channel).ListAuditEntries(asked)).entries)

    before = await newest(1)
    found: list[identity_pb2.AuditEntry] = []
    yield found
    lines = await newest(20)
    found += reversed(lines[: lines.index(before[0])] if before else lines)


def told(line: identity_pb2.AuditEntry) -> tuple[str, str, str, bool, str]:
    """Who, what, on what, allowed or not, from where."""
    return line.principal, line.action, line.resource, line.allowed, line.source_address


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("belvedere.v1."))
async def test_a_call_that_is_refused_leaves_one_line_with_its_action(
    cloud: RunningCloud, channel: Any, method: MethodDescriptor
) -> None:
    assert not method.client_streaming and not method.server_streaming
    name = f"nobody-{method.full_name[13:]}"[:64]
    await user(cloud, name)
    metadata = await token(cloud, name)
    path = f"/{method.containing_service.full_name}/{method.name}"
    async with new_lines(cloud) as found:
        for given, code in (
            (metadata, grpc.StatusCode.PERMISSION_DENIED),
            ((), grpc.StatusCode.UNAUTHENTICATED),
        ):
            assert (await refusal(channel.unary_unary(path)(b"", metadata=given)))[0] is code
    arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
    assert [told(line) for line in found] == [
        (who, action_of(method), "*", False, "127.0.0.1") for who in (arn, "unproven")
    ]


async def test_a_call_that_is_allowed_leaves_one_line_whatever_comes_of_it(cloud: RunningCloud, channel: Any) -> None:
    registry, metadata = RegistryServiceStub(channel), await token(cloud)
    async with new_lines(cloud) as found:
        await registry.ListDevices(registry_pb2.ListDevicesRequest(), metadata=metadata)
        await refusal(registry.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=DEVICE), metadata=metadata))
        # A client that streams to a method that does not: its first message is the request.
        requests = iter([registry_pb2.DescribeDeviceRequest(device_id=DEVICE).SerializeToString()])
        await refusal(channel.stream_unary(DESCRIBE)(requests, metadata=metadata))
    admin, arn = f"arn:aws:iam::{ACCOUNT}:user/admin", f"arn:aws:panorama:{REGION}:{ACCOUNT}:device/{DEVICE}"
    described = (admin, "panorama:DescribeDevice", arn, True, "127.0.0.1")
    assert [told(line) for line in found] == [
        (admin, "panorama:ListDevices", "*", True, "127.0.0.1"),
        described,
        described,
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/belvedere.v1.RegistryService/Nothing",
        "/belvedere.v1.IdentityService/GetSigningKey",
        "/belvedere.v1.StorageService/PutObject",
        "/belvedere.v1.NoService/Nothing",
        "/nothing",
    ],
)
async def test_a_method_that_is_not_there_leaves_one_line_with_its_path(
    cloud: RunningCloud, channel: Any, path: str
) -> None:
    metadata = await token(cloud)
    async with new_lines(cloud) as found:
        code, _, _ = await refusal(channel.unary_unary(path)(b"", metadata=metadata))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # Without a message: one that is sent while the refusal comes is the client's own error, INTERNAL.
            _ = [answer async for answer in channel.stream_stream(path)(iter([]))]
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [told(line) for line in found] == [
        (who, "grpc:POST", path, False, "127.0.0.1") for who in (f"arn:aws:iam::{ACCOUNT}:user/admin", "unproven")
    ]


@pytest.mark.parametrize(
    ("data", "more", "code"),
    [
        (b"\xff\xff\xff", (), grpc.StatusCode.INVALID_ARGUMENT),
        (b"", (("x-belvedere-region", "no region"),), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_is_no_request_of_its_method_leaves_one_line(
    cloud: RunningCloud, channel: Any, data: bytes, more: Any, code: grpc.StatusCode
) -> None:
    metadata = await token(cloud)
    async with new_lines(cloud) as found:
        assert (await refusal(channel.unary_unary(DESCRIBE)(data, metadata=(*metadata, *more))))[0] is code
        answer = await refusal(channel.unary_unary(DESCRIBE)(data, metadata=more))
        assert answer[0] is grpc.StatusCode.UNAUTHENTICATED
    assert [told(line) for line in found] == [
        (who, "panorama:DescribeDevice", "*", False, "127.0.0.1")
        for who in (f"arn:aws:iam::{ACCOUNT}:user/admin", "unproven")
    ]


async def test_what_a_call_needs_besides_stands_in_its_line(cloud: RunningCloud, channel: Any) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/none"
    asked = rollouts_pb2.CreateRolloutRequest(name="trail", runtime_role_arn=role)
    path = "/belvedere.v1.RolloutService/CreateRollout"
    async with new_lines(cloud) as found:
        await refusal(channel.unary_unary(path)(asked.SerializeToString(), metadata=await token(cloud)))
    (line,) = [line for line in found if line.source_address]
    assert told(line)[1:4] == ("belvedere:CreateRollout", "*", True)
    assert [(one.action, one.allowed) for one in line.decisions][:2] == [
        ("belvedere:CreateRollout", True),
        ("panorama:CreateApplicationInstance", True),
    ]


async def test_a_call_that_cannot_be_decided_for_want_of_another_service_leaves_one_line(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, ["identity"]) as cloud:
        document = {
            "Effect": "Allow",
            "Action": "*",
            "Resource": "*",
            "Condition": {"Null": {"aws:ResourceTag/a": True}},
        }
        with cloud.caller():
            identity = IdentityServiceStub(cloud.channel)
            text = json.dumps({"Version": "2012-10-17", "Statement": document})
            made = identity_pb2.CreatePolicyRequest(policy_name="tagged", policy_document=text)
            policy = (await identity.CreatePolicy(made)).policy.arn
        await user(cloud, "tagged", policy)
        policies, arn = Policies(cloud.channel, "console"), f"arn:aws:iam::{ACCOUNT}:user/tagged"
        who = Caller(ACCOUNT, REGION, arn, new_request_id(), "127.0.0.1")
        visitor = Visitor(identity_pb2.Principal(account_id=ACCOUNT, arn=arn), who, "", secure=True)
        for kind, name in (("device", DEVICE), ("package", "packageName/code")):
            need = Need("panorama:Any", f"arn:aws:panorama:{REGION}:{ACCOUNT}:{kind}/{name}")
            async with new_lines(cloud) as found:
                with pytest.raises(Internal):
                    await policies.ask([need], visitor)
            assert [told(line) for line in found] == [(arn, need.action, need.resource, False, "127.0.0.1")]


async def test_health_is_no_call(cloud: RunningCloud, channel: Any) -> None:
    async with new_lines(cloud) as found:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert not found
