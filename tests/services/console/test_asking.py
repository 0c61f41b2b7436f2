"""What the console's questions leave in the audit trail: who looked, once in a while; each refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import grpc
import pytest

from belvedere.chassis.context import Caller, new_request_id
from belvedere.chassis.errors import Denied
from belvedere.chassis.gate import Policies, Visitor
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1 import registry_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.console.asking import AskingChannel, as_visitor
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud

READER = f"arn:aws:iam::{ACCOUNT}:user/reader"
READ_ONLY = "arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly"
ALWAYS_ANEW = -1.0


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["identity", "registry"]) as running:
        with running.caller():
            identity = IdentityServiceStub(running.channel)
            await identity.CreateUser(pb.CreateUserRequest(user_name="reader"))
            await identity.AttachPolicy(pb.AttachPolicyRequest(policy_arn=READ_ONLY, user_name="reader"))
            yield running


async def look(cloud: RunningCloud, channel: AskingChannel, agent: str = "browser") -> None:
    principal = pb.Principal(arn=READER, account_id=ACCOUNT)
    who = Caller(ACCOUNT, REGION, READER, new_request_id(), "127.0.0.1")
    with as_visitor(Visitor(principal, who, agent, secure=False)):
        await RegistryServiceStub(cast("grpc.aio.Channel", channel)).ListDevices(registry_pb2.ListDevicesRequest())


async def lines(cloud: RunningCloud) -> list[bool]:
    """Whether it was allowed, of each line about the reader."""
    trail = await IdentityServiceStub(cloud.channel).ListAuditEntries(pb.ListAuditEntriesRequest())
    return [entry.allowed for entry in trail.entries if entry.principal == READER]


def asking(cloud: RunningCloud, tell_s: float) -> AskingChannel:
    return AskingChannel(
        cloud.channel, Policies(cloud.channel, "console"), keep_s=ALWAYS_ANEW, tell_s=tell_s, entries=16
    )


async def test_a_page_that_stays_open_leaves_a_line_now_and_then_and_each_refusal(cloud: RunningCloud) -> None:
    channel = asking(cloud, tell_s=3600)
    for _ in range(4):
        await look(cloud, channel)
    assert await lines(cloud) == [True]
    await look(cloud, channel, agent="another browser")
    assert await lines(cloud) == [True, True]
    identity = IdentityServiceStub(cloud.channel)
    await identity.DetachPolicy(pb.DetachPolicyRequest(policy_arn=READ_ONLY, user_name="reader"))
    for _ in range(2):
        with pytest.raises(Denied):
            await look(cloud, channel)
    assert sorted(await lines(cloud)) == [False, False, True, True]


async def test_the_line_comes_again_while_somebody_goes_on_looking(cloud: RunningCloud) -> None:
    channel = asking(cloud, tell_s=ALWAYS_ANEW)
    for _ in range(3):
        await look(cloud, channel)
    assert await lines(cloud) == [True] * 3
