"""The two documents of an application, as typed models: manifest (`nodeGraph`) and overrides (`nodeGraphOverrides`).

Source: the application manifest schema 2021-01-01 of the AWS Panorama developer guide. One reading finds every problem.
Must not know packages' contents: whether a reference leads anywhere is `resolve`'s question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from belvedere.graph._reading import (
    NODES,
    OVERRIDDEN,
    PACKAGES,
    Fields,
    Problems,
    Value,
    is_expression,
    literal,
    load,
    shown,
)
from belvedere.graph.errors import DocumentInvalid, Problem
from belvedere.graph.resolved import Literal, PortType
from belvedere.graph.view import ZERO

ENVELOPE_VERSION = "2021-01-01"
"""The one version of the documents there is."""
OVERRIDES = "overrides."
"""Places in the overrides document begin with this, so that they can't be taken for the manifest's."""
LATEST_PATCH = "package"
"""The schema's default of `patchVersion`: whichever patch is the latest."""

NODE_NAME = r"[$A-Z_a-z0-9\-]+"
PACKAGE_NAME = r"[$A-Z_a-z0-9]+::[a-zA-Z_0-9\-]+"
INTERFACE_NAME = r"[$A-Z_a-z0-9]+::[a-zA-Z_0-9\-]+\.[$A-Z_a-z0-9\-]+"
VERSION = r"[0-9]+\.[0-9]+"
ENDPOINT = r"[$a-zA-Z0-9_\-]+(\.[$a-z_A-Z0-9\-]+)?"
LITERAL_TYPES = ("boolean", "int32", "float32", "string")


@dataclass(frozen=True)
class Decorator:
    """How a console shows a node, and what it lets people enter."""

    title: str = ""
    description: str = ""
    constraint_text: str = ""
    constraint_regex: str = ""


@dataclass(frozen=True)
class PackageItem:
    """A package the graph uses."""

    owner: str
    name: str
    version: str
    patch_version: str
    """Empty: the latest."""
    place: str

    @property
    def full_name(self) -> str:
        """`owner::name`, as documents write it."""
        return f"{self.owner}::{self.name}"


@dataclass(frozen=True)
class InterfaceNode:
    """A node made from a package's interface."""

    name: str
    owner: str
    package: str
    interface: str
    place: str
    overridable: bool = False
    override_mandatory: bool = False
    launch: str = "onAppStart"
    decorator: Decorator = Decorator()

    @property
    def full_package(self) -> str:
        """`owner::package`, as documents write it."""
        return f"{self.owner}::{self.package}"


@dataclass(frozen=True)
class LiteralNode:
    """A node that is a value."""

    name: str
    type: PortType
    value: Literal
    place: str
    overridable: bool = False
    override_mandatory: bool = False
    decorator: Decorator = Decorator()


ManifestNode = InterfaceNode | LiteralNode


@dataclass(frozen=True)
class EdgeItem:
    """A connection as the document writes it."""

    producer: str
    consumer: str
    place: str


@dataclass(frozen=True)
class RoutingRule:
    """A port of the appliance that is to lead to a port of a code node."""

    node: str
    container_port: int
    host_port: int
    place: str


@dataclass(frozen=True)
class NodeOverride:
    """Which nodes stand in for a node of the manifest: several cameras for one, or none."""

    replace: str
    names: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Manifest:
    """What an application is."""

    description: str
    packages: tuple[PackageItem, ...]
    nodes: tuple[ManifestNode, ...]
    edges: tuple[EdgeItem, ...]
    rules: tuple[RoutingRule, ...]


