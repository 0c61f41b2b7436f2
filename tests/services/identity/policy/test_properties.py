"""Policies of any shape: reading never crashes, a statement more that denies never allows more."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from services.identity.policy import (
    OPERATORS,
    Decision,
    Policy,
    Request,
    Trust,
    decide,
    parse_policy,
    parse_trust,
    trusts,
)
from services.identity.policy.patterns import Pattern

ACTIONS = st.sampled_from(["*", "a:*", "a:Get*", "a:GetThing", "b:Put?hing", "b:PutThing"])
RESOURCES = st.sampled_from(
    ["*", "arn:aws:a:::x", "arn:aws:a:::*", "arn:aws:a:::${aws:username}", "arn:aws:a:::y/${k, 'd'}"]
)
KEYS = st.sampled_from(["aws:username", "aws:SourceIp", "k", "aws:TagKeys"])
VALUES = st.sampled_from(["ada", "a*", "10.0.0.0/8", "10.1.1.1", "true", "7", "2026-01-01T00:00:00Z", "arn:aws:a:::x"])
NAMES = st.builds(
    lambda front, name, end: front + name + end,
    st.sampled_from(["", "ForAnyValue:", "ForAllValues:"]),
    st.sampled_from(sorted(OPERATORS)),
    st.sampled_from(["", "IfExists"]),
)
CONDITIONS = st.dictionaries(NAMES | st.just("Null"), st.dictionaries(KEYS, VALUES, min_size=1, max_size=2), max_size=2)


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "Effect": draw(st.sampled_from(["Allow", "Deny"])),
        draw(st.sampled_from(["Action", "NotAction"])): draw(st.lists(ACTIONS, min_size=1, max_size=2)),
        draw(st.sampled_from(["Resource", "NotResource"])): draw(RESOURCES),
        **draw(st.fixed_dictionaries({}, optional={"Condition": CONDITIONS})),
    }


DOCUMENTS = st.builds(
    lambda version, found: {"Version": version, "Statement": found},
    st.sampled_from(["2012-10-17", "2008-10-17"]),
    st.lists(statements(), min_size=1, max_size=3),
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["a:GetThing", "b:PutThing", "c:Other"]),
    st.sampled_from(["*", "arn:aws:a:::x", "arn:aws:a:::ada", "arn:aws:a:::y/d"]),
    st.dictionaries(
        st.sampled_from(["aws:username", "aws:sourceip", "k", "aws:tagkeys"]), st.lists(VALUES, max_size=2).map(tuple)
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | VALUES | ACTIONS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=6)
            | NAMES
            | st.sampled_from(
                ["Statement", "Effect", "Action", "Resource", "Condition", "Principal", "AWS", "Service", "Version"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=16,
)


def read(document: dict[str, Any]) -> Policy | None:
    try:
        return parse_policy(document)
    except Invalid as error:
        assert error.fields and all(text for _, text in error.fields)
        return None


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["Statement", "Version"]), JSON, max_size=3))
def test_no_document_crashes_the_reader(document: dict[str, Any]) -> None:
    read(document)
    try:
        parse_trust(document)
    except Invalid as error:
        assert error.fields


@settings(max_examples=300)
@given(st.lists(DOCUMENTS, max_size=3), statements(), REQUESTS)
def test_a_deny_more_never_allows_more(
    documents: list[dict[str, Any]], extra: dict[str, Any], request: Request
) -> None:
    policies = [found for document in documents if (found := read(document)) is not None]
    denying = read({"Version": "2012-10-17", "Statement": {**extra, "Effect": "Deny"}})
    before = decide(policies, request)
    if denying is None:
        return
    for order in ([*policies, denying], [denying, *policies]):
        after = decide(order, request)
        assert after is before or after is Decision.DENIED
        assert not (after is Decision.ALLOWED and before is not Decision.ALLOWED)


@settings(max_examples=200)
@given(st.lists(DOCUMENTS, max_size=3), REQUESTS)
def test_the_order_of_policies_does_not_matter(documents: list[dict[str, Any]], request: Request) -> None:
    policies = [found for document in documents if (found := read(document)) is not None]
    assert decide(policies, request) is decide(policies[::-1], request)


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_wildcards_match_as_the_plainest_expression_says(pattern: str, value: str) -> None:
    expression = pattern.replace("*", ".*").replace("?", ".")
    assert Pattern.of(pattern, False).matches(value, {}) is (re.fullmatch(expression, value) is not None)


@given(st.text(max_size=20))
def test_a_variables_value_is_taken_letter_by_letter(value: str) -> None:
    pattern = Pattern.of("x/${aws:username}/y", True)
    assert pattern.matches(f"x/{value}/y", {"aws:username": (value,)})
    assert not pattern.matches(f"x/{value}z/y", {"aws:username": (value,)})


def test_a_trust_policy_names_trusts_an_account_or_nobody() -> None:
    policy = parse_trust(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": ["123456789012", "arn:aws:iam::123456789012:user/ada"], "Service": "a.b"},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringNotEquals": {"aws:SourceAccount": "999999999999"}},
                },
                {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::123456789012:user/eve"}, "Action": "sts:*"},
            ],
        }
    )

    def asked(name: str = "", account: str = "123456789012", service: str = "", source: str = "123456789012") -> Trust:
        arns = [f"arn:aws:iam::{account}:user/{name}"] if name else []
        return trusts(
            policy,
            action="sts:AssumeRole",
            arns=arns,
            account=account,
            service=service,
            context={"aws:sourceaccount": (source,)},
        )

    assert asked("ada") is Trust.NAMED
    assert asked("bob") is Trust.ACCOUNT
    assert asked("eve") is Trust.DENIED
    assert asked("ada", account="111111111111") is Trust.NOT
    assert asked(service="a.b") is Trust.NAMED
    assert asked(service="a.b", source="999999999999") is Trust.NOT
    assert asked(service="c.d") is Trust.NOT
