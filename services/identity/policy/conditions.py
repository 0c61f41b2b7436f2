"""The Condition of a statement: operators, their values, and whether they hold.

    {"StringLike": {"aws:username": ["dev-*"]}, "IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}}

All operators and keys must hold; of a key's values one must. A key that the request does not have: the operator does not hold, its
negation does, and so does `…IfExists`. A value of the request that an operator cannot read (no number, no address) is like one that
does not match. Pure.
"""

from __future__ import annotations

import ipaddress
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.identity.policy.patterns import Context, Pattern

Problems = list[tuple[str, str]]
"""(place in the document, what is wrong there)"""

IF_EXISTS = "IfExists"
ANY_VALUE, ALL_VALUES = "ForAnyValue:", "ForAllValues:"
VALUES_MAX = 256

Test = Callable[[Any, str, Context], bool]
"""(value of the policy, value of the request, request) → whether they match"""


@dataclass(frozen=True)
class _Kind:
    """A family of operators: how the policy's values are read, and how they are compared."""

    read: Callable[[str, bool], Any]
    """(text, whether there are variables) → what `test` takes; ValueError that says what is expected."""
    test: Test


@dataclass(frozen=True)
class Operator:
    """One operator as the grammar names it."""

    kind: _Kind
    negated: bool = False


def _text(text: str, variables: bool) -> Pattern:
    return Pattern.of(text, variables)


def _equal(pattern: Pattern, value: str, context: Context) -> bool:
    return pattern.plain(context) == value


def _equal_any_case(pattern: Pattern, value: str, context: Context) -> bool:
    plain = pattern.plain(context)
    return plain is not None and plain.casefold() == value.casefold()


def _like(pattern: Pattern, value: str, context: Context) -> bool:
    return pattern.matches(value, context)


ARN_PARTS = 6


def _arn(text: str, variables: bool) -> tuple[Pattern, ...]:
    parts = _split_arn(text)
    if len(parts) != ARN_PARTS or parts[0] not in ("arn", "*"):
        raise ValueError("must be an ARN, of which each part may have wildcards: arn:aws:panorama:*:*:device/*")
    return tuple(Pattern.of(part, variables) for part in parts)


def _split_arn(text: str) -> list[str]:
    """At the first five colons that stand in no variable."""
    parts: list[str] = []
    depth = start = 0
    for index, letter in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif letter == "}" and depth:
            depth -= 1
        elif letter == ":" and not depth and len(parts) < ARN_PARTS - 1:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _arn_like(patterns: tuple[Pattern, ...], value: str, context: Context) -> bool:
    parts = value.split(":", ARN_PARTS - 1)
    return len(parts) == ARN_PARTS and all(p.matches(part, context) for p, part in zip(patterns, parts, strict=True))


def _bool(text: str, variables: bool) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError('must be "true" or "false"')
    return text.lower() == "true"


def _same_bool(wanted: bool, value: str, context: Context) -> bool:
    return value.lower() == str(wanted).lower()


def _network(text: str, variables: bool) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("must be an address or a range such as 203.0.113.0/24 or 2001:db8::/32") from None


def _inside(network: ipaddress.IPv4Network | ipaddress.IPv6Network, value: str, context: Context) -> bool:
    try:
        address = ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version == network.version and address in network


def _number(text: str, variables: bool = False) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ValueError("must be a number")
    return found


def _moment(text: str, variables: bool = False) -> float:
    try:
        moment = datetime.fromisoformat(text)
        # A date without a zone is in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return _number(text)
    except ValueError:
        raise ValueError("must be a date such as 2026-12-24T12:00:00Z, or seconds since 1970") from None


def _compared(read: Callable[[str], float], how: Callable[[float, float], bool]) -> Test:
    def test(wanted: float, value: str, context: Context) -> bool:
        try:
            return how(read(value), wanted)
        except ValueError:
            return False

    return test


def _pair(name: str, negated: str, kind: _Kind) -> dict[str, Operator]:
    return {name: Operator(kind), negated: Operator(kind, negated=True)}


