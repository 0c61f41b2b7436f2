"""What a stack is made of: roles of identity and alarms of logs_metrics, made, changed and deleted as its caller.

Every step asks whether the caller may do it by itself: who may not make roles makes none with a template either.
Knows gRPC, no templates and no stacks.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from belvedere.awsmodel import Shape
from belvedere.chassis.errors import BelvedereError, NotFound
from belvedere.v1 import identity_pb2, logs_metrics_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.logs_metrics_pb2_grpc import AlarmsServiceStub
from services.gateway.cloudformation.template import TemplateError
from services.gateway.cloudwatch.alarms import AlarmOperations, alarm_arn
from services.gateway.errors import GatewayError
from services.gateway.message import Call
from services.gateway.model_service import load_model
from services.gateway.validation import Problems, read_members, scalar_from_text

NAME_MAX = 64
POLICY_NAME_MAX = 128
ROLE, ALARM = "AWS::IAM::Role", "AWS::CloudWatch::Alarm"
_ROLE_PROPERTIES = {
    "RoleName", "AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies", "Path", "Description", "MaxSessionDuration",
    "Tags",
}  # fmt: skip


@dataclass
class Made:
    """A resource that is there."""

    type: str
    physical_id: str
    attributes: dict[str, str]
    """What Fn::GetAtt gives."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What its kind has to know of it later."""


class Kind(Protocol):
    """One type of resource."""

    async def make(self, call: Call, name: str, properties: Mapping[str, Any], before: Made | None) -> Made:
        """Makes it, or brings what is there (`before`) to these properties. `name`: where the template gives none. Raises
        TemplateError, GatewayError, BelvedereError."""
        ...

    async def delete(self, call: Call, made: Made) -> None:
        """Deletes it; no error where it is gone already."""
        ...


def kinds(channel: grpc.aio.Channel) -> dict[str, Kind]:
    """By type."""
    return {ROLE: Roles(channel), ALARM: Alarms(channel)}


def new_name(stack: str, logical_id: str) -> str:
    """As CloudFormation names things."""
    end = "-" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(12))
    return f"{stack[:24]}-{logical_id}"[: NAME_MAX - len(end)] + end


