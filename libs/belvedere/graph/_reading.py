"""Reading JSON documents so that every problem is found and none crashes: each value knows its place.

A wrong value is recorded and stood in for by a harmless one, so that reading goes on; who reads must raise at the end
if anything was recorded. Fields that the schema does not know are ignored, except near misses of known ones
(`nodeOveride`), which are surely slips of the pen.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Sequence
from typing import NoReturn

import regex

from belvedere import jsontext
from belvedere.graph.errors import Problem

NEAR_MISS = 0.85
"""Likeness (difflib ratio) from which an unknown field is taken for a misspelt one."""

MATCH_TIMEOUT_S = 0.1
"""For one value of up to a few hundred characters against one constraint; honest ones take microseconds."""

NODES, PACKAGES, OVERRIDDEN = "nodes", "packages", "overridden"
"""Lists by which names are known: of nodes, of packages, and of who stands in for whom."""
KEYS = ("name", "interface", "version", "patchVersion", "producer", "consumer", "replace")
"""Fields by which an entry is known: with one of them wrong, there is nothing to say of the entry."""

_MISSING = object()


class Problems:
    """What has been found wrong so far."""

    def __init__(self, told: Sequence[Problem] = (), unread: Collection[str] = ()) -> None:
        """`told`: what reading the documents has found, which comes first, and of which nothing that only follows is told
        again; `unread`: lists (NODES, PACKAGES, OVERRIDDEN) that could not be read whole."""
        self._found: dict[Problem, None] = dict.fromkeys(told)
        self._told = frozenset(problem.place for problem in told)
        self._unread = frozenset(unread)

    def add(self, place: str, message: str, needs: str = "") -> None:
        """Records a problem; the same one twice counts once. `needs`: the list that has to be known whole for it to be one."""
        if needs in self._unread or (self._told and self._follows(place)):
            return
        self._found[Problem(place, message)] = None

    def _follows(self, place: str) -> bool:
        """Whether something there, in what it stands in, or in what it is known by was wrong already when it was read."""
        return any(
            place == told or place.startswith((f"{told}.", f"{told}[")) or told in {f"{place}.{key}" for key in KEYS}
            for told in self._told
        )

    @property
    def found(self) -> tuple[Problem, ...]:
        """All of them, in the order they were found."""
        return tuple(self._found)


def load(text: str | bytes, problems: Problems, place: str) -> Value | None:
    """The JSON document in `text`; None, and a problem, where it is none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    try:
        return Value(jsontext.loads(text, parse_constant=refuse), place, problems)
    except RecursionError:
        problems.add(place, "is nested too deeply")
    except ValueError as error:
        problems.add(place, f"is not JSON: {error}")
    return None


def shown(value: object, limit: int = 60) -> str:
    """A value as a message quotes it: JSON, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean_text(value: object) -> bool:
    """Whether it is text that can be stored and handed to a process: no lone surrogates, no NUL."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


class Value:
    """One value of a document."""

    def __init__(self, value: object, place: str, problems: Problems) -> None:
        self.value = value
        self.place = place
        self.problems = problems

    def problem(self, message: str) -> None:
        """Records that this value is wrong."""
        self.problems.add(self.place, message)

    def fields(self, *known: str) -> Fields:
        """As an object with these fields; an empty one, and a problem, where it is none."""
        if not isinstance(self.value, dict):
            self.problem(f"must be an object, not {shown(self.value)}")
            return Fields({}, self.place, self.problems, valid=False)
        for name in self.value:
            if name in known:
                continue
            near = [field for field in known if _alike(name, field) >= NEAR_MISS and field not in self.value]
            if near:
                self.problems.add(_join(self.place, name), f'is no known field; did you mean "{near[0]}"?')
        return Fields(self.value, self.place, self.problems)


