"""What identity decides besides policies (`policy/`). Pure: names, ARNs, signing keys, quotas; no I/O, no clock, no randomness."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from belvedere.chassis.errors import Invalid
from belvedere.chassis.ids import parse_arn
from services.identity.policy import Decision, Trust

ADMINISTRATOR = "admin"
APPLICATION_ROLE = "BelvedereApplication"
PANORAMA = "panorama.amazonaws.com"
ASSUME_ROLE, PASS_ROLE = "sts:AssumeRole", "iam:PassRole"
LOGIN = "signin:ConsoleLogin"
ALWAYS_ALLOWED = frozenset({"sts:GetCallerIdentity"})
"""Whatever policies say, as in AWS: it tells a caller no more than he has proved."""
SESSION_MIN_S, SESSION_MAX_S, SESSION_DEFAULT_S = 900, 43200, 3600
SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
TOKEN_MIN_S, TOKEN_MAX_S, TOKEN_DEFAULT_S = 60, 365 * 86400, 12 * 3600

PRINCIPALS_KEPT = 1024
"""ARNs that are not taken apart again: the same few call all day."""

# AWS's quotas.
MAX_ACCESS_KEYS = 2  # a user: one in use, one to change over to
MAX_USERS, MAX_ROLES, MAX_POLICIES = 5000, 1000, 1500
MAX_ATTACHED = 10  # policies a user or role

_NAMES = {"user": 64, "role": 64, "policy": 128}
_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]+")


class Kind(Enum):
    """Who a principal is."""

    USER = "user"
    ROLE = "role"
    """A session of it."""
    SERVICE = "service"
    """A service of ours that acts by itself."""


@dataclass(frozen=True)
class Principal:
    """A principal's ARN, taken apart."""

    arn: str
    kind: Kind
    account: str
    """"aws" for services."""
    name: str
    """The user's, the role's or the service's."""

    @property
    def names(self) -> tuple[str, ...]:
        """The ARNs by which a trust policy may name it."""
        return (self.arn, role_arn(self.account, self.name)) if self.kind is Kind.ROLE else (self.arn,)

    @property
    def holder_arn(self) -> str:
        """`aws:PrincipalArn`: a session's is its role's."""
        return self.names[-1]


def check_name(kind: str, name: str) -> None:
    """Raises Invalid for what is no name of a user, role or policy."""
    if not _NAME.fullmatch(name) or len(name) > _NAMES[kind]:
        field = {"user": "UserName", "role": "RoleName", "policy": "PolicyName"}[kind]
        text = f"1 to {_NAMES[kind]} letters, digits and _+=,.@-"
        raise Invalid(f"{name[:80]!r} is no name of a {kind}: {text}.", [(field, text)])


def refusal(principal: str, action: str, resource: str, why: str = "") -> str:
    """AWS's words for a denied request."""
    return f"User: {principal} is not authorized to perform: {action} on resource: {resource}{why and ' '}{why}"


def why_not(decision: Decision, action: str) -> str:
    """The end of AWS's words, of a principal's own policies."""
    if decision is Decision.DENIED:
        return "with an explicit deny in an identity-based policy"
    return f"because no identity-based policy allows the {action} action"


def may_assume(own: Decision, trust: Trust) -> str:
    """ "" where a role may be assumed, else the end of the refusal: a deny anywhere wins; who is named needs nothing else."""
    if own is Decision.DENIED:
        return why_not(own, ASSUME_ROLE)
    if trust is Trust.DENIED:
        return "with an explicit deny in a resource-based policy"
    if trust is Trust.NAMED or (trust is Trust.ACCOUNT and own is Decision.ALLOWED):
        return ""
    if trust is Trust.ACCOUNT:
        return why_not(own, ASSUME_ROLE)
    return f"because no resource-based policy allows the {ASSUME_ROLE} action"


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key that signs requests of one day, region and service (Signature Version 4, "Calculate the signing key")."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


