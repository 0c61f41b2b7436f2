"""The policy of a form upload: what its signer lets a stranger send. Pure.

    {"expiration": "2026-11-22T18:00:00Z",
     "conditions": [{"bucket": "videos"}, ["starts-with", "$key", "in/"], ["content-length-range", 1, 1048576]]}

Every field of the form must meet a condition, every condition must be met. Source: S3's public description of POST policies.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from belvedere import jsontext
from services.gateway.errors import AwsError
from services.gateway.payload import UPLOAD_MAX_BYTES

UNCHECKED = frozenset({"awsaccesskeyid", "x-amz-signature", "signature", "policy", "file"})
"""Fields that need no condition."""
IGNORED = "x-ignore-"
_OPERATORS = ("eq", "starts-with")


@dataclass(frozen=True)
class Policy:
    """A policy, read."""

    expiration: datetime
    conditions: tuple[tuple[str, str, str], ...]
    """(eq or starts-with, field in lower case, value)"""
    said: tuple[str, ...]
    """The conditions as they are told back."""
    least: int = 0
    most: int = UPLOAD_MAX_BYTES
    """Bytes of the file."""

    def check(self, fields: Mapping[str, str], now: datetime) -> None:
        """`fields`: of the form, and the bucket. Raises AwsError(AccessDenied)."""
        if now >= self.expiration:
            raise _denied("Policy expired.")
        for (operator, name, value), said in zip(self.conditions, self.said, strict=True):
            given = fields.get(name, "")
            if not (given == value if operator == "eq" else _begin(name, given, value)):
                raise _denied(f"Policy Condition failed: {said}")
        named = {name for _, name, _ in self.conditions} | UNCHECKED | {"bucket"}
        if extra := [name for name in fields if name not in named and not name.startswith(IGNORED)]:
            raise _denied(f"Extra input fields: {', '.join(extra)}")


def read(text: str) -> Policy:
    """From base64. Raises AwsError(InvalidPolicyDocument)."""
    try:
        document = jsontext.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _invalid("Invalid JSON.") from error
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    if "expiration" not in document:
        raise _invalid("Policy missing expiration.")
    if not isinstance(document.get("conditions"), list):
        raise _invalid("Policy missing conditions.")
    conditions: list[tuple[str, str, str]] = []
    least, most = 0, UPLOAD_MAX_BYTES
    for entry in document["conditions"]:
        if isinstance(entry, list) and entry and _word(entry[0]) == "content-length-range":
            low, high = _range(entry)
            least, most = max(least, low), min(most, high)
        else:
            conditions += _conditions(entry)
    said = tuple(json.dumps([operator, f"${name}", value]) for operator, name, value in conditions)
    return Policy(_time(document["expiration"]), tuple(conditions), said, least, most)


def _conditions(entry: Any) -> list[tuple[str, str, str]]:
    """[operator, "$field", value], or {field: value}."""
    if isinstance(entry, dict) and entry and all(isinstance(value, str) for value in entry.values()):
        return [("eq", name.lower(), value) for name, value in entry.items()]
    if isinstance(entry, list) and len(entry) == 3 and all(isinstance(part, str) for part in entry):
        operator, name, value = entry
        if operator.lower() in _OPERATORS and name.startswith("$"):
            return [(operator.lower(), name[1:].lower(), value)]
    raise _invalid(f"Invalid Condition: {json.dumps(entry)[:256]}")


def _begin(name: str, given: str, value: str) -> bool:
    # Content-Type may be a list, of which each has to begin so.
    each = given.split(",") if name == "content-type" and "," not in value else [given]
    return all(part.strip().startswith(value) if len(each) > 1 else part.startswith(value) for part in each)


def _range(entry: list[Any]) -> tuple[int, int]:
    try:
        low, high = (int(str(value)) for value in entry[1:])
    except ValueError as error:
        raise _invalid("content-length-range must have a smallest and a largest size.") from error
    if not 0 <= low <= high:
        raise _invalid("content-length-range must have a smallest and a largest size.")
    return low, high


def _time(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(_word(value).upper())
    except ValueError as error:
        raise _invalid(f"Invalid 'expiration' value: '{str(value)[:64]}'") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _word(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _denied(why: str) -> AwsError:
    return AwsError("AccessDenied", f"Invalid according to Policy: {why}", 403)


def _invalid(why: str) -> AwsError:
    return AwsError("InvalidPolicyDocument", f"Invalid Policy: {why}")
