"""What policies together say of a request. Pure.

An explicit Deny wins, then an Allow is needed. A role's trust policy decides who may use the role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.identity.policy.document import Policy, Principals
from services.identity.policy.patterns import Context


class Decision(Enum):
    """What was found."""

    ALLOWED = "allowed"
    NOTHING_ALLOWS = "nothing allows"
    DENIED = "denied"
    """By a statement that says so."""


@dataclass(frozen=True)
class Request:
    """What somebody wants to do."""

    action: str
    resource: str
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By condition key in lower case."""


class Trust(Enum):
    """What a trust policy says of somebody."""

    NAMED = "named"
    """It names him, or the service: nothing else is needed."""
    ACCOUNT = "account"
    """It trusts his account (or anyone): a policy of his own must allow it besides."""
    NOT = "not trusted"
    DENIED = "denied"


def decide(policies: Iterable[Policy], request: Request) -> Decision:
    """The decision over all policies of a principal."""
    action, found = request.action.lower(), Decision.NOTHING_ALLOWS
    for policy in policies:
        for statement in policy.statements:
            if statement.allow and found is Decision.ALLOWED:
                continue
            if (
                statement.actions.matches(action, request.context)
                and (statement.resources is None or statement.resources.matches(request.resource, request.context))
                and all(condition.holds(request.context) for condition in statement.conditions)
            ):
                if not statement.allow:
                    return Decision.DENIED
                found = Decision.ALLOWED
    return found


def trusts(policy: Policy, *, action: str, arns: Sequence[str], account: str, service: str, context: Context) -> Trust:
    """What a role's trust policy says of a principal: `arns` that he goes by (a session: its own and its role's) in `account`,
    or a `service` such as panorama.amazonaws.com."""
    found = Trust.NOT
    for statement in policy.statements:
        assert statement.principals is not None
        match = _meant(statement.principals, arns, account, service)
        if match is Trust.NOT or not statement.actions.matches(action.lower(), context):
            continue
        if not all(condition.holds(context) for condition in statement.conditions):
            continue
        if not statement.allow:
            return Trust.DENIED
        if found is not Trust.NAMED:
            found = match
    return found


def _meant(principals: Principals, arns: Sequence[str], account: str, service: str) -> Trust:
    if service:
        return Trust.NAMED if service in principals.services else Trust.NOT
    if any(arn in principals.arns for arn in arns):
        return Trust.NAMED
    return Trust.ACCOUNT if principals.anyone or account in principals.accounts else Trust.NOT
