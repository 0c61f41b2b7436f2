"""What identity decides. Pure: policies, ARNs, signing keys; no I/O, no clock, no randomness.

Policies are AWS's JSON documents. An explicit Deny wins, then an Allow is needed; `*` and `?` are wildcards; actions are
compared without regard to case. What this reader does not know makes a document invalid, so that a condition is never
skipped unnoticed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from belvedere.chassis.errors import Invalid
from belvedere.chassis.ids import parse_arn

ADMINISTRATOR = "admin"
APPLICATION_ROLE = "BelvedereApplication"
MAX_ACCESS_KEYS = 2  # AWS's limit: one in use, one to change over to
SESSION_MIN_S, SESSION_MAX_S, SESSION_DEFAULT_S = 900, 43200, 3600
SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
VERSIONS = ("2012-10-17", "2008-10-17")
STATEMENT_PARTS = {"Sid", "Effect", "Action", "Resource"}

ADMINISTRATOR_POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
# What applications written for AWS Panorama do with their role: metrics, logs, and finding out who they are.
APPLICATION_POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "cloudwatch:PutMetricData",
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "panorama:List*",
                "panorama:Describe*",
            ],
            "Resource": "*",
        }
    ],
}


@dataclass(frozen=True)
class Statement:
    """One statement of a policy."""

    allow: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]


def parse_policy(document: Mapping[str, Any]) -> tuple[Statement, ...]:
    """The statements of a policy document. Raises Invalid that names the place."""
    if document.get("Version", VERSIONS[0]) not in VERSIONS:
        raise Invalid("Version: 2012-10-17 is expected", [("Version", "must be 2012-10-17")])
    statements = document.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list):
        raise Invalid("Statement: a list is expected", [("Statement", "must be a list")])
    return tuple(_statement(f"Statement[{index}]", item) for index, item in enumerate(statements))


def _statement(path: str, item: Any) -> Statement:
    if not isinstance(item, Mapping):
        raise Invalid(f"{path}: an object is expected", [(path, "must be an object")])
    unknown = sorted(set(item) - STATEMENT_PARTS)
    if unknown:
        raise Invalid(f"{path}: {unknown[0]} is not supported", [(f"{path}.{unknown[0]}", "is not supported")])
    if item.get("Effect") not in ("Allow", "Deny"):
        raise Invalid(f"{path}.Effect: Allow or Deny is expected", [(f"{path}.Effect", "must be Allow or Deny")])
    return Statement(item["Effect"] == "Allow", _texts(path, item, "Action"), _texts(path, item, "Resource"))


def _texts(path: str, item: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = item.get(name)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(text, str) for text in values):
        place = f"{path}.{name}"
        raise Invalid(f"{place}: a text or a list of texts is expected", [(place, "must be a text or a list of texts")])
    return tuple(values)


def allowed(policies: Iterable[Mapping[str, Any]], action: str, resource: str) -> bool:
    """Whether the policies together allow it. A document that cannot be read allows nothing: Invalid."""
    decision = False
    for document in policies:
        for statement in parse_policy(document):
            if _matches(statement, action, resource):
                if not statement.allow:
                    return False
                decision = True
    return decision


def _matches(statement: Statement, action: str, resource: str) -> bool:
    return any(_pattern(text.lower()).match(action.lower()) for text in statement.actions) and any(
        _pattern(text).match(resource) for text in statement.resources
    )


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(letter, re.escape(letter)) for letter in text) + r"\Z", re.DOTALL)


def refusal(principal: str, action: str, resource: str) -> str:
    """AWS's words for a denied request."""
    return f"User: {principal} is not authorized to perform: {action} on resource: {resource}"


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The key that signs requests of one day, region and service (Signature Version 4, "Calculate the signing key")."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


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


def parse_principal(text: str) -> tuple[str, str, str]:
    """("user" or "role", account, name) of a principal's ARN. Raises Invalid."""
    parsed = parse_arn(text)
    if parsed.service == "iam" and parsed.resource_type == "user":
        return "user", parsed.account, parsed.resource.rsplit("/", 1)[1]
    if parsed.service == "sts" and parsed.resource_type == "assumed-role":
        return "role", parsed.account, parsed.resource_id.partition("/")[0]
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


def unknown_role(arn: str, account: str) -> str:
    """What is said of a role that is not there."""
    return f"There is no role {arn}. For an application use {role_arn(account, APPLICATION_ROLE)}."
