"""Manifest and overrides to one list of nodes and edges: who stands in for whom, and with which value.

Must not know packages' contents: `resolve` looks at those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from belvedere.graph._reading import NODES, OVERRIDDEN, Problems, meets, shown
from belvedere.graph.application import (
    OVERRIDES,
    EdgeItem,
    InterfaceNode,
    LiteralNode,
    Manifest,
    ManifestNode,
    Overrides,
    PackageItem,
    RoutingRule,
)


@dataclass(frozen=True)
class MergedNode:
    """A node of the merged graph."""

    node: ManifestNode
    replaces: tuple[ManifestNode, ...] = ()
    """The manifest's nodes that this one stands in for."""


@dataclass(frozen=True)
class MergedEdge:
    """A connection of the merged graph, with both ends taken apart; a parameter has no port."""

    producer: str
    producer_port: str
    consumer: str
    consumer_port: str
    place: str


@dataclass(frozen=True)
class Merged:
    """The graph of one deployment, before it is looked up what its packages hold."""

    packages: tuple[PackageItem, ...]
    nodes: tuple[MergedNode, ...]
    edges: tuple[MergedEdge, ...]
    rules: tuple[RoutingRule, ...]
    """All that are declared, for checking."""
    open_rules: tuple[RoutingRule, ...]
    """Those of the overrides: a rule of the manifest alone opens nothing."""


def merge(manifest: Manifest, overrides: Overrides, problems: Problems) -> Merged:
    """Applies the overrides; records what does not fit."""
    graph = {node.name: node for node in manifest.nodes}
    offered = {node.name: node for node in overrides.nodes}
    stand_ins = _stand_ins(graph, offered, overrides, problems)
    for node in manifest.nodes:
        if node.override_mandatory and node.name not in stand_ins:
            text = f'"{node.name}" must be overridden: say with what in the overrides (nodeOverrides)'
            problems.add(node.place, text, needs=OVERRIDDEN)
    nodes: dict[str, MergedNode] = {}
    for node in manifest.nodes:
        if node.name not in stand_ins:
            nodes.setdefault(node.name, MergedNode(node))
        for other in stand_ins.get(node.name, ()):
            before = nodes[other.name].replaces if other.name in nodes else ()
            nodes[other.name] = MergedNode(other, (*before, node))
    connected = {end.partition(".")[0] for edge in overrides.edges for end in (edge.producer, edge.consumer)}
    for node in overrides.nodes:
        if node.name in connected and node.name not in nodes:
            nodes[node.name] = MergedNode(node)
    ends = {name: tuple(node.name for node in others) for name, others in stand_ins.items()}
    return Merged(
        packages=_packages(manifest, overrides, problems),
        nodes=tuple(nodes.values()),
        edges=tuple(merged for edge in (*manifest.edges, *overrides.edges) for merged in _edges(edge, ends)),
        rules=(*manifest.rules, *overrides.rules),
        open_rules=overrides.rules,
    )


def _stand_ins(
    graph: dict[str, ManifestNode], offered: dict[str, ManifestNode], overrides: Overrides, problems: Problems
) -> dict[str, tuple[ManifestNode, ...]]:
    found: dict[str, tuple[ManifestNode, ...]] = {}
    for override in overrides.node_overrides:
        old = graph.get(override.replace)
        if old is None:
            problems.add(f"{override.place}.replace", f'no node "{override.replace}" in the manifest', needs=NODES)
            continue
        if override.replace in found:
            problems.add(f"{override.place}.replace", f'"{override.replace}" is replaced by an earlier entry already')
            continue
        others: list[ManifestNode] = []
        for index, name in enumerate(override.names):
            place = f"{override.place}.with[{index}].name"
            new = offered.get(name, graph.get(name))
            if new is None:
                problems.add(place, f'no node "{name}" in the overrides or the manifest', needs=NODES)
            elif new not in others:
                others.append(new)
                _check_fit(old, new, place, problems)
        if not old.overridable and others != [old]:
            problems.add(f"{override.place}.replace", f'"{old.name}" can not be replaced: it is not overridable')
        if isinstance(old, LiteralNode) and len(others) > 1:
            problems.add(f"{override.place}.with", f'"{old.name}" is a value and can be replaced by one value only')
        found[override.replace] = tuple(others)
    for name, new in offered.items():
        # An overrides' node of a manifest node's name needs no entry in nodeOverrides to be understood.
        if name in graph and name not in found:
            if not graph[name].overridable and replace(new, place="") != replace(graph[name], place=""):
                problems.add(new.place, f'"{name}" can not be replaced: it is not overridable')
            _check_fit(graph[name], new, new.place, problems)
            found[name] = (new,)
    return found


def _check_fit(old: ManifestNode, new: ManifestNode, place: str, problems: Problems) -> None:
    if isinstance(old, LiteralNode) != isinstance(new, LiteralNode):
        kinds = ("a value", "a package's node") if isinstance(old, LiteralNode) else ("a package's node", "a value")
        problems.add(place, f'"{old.name}" is {kinds[0]}, but "{new.name}" is {kinds[1]}')
    elif isinstance(old, LiteralNode) and isinstance(new, LiteralNode):
        if old.type is not new.type:
            problems.add(place, f'"{old.name}" is {old.type}, but "{new.name}" is {new.type}')
        else:
            for decorator in {old.decorator, new.decorator}:
                check_constraint(new, decorator.constraint_regex, decorator.constraint_text, problems)


def check_constraint(node: LiteralNode, regex: str, says: str, problems: Problems) -> None:
    """Records a problem where the node's value does not match a constraint as a whole."""
    if regex and not meets(regex, node.value):
        problems.add(f"{node.place}.value", f"{shown(node.value)} is not allowed: {says or 'it must match ' + regex}")


def _packages(manifest: Manifest, overrides: Overrides, problems: Problems) -> tuple[PackageItem, ...]:
    chosen: dict[str, PackageItem] = {}
    for item in (*manifest.packages, *overrides.packages):
        earlier = chosen.get(item.full_name)
        same_document = earlier is not None and earlier.place.startswith(OVERRIDES) == item.place.startswith(OVERRIDES)
        if earlier is not None and same_document and earlier.version != item.version:
            problems.add(
                f"{item.place}.version", f'"{item.full_name}" is listed with version {earlier.version} already'
            )
        # The overrides' entry wins: so a deployment can move to another version or patch.
        chosen[item.full_name] = item
    return tuple(chosen.values())


def _edges(edge: EdgeItem, stand_ins: dict[str, tuple[str, ...]]) -> list[MergedEdge]:
    producer, _, producer_port = edge.producer.partition(".")
    consumer, _, consumer_port = edge.consumer.partition(".")
    return [
        MergedEdge(source, producer_port, sink, consumer_port, edge.place)
        for source in stand_ins.get(producer, (producer,))
        for sink in stand_ins.get(consumer, (consumer,))
    ]


def is_stand_in(merged: MergedNode) -> bool:
    """Whether the node takes the place of another one of the manifest."""
    return isinstance(merged.node, InterfaceNode) and bool(merged.replaces)