def _ordered(name: str, read: Callable[..., float]) -> dict[str, Operator]:
    found = _pair(f"{name}Equals", f"{name}NotEquals", _Kind(read, _compared(read, operator.eq)))
    for suffix, how in (
        ("LessThan", operator.lt),
        ("LessThanEquals", operator.le),
        ("GreaterThan", operator.gt),
        ("GreaterThanEquals", operator.ge),
    ):
        found[name + suffix] = Operator(_Kind(read, _compared(read, how)))
    return found


OPERATORS: Mapping[str, Operator] = {
    **_pair("StringEquals", "StringNotEquals", _Kind(_text, _equal)),
    **_pair("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", _Kind(_text, _equal_any_case)),
    **_pair("StringLike", "StringNotLike", _Kind(_text, _like)),
    **_pair("ArnEquals", "ArnNotEquals", _Kind(_arn, _arn_like)),
    **_pair("ArnLike", "ArnNotLike", _Kind(_arn, _arn_like)),
    **_pair("IpAddress", "NotIpAddress", _Kind(_network, _inside)),
    **_ordered("Numeric", _number),
    **_ordered("Date", _moment),
    "Bool": Operator(_Kind(_bool, _same_bool)),
}
"""By name; `Null` and the fronts and ends of names are dealt with in `parse`."""


@dataclass(frozen=True)
class Condition:
    """One operator with one key."""

    key: str
    """In lower case: names of keys are compared without regard to case."""
    operator: Operator | None
    """None: `Null`."""
    values: tuple[Any, ...]
    if_exists: bool = False
    sets: str = ""
    """"", ANY_VALUE or ALL_VALUES: for keys of many values."""

    def holds(self, context: Context) -> bool:
        """Whether the request meets it."""
        found = context.get(self.key, ())
        if self.operator is None:
            return any((not found) is wanted for wanted in self.values)
        if not found:
            return self.if_exists or self.sets == ALL_VALUES or (self.operator.negated and self.sets != ANY_VALUE)
        results = (self._one(self.operator, value, context) for value in found)
        if self.sets == ANY_VALUE or (not self.sets and not self.operator.negated):
            return any(results)
        return all(results)

    def _one(self, found: Operator, value: str, context: Context) -> bool:
        return any(found.kind.test(wanted, value, context) for wanted in self.values) is not found.negated


def parse(place: str, item: Any, variables: bool, problems: Problems) -> tuple[Condition, ...]:
    """The Condition element; everything that is wrong goes to `problems`."""
    if not isinstance(item, Mapping):
        problems.append((place, 'must be an object such as {"StringEquals": {"aws:username": "ada"}}'))
        return ()
    found: list[Condition] = []
    for name, keys in item.items():
        at = f"{place}.{name}"
        sets = next((front for front in (ANY_VALUE, ALL_VALUES) if str(name).startswith(front)), "")
        base = str(name).removeprefix(sets)
        if_exists = base.endswith(IF_EXISTS)
        base = base.removesuffix(IF_EXISTS)
        if base not in OPERATORS and (base != "Null" or if_exists or sets):
            problems.append((at, f"is no operator that is known here: {', '.join((*OPERATORS, 'Null'))}"))
            continue
        if not isinstance(keys, Mapping) or not keys:
            problems.append((at, 'must be an object of condition keys such as {"aws:username": "ada"}'))
            continue
        for key, value in keys.items():
            values = tuple(_values(f"{at}.{key}", base, value, variables, problems))
            found.append(Condition(str(key).lower(), OPERATORS.get(base), values, if_exists, sets))
    return tuple(found)


def _values(place: str, base: str, value: Any, variables: bool, problems: Problems) -> Iterator[Any]:
    values = value if isinstance(value, list) else [value]
    if not values or len(values) > VALUES_MAX:
        problems.append((place, f"must have 1 to {VALUES_MAX} values"))
        return
    for entry in values:
        if isinstance(entry, bool):
            text = str(entry).lower()
        elif isinstance(entry, str | int | float):
            text = str(entry)
        else:
            problems.append((place, "must be a text or a list of texts"))
            continue
        try:
            yield _bool(text, False) if base == "Null" else OPERATORS[base].kind.read(text, variables)
        except ValueError as error:
            problems.append((place, f"{error!s}, not {text[:80]!r}"))
