"""Names, ARNs, keys and the words of refusals: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from services.identity import rules
from services.identity.policy import Decision, Trust


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


@pytest.mark.parametrize(
    ("own", "trust", "end"),
    [
        (Decision.NOTHING_ALLOWS, Trust.NAMED, ""),
        (Decision.ALLOWED, Trust.ACCOUNT, ""),
        (Decision.NOTHING_ALLOWS, Trust.ACCOUNT, "because no identity-based policy allows the sts:AssumeRole action"),
        (Decision.ALLOWED, Trust.NOT, "because no resource-based policy allows the sts:AssumeRole action"),
        (Decision.ALLOWED, Trust.DENIED, "with an explicit deny in a resource-based policy"),
        (Decision.DENIED, Trust.NAMED, "with an explicit deny in an identity-based policy"),
    ],
)
def test_a_role_is_for_whom_it_names_and_for_whom_account_and_policies_let(
    own: Decision, trust: Trust, end: str
) -> None:
    assert rules.may_assume(own, trust) == end


def test_a_principal_is_known_by_its_own_arn_and_its_roles() -> None:
    session = rules.parse_principal("arn:aws:sts::123456789012:assumed-role/My/one")
    assert session.names == (session.arn, "arn:aws:iam::123456789012:role/My")
    user = rules.parse_principal("arn:aws:iam::123456789012:user/ada")
    assert user.names == (user.holder_arn,) == (user.arn,)


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "a/b", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="letters, digits"):
        rules.check_name("user", name)