class Roles:
    """AWS::IAM::Role. Policies in the role become policies of the account, named after it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._identity = IdentityServiceStub(channel)

    async def make(self, call: Call, name: str, properties: Mapping[str, Any], before: Made | None) -> Made:
        _only(ROLE, properties, _ROLE_PROPERTIES)
        trust = json.dumps(properties.get("AssumeRolePolicyDocument"))
        wanted = {
            _text(entry, "PolicyName"): json.dumps(entry.get("PolicyDocument"))
            for entry in _list(properties, "Policies")
        }
        managed = [str(arn) for arn in _list(properties, "ManagedPolicyArns")]
        role_name = str(properties.get("RoleName") or (before.physical_id if before else name))
        if before is not None and before.physical_id != role_name:
            raise TemplateError(f"{before.physical_id} cannot be renamed: give the role another logical name")
        role_arn = f"arn:aws:iam::{call.who.account}:role/{role_name}"
        if before is not None:
            await call.authorize("iam:UpdateAssumeRolePolicy", role_arn)
            await self._identity.UpdateAssumeRolePolicy(
                identity_pb2.UpdateAssumeRolePolicyRequest(role_name=role_name, policy_document=trust)
            )
            await self._policies(call, before, wanted, managed)
            return before
        await call.authorize("iam:CreateRole", role_arn)
        request = identity_pb2.CreateRoleRequest(role_name=role_name, assume_role_policy_document=trust)
        role = (await self._identity.CreateRole(request)).role
        made = Made(ROLE, role_name, {"Arn": role.arn, "RoleId": role.role_id}, {"own": {}, "managed": []})
        try:
            await self._policies(call, made, wanted, managed)
        except (TemplateError, GatewayError, BelvedereError):
            await self._remove(made)
            raise
        return made

    async def _policies(self, call: Call, made: Made, wanted: Mapping[str, str], managed: list[str]) -> None:
        own: dict[str, str] = made.detail["own"]
        arn = made.attributes["Arn"]
        for name, document in wanted.items():
            await call.authorize("iam:PutRolePolicy", arn)
            if name in own:
                await self._identity.UpdatePolicy(
                    identity_pb2.UpdatePolicyRequest(policy_arn=own[name], policy_document=document)
                )
                continue
            policy_name = f"{made.physical_id}-{name}"[:POLICY_NAME_MAX]
            created = await self._identity.CreatePolicy(
                identity_pb2.CreatePolicyRequest(policy_name=policy_name, policy_document=document)
            )
            own[name] = created.policy.arn
            await self._attach(created.policy.arn, made.physical_id)
        for name in set(own) - set(wanted):
            await call.authorize("iam:DeleteRolePolicy", arn)
            await self._drop(made.physical_id, own.pop(name))
        for policy in managed:
            if policy not in made.detail["managed"]:
                await call.authorize("iam:AttachRolePolicy", arn)
                await self._attach(policy, made.physical_id)
                made.detail["managed"].append(policy)
        for policy in [policy for policy in made.detail["managed"] if policy not in managed]:
            await call.authorize("iam:DetachRolePolicy", arn)
            await self._detach(policy, made.physical_id)
            made.detail["managed"].remove(policy)

    async def delete(self, call: Call, made: Made) -> None:
        await call.authorize("iam:DeleteRole", made.attributes["Arn"])
        await self._remove(made)

    async def _remove(self, made: Made) -> None:
        for policy in made.detail["own"].values():
            await self._drop(made.physical_id, policy)
        try:
            await self._identity.DeleteRole(identity_pb2.DeleteRoleRequest(role_name=made.physical_id))
        except NotFound:
            return

    async def _attach(self, policy: str, role: str) -> None:
        await self._identity.AttachPolicy(identity_pb2.AttachPolicyRequest(policy_arn=policy, role_name=role))

    async def _detach(self, policy: str, role: str) -> None:
        try:
            await self._identity.DetachPolicy(identity_pb2.DetachPolicyRequest(policy_arn=policy, role_name=role))
        except NotFound:
            return

    async def _drop(self, role: str, policy: str) -> None:
        await self._detach(policy, role)
        try:
            await self._identity.DeletePolicy(identity_pb2.DeletePolicyRequest(policy_arn=policy))
        except NotFound:
            return


class Alarms:
    """AWS::CloudWatch::Alarm."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._put = AlarmOperations(channel).handlers()["PutMetricAlarm"]
        self._alarms = AlarmsServiceStub(channel)
        shape = load_model("cloudwatch").operations["PutMetricAlarm"].input
        assert shape is not None
        self._shape = shape

    async def make(self, call: Call, name: str, properties: Mapping[str, Any], before: Made | None) -> Made:
        _only(ALARM, properties, set(self._shape.members))
        alarm = str(properties.get("AlarmName") or (before.physical_id if before else name))
        if before is not None and before.physical_id != alarm:
            raise TemplateError(f"{before.physical_id} cannot be renamed: give the alarm another logical name")
        problems = Problems()
        values = read_members(
            self._shape, _typed(self._shape, {**properties, "AlarmName": alarm}, problems), "", problems
        )
        if problems:
            raise TemplateError(f"Properties validation failed: {problems.summary()}")
        await call.authorize("cloudwatch:PutMetricAlarm", alarm_arn(call, alarm))
        await self._put(values, call)
        return Made(ALARM, alarm, {"Arn": alarm_arn(call, alarm)})

    async def delete(self, call: Call, made: Made) -> None:
        await call.authorize("cloudwatch:DeleteAlarms", alarm_arn(call, made.physical_id))
        await self._alarms.DeleteAlarms(logs_metrics_pb2.DeleteAlarmsRequest(names=[made.physical_id]))


def _typed(shape: Shape, value: Any, problems: Problems) -> Any:
    """A template's texts as what the shape has in their place; what is no text stays for the checks to refuse."""
    match shape.type, value:
        case "structure", dict():
            members = shape.members
            return {k: _typed(members[k].shape, v, problems) if k in members else v for k, v in value.items()}
        case "list", list():
            assert shape.element is not None
            return [_typed(shape.element, entry, problems) for entry in value]
        case _, str():
            return scalar_from_text(shape, value, shape.name, problems)
    return value


def _only(kind: str, properties: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(properties) - known):
        raise TemplateError(f"{kind}: {', '.join(unknown)} is not served here")


def _list(properties: Mapping[str, Any], name: str) -> list[Any]:
    found = properties.get(name, [])
    if not isinstance(found, list):
        raise TemplateError(f"Properties validation failed: {name} must be a list")
    return found


def _text(entry: Any, name: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get(name), str):
        raise TemplateError(f"Properties validation failed: {name} is required")
    return str(entry[name])
