"""Filter patterns of CloudWatch Logs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from services.logs_metrics.patterns import compile_pattern

LINE = "[ERROR 400] page 'a.b' not found, user=7"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", True),
        ("   ", True),
        ("ERROR", True),
        ("error", False),
        ("ERROR 400", True),
        ("400 ERROR", True),
        ("ERROR 500", False),
        ('"not found"', True),
        ('"found not"', False),
        ('"user=7"', True),
        ("ERROR -timeout", True),
        ("ERROR -page", False),
        ('-"not found"', False),
        ("-timeout", True),
        ("?WARN ?ERROR", True),
        ("?WARN ?INFO", False),
        ("?WARN ERROR", True),
        ('?"not found" ?WARN', True),
        (r'"a\.b"', True),
        ("ERROR\n400", True),
    ],
)
def test_terms(pattern: str, expected: bool) -> None:
    assert compile_pattern(pattern)(LINE) is expected


DOCUMENT = {
    "level": "ERROR",
    "took_ms": 210.5,
    "retry": True,
    "cause": None,
    "camera": {"name": "south", "tags": ["a", "b"]},
    "odd.name": 1,
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ("{$.level=ERR*}", True),
        ('{ $.level = "*RR*" }', True),
        ('{ $.level = "E*X*R" }', False),
        ("{ $.level != ERROR }", False),
        ("{ $.level != WARN }", True),
        ("{ $.absent != WARN }", False),
        ("{ $.took_ms > 200 }", True),
        ("{ $.took_ms <= 2.1e2 }", False),
        ("{ $.took_ms = 210.5 }", True),
        ("{ $.retry IS TRUE }", True),
        ("{ $.retry IS FALSE }", False),
        ("{ $.cause IS NULL }", True),
        ("{ $.cause EXISTS }", True),
        ("{ $.absent EXISTS }", False),
        ("{ $.absent NOT EXISTS }", True),
        ("{ $.camera.name = south && $.took_ms < 300 }", True),
        ('{ $.camera.tags[1] = "b" }', True),
        ('{ $.camera.tags[9] = "b" }', False),
        ('{ $["odd.name"] = 1 }', True),
        ("{ $.level = WARN || ($.retry IS TRUE && $.took_ms >= 210) }", True),
        ("{ $.level = WARN && $.retry IS TRUE || $.took_ms > 1 }", True),
    ],
)
def test_selectors(pattern: str, expected: bool) -> None:
    matches = compile_pattern(pattern)
    assert matches(json.dumps(DOCUMENT)) is expected
    assert not matches("ERROR in plain text")


@pytest.mark.parametrize(
    "pattern",
    [
        "[ip, user]",
        "%ERR.*%",
        'a"b',
        '"open',
        "{ $.a = 1",
        "{ }",
        "{ a = 1 }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a < x }",
        "{ $.a IS 3 }",
        "{ $.a = 1 } x",
        "{ $.a = 1 && }",
        "{" + "(" * 200 + "$.a=1" + ")" * 200 + "}",
    ],
)
def test_what_cannot_be_read_or_is_not_served_is_refused_with_the_reason(pattern: str) -> None:
    with pytest.raises(Invalid, match=r"Invalid filter pattern: ."):
        compile_pattern(pattern)


@given(st.text(alphabet='{}()$.[]"*\\ab1 =<>!&|-?%ISNULL', max_size=60), st.text(max_size=40))
def test_any_pattern_is_read_or_refused_and_any_message_judged(pattern: str, message: str) -> None:
    try:
        matches = compile_pattern(pattern)
    except Invalid:
        return
    assert matches(message) in (True, False)
    assert matches(json.dumps({"a": message})) in (True, False)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_no_document_is_too_odd_for_a_selector(document: Any) -> None:
    assert compile_pattern('{ $.a.b[0] = "x*" || $.a > 1 || $.a IS NULL }')(json.dumps(document)) in (True, False)


def test_stars_cost_no_more_than_reading() -> None:
    matches = compile_pattern('{ $.a = "' + "*a" * 200 + '*b" }')
    assert not matches(json.dumps({"a": "a" * 200_000}))