class Fields:
    """An object of a document."""

    def __init__(self, value: dict[str, object], place: str, problems: Problems, *, valid: bool = True) -> None:
        self._value = value
        self.place = place
        self.problems = problems
        self.valid = valid
        """False where there was no object: its missing fields are then no problems of their own."""

    def at(self, name: str) -> str:
        """Place of a field."""
        return _join(self.place, name)

    def has(self, name: str) -> bool:
        """Whether the field is there; null counts as absent."""
        return self._value.get(name) is not None

    def get(self, name: str) -> Value:
        """The field as it is; null where absent."""
        return Value(self._value.get(name), self.at(name), self.problems)

    def text(
        self,
        name: str,
        *,
        required: bool = False,
        default: str = "",
        limit: int = 255,
        minimum: int = 0,
        pattern: str = "",
        says: str = "",
    ) -> str:
        """A text of at most `limit` characters that matches `pattern` as a whole; `says` describes the pattern."""
        value = self._present(name, required)
        if value is _MISSING:
            return default
        if not isinstance(value, str):
            self.problems.add(self.at(name), f"must be text, not {shown(value)}")
        elif not clean_text(value):
            self.problems.add(self.at(name), "holds characters that are not allowed in text")
        elif not minimum <= len(value) <= limit:
            self.problems.add(self.at(name), f"must have {minimum} to {limit} characters, has {len(value)}")
        elif pattern and re.fullmatch(pattern, value) is None:
            self.problems.add(self.at(name), f"{shown(value)} must be {says}")
        else:
            return value
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._present(name, required=False)
        if value is _MISSING:
            return default
        if not isinstance(value, bool):
            self.problems.add(self.at(name), f"must be true or false, not {shown(value)}")
            return default
        return value

    def whole(self, name: str, low: int, high: int, *, required: bool = False, default: int = 0) -> int:
        """A whole number from `low` to `high`."""
        value = self._present(name, required)
        if value is _MISSING:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.problems.add(self.at(name), f"must be a whole number from {low} to {high}, not {shown(value)}")
            return default
        return value

    def choice(self, name: str, allowed: Sequence[str], *, required: bool = False, default: str = "") -> str:
        """One of the given texts."""
        value = self._present(name, required)
        if value is _MISSING:
            return default
        if not isinstance(value, str) or value not in allowed:
            self.problems.add(self.at(name), f"must be one of {', '.join(allowed)}, not {shown(value)}")
            return default
        return value

    def items(self, name: str, *, minimum: int = 0, maximum: int | None = None) -> list[Value]:
        """The values of a list; none where it is absent."""
        value = self._present(name, required=minimum > 0)
        if value is _MISSING:
            return []
        if not isinstance(value, list):
            self.problems.add(self.at(name), f"must be a list, not {shown(value)}")
            return []
        if len(value) < minimum or (maximum is not None and len(value) > maximum):
            most = "more" if maximum is None else str(maximum)
            self.problems.add(self.at(name), f"must have {minimum} or {most} entries, has {len(value)}")
        return [Value(item, f"{self.at(name)}[{index}]", self.problems) for index, item in enumerate(value)]

    def _present(self, name: str, required: bool) -> object:
        value = self._value.get(name)
        if value is not None:
            return value
        if required and self.valid:
            self.problems.add(self.at(name), "is missing")
        return _MISSING


INT32 = range(-(2**31), 2**31)
FLOAT32_MAX = 3.4028234663852886e38


def literal(value: object, type: str) -> bool | int | float | str | None:
    """`value` as a parameter of this type (`boolean`, `int32`, `float32`, `string`); None where it is not one."""
    if type == "boolean":
        return value if isinstance(value, bool) else None
    if type == "string":
        return value if isinstance(value, str) and clean_text(value) else None
    if isinstance(value, bool):
        return None
    if type == "int32":
        return value if isinstance(value, int) and value in INT32 else None
    if type == "float32" and isinstance(value, int | float) and -FLOAT32_MAX <= value <= FLOAT32_MAX:
        return float(value) if math.isfinite(value) else None
    return None


def literal_text(value: bool | int | float | str) -> str:
    """A parameter's value as constraints (constraintRegex) see it."""
    return value if isinstance(value, str) else json.dumps(value)


def is_expression(pattern: str) -> bool:
    """Whether a constraint's text is a regular expression."""
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError):
        return False
    return True


def meets(pattern: str, value: bool | int | float | str) -> bool:
    """Whether the whole of a parameter's value matches a constraint. A text that is no expression constrains nothing;
    one that takes longer than MATCH_TIMEOUT_S, as only one made to does, is not met."""
    if not is_expression(pattern):
        return True
    try:
        return regex.fullmatch(pattern, literal_text(value), timeout=MATCH_TIMEOUT_S) is not None
    except TimeoutError:
        return False


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one[:64].lower(), other.lower()).ratio()


def _join(place: str, name: str) -> str:
    name = name if clean_text(name) and len(name) <= 64 else shown(name)
    return f"{place}.{name}" if place and place[-1:] != "." else f"{place}{name}"
