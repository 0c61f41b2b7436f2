"""Reading policy documents: everything that is wrong at once, each with its place.

What this reader does not know makes a document invalid, so that no restriction is ever passed over unnoticed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from belvedere import jsontext
from belvedere.chassis.errors import Invalid
from services.identity.policy import conditions
from services.identity.policy.conditions import ARN_PARTS, Condition, Problems, _split_arn
from services.identity.policy.patterns import Context, Pattern

WITH_VARIABLES, WITHOUT_VARIABLES = "2012-10-17", "2008-10-17"
"""Versions of the language; a document without one is of the older."""
TEXT_MAX = 10_240
"""Characters of a document; AWS's largest quota (inline policies of a role)."""
STATEMENTS_MAX = 256
DOCUMENT_PARTS = ("Version", "Id", "Statement")
PERMISSION_PARTS = ("Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition")
TRUST_PARTS = ("Sid", "Effect", "Action", "NotAction", "Principal", "Condition")


@dataclass(frozen=True)
class Some:
    """Which actions or resources a statement is about."""

    patterns: tuple[Pattern, ...]
    but: bool = False
    """All others: NotAction, NotResource."""

    def matches(self, value: str, context: Context) -> bool:
        """Whether it is about `value`."""
        return any(pattern.matches(value, context) for pattern in self.patterns) is not self.but


@dataclass(frozen=True)
class Principals:
    """Whom a trust policy speaks of."""

    accounts: tuple[str, ...] = ()
    """Accounts as a whole."""
    arns: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    anyone: bool = False


@dataclass(frozen=True)
class Statement:
    """One statement."""

    sid: str
    allow: bool
    actions: Some
    resources: Some | None
    """None in trust policies: the role itself."""
    principals: Principals | None
    """None in permission policies: whom it is attached to."""
    conditions: tuple[Condition, ...]

    def condition_keys(self) -> set[str]:
        """The condition keys that it looks at, variables included."""
        somes = [some for some in (self.actions, self.resources) if some is not None]
        patterns = [pattern for some in somes for pattern in some.patterns]
        for condition in self.conditions:
            for value in condition.values:
                patterns += value if isinstance(value, tuple) else [value] if isinstance(value, Pattern) else []
        named = {part.key for p in patterns for part in p.parts or () if not isinstance(part, str) and part.key}
        return named | {condition.key for condition in self.conditions}


@dataclass(frozen=True)
class Policy:
    """A document, read."""

    statements: tuple[Statement, ...]

    def condition_keys(self) -> set[str]:
        """The condition keys that it looks at, in lower case."""
        return {key for statement in self.statements for key in statement.condition_keys()}


def parse_text(text: str) -> Mapping[str, Any]:
    """The JSON of a policy. Raises Invalid."""
    if len(text) > TEXT_MAX:
        _refuse([("PolicyDocument", f"has {len(text)} characters, {TEXT_MAX} is the most")])
    try:
        document = jsontext.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        _refuse([("PolicyDocument", "is nested too deeply")])
    except ValueError as error:
        _refuse([("PolicyDocument", f"is not valid JSON: {error}")])
    if not isinstance(document, dict):
        _refuse([("PolicyDocument", "must be a JSON object")])
    return document


def parse_policy(document: Mapping[str, Any]) -> Policy:
    """A policy for users and roles. Raises Invalid with everything that is wrong."""
    return _parse(document, PERMISSION_PARTS)


def parse_trust(document: Mapping[str, Any]) -> Policy:
    """A role's trust policy: who may use it. Raises Invalid with everything that is wrong."""
    return _parse(document, TRUST_PARTS)


def _parse(document: Mapping[str, Any], parts: tuple[str, ...]) -> Policy:
    problems: Problems = []
    for name in document:
        if name not in DOCUMENT_PARTS:
            problems.append((str(name), f"is not part of a policy: {', '.join(DOCUMENT_PARTS)}"))
    version = document.get("Version", WITHOUT_VARIABLES)
    if version not in (WITH_VARIABLES, WITHOUT_VARIABLES):
        problems.append(("Version", f"must be {WITH_VARIABLES}"))
    statements = document.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if not isinstance(statements, list) or not 0 < len(statements) <= STATEMENTS_MAX:
        problems.append(("Statement", f"must be a statement or a list of 1 to {STATEMENTS_MAX} statements"))
        statements = []
    found, sids = [], set()
    for index, item in enumerate(statements):
        place = f"Statement[{index}]"
        statement = _statement(place, item, parts, version == WITH_VARIABLES, problems)
        if statement is None:
            continue
        if statement.sid and statement.sid in sids:
            problems.append((f"{place}.Sid", f"{statement.sid!r} is used twice"))
        sids.add(statement.sid)
        found.append(statement)
    if problems:
        _refuse(problems)
    return Policy(tuple(found))


