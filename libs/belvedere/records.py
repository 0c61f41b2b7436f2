"""Frozen dataclasses to JSON and back, for the documents that travel between cloud and appliance.

A document is read tolerantly where it may be newer than the reader (unknown fields are ignored, missing fields get
their default) and strictly where it would otherwise fail later and elsewhere (wrong types, no default): then the error
names the place. Pure; must know no particular document.

Understood field types: str, int, float, bool, StrEnum, records, `X | None`, `tuple[X, ...]`, `Mapping[str, X]`, and
plain unions of those scalars.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar, Self, get_args, get_origin

from belvedere import jsontext

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What JSON is made of."""


EXACT_INT = 2**53
"""Up to here every whole number is a float as well."""


class RecordError(ValueError):
    """A document can't be read: `place` (`applications[1].desired`, or empty) and `problem` say where and why."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem


class Record:
    """Base of a frozen dataclass that is a JSON document or a part of one."""

    read_error: ClassVar[type[RecordError]] = RecordError
    """What `from_json` raises: a package sets its own subclass."""

    def to_plain(self) -> dict[str, Plain]:
        """The document as dicts, lists and scalars."""
        plain = _encode(self)
        assert isinstance(plain, dict)
        return plain

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, ASCII. Equal documents give equal bytes."""
        return canonical_json(self.to_plain())

    @classmethod
    def from_plain(cls, value: object, place: str = "") -> Self:
        """Reads what `to_plain` gave. Raises `read_error`."""
        try:
            record: Self = _decode_record(cls, value, place)
        except RecordError as error:
            if type(error) is cls.read_error:
                raise
            raise cls.read_error(error.place, error.problem) from None
        return record

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads a JSON document. Raises `read_error`."""
        try:
            value = jsontext.loads(text)
        except RecursionError:
            raise cls.read_error("", "nested too deeply") from None
        except ValueError as error:
            raise cls.read_error("", f"is not JSON: {error}") from None
        return cls.from_plain(value)


def canonical_json(value: Plain) -> str:
    """JSON with sorted keys, no blanks, ASCII only: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _encode(value: object) -> Plain:
    if isinstance(value, Enum):
        plain: Plain = value.value
        return plain
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


_HINTS: dict[type[Any], dict[str, Any]] = {}


def _hints(cls: type[Any]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _decode_record(cls: type[Any], value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise RecordError(place, f"must be an object, not {_kind(value)}")
    given: dict[str, Any] = {}
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        inner = f"{place}.{field.name}" if place else field.name
        if field.name in value:
            given[field.name] = _decode(hints[field.name], value[field.name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(inner, "is missing")
    return cls(**given)


def _decode(wanted: Any, value: object, place: str) -> Any:
    origin = get_origin(wanted)
    if origin is types.UnionType or origin is typing.Union:
        return _decode_union(get_args(wanted), value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecordError(place, f"must be a list, not {_kind(value)}")
        return tuple(_decode(get_args(wanted)[0], item, f"{place}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecordError(place, f"must be an object, not {_kind(value)}")
        return {str(key): _decode(get_args(wanted)[1], item, f"{place}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(wanted):
        return _decode_record(typing.cast("type[Any]", wanted), value, place)
    if issubclass(wanted, Enum):
        try:
            return wanted(value)
        except ValueError:
            raise RecordError(
                place, f"must be one of {', '.join(str(item.value) for item in wanted)}, not {value!r:.80}"
            ) from None
    return _decode_scalar(wanted, value, place)


def _decode_union(members: tuple[Any, ...], value: object, place: str) -> Any:
    if value is None and type(None) in members:
        return None
    others = [member for member in members if member is not type(None)]
    if len(others) == 1:
        return _decode(others[0], value, place)
    if type(value) in others and (type(value) is not float or math.isfinite(value)):
        return value
    raise RecordError(place, f"must be one of {', '.join(member.__name__ for member in others)}, not {_kind(value)}")


def _decode_scalar(wanted: type[Any], value: object, place: str) -> Any:
    if wanted is float and type(value) is int and abs(value) <= EXACT_INT:
        return float(value)
    if type(value) is wanted and (type(value) is not float or math.isfinite(value)):
        return value
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    raise RecordError(place, f"must be {names[wanted]}, not {_kind(value)}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    kinds = {int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), type(value).__name__)
