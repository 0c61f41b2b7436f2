"""The overrides document of a deployment, made from choices: these cameras in the place of that node, this value for
that parameter. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from belvedere.appdir.errors import OverrideInvalid

LITERALS = ("boolean", "float32", "int32", "string")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class CameraNode:
    """A registered camera."""

    owner: str
    """Account."""
    package: str
    version: str
    interface: str


def literal_type(graph: Mapping[str, Any], node: str) -> str | None:
    """The type of a parameter of the graph document; None where the node is something else.

    Raises OverrideInvalid where the graph has no such node.
    """
    nodes = [item for item in graph.get("nodeGraph", {}).get("nodes", ()) if isinstance(item, dict)]
    for item in nodes:
        if item.get("name") == node:
            return item["interface"] if item.get("interface") in LITERALS else None
    names = ", ".join(str(item.get("name")) for item in nodes if item.get("overridable"))
    raise OverrideInvalid(node, f"the graph has no such node; these can be overridden: {names or 'none'}")


def overrides_document(
    cameras: Mapping[str, Sequence[CameraNode]],
    values: Mapping[str, tuple[str, str]] | None = None,
    start: Mapping[str, Any] | None = None,
    taken: Collection[str] = (),
) -> dict[str, Any]:
    """The document. `cameras`: graph node → cameras in its place; `values`: parameter → (type, value as text);
    `start`: an overrides document to add to, whose choice for the same node gives way; `taken`: names of the graph's own
    nodes. A camera's node is named like the camera, unless that is taken.

    Raises OverrideInvalid.
    """
    document = copy.deepcopy(dict(start or {})) or {"nodeGraphOverrides": {"envelopeVersion": "2021-01-01"}}
    inner = document.get("nodeGraphOverrides")
    if not isinstance(inner, dict):
        raise OverrideInvalid("", "the overrides document lacks nodeGraphOverrides")
    chosen = set(cameras) | set(values or ())
    packages, nodes = inner.setdefault("packages", []), inner.setdefault("nodes", [])
    kept = [item for item in inner.get("nodeOverrides", ()) if item.get("replace") not in chosen]
    inner["nodeOverrides"] = kept
    for node, choice in cameras.items():
        names = []
        for camera in choice:
            name = camera.interface if camera.interface not in taken else f"{camera.interface}_camera"
            names.append(name)
            package = {"name": f"{camera.owner}::{camera.package}", "version": camera.version}
            if package not in packages:
                packages.append(package)
            if not any(item.get("name") == name for item in nodes):
                nodes.append(
                    {
                        "name": name,
                        "interface": f"{camera.owner}::{camera.package}.{camera.interface}",
                        "overridable": True,
                        "overrideMandatory": False,
                        "launch": "onAppStart",
                    }
                )
        kept.append({"replace": node, "with": [{"name": name} for name in names]})
    for node, (kind, text) in (values or {}).items():
        name = f"{node}_override"
        nodes[:] = [item for item in nodes if item.get("name") != name]
        nodes.append({"name": name, "interface": kind, "value": _value(node, kind, text), "overridable": True})
        kept.append({"replace": node, "with": [{"name": name}]})
    return document


def with_open_ports(document: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides with every networkRoutingRule of the graph document in them: a rule of the graph alone opens nothing."""
    made = copy.deepcopy(dict(document))
    inner = graph.get("nodeGraph")
    rules = inner.get("networkRoutingRules") if isinstance(inner, dict) else None
    if isinstance(rules, list) and rules:
        opened = made["nodeGraphOverrides"].setdefault("networkRoutingRules", [])
        opened += [rule for rule in rules if rule not in opened]
    return made


def _value(node: str, kind: str, text: str) -> bool | int | float | str:
    try:
        if kind == "int32":
            return int(text)
        if kind == "float32":
            return float(text)
    except ValueError:
        raise OverrideInvalid(node, f'"{text}" is no {kind}') from None
    if kind == "boolean":
        if text.lower() not in _TRUE + _FALSE:
            raise OverrideInvalid(node, f'"{text}" is no boolean: say true or false')
        return text.lower() in _TRUE
    return text
