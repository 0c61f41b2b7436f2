"""Filter patterns for messages that are JSON: { $.level = "ERROR" && ($.took_ms >= 200 || $.retry IS TRUE) }. Pure.

    expression  any ( "||" any )*            any   one ( "&&" one )*
    one         "(" expression ")" | selector test
    test        = != with a text (a bare word, or in quotes; * stands for any characters) or a number
                < <= > >= with a number      IS TRUE | IS FALSE | IS NULL      EXISTS | NOT EXISTS
    selector    $ ( .member | ["member"] | [index] )*

A message that is no JSON object, or has no such member, fits nothing but NOT EXISTS; `!=` too needs the member.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from belvedere import jsontext
from belvedere.chassis.errors import Invalid

Test = Callable[[Any], bool]

DEPTH_MAX = 16
"""Of parentheses."""
MISSING = object()
_TOKEN = re.compile(
    r"""\s*(?:(?P<logic>&&|\|\||[(){}])
      |(?P<selector>\$(?:\.[A-Za-z0-9_:@/-]+|\[\d{1,9}\]|\["[^"\]]*"\])*)
      |(?P<operator>!=|<=|>=|=|<|>)
      |"(?P<quoted>(?:[^"\\]|\\.)*)"
      |(?P<word>[^\s"(){}=<>!&|]+))""",
    re.VERBOSE | re.DOTALL,
)
_STEP = re.compile(r'\.([A-Za-z0-9_:@/-]+)|\[(\d{1,9})\]|\["([^"\]]*)"\]')
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_selector(pattern: str) -> Callable[[str], bool]:
    """The test of a message, for a pattern in braces. Raises Invalid."""
    test = _Parser(pattern).whole()

    def matches(message: str) -> bool:
        if not message.lstrip().startswith("{"):
            return False
        try:
            document = jsontext.loads(message)
        except (ValueError, RecursionError):
            return False
        return test(document)

    return matches


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, pattern.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise invalid(f"character {at + 1} cannot be read")
            kind = str(match.lastgroup)
            self._tokens.append((kind, match[kind]))
            at = match.end()
        self._at = 0

    def whole(self) -> Test:
        self._expect("{")
        test = self._either(0)
        self._expect("}")
        if self._at < len(self._tokens):
            raise invalid("something follows the closing brace")
        return test

    def _either(self, depth: int) -> Test:
        tests = [self._all(depth)]
        while self._take("logic", "||"):
            tests.append(self._all(depth))
        return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)

    def _all(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self._take("logic", "&&"):
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)

    def _one(self, depth: int) -> Test:
        if depth > DEPTH_MAX:
            raise invalid(f"parentheses are nested more than {DEPTH_MAX} deep")
        if self._take("logic", "("):
            test = self._either(depth + 1)
            self._expect(")")
            return test
        kind, text = self._next()
        if kind != "selector":
            raise invalid(f"a selector such as $.level is needed before {text!r}")
        steps = [int(i) if i else a or b for a, i, b in _STEP.findall(text)]
        kind, text = self._next()
        if kind == "operator":
            return self._comparison(steps, text)
        if kind == "word":
            return self._state(steps, text)
        raise invalid(f"an operator is needed before {text!r}")

    def _state(self, steps: list[str | int], word: str) -> Test:
        if word == "EXISTS":
            return lambda document: _find(document, steps) is not MISSING
        if word == "NOT" and self._take("word", "EXISTS"):
            return lambda document: _find(document, steps) is MISSING
        wanted: Mapping[str, Any] = {"TRUE": True, "FALSE": False, "NULL": None}
        if word == "IS":
            kind, text = self._next()
            if kind == "word" and text.upper() in wanted:
                value = wanted[text.upper()]
                return lambda document: _find(document, steps) is value
        raise invalid("EXISTS, NOT EXISTS, IS TRUE, IS FALSE and IS NULL are what can follow a selector")

    def _comparison(self, steps: list[str | int], sign: str) -> Test:
        kind, text = self._next()
        if kind not in ("quoted", "word"):
            raise invalid(f"a text or a number is needed behind {sign}")
        number = float(text) if kind == "word" and _NUMBER.fullmatch(text) else None
        if sign in _ORDER:
            if number is None:
                raise invalid(f"{sign} compares numbers, not {text!r}")
            limit, compare = number, _ORDER[sign]
            return lambda document: _is_number(value := _find(document, steps)) and compare(value, limit)
        equal = _equal_to(_unescaped(text) if kind == "quoted" else text, number)

        def test(document: Any) -> bool:
            value = _find(document, steps)
            return value is not MISSING and equal(value) is (sign == "=")

        return test

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise invalid("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, kind: str, text: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at] == (kind, text)
        self._at += there
        return there

    def _expect(self, text: str) -> None:
        if not self._take("logic", text):
            raise invalid(f"{text} is missing")


def _equal_to(text: str, number: float | None) -> Test:
    first, *rest = text.split("*")

    def equal(value: Any) -> bool:
        if _is_number(value):
            return bool(number is not None and value == number)
        if not isinstance(value, str):
            return False
        if not rest:
            return value == first
        # Each part at its first place behind the one before: linear, where a regular expression could take for ever.
        at, end = len(first), len(value) - len(rest[-1])
        if not value.startswith(first) or end < at or not value.endswith(rest[-1]):
            return False
        for part in rest[:-1]:
            at = value.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True

    return equal


def _find(document: Any, steps: list[str | int]) -> Any:
    for step in steps:
        if isinstance(step, int):
            if not isinstance(document, list) or step >= len(document):
                return MISSING
        elif not isinstance(document, dict) or step not in document:
            return MISSING
        document = document[step]
    return document


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def invalid(why: str) -> Invalid:
    """A pattern that is refused."""
    return Invalid(f"Invalid filter pattern: {why}.", fields=[("filterPattern", why)])
