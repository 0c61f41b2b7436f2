"""Texts of policies with wildcards and variables: `arn:aws:s3:::b/${aws:username}/*`.

`*` is any text, `?` any one character. A variable stands for one value of the request, character by character: a `*` in a user's
name is no wildcard. `${*}`, `${?}` and `${$}` are those characters themselves. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Context = Mapping[str, Sequence[str]]
"""What is known of a request, by condition key in lower case; most keys have one value."""

_VARIABLE = re.compile(r"\$\{([^{}$]*|\$)\}")
_DEFAULT = re.compile(r"\s*([^,']+?)\s*,\s*'([^']*)'\s*")
_ESCAPES = ("*", "?", "$")


@dataclass(frozen=True)
class _Variable:
    key: str
    default: str | None


Filled = tuple[tuple[str, bool], ...]
"""(text, whether it is meant as it stands): wildcards count in the others only."""


@dataclass(frozen=True)
class Pattern:
    """One text of a policy, read."""

    text: str
    parts: tuple[str | _Variable, ...] | None
    """Alternately a pattern and a variable or an escaped character (as a variable with that default); None: no variable."""

    @classmethod
    def of(cls, text: str, variables: bool) -> Pattern:
        """`variables`: whether the policy's version has them."""
        if not variables or "${" not in text:
            return cls(text, None)
        parts: list[str | _Variable] = []
        end = 0
        for match in _VARIABLE.finditer(text):
            parts += [text[end : match.start()], _variable(match[1])]
            end = match.end()
        return cls(text, (*parts, text[end:]) if parts else None)

    def filled(self, context: Context) -> Filled | None:
        """The pieces with their variables in place; None where one is not known."""
        if self.parts is None:
            return ((self.text, False),)
        found: list[tuple[str, bool]] = []
        for part in self.parts:
            if isinstance(part, str):
                found.append((part, False))
                continue
            values = context.get(part.key, ()) if part.key else ()
            value = values[0] if len(values) == 1 else part.default
            if value is None:
                return None
            found.append((value, True))
        return tuple(found)

    def plain(self, context: Context) -> str | None:
        """The text with its variables in place, wildcards being letters like others."""
        filled = self.filled(context)
        return None if filled is None else "".join(text for text, _ in filled)

    def matches(self, value: str, context: Context) -> bool:
        """Whether `value` is of this form."""
        if self.parts is None and self.text == "*":
            return True
        filled = self.filled(context)
        return filled is not None and compiled(filled).match(value) is not None


def _variable(inside: str) -> _Variable:
    if inside in _ESCAPES:
        return _Variable("", inside)
    with_default = _DEFAULT.fullmatch(inside)
    if with_default:
        return _Variable(with_default[1].lower(), with_default[2])
    return _Variable(inside.strip().lower(), None)


@lru_cache(maxsize=4096)
def compiled(filled: Filled) -> re.Pattern[str]:
    """The regular expression of a text with wildcards; matches the whole. Takes time linear in the value for each `*`:
    what stands between two of them is looked for once, from the left (atomic groups)."""
    between = [""]
    for text, literal in filled:
        if literal:
            between[-1] += re.escape(text)
            continue
        first, *rest = text.split("*")
        between[-1] += _one_by_one(first)
        between += [_one_by_one(piece) for piece in rest]
    first, *rest = between
    expression = first
    for index, piece in enumerate(rest):
        last = index == len(rest) - 1
        expression += f".*{piece}" if last else f"(?>.*?{piece})" if piece else ""
    return re.compile(expression + r"\Z", re.DOTALL)


def _one_by_one(text: str) -> str:
    return "".join("." if letter == "?" else re.escape(letter) for letter in text)
