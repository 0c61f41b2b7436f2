"""What the console asks on somebody's behalf: each question is a call, decided anew, with its line in the audit trail."""

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


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, ["identity", "registry"]) as running:
        with running.caller():
            identity = IdentityServiceStub(running.channel)
            await identity.CreateUser(pb.CreateUserRequest(user_name="reader"))
            await identity.AttachPolicy(pb.AttachPolicyRequest(policy_arn=READ_ONLY, user_name="reader"))
            yield running


async def look(cloud: RunningCloud, times: int = 1) -> None:
    """A request of the page that asks for the same several times."""
    channel = AskingChannel(cloud.channel, Policies(cloud.channel, "console"))
    principal = pb.Principal(arn=READER, account_id=ACCOUNT)
    who = Caller(ACCOUNT, REGION, READER, new_request_id(), "127.0.0.1")
    with as_visitor(Visitor(principal, who, "browser", secure=False)):
        for _ in range(times):
            await RegistryServiceStub(cast("grpc.aio.Channel", channel)).ListDevices(registry_pb2.ListDevicesRequest())


async def test_every_question_of_a_page_leaves_its_own_line_and_a_changed_policy_counts_at_the_next(
    cloud: RunningCloud,
) -> None:
    await look(cloud, times=4)
    identity = IdentityServiceStub(cloud.channel)
    await identity.DetachPolicy(pb.DetachPolicyRequest(policy_arn=READ_ONLY, user_name="reader"))
    for _ in range(2):
        with pytest.raises(Denied):
            await look(cloud)
    trail = await identity.ListAuditEntries(pb.ListAuditEntriesRequest())
    lines = [entry for entry in trail.entries if entry.principal == READER]
    assert [entry.allowed for entry in reversed(lines)] == [True] * 4 + [False] * 2
    assert {(entry.action, entry.resource, entry.source_address) for entry in lines} == {
        ("panorama:ListDevices", "*", "127.0.0.1")
    }
    assert len({entry.request_id for entry in lines}) == 6 and not any(entry.decisions for entry in lines)