@dataclass(frozen=True)
class Overrides:
    """What one deployment changes of it."""

    description: str = ""
    packages: tuple[PackageItem, ...] = ()
    nodes: tuple[ManifestNode, ...] = ()
    edges: tuple[EdgeItem, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    node_overrides: tuple[NodeOverride, ...] = ()


@dataclass(frozen=True)
class Draft:
    """Two documents as far as they could be read."""

    manifest: Manifest
    overrides: Overrides
    problems: tuple[Problem, ...] = ()
    """All that reading has found wrong: what is wrong is left out of the two, or stood in for by something harmless."""
    unread: frozenset[str] = frozenset()
    """Lists of which something is missing for that reason (`_reading.NODES`, `.PACKAGES`, `.OVERRIDDEN`)."""


def parse_manifest(text: str | bytes) -> Manifest:
    """Reads a manifest. Raises DocumentInvalid with every problem."""
    problems = Problems()
    manifest = _manifest(text, problems)
    _raise_if_any(problems)
    return manifest


def _manifest(text: str | bytes, problems: Problems) -> Manifest:
    fields = _envelope(text, "nodeGraph", problems, "")
    return Manifest(
        description=fields.text("description"),
        packages=_packages(fields, minimum=1),
        nodes=_nodes(fields, minimum=1),
        edges=_edges(fields),
        rules=_rules(fields),
    )


def parse_overrides(text: str | bytes) -> Overrides:
    """Reads an overrides document. Raises DocumentInvalid with every problem; places begin with `overrides.`."""
    problems = Problems()
    overrides = _overrides(text, problems)
    _raise_if_any(problems)
    return overrides


def _overrides(text: str | bytes, problems: Problems) -> Overrides:
    fields = _envelope(text, "nodeGraphOverrides", problems, OVERRIDES)
    return Overrides(
        description=fields.text("description"),
        packages=_packages(fields),
        nodes=_nodes(fields),
        edges=_edges(fields),
        rules=_rules(fields),
        node_overrides=tuple(_node_override(item) for item in fields.items("nodeOverrides")),
    )


def parse_application(manifest: str | bytes, overrides: str | bytes | None) -> tuple[Manifest, Overrides]:
    """Reads both. Raises DocumentInvalid with the problems of both together."""
    draft = read_application(manifest, overrides)
    if draft.problems:
        raise DocumentInvalid(draft.problems)
    return draft.manifest, draft.overrides


def read_application(manifest: str | bytes, overrides: str | bytes | None) -> Draft:
    """Reads both as far as they can be read, so that what stands in them can be checked with all that is wrong about them.

    Raises DocumentInvalid where of the manifest there is nothing to check.
    """
    problems = Problems()
    graph = _manifest(manifest, problems)
    changes = _overrides(overrides, problems) if overrides is not None and overrides.strip() else Overrides()
    places = {problem.place for problem in problems.found}
    if "" in places:
        raise DocumentInvalid(problems.found)
    return Draft(graph, changes, problems.found, frozenset(_unread(graph, changes, places)))


def _unread(manifest: Manifest, overrides: Overrides, places: set[str]) -> Iterator[str]:
    """What is missing of two documents in which these places are wrong."""
    lost = OVERRIDES in places
    nodes = (*manifest.nodes, *overrides.nodes)
    if lost or places & {"nodes", f"{OVERRIDES}nodes"} or not all(node.name for node in nodes):
        yield NODES
    packages = (*manifest.packages, *overrides.packages)
    if lost or places & {"packages", f"{OVERRIDES}packages"} or not all(item.name for item in packages):
        yield PACKAGES
    if lost or any(place.startswith((f"{OVERRIDES}nodes", f"{OVERRIDES}nodeOverrides")) for place in places):
        yield OVERRIDDEN


def _raise_if_any(problems: Problems) -> None:
    if problems.found:
        raise DocumentInvalid(problems.found)


def _envelope(text: str | bytes, kind: str, problems: Problems, place: str) -> Fields:
    value = load(text, problems, place)
    if value is None:
        return Fields({}, place, problems, valid=False)
    outer = value.fields(kind)
    if not outer.has(kind):
        if outer.valid:
            problems.add(place, f'has no "{kind}": is this the right document?')
        return Fields({}, place, problems, valid=False)
    inner = outer.get(kind)
    known = ("envelopeVersion", "description", "packages", "nodes", "edges", "networkRoutingRules", "nodeOverrides")
    # Inside, places are told from the document's own root: `nodes[2].interface`.
    fields = Value(inner.value, place, problems).fields(*known)
    check_envelope(fields)
    return fields


def check_envelope(fields: Fields) -> None:
    """Records a problem where the document is of a version that is not known here."""
    version = fields.text("envelopeVersion", required=True)
    if version and version != ENVELOPE_VERSION:
        fields.problems.add(
            fields.at("envelopeVersion"),
            f'must be "{ENVELOPE_VERSION}", not {shown(version)}: no other version is known',
        )


def _packages(fields: Fields, minimum: int = 0) -> tuple[PackageItem, ...]:
    return tuple(_package(item) for item in fields.items("packages", minimum=minimum))


def _package(item: Value) -> PackageItem:
    fields = item.fields("name", "version", "patchVersion", "generatedPatchVersion", "uri")
    name = fields.text("name", required=True, limit=400, pattern=PACKAGE_NAME, says="of the form owner::package")
    version = fields.text("version", required=True, pattern=VERSION, says='a version such as "1.0"')
    patch = fields.text("patchVersion", default=LATEST_PATCH, pattern="[a-z0-9]*", says="lower-case letters and digits")
    owner, _, package = name.partition("::")
    return PackageItem(owner, package, version, "" if patch == LATEST_PATCH else patch, item.place)


def _nodes(fields: Fields, minimum: int = 0) -> tuple[ManifestNode, ...]:
    nodes = tuple(_node(item) for item in fields.items("nodes", minimum=minimum))
    seen: dict[str, str] = {}
    for node in nodes:
        if node.name and node.name in seen:
            fields.problems.add(f"{node.place}.name", f'"{node.name}" is the name of {seen[node.name]} already')
        seen.setdefault(node.name, node.place)
    return nodes


def _node(item: Value) -> ManifestNode:
    fields = item.fields(
        "name", "interface", "value", "overridable", "overrideMandatory", "launch", "decorator", "description"
    )  # fmt: skip
    name = fields.text(
        "name", required=True, limit=128, minimum=1, pattern=NODE_NAME, says="letters, digits, $, _ and - only"
    )
    overridable, mandatory = fields.flag("overridable"), fields.flag("overrideMandatory")
    decorator = _decorator(fields)
    interface = fields.get("interface").value
    if isinstance(interface, str) and interface in LITERAL_TYPES:
        type = PortType(interface)
        value = literal(fields.get("value").value, type) if fields.has("value") else ZERO[type]
        if value is None:
            fields.problems.add(fields.at("value"), f"must be {_wanted(type)}, not {shown(fields.get('value').value)}")
        return LiteralNode(
            name, type, ZERO[type] if value is None else value, item.place, overridable, mandatory, decorator
        )
    says = "of the form owner::package.interface, or one of " + ", ".join(LITERAL_TYPES)
    full = fields.text("interface", required=True, limit=600, pattern=INTERFACE_NAME, says=says)
    package, _, port = full.partition(".")
    owner, _, package = package.partition("::")
    launch = fields.choice("launch", ("onDemand", "onAppStart", "onSignal"), default="onAppStart")
    return InterfaceNode(name, owner, package, port, item.place, overridable, mandatory, launch, decorator)


def _wanted(type: PortType) -> str:
    return {
        PortType.BOOLEAN: "true or false",
        PortType.INT32: "a whole number of 32 bits",
        PortType.FLOAT32: "a number of 32 bits",
        PortType.STRING: "text",
    }[type]


def _decorator(fields: Fields) -> Decorator:
    if not fields.has("decorator"):
        return Decorator()
    inner = fields.get("decorator").fields("title", "description", "constraintText", "constraintRegex")
    regex = inner.text("constraintRegex")
    if regex and not is_expression(regex):
        inner.problems.add(inner.at("constraintRegex"), f"{shown(regex)} is not a regular expression")
    return Decorator(inner.text("title"), inner.text("description"), inner.text("constraintText"), regex)


def _edges(fields: Fields) -> tuple[EdgeItem, ...]:
    return tuple(_edge(item) for item in fields.items("edges"))


def _edge(item: Value) -> EdgeItem:
    fields = item.fields("producer", "consumer")
    says = "node.port, or the name of a parameter node"
    return EdgeItem(
        fields.text("producer", required=True, limit=400, pattern=ENDPOINT, says=says),
        fields.text("consumer", required=True, limit=400, pattern=ENDPOINT, says=says),
        item.place,
    )


def _rules(fields: Fields) -> tuple[RoutingRule, ...]:
    return tuple(_rule(item) for item in fields.items("networkRoutingRules"))


def _rule(item: Value) -> RoutingRule:
    fields = item.fields("node", "containerPort", "hostPort", "decorator")
    _decorator(fields)
    container = fields.whole("containerPort", 1, 65535, required=True)
    host = fields.whole("hostPort", 1, 65535, default=container)
    return RoutingRule(fields.text("node", required=True, limit=128), container, host, item.place)


def _node_override(item: Value) -> NodeOverride:
    fields = item.fields("replace", "with")
    names = tuple(
        value.fields("name").text("name", required=True, limit=128, minimum=1) for value in fields.items("with")
    )
    if not fields.has("with") and fields.valid:
        fields.problems.add(fields.at("with"), "is missing; an empty list replaces the node with nothing")
    return NodeOverride(fields.text("replace", required=True, limit=128, minimum=1), names, item.place)