def _statement(place: str, item: Any, parts: tuple[str, ...], variables: bool, problems: Problems) -> Statement | None:
    if not isinstance(item, Mapping):
        problems.append((place, "must be an object"))
        return None
    for name in item:
        if name not in parts:
            problems.append((f"{place}.{name}", f"is not known here: {', '.join(parts)}"))
    sid = item.get("Sid", "")
    if not isinstance(sid, str):
        problems.append((f"{place}.Sid", "must be a text"))
        sid = ""
    if item.get("Effect") not in ("Allow", "Deny"):
        problems.append((f"{place}.Effect", "must be Allow or Deny"))
    actions = _some(place, item, "Action", _action, variables, problems)
    trust = parts is TRUST_PARTS
    resources = None if trust else _some(place, item, "Resource", _resource, variables, problems)
    principals = _principals(f"{place}.Principal", item.get("Principal"), problems) if trust else None
    found: tuple[Condition, ...] = ()
    if "Condition" in item:
        found = conditions.parse(f"{place}.Condition", item["Condition"], variables, problems)
    return Statement(sid, item.get("Effect") == "Allow", actions, resources, principals, found)


def _some(place: str, item: Mapping[str, Any], name: str, read: Any, variables: bool, problems: Problems) -> Some:
    """Of Action or NotAction, Resource or NotResource: exactly one must be there."""
    given = [key for key in (name, f"Not{name}") if key in item]
    if len(given) != 1:
        problems.append((f"{place}.{name}", f"one of {name} and Not{name} is needed"))
        return Some(())
    at = f"{place}.{given[0]}"
    patterns = []
    for text in _texts(at, item[given[0]], problems):
        try:
            patterns.append(read(text, variables))
        except ValueError as error:
            problems.append((at, f"{error}, not {text[:80]!r}"))
    return Some(tuple(patterns), but=given[0] != name)


def _texts(place: str, value: Any, problems: Problems) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(text, str) and text for text in values):
        problems.append((place, "must be a text or a list of texts"))
        return []
    return list(values)


def _action(text: str, variables: bool) -> Pattern:
    service, colon, operation = text.partition(":")
    if text != "*" and not (colon and service and operation):
        raise ValueError('must be "*" or <service>:<operation>, such as panorama:Describe*')
    return Pattern.of(text.lower(), False)


def _resource(text: str, variables: bool) -> Pattern:
    # The last part may hold colons of its own; a "*" at the end stands for all that follow.
    if not text.startswith(("arn:", "*")) or (len(_split_arn(text)) < ARN_PARTS and not text.endswith("*")):
        raise ValueError('must be "*" or an ARN, such as arn:aws:panorama:*:*:device/*')
    return Pattern.of(text, variables)


def _principals(place: str, item: Any, problems: Problems) -> Principals:
    if item == "*":
        return Principals(anyone=True)
    if not isinstance(item, Mapping) or not item:
        problems.append((place, 'must be {"Service": "panorama.amazonaws.com"} or {"AWS": "<ARN or account>"}'))
        return Principals()
    accounts, arns, services, anyone = [], [], [], False
    for kind, value in item.items():
        at = f"{place}.{kind}"
        if kind not in ("AWS", "Service"):
            problems.append((at, "is not known here: AWS and Service are"))
            continue
        for text in _texts(at, value, problems):
            if kind == "Service":
                services.append(text)
            elif text == "*":
                anyone = True
            elif text.isascii() and text.isdigit() and len(text) == 12:
                accounts.append(text)
            elif account := _root(text):
                accounts.append(account)
            elif (
                text.startswith(("arn:aws:iam::", "arn:aws:sts::")) and len(text.split(":", 5)) == 6 and "*" not in text
            ):
                arns.append(text)
            else:
                problems.append(
                    (at, f"must be an account, a user's or a role's ARN, without wildcards, not {text[:80]!r}")
                )
    return Principals(tuple(accounts), tuple(arns), tuple(services), anyone)


def _root(text: str) -> str:
    """The account of `arn:aws:iam::<account>:root`."""
    parts = text.split(":")
    is_root = len(parts) == 6 and parts[:3] == ["arn", "aws", "iam"] and parts[5] == "root"
    return parts[4] if is_root and parts[4].isdigit() else ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        # One of two would be passed over: which one is anybody's guess.
        raise ValueError(f"{twice!r} stands twice in one object")
    return found


def _refuse(problems: Problems) -> NoReturn:
    text = "; ".join(f"{place}: {what}" for place, what in problems)
    raise Invalid(f"The policy is not valid: {text}", problems)
