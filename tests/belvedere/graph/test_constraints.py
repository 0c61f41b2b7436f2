"""constraintRegex: somebody else's regular expressions on somebody else's values."""

from __future__ import annotations

import pytest

from belvedere.graph._reading import is_expression, meets


@pytest.mark.parametrize(
    ("pattern", "value", "met"),
    [
        ("^[0-9]+$", 12, True),
        ("[0-9]+", "12a", False),
        (r"0\.[0-9]", 0.5, True),
        ("true|false", True, True),
        ("", "", True),
        ("(", "what is no expression constrains nothing", True),
    ],
)
def test_the_whole_value_must_match(pattern: str, value: bool | int | float | str, met: bool) -> None:
    assert meets(pattern, value) is met


def test_an_expression_made_to_take_for_ever_is_not_met_and_ends() -> None:
    assert is_expression(r"(a|aa)+$")
    assert meets(r"^(?:(a|aa)+)+$", "a" * 200 + "!") is False
