"""JSON of strangers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere import jsontext

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@given(anything, st.booleans())
def test_what_json_reads_is_read_the_same(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert jsontext.loads(text) == value
    if ascii_only:
        assert jsontext.loads(text.encode()) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_what_is_nested_too_deeply_is_refused_before_anything_goes_down_into_it(opening: str) -> None:
    for text in (opening * 50_000, (opening * 50_000).encode()):
        with pytest.raises(RecursionError, match="deeper than"):
            jsontext.loads(text)


def test_the_deepest_that_is_allowed_is_read() -> None:
    deepest = "[" * jsontext.NESTED_MAX + "]" * jsontext.NESTED_MAX
    assert json.dumps(jsontext.loads(deepest)) == deepest
    with pytest.raises(RecursionError):
        jsontext.loads(f"[{deepest}]")


def test_many_that_stand_beside_each_other_are_not_deep() -> None:
    assert len(jsontext.loads(json.dumps([{"a": [number]} for number in range(5000)]))) == 5000


def test_brackets_within_texts_do_not_count() -> None:
    value = {'a"[[[': "[" * 5000, "b": '\\"' + "{" * 5000, "c": ["é[" * 300] * 300}
    assert jsontext.loads(json.dumps(value)) == value
    assert jsontext.loads(json.dumps(value, ensure_ascii=False)) == value


def test_what_is_no_json_is_refused_as_json_refuses_it() -> None:
    for text in ("", "[", '"' + "[" * 500, "]" * 500, "[}" * 500, b"\xff" + b"[" * 100):
        with pytest.raises(ValueError):
            jsontext.loads(text)
