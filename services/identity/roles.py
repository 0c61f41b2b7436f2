"""Policies, whom they are attached to, and roles: the handlers."""

from __future__ import annotations

import json
from typing import Any

from belvedere.chassis.context import caller
from belvedere.chassis.errors import Conflict, Invalid, NotFound, QuotaExceeded
from belvedere.v1 import identity_pb2 as pb
from services.identity import events, rules, store
from services.identity.administration import Administration, found_policy, found_role, found_user
from services.identity.policy import parse_policy, parse_text, parse_trust
from services.identity.policy.managed import DOCUMENTS, application_trust
from services.identity.store import AttachmentRow, PolicyRow, RoleRow
from services.identity.vault import unique_id


class RoleHandlers(Administration):
    """A part of IdentityService."""

    async def CreatePolicy(self, request: pb.CreatePolicyRequest, context: Any) -> pb.CreatePolicyResponse:
        account, name, now = caller().account, request.policy_name, self._clock()
        rules.check_name("policy", name)
        document = parse_text(request.policy_document)
        parse_policy(document)
        arn = rules.policy_arn(account, name)
        row = PolicyRow(account=account, name=name, document=dict(document), created=now, updated=now)
        async with self._change("iam:CreatePolicy", arn, events.POLICY_CHANGED, arn) as session:
            if await session.get(PolicyRow, (account, name)) is not None:
                raise Conflict("POLICY", arn, f"There is a policy {name!r} already: change it, or choose another name.")
            if await store.count_of(session, PolicyRow, account) >= rules.MAX_POLICIES:
                raise QuotaExceeded("PoliciesPerAccount", f"The account has {rules.MAX_POLICIES} policies already.")
            session.add(row)
        return pb.CreatePolicyResponse(policy=_policy(row, 0))

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, context: Any) -> pb.UpdatePolicyResponse:
        account, arn = caller().account, request.policy_arn
        document = parse_text(request.policy_document)
        parse_policy(document)
        async with self._change("iam:UpdatePolicy", arn, events.POLICY_CHANGED, arn) as session:
            row = await found_policy(session, account, arn)
            if row is None:
                raise Conflict("POLICY", arn, f"{arn} is always the same: make a policy of your own.")
            row.document, row.updated = dict(document), self._clock()
            session.add(row)
            holders = len(await store.holders(session, account, arn))
        return pb.UpdatePolicyResponse(policy=_policy(row, holders))

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.GetPolicyResponse:
        account, arn = caller().account, request.policy_arn
        async with self._database.session(read_only=True) as session:
            row = await found_policy(session, account, arn)
            holders = await store.holders(session, account, arn)
        makers = {"user": rules.user_arn, "role": rules.role_arn}
        return pb.GetPolicyResponse(
            policy=_managed(arn, len(holders)) if row is None else _policy(row, len(holders)),
            policy_document=json.dumps(DOCUMENTS[arn] if row is None else row.document, indent=2, ensure_ascii=False),
            attached_to=[makers[holder.kind](account, holder.name) for holder in holders],
        )

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        account = caller().account
        async with self._database.session(read_only=True) as session:
            rows = await store.all_of(session, PolicyRow, account)
            attached = await store.attachments(session, account)
        counts: dict[str, int] = {}
        for arn in (arn for arns in attached.values() for arn in arns):
            counts[arn] = counts.get(arn, 0) + 1
        always = [_managed(arn, counts.get(arn, 0)) for arn in DOCUMENTS]
        own = [_policy(row, counts.get(rules.policy_arn(account, row.name), 0)) for row in rows]
        return pb.ListPoliciesResponse(policies=[*always, *own])

    async def DeletePolicy(self, request: pb.DeletePolicyRequest, context: Any) -> pb.DeletePolicyResponse:
        account, arn = caller().account, request.policy_arn
        async with self._change("iam:DeletePolicy", arn, events.POLICY_CHANGED, arn) as session:
            row = await found_policy(session, account, arn)
            if row is None:
                raise Conflict("POLICY", arn, f"{arn} is always there.")
            if holders := await store.holders(session, account, arn):
                names = ", ".join(f"{holder.kind} {holder.name}" for holder in holders[:5])
                raise Conflict("POLICY", arn, f"The policy is attached to {names}: detach it first.")
            await session.delete(row)
        return pb.DeletePolicyResponse()

    async def AttachPolicy(self, request: pb.AttachPolicyRequest, context: Any) -> pb.AttachPolicyResponse:
        account, arn = caller().account, request.policy_arn
        kind, name, holder = _holder(request, account)
        action = f"iam:Attach{kind.capitalize()}Policy"
        async with self._change(action, holder, events.POLICY_CHANGED, holder) as session:
            await (found_user if kind == "user" else found_role)(session, account, name)
            await found_policy(session, account, arn)
            present = await store.attached(session, account, kind, name)
            if arn not in present:
                if len(present) >= rules.MAX_ATTACHED:
                    raise QuotaExceeded(
                        "AttachedPolicies", f"{name} has {rules.MAX_ATTACHED} policies already: put them together."
                    )
                session.add(AttachmentRow(account=account, kind=kind, name=name, policy_arn=arn, position=len(present)))
        return pb.AttachPolicyResponse()

    async def DetachPolicy(self, request: pb.DetachPolicyRequest, context: Any) -> pb.DetachPolicyResponse:
        account, arn = caller().account, request.policy_arn
        kind, name, holder = _holder(request, account)
        action = f"iam:Detach{kind.capitalize()}Policy"
        async with self._change(action, holder, events.POLICY_CHANGED, holder) as session:
            row = await session.get(AttachmentRow, (account, kind, name, arn))
            if row is None:
                raise NotFound("POLICY", arn, f"{kind.capitalize()} {name!r} does not have the policy {arn}.")
            await session.delete(row)
        return pb.DetachPolicyResponse()

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Any) -> pb.CreateRoleResponse:
        account, name = caller().account, request.role_name
        rules.check_name("role", name)
        trust = _trust(request.assume_role_policy_document) or application_trust(account)
        arn = rules.role_arn(account, name)
        row = RoleRow(account=account, name=name, role_id=unique_id("AROA", 17), trust=trust, created=self._clock())
        async with self._change("iam:CreateRole", arn, events.POLICY_CHANGED, arn) as session:
            if await session.get(RoleRow, (account, name)) is not None:
                raise Conflict("ROLE", name, f"There is a role {name!r} already.")
            if await store.count_of(session, RoleRow, account) >= rules.MAX_ROLES:
                raise QuotaExceeded("RolesPerAccount", f"The account has {rules.MAX_ROLES} roles already.")
            session.add(row)
        return pb.CreateRoleResponse(role=_role(row, []))

    async def UpdateAssumeRolePolicy(
        self, request: pb.UpdateAssumeRolePolicyRequest, context: Any
    ) -> pb.UpdateAssumeRolePolicyResponse:
        account, arn = caller().account, rules.role_arn(caller().account, request.role_name)
        trust = _trust(request.policy_document or "null")
        async with self._change("iam:UpdateAssumeRolePolicy", arn, events.POLICY_CHANGED, arn) as session:
            row = await found_role(session, account, request.role_name)
            row.trust = trust
            session.add(row)
            attached = await store.attached(session, account, "role", row.name)
        return pb.UpdateAssumeRolePolicyResponse(role=_role(row, attached))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Any) -> pb.ListRolesResponse:
        account = caller().account
        async with self._database.session(read_only=True) as session:
            rows = await store.all_of(session, RoleRow, account)
            attached = await store.attachments(session, account)
        return pb.ListRolesResponse(roles=[_role(row, attached.get(("role", row.name), [])) for row in rows])

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Any) -> pb.DeleteRoleResponse:
        account, name = caller().account, request.role_name
        arn = rules.role_arn(account, name)
        async with self._change("iam:DeleteRole", arn, events.POLICY_CHANGED, arn) as session:
            row = await found_role(session, account, name)
            await store.delete_holder(session, account, "role", name)
            await session.delete(row)
        return pb.DeleteRoleResponse()


