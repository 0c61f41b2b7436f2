"""Decisions that are at hand are those that Authorize has made and that still hold, each with its line in the trail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from belvedere.chassis.context import Caller
from belvedere.chassis.local import at_hand
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.cloud import ACCOUNT, ADMIN, REGION, RunningCloud, running_cloud

AUTHORIZE = "/belvedere.v1.IdentityService/Authorize"
LIST = "panorama:ListDevices"


class Asked:
    """One who asks, both ways."""

    def __init__(self, cloud: RunningCloud) -> None:
        self.identity = IdentityServiceStub(cloud.channel)
        self._at_hand = at_hand(cloud.channel, AUTHORIZE)

    def question(self, arn: str, action: str = LIST, resource: str = "*") -> pb.AuthorizeRequest:
        principal = pb.Principal(account_id=ACCOUNT, arn=arn, user_id="AIDA")
        return pb.AuthorizeRequest(principal=principal, action=action, resource=resource, source_address="192.0.2.1")

    def now(self, question: pb.AuthorizeRequest, request_id: str = "at-hand") -> bool:
        answer = self._at_hand(
            Caller(ACCOUNT, REGION, question.principal.arn, request_id), question.SerializeToString()
        )
        assert answer is None or pb.AuthorizeResponse.FromString(answer).allowed
        return answer is not None

    async def given(self, question: pb.AuthorizeRequest, request_id: str = "at-hand") -> None:
        """Once the yes was given it is at hand; but word of an earlier change, which takes it away, may come between the two."""
        async with asyncio.timeout(30):
            while True:
                assert (await self.identity.Authorize(question)).allowed
                if self.now(question, request_id):
                    return

    async def user(self, name: str, **statement: Any) -> str:
        """The ARN of a user with a policy of one statement."""
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]}
        made = await self.identity.CreatePolicy(
            pb.CreatePolicyRequest(policy_name=name, policy_document=json.dumps(document))
        )
        arn = (await self.identity.CreateUser(pb.CreateUserRequest(user_name=name))).user.arn
        await self.identity.AttachPolicy(pb.AttachPolicyRequest(policy_arn=made.policy.arn, user_name=name))
        return str(arn)


@pytest_asyncio.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with running_cloud(tmp_path, services=["identity"]) as running:
        with running.caller():
            yield Asked(running)


async def test_a_yes_is_at_hand_once_it_was_given_and_leaves_its_own_line(asked: Asked) -> None:
    question = asked.question(ADMIN)
    assert not asked.now(question)
    await asked.given(question, "first")
    assert asked.now(question, "second")
    assert not asked.now(asked.question(ADMIN, resource="another"))
    entries = (await asked.identity.ListAuditEntries(pb.ListAuditEntriesRequest())).entries
    found = [entry for entry in entries if entry.action == LIST]
    assert [entry.request_id for entry in found[:3]] == ["second", "first", ""]
    assert {entry.request_id for entry in found[3:]} <= {""}
    assert {(e.principal, e.resource, e.allowed, e.source_address) for e in found} == {(ADMIN, "*", True, "192.0.2.1")}


async def test_a_no_and_what_a_policy_looks_at_more_closely_are_never_at_hand(asked: Asked) -> None:
    refused = await asked.user("refused", Action="s3:*")
    here = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    conditional = await asked.user("conditional", Action=LIST, Condition=here)
    for arn, allowed in ((refused, False), (conditional, True)):
        assert (await asked.identity.Authorize(asked.question(arn))).allowed is allowed
        assert not asked.now(asked.question(arn))
    role = asked.question(ADMIN, "sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication")
    assert (await asked.identity.Authorize(role)).allowed
    assert not asked.now(role)


async def test_a_change_of_policies_takes_it_away_at_once(asked: Asked) -> None:
    arn = await asked.user("changing", Action=LIST)
    question = asked.question(arn)
    await asked.given(question)
    policy = f"arn:aws:iam::{ACCOUNT}:policy/changing"
    await asked.identity.DetachPolicy(pb.DetachPolicyRequest(policy_arn=policy, user_name="changing"))
    assert not asked.now(question)
    assert not (await asked.identity.Authorize(question)).allowed
    assert not asked.now(question)
