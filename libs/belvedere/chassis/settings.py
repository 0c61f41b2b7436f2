"""Settings from the environment, one frozen dataclass a service.

    @dataclass(frozen=True)
    class Settings:
        lease_s: float = 86400.0
        # then its docstring: "How long a device's credentials last, in seconds."
        database_url: Secret[str] | None = None
        # "PostgreSQL URL; a file in the data folder where there is none."

    settings = load(Settings, env="BELVEDERE_REGISTRY_")     # BELVEDERE_REGISTRY_LEASE_S=3600

Must not know what is set. Types: str, int, float, bool, Path, Secret[str], tuple[str, ...] (separated by commas),
Literal of texts, and each of them | None. A wrong value is a SettingError that names the variable; it never repeats a
secret.
"""

import ast
import dataclasses
import inspect
import itertools
import os
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from belvedere.chassis.secret import Secret

C = TypeVar("C")

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class SettingError(Exception):
    """A setting is absent or wrong; the message names the environment variable and what it takes."""

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(f"{variable}: {message}")
        self.variable = variable


@dataclasses.dataclass(frozen=True)
class SettingDoc:
    """What `describe` says of one setting."""

    variable: str
    type: str
    default: str
    doc: str


def load(cls: type[C], env: str, environ: Mapping[str, str] | None = None) -> C:
    """An instance of the dataclass `cls` from the variables `<env><FIELD>`; fields without a variable keep their
    default.

    Raises SettingError for a wrong value and for an absent one without a default.
    """
    environ = os.environ if environ is None else environ
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable = env + field.name.upper()
        text = environ.get(variable)
        if text is not None:
            values[field.name] = _parse(variable, hints[field.name], text)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SettingError(variable, f"is not set; it takes {_type_name(hints[field.name])}")
    return cls(**values)


def _parse(variable: str, hint: Any, text: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        if text == "" and type(None) in arguments:
            return None
        return _parse(variable, inner[0], text)
    if origin is typing.Literal:
        if text not in arguments:
            raise SettingError(variable, f"is {text!r}; it takes one of {', '.join(map(str, arguments))}")
        return text
    if origin is Secret or hint is Secret:
        return Secret(text)
    if origin is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if hint is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise SettingError(variable, f"is {text!r}; it takes true or false")
        return text.lower() in _TRUE
    if hint in (str, Path):
        return hint(text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            raise SettingError(variable, f"is {text!r}; it takes {_type_name(hint)}") from error
    raise SettingError(variable, f"has the type {hint!r}, which settings cannot read")


def _type_name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names.get(hint, str(hint).replace("typing.", ""))


def describe(cls: type[Any], env: str) -> list[SettingDoc]:
    """Every setting of `cls` with the docstring under its field, for reference pages and `--help`."""
    hints = typing.get_type_hints(cls)
    docs = _field_docs(cls)
    found = []
    for field in dataclasses.fields(cls):
        default = "" if field.default is dataclasses.MISSING else str(field.default)
        found.append(
            SettingDoc(env + field.name.upper(), _type_name(hints[field.name]), default, docs.get(field.name, ""))
        )
    return found


def _field_docs(cls: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    docs: dict[str, str] = {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, after in itertools.pairwise(statements):
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            docs[field.target.id] = inspect.cleandoc(str(after.value.value))  # type: ignore[attr-defined]
    return docs
