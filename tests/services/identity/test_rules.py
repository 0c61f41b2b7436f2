"""Policies and names: pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from services.identity import rules


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: Any, resource: Any = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def deny(action: Any, resource: Any = "*") -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource}


@pytest.mark.parametrize(
    ("policies", "action", "resource", "expected"),
    [
        ([], "panorama:ListDevices", "*", False),
        ([policy(allow("*"))], "panorama:ListDevices", "*", True),
        ([policy(allow("panorama:list*"))], "panorama:ListDevices", "*", True),
        ([policy(allow(["a:B", "panorama:ListDevice?"]))], "panorama:ListDevices", "*", True),
        ([policy(allow("panorama:List"))], "panorama:ListDevices", "*", False),
        ([policy(allow("a:*", "arn:x/*"))], "a:B", "arn:x/y/z", True),
        ([policy(allow("a:*", "arn:x/*"))], "a:B", "arn:X/y", False),
        ([policy(allow("*"), deny("a:Delete*"))], "a:DeleteThing", "*", False),
        ([policy(allow("*")), policy(deny("a:*", "arn:x"))], "a:B", "arn:x", False),
        ([policy(allow("*")), policy(deny("a:*", "arn:x"))], "a:B", "arn:y", True),
        ([{"Statement": allow("a:B")}], "a:B", "*", True),
        ([policy(allow("a:[b]"))], "a:b", "*", False),
    ],
)
def test_deny_wins_then_an_allow_is_needed(
    policies: list[dict[str, Any]], action: str, resource: str, expected: bool
) -> None:
    assert rules.allowed(policies, action, resource) is expected


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"Statement": [allow("a:B") | {"Condition": {}}]}, "Statement[0].Condition"),
        ({"Statement": [{"Effect": "Allow", "NotAction": "a:B", "Resource": "*"}]}, "Statement[0].NotAction"),
        ({"Statement": [allow("a:B"), {"Effect": "Maybe", "Action": "*", "Resource": "*"}]}, "Statement[1].Effect"),
        ({"Statement": [allow(7)]}, "Statement[0].Action"),
        ({"Statement": [{"Effect": "Allow", "Action": "*"}]}, "Statement[0].Resource"),
        ({"Version": "2030-01-01", "Statement": []}, "Version"),
        ({"Statement": "x"}, "Statement"),
        ({"Statement": ["x"]}, "Statement[0]"),
    ],
)
def test_what_a_policy_reader_does_not_know_is_named_and_not_skipped(document: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as caught:
        rules.parse_policy(document)
    assert caught.value.fields[0][0] == place


@given(st.text(max_size=60))
def test_no_principal_or_role_text_crashes_the_reader(text: str) -> None:
    for read in (rules.parse_principal, rules.parse_role_arn):
        try:
            read(text)
        except Invalid:
            continue


def test_a_roles_path_is_not_part_of_its_name() -> None:
    assert rules.parse_role_arn("arn:aws:iam::123456789012:role/service-role/My") == ("123456789012", "My")


def test_the_signing_key_is_that_of_awss_own_example() -> None:
    # "Examples of how to derive a signing key", AWS Signature Version 4.
    key = rules.signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