UNPROVEN = "unproven"
"""In the place of a principal in the audit trail: nobody, or `unproven/<access key>`, which was named but not proven."""


def user_arn(account: str, name: str) -> str:
    """A user's ARN."""
    return f"arn:aws:iam::{account}:user/{name}"


def role_arn(account: str, name: str) -> str:
    """A role's ARN."""
    return f"arn:aws:iam::{account}:role/{name}"


def session_arn(account: str, role: str, session: str) -> str:
    """The ARN of a role in use."""
    return f"arn:aws:sts::{account}:assumed-role/{role}/{session}"


def parse_role_arn(text: str) -> tuple[str, str]:
    """(account, role name) of a role's ARN; the role's path is not part of its name. Raises Invalid."""
    parsed = parse_arn(text)
    if parsed.service != "iam" or parsed.resource_type != "role" or not parsed.account.isdigit():
        raise Invalid(f"{text!r} is not the ARN of a role", [("RoleArn", "must be arn:aws:iam::<account>:role/<name>")])
    return parsed.account, parsed.resource.rsplit("/", 1)[1]


def policy_arn(account: str, name: str) -> str:
    """The ARN of a policy of an account's own."""
    return f"arn:aws:iam::{account}:policy/{name}"


def parse_policy_arn(text: str, account: str) -> str:
    """The name of a policy of this account. Raises Invalid."""
    prefix = policy_arn(account, "")
    if not text.startswith(prefix):
        expected = f"arn:aws:iam::{account}:policy/<name> or arn:aws:iam::aws:policy/<name>"
        raise Invalid(f"{text!r} is not the ARN of a policy of this account.", [("PolicyArn", f"must be {expected}")])
    check_name("policy", text.removeprefix(prefix))
    return text.removeprefix(prefix)


@lru_cache(PRINCIPALS_KEPT)
def parse_principal(text: str) -> Principal:
    """Raises Invalid for what is no principal's ARN."""
    parsed = parse_arn(text)
    if parsed.service == "iam" and parsed.resource_type == "user":
        return Principal(text, Kind.USER, parsed.account, parsed.resource.rsplit("/", 1)[1])
    if parsed.service == "sts" and parsed.resource_type == "assumed-role":
        return Principal(text, Kind.ROLE, parsed.account, parsed.resource_id.partition("/")[0])
    if parsed.service == "iam" and parsed.account == "aws" and parsed.resource_type == "service":
        return Principal(text, Kind.SERVICE, parsed.account, parsed.resource_id)
    raise Invalid(f"{text!r} is neither a user nor a role session", [("Principal", "is not a principal")])


def check_session(name: str, duration_s: int) -> int:
    """The duration to use, 0 meaning the default. Raises Invalid as STS does."""
    fields = []
    if not SESSION_NAME.fullmatch(name):
        fields.append(("RoleSessionName", "2 to 64 characters: letters, digits and _+=,.@-"))
    duration_s = duration_s or SESSION_DEFAULT_S
    if not SESSION_MIN_S <= duration_s <= SESSION_MAX_S:
        fields.append(("DurationSeconds", f"must lie between {SESSION_MIN_S} and {SESSION_MAX_S}"))
    if fields:
        raise Invalid("; ".join(f"{path}: {text}" for path, text in fields), fields)
    return duration_s


def check_token(duration_s: int) -> int:
    """How long a bearer token lasts, 0 meaning the default. Raises Invalid."""
    duration_s = duration_s or TOKEN_DEFAULT_S
    if not TOKEN_MIN_S <= duration_s <= TOKEN_MAX_S:
        text = f"must lie between {TOKEN_MIN_S} and {TOKEN_MAX_S}"
        raise Invalid(f"DurationSeconds: {text}", [("DurationSeconds", text)])
    return duration_s


def unknown_role(arn: str, account: str) -> str:
    """What is said of a role that is not there."""
    return f"There is no role {arn}. For an application use {role_arn(account, APPLICATION_ROLE)}."
