"""Templates: YAML or JSON with CloudFormation's functions, read and evaluated. Pure.

    template = parse(text)                          # TemplateError, naming what is wrong
    for name in template.order: …                   # each after those that it refers to
    evaluate(template.resources[name].properties, scope)

Scalars are texts, as YAML spells them: `Version: 2012-10-17` is no date. What is known: Ref, Fn::GetAtt, Fn::Sub, Fn::Join.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

NO_VALUE = "AWS::NoValue"
DEPTH_MAX = 64
_SECTIONS = {"AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Resources", "Outputs"}
_SHORT = {"Ref": "Ref", "GetAtt": "Fn::GetAtt", "Sub": "Fn::Sub", "Join": "Fn::Join"}
_NAME = re.compile(r"[A-Za-z0-9]{1,255}")
_IN_SUB = re.compile(r"\$\{(!?)([^${}]+)\}")


class TemplateError(Exception):
    """A template that cannot be used; the message says what is wrong, and where."""


@dataclass(frozen=True)
class Resource:
    """One resource, as it stands in the template."""

    type: str
    properties: Mapping[str, Any]
    after: frozenset[str]
    """Names of the resources that must be there before it."""


@dataclass(frozen=True)
class Template:
    """A template that holds together."""

    description: str
    parameters: Mapping[str, Mapping[str, Any]]
    resources: Mapping[str, Resource]
    outputs: Mapping[str, Mapping[str, Any]]
    order: tuple[str, ...]
    """Names of resources, each after those that it refers to."""

    def values(self, given: Mapping[str, str]) -> dict[str, str]:
        """The parameters' values. Raises TemplateError."""
        if unknown := sorted(set(given) - set(self.parameters)):
            raise TemplateError(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
        defaults = {name: str(found["Default"]) for name, found in self.parameters.items() if "Default" in found}
        if missing := sorted(set(self.parameters) - set(defaults) - set(given)):
            raise TemplateError(f"Parameters: [{', '.join(missing)}] must have values")
        return defaults | dict(given)


@dataclass
class Scope:
    """What names stand for while a stack is made."""

    refs: dict[str, str]
    """Parameters, pseudo parameters, resources."""
    attributes: dict[tuple[str, str], str] = field(default_factory=dict)
    """(resource, attribute) → value."""


def parse(text: str) -> Template:
    """Raises TemplateError."""
    document = _load(text)
    if unknown := sorted(set(document) - _SECTIONS):
        raise TemplateError(f"Template format error: {', '.join(unknown)} is not served here")
    parameters = _named(document, "Parameters")
    found = _named(document, "Resources")
    if not found:
        raise TemplateError("Template format error: At least one Resources member must be defined.")
    outputs = _named(document, "Outputs")
    resources = {name: _resource(name, raw, parameters, found) for name, raw in found.items()}
    for name, output in outputs.items():
        if "Value" not in output or set(output) - {"Value", "Description", "Export"}:
            raise TemplateError(f"Template format error: Outputs/{name} has Value, Description and Export only")
        _references(output["Value"], f"Outputs/{name}", parameters, found)
    description = document.get("Description", "")
    if not isinstance(description, str):
        raise TemplateError("Template format error: Description must be a text")
    return Template(description, parameters, resources, outputs, _ordered(resources))


def evaluate(value: Any, scope: Scope) -> Any:
    """The value with its functions called; a member whose value is AWS::NoValue is left out."""
    if isinstance(value, list):
        return [found for found in (evaluate(inner, scope) for inner in value) if found is not _NOTHING]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (name, argument), *_ = value.items()
        match name:
            case "Ref":
                return _NOTHING if argument == NO_VALUE else scope.refs[argument]
            case "Fn::GetAtt":
                return _attribute(argument, scope)
            case "Fn::Join":
                separator, parts = argument
                return str(separator).join(str(part) for part in evaluate(parts, scope))
            case "Fn::Sub":
                text, own = (argument, {}) if isinstance(argument, str) else (argument[0], evaluate(argument[1], scope))
                return _IN_SUB.sub(lambda found: _substituted(found, own, scope), text)
    pairs = ((key, evaluate(inner, scope)) for key, inner in value.items())
    return {key: found for key, found in pairs if found is not _NOTHING}


_NOTHING = object()


def _attribute(argument: Any, scope: Scope) -> str:
    name, attribute = _split(argument)
    try:
        return scope.attributes[name, attribute]
    except KeyError:
        raise TemplateError(f"Template error: resource {name} does not support attribute type {attribute}") from None


def _substituted(found: re.Match[str], own: Mapping[str, Any], scope: Scope) -> str:
    literal, name = found[1], found[2].strip()
    if literal:
        return f"${{{found[2]}}}"
    if name in own:
        return str(own[name])
    return _attribute(name, scope) if "." in name else scope.refs[name]


def _split(argument: Any) -> tuple[str, str]:
    parts = argument.split(".", 1) if isinstance(argument, str) else argument
    return str(parts[0]), str(parts[1])


def _load(text: str) -> dict[str, Any]:
    try:
        # An alias stands for what may be as large as one likes: no template needs one.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.BaseLoader)):
            raise TemplateError("Template format error: YAML aliases are not allowed in CloudFormation templates")
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise TemplateError(f"Template format error: YAML not well-formed. ({str(error)[:200]})") from error
    except RecursionError:
        raise TemplateError("Template format error: it is nested too deeply") from None
    if not isinstance(document, dict):
        raise TemplateError("Template format error: unsupported structure.")
    _check_depth(document, 0)
    return document


def _check_depth(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise TemplateError("Template format error: it is nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


class _Loader(yaml.BaseLoader):
    """Texts, lists and mappings; `!Ref x` as {"Ref": "x"}."""


def _short_form(loader: yaml.BaseLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if suffix not in _SHORT:
        raise TemplateError(f"Template format error: !{suffix} is not served here")
    match node:
        case yaml.ScalarNode():
            return {_SHORT[suffix]: loader.construct_scalar(node)}
        case yaml.SequenceNode():
            return {_SHORT[suffix]: loader.construct_sequence(node, deep=True)}
    raise TemplateError(f"Template format error: !{suffix} takes a text or a list")


_Loader.add_multi_constructor("!", _short_form)


def _named(document: Mapping[str, Any], section: str) -> dict[str, dict[str, Any]]:
    found = document.get(section, {})
    if not isinstance(found, dict):
        raise TemplateError(f"Template format error: {section} must be an object")
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise TemplateError(f"Template format error: {section} name {name[:64]!r} is non alphanumeric.")
        if not isinstance(value, dict):
            raise TemplateError(f"Template format error: {section}/{name} must be an object")
    return found


def _resource(
    name: str, raw: Mapping[str, Any], parameters: Mapping[str, Any], resources: Mapping[str, Any]
) -> Resource:
    if not isinstance(raw.get("Type"), str):
        raise TemplateError(f"Template format error: [/Resources/{name}] Every resource must have a Type member.")
    if unknown := sorted(set(raw) - {"Type", "Properties", "DependsOn", "Metadata"}):
        raise TemplateError(f"Template format error: [/Resources/{name}] {', '.join(unknown)} is not served here")
    properties = raw.get("Properties", {})
    if not isinstance(properties, dict):
        raise TemplateError(f"Template format error: [/Resources/{name}/Properties] must be an object")
    given = raw.get("DependsOn", [])
    after = {given} if isinstance(given, str) else set(map(str, given))
    if unknown := sorted(after - set(resources)):
        raise TemplateError(f"Template format error: Unresolved resource dependencies [{', '.join(unknown)}]")
    after |= _references(properties, f"Resources/{name}", parameters, resources)
    return Resource(raw["Type"], properties, frozenset(after))


PSEUDO = frozenset(
    {"AWS::AccountId", "AWS::Region", "AWS::StackName", "AWS::StackId", "AWS::Partition", "AWS::URLSuffix"}
)


def _references(value: Any, place: str, parameters: Mapping[str, Any], resources: Mapping[str, Any]) -> set[str]:
    """Names of resources that a value refers to. Raises TemplateError for those that nothing has, and unknown functions."""
    found: set[str] = set()
    for name, attribute in _names_in(value, place):
        if name in resources:
            found.add(name)
        elif attribute or (name not in parameters and name not in PSEUDO and name != NO_VALUE):
            raise TemplateError(f"Template format error: Unresolved resource dependencies [{name}] in {place}")
    return found


def _names_in(value: Any, place: str) -> Iterator[tuple[str, bool]]:
    """(name, whether an attribute of it is asked for) of every reference."""
    if isinstance(value, list):
        for inner in value:
            yield from _names_in(inner, place)
    if not isinstance(value, dict):
        return
    for key, argument in value.items():
        wrong = TemplateError(f"Template format error: {key} in {place} has a wrong argument")
        match key:
            case "Ref":
                if not isinstance(argument, str):
                    raise wrong
                yield argument, False
            case "Fn::GetAtt":
                parts = argument.split(".", 1) if isinstance(argument, str) else argument
                if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
                    raise wrong
                yield parts[0], True
            case "Fn::Sub":
                text, own = (argument, {}) if isinstance(argument, str) else _pair(argument, wrong)
                if not isinstance(text, str) or not isinstance(own, dict):
                    raise wrong
                yield from _names_in(own, place)
                for literal, name in _IN_SUB.findall(text):
                    if not literal and name.strip() not in own:
                        yield name.strip().partition(".")[0], "." in name
            case "Fn::Join":
                _, parts = _pair(argument, wrong)
                if not isinstance(parts, list):
                    raise wrong
                yield from _names_in(parts, place)
            case _ if key.startswith("Fn::") or (key == "Condition" and len(value) == 1):
                raise TemplateError(f"Template format error: {key} in {place} is not served here")
            case _:
                yield from _names_in(argument, place)


def _pair(argument: Any, wrong: TemplateError) -> tuple[Any, Any]:
    if not isinstance(argument, list) or len(argument) != 2:
        raise wrong
    return argument[0], argument[1]


def _ordered(resources: Mapping[str, Resource]) -> tuple[str, ...]:
    done: dict[str, None] = {}
    while len(done) < len(resources):
        ready = [name for name, resource in resources.items() if name not in done and resource.after <= done.keys()]
        if not ready:
            circle = ", ".join(sorted(set(resources) - set(done)))
            raise TemplateError(f"Circular dependency between resources: [{circle}]")
        done.update(dict.fromkeys(ready))
    return tuple(done)
