"""Paging, identifiers and tags in AWS's shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Invalid
from belvedere.chassis.ids import arn, is_id, new_id, parse_arn
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.tags import add_tags, check_tags, remove_tags


def test_pages_are_at_most_25_long() -> None:
    assert [page_size(n) for n in (None, 0, 1, 25)] == [25, 25, 1, 25]
    for wrong in (-1, 26):
        with pytest.raises(Invalid) as caught:
            page_size(wrong)
        assert caught.value.fields[0][0] == "MaxResults"
    assert cut([1, 2, 3], 2) == ([1, 2], True)
    assert cut([1, 2], 2) == ([1, 2], False)


def test_a_token_works_for_the_query_that_gave_it_and_no_other() -> None:
    token = encode_token({"key": "device-1"}, "ListDevices", {"name": "x"})
    assert decode_token(token, "ListDevices", {"name": "x"}) == {"key": "device-1"}
    assert decode_token("", "ListDevices") is None
    for query, filters in (("ListDevices", {"name": "y"}), ("ListNodes", {"name": "x"})):
        with pytest.raises(Invalid):
            decode_token(token, query, filters)


@given(st.text(max_size=200))
def test_no_token_crashes(text: str) -> None:
    if text:
        with pytest.raises(Invalid):
            decode_token(text, "ListDevices")


def test_ids_and_arns_have_aws_shapes() -> None:
    made = new_id("device")
    assert is_id("device", made)
    assert len(made) == len("device-") + 26
    assert not is_id("device", made.upper())
    text = arn("panorama", "us-east-1", "123456789012", f"device/{made}")
    parsed = parse_arn(text)
    assert (str(parsed), parsed.resource_type, parsed.resource_id) == (text, "device", made)
    for wrong in ("", "arn:aws", "arn:aws:panorama:us-east-1:12:device/x", made):
        with pytest.raises(Invalid):
            parse_arn(wrong)


def test_tags_are_kept_within_the_limits_of_the_api() -> None:
    assert add_tags({"a": "1", "b": "2"}, {"b": "3"}) == {"a": "1", "b": "3"}
    assert remove_tags({"a": "1", "b": "2"}, ["b", "c"]) == {"a": "1"}
    with pytest.raises(Invalid) as caught:
        check_tags({"aws:x": "1", "": "2", "long": "v" * 257})
    assert len(caught.value.fields) == 3
    with pytest.raises(Invalid, match="at most 50"):
        add_tags({str(n): "" for n in range(50)}, {"one more": ""})
