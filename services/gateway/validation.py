"""Checks a request's values against the shapes of a service model, all violations at once.

    problems = Problems()
    values = read(operation.input, json.loads(body), "", problems)     # typed values, by member name
    problems.found      # [("NetworkingConfiguration.Ethernet0.ConnectionType", "must be one of STATIC_IP, DHCP")]

Pure. Members that the model does not know are passed over, null counts as absent, values of sensitive shapes are never
repeated. Timestamps become epoch seconds (float), blobs bytes.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from belvedere.awsmodel import Member, Shape

PROBLEMS_MAX = 50
"""More are counted, not listed."""
KEY_SHOWN = 64
"""Characters of a map's key that a path repeats."""
DEPTH_MAX = 32
_INTEGERS = {"integer": 32, "long": 64}


class Problems:
    """What is wrong with a request: (path, what is wrong there)."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.more = 0

    def add(self, path: str, text: str) -> None:
        if len(self.found) < PROBLEMS_MAX:
            self.found.append((path, text))
        else:
            self.more += 1

    def __bool__(self) -> bool:
        return bool(self.found)

    def summary(self) -> str:
        """One line: `Name: is required; Tags: must have at most 50 entries`."""
        shown = "; ".join(f"{path}: {text}" if path else text for path, text in self.found[:5])
        hidden = len(self.found) - 5 + self.more
        return f"{shown}; and {hidden} more" if hidden > 0 else shown


def read(shape: Shape, value: Any, path: str, problems: Problems, depth: int = 0) -> Any:
    """`value` (as JSON or CBOR gave it) as a typed value of `shape`; what is wrong goes to `problems`."""
    if depth > DEPTH_MAX:
        problems.add(path, "is nested too deeply")
        return None
    return _READERS[shape.type](shape, value, path, problems, depth)


def read_members(
    shape: Shape, values: Mapping[str, Any], path: str, problems: Problems, depth: int = 0
) -> dict[str, Any]:
    """The members of a structure from values that stand under their member names."""
    result: dict[str, Any] = {}
    for member in shape.members.values():
        place = f"{path}.{member.name}" if path else member.name
        value = values.get(member.name)
        if value is None:
            if member.required:
                problems.add(place, "is required")
            continue
        result[member.name] = read(member.shape, value, place, problems, depth + 1)
    if shape.union and len(result) != 1:
        problems.add(path, f"must have exactly one of {', '.join(shape.members)}")
    return result


def from_text(member: Member, texts: list[str], path: str, problems: Problems) -> Any:
    """The value of a member that travels as text: in the path, in the query, in a form."""
    shape = member.shape
    if shape.type == "list":
        return texts
    return scalar_from_text(shape, texts[0], path, problems)


def scalar_from_text(shape: Shape, text: str, path: str, problems: Problems) -> Any:
    """A number, boolean or text out of text; None, with a problem noted, where it is none."""
    match shape.type:
        case "integer" | "long":
            if re.fullmatch(r"-?\d{1,19}", text):
                return int(text)
            problems.add(path, "must be an integer")
        case "float" | "double":
            try:
                return float(text)
            except ValueError:
                problems.add(path, "must be a number")
        case "boolean":
            if text in ("true", "false"):
                return text == "true"
            problems.add(path, "must be true or false")
        case _:
            return text
    return None


def _structure(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, Mapping):
        problems.add(path, "must be an object")
        return None
    by_name = {name: value.get(member.wire_name) for name, member in shape.members.items()}
    return read_members(shape, by_name, path, problems, depth)


def _list(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, list):
        problems.add(path, "must be a list")
        return None
    if not _length(shape, len(value), "entries", path, problems):
        return None
    assert shape.element is not None
    result = []
    for index, entry in enumerate(value):
        place = f"{path}[{index}]"
        if entry is None:
            problems.add(place, "must not be null")
        else:
            result.append(read(shape.element, entry, place, problems, depth + 1))
    return result


def _map(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, Mapping):
        problems.add(path, "must be an object")
        return None
    if not _length(shape, len(value), "entries", path, problems):
        return None
    assert shape.key is not None and shape.value is not None
    result = {}
    for key, entry in value.items():
        place = f"{path}.{str(key)[:KEY_SHOWN]}"
        read(shape.key, key, f"{place} (key)", problems, depth + 1)
        if entry is None:
            problems.add(place, "must not be null")
        else:
            result[key] = read(shape.value, entry, place, problems, depth + 1)
    return result


def _string(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, str):
        problems.add(path, "must be a string")
        return None
    if any("\ud800" <= c <= "\udfff" for c in value) or "\0" in value:
        problems.add(path, "must be Unicode text without NUL")
        return None
    if not _length(shape, len(value), "characters", path, problems):
        return None
    if shape.enum and value not in shape.enum:
        problems.add(path, f"must be one of {', '.join(shape.enum)}")
        return None
    if shape.pattern is not None and not shape.pattern.fullmatch(value):
        problems.add(path, f"must match the pattern {shape.pattern.pattern}")
        return None
    return value


def _integer(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, int) or isinstance(value, bool):
        problems.add(path, "must be an integer")
        return None
    bits = _INTEGERS[shape.type]
    low = -(1 << bits - 1) if shape.minimum is None else shape.minimum
    high = (1 << bits - 1) - 1 if shape.maximum is None else shape.maximum
    if not low <= value <= high:
        problems.add(path, f"must lie between {low} and {high}")
        return None
    return value


def _number(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e308 or not math.isfinite(value):
        problems.add(path, "must be a finite number")
        return None
    return float(value)


def _boolean(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if not isinstance(value, bool):
        problems.add(path, "must be true or false")
        return None
    return value


def _timestamp(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    """Epoch seconds, a datetime (CBOR), or ISO 8601 (forms)."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 253_402_300_800:
        problems.add(path, "must be a time between 1970 and 9999")
        return None
    return float(value)


def _blob(shape: Shape, value: Any, path: str, problems: Problems, depth: int) -> Any:
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            value = None
    if not isinstance(value, bytes):
        problems.add(path, "must be base64")
        return None
    return value if _length(shape, len(value), "bytes", path, problems) else None


def _length(shape: Shape, length: int, unit: str, path: str, problems: Problems) -> bool:
    low, high = shape.minimum or 0, shape.maximum
    if high is not None and length > high:
        problems.add(path, f"must have at most {high} {unit}, and has {length}")
    elif length < low:
        problems.add(path, f"must have at least {low} {unit}, and has {length}")
    else:
        return True
    return False


_READERS: Mapping[str, Callable[[Shape, Any, str, Problems, int], Any]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _integer,
    "long": _integer,
    "float": _number,
    "double": _number,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "blob": _blob,
}
