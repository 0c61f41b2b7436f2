"""Hypothesis strategies from the API model: what an operation takes, and what it must refuse."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from belvedere.awsmodel import Operation, Shape, panorama

# Written by hand for the patterns that matter: generating from a regular expression gives few members of it.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
BY_PATTERN = {
    "NodePackageVersion": st.from_regex(r"[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True),
    "IpAddress": st.ip_addresses(v=4).map(str),
    "IpAddressOrServerName": st.ip_addresses(v=4).map(str),
    "RuntimeRoleArn": st.just("arn:aws:iam::123456789012:role/r"),
    "PackageOwnerAccount": st.text(ALPHABET, min_size=1, max_size=12),
}


def valid(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that the shape takes, as JSON has them."""
    match shape.type:
        case "structure":
            required = {m.name: valid(m.shape) for m in shape.members.values() if m.required}
            optional = {m.name: valid(m.shape) for m in shape.members.values() if not m.required}
            if shape.union:
                return st.fixed_dictionaries(optional)
            return st.fixed_dictionaries(required, optional=optional)
        case "list":
            assert shape.element is not None
            most = min(shape.maximum or 3, 3)
            return st.lists(valid(shape.element), min_size=shape.minimum or 0, max_size=max(most, shape.minimum or 0))
        case "map":
            assert shape.key is not None and shape.value is not None
            return st.dictionaries(valid(shape.key), valid(shape.value), max_size=3)
        case "string":
            if shape.enum:
                return st.sampled_from(shape.enum)
            if shape.name in BY_PATTERN:
                return BY_PATTERN[shape.name]
            return st.text(ALPHABET, min_size=shape.minimum or 0, max_size=min(shape.maximum or 40, 40))
        case "integer":
            return st.integers(shape.minimum or 0, shape.maximum or 1000)
        case "boolean":
            return st.booleans()
    raise AssertionError(f"inputs of the API hold no {shape.type}")


def wrong(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that the shape must refuse."""
    match shape.type:
        case "structure":
            return st.sampled_from(["text", 5, [1], True])
        case "list" | "map":
            return st.sampled_from(["text", 5, True])
        case "string":
            cases: list[Any] = [5, 1.5, True, ["x"], {"a": 1}, "\ud800", "a\0b"]
            cases += ["x" * (shape.maximum + 1)] if shape.maximum else []
            cases += ["NO_SUCH_VALUE"] if shape.enum else []
            cases += [""] if shape.minimum else []
            for odd in ("ä ö", "a\n", "<>"):
                cases += [odd] if shape.pattern and not shape.pattern.fullmatch(odd) else []
            return st.sampled_from(cases)
        case "integer":
            cases = ["5", 1.5, True, 1 << 40, -(1 << 40)]
            cases += [shape.maximum + 1] if shape.maximum is not None else []
            return st.sampled_from(cases)
        case "boolean":
            return st.sampled_from([0, 1, "true", "no", []])
    raise AssertionError(f"inputs of the API hold no {shape.type}")


def operations() -> list[Operation]:
    return list(panorama().operations.values())