def _trust(text: str) -> dict[str, Any]:
    """The trust policy in a text; empty for an empty one. Raises Invalid."""
    if not text:
        return {}
    document = parse_text(text)
    parse_trust(document)
    return dict(document)


def _holder(request: pb.AttachPolicyRequest | pb.DetachPolicyRequest, account: str) -> tuple[str, str, str]:
    """("user" or "role", name, ARN). Raises Invalid where neither is named."""
    match request.WhichOneof("holder"):
        case "user_name":
            return "user", request.user_name, rules.user_arn(account, request.user_name)
        case "role_name":
            return "role", request.role_name, rules.role_arn(account, request.role_name)
    raise Invalid("Name the user or the role.", [("UserName", "or RoleName is required")])


def _policy(row: PolicyRow, attachments: int) -> pb.Policy:
    policy = pb.Policy(name=row.name, arn=rules.policy_arn(row.account, row.name), attachments=attachments)
    policy.created_time.FromDatetime(row.created)
    policy.updated_time.FromDatetime(row.updated)
    return policy


def _managed(arn: str, attachments: int) -> pb.Policy:
    return pb.Policy(name=arn.rpartition("/")[2], arn=arn, attachments=attachments)


def _role(row: RoleRow, policies: list[str]) -> pb.Role:
    role = pb.Role(
        name=row.name,
        arn=rules.role_arn(row.account, row.name),
        role_id=row.role_id,
        policy_arns=policies,
        assume_role_policy_document=json.dumps(row.trust, indent=2, ensure_ascii=False),
    )
    role.created_time.FromDatetime(row.created)
    return role
