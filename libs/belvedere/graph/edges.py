"""Connections of a merged graph: both ends must be there, be of one type, and take no more than they can."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from belvedere.graph._reading import NODES, Problems, meets, shown
from belvedere.graph.application import LiteralNode
from belvedere.graph.builtin import CAMERA_INPUTS
from belvedere.graph.merge import Merged, MergedEdge, is_stand_in
from belvedere.graph.package import Interface, PackageInput, PackageOutput
from belvedere.graph.resolved import Edge, PortType


@dataclass(frozen=True)
class Ports:
    """What a node can be connected by. With neither, the node itself is a problem already and its edges are none."""

    interface: Interface | None = None
    parameter: LiteralNode | None = None

    @classmethod
    def unknown(cls) -> Ports:
        """Of a node whose package or interface was not found."""
        return cls()

    @property
    def known(self) -> bool:
        """Whether edges can be checked against it."""
        return self.interface is not None or self.parameter is not None


def check_edges(merged: Merged, ports: dict[str, Ports], problems: Problems) -> tuple[Edge, ...]:
    """The connections, each once; records those that can't be."""
    stand_ins = {node.node.name for node in merged.nodes if is_stand_in(node)}
    edges: dict[Edge, None] = {}
    incoming: dict[tuple[str, str], list[Edge]] = defaultdict(list)
    for item in merged.edges:
        output = _output(item, ports, item.producer in stand_ins, problems)
        input = _input(item, ports, item.consumer in stand_ins, problems)
        if output is None or input is None:
            continue
        if output.type is not input.type:
            problems.add(
                item.place,
                f"{_end(item.producer, item.producer_port)} is {output.type}, "
                f"but {_end(item.consumer, item.consumer_port)} takes {input.type}",
            )
            continue
        _check_value(item, input, ports[item.producer].parameter, problems)
        edge = Edge(item.producer, output.name, item.consumer, input.name)
        if edge in edges:
            continue
        edges[edge] = None
        _check_way(item, output, ports, problems)
        already = incoming[item.consumer, input.name]
        already.append(edge)
        _check_room(item, input, already, problems)
    _check_circles(merged.edges, edges, problems)
    _check_shown(merged.edges, edges, ports, problems)
    return tuple(edges)


def _check_way(item: MergedEdge, output: PackageOutput, ports: dict[str, Ports], problems: Problems) -> None:
    """A display shows what code gives it: a camera by itself has nobody to hand its pictures on. And values come from
    parameters and go to code: what code and models give each other, they do by call and by pictures."""
    producer, consumer = ports[item.producer], ports[item.consumer]
    ends = [end.interface.category for end in (producer, consumer) if end.interface is not None]
    if ends == ["media_source", "media_sink"]:
        problems.add(item.place, _shows_nothing(item.consumer, item.producer))
    elif output.type is not PortType.MEDIA and producer.parameter is None:
        problems.add(
            f"{item.place}.producer",
            f"{_end(item.producer, output.name)} gives {output.type}: no edge can carry that, only pictures and the values "
            "of parameters; the results of a model come to code by node.call",
        )
    elif output.type is not PortType.MEDIA and ends != ["business_logic"]:
        problems.add(
            f"{item.place}.consumer",
            f'"{item.consumer}" is no code: the value of "{item.producer}" can be led to a business logic node only',
        )


def _check_shown(
    items: Sequence[MergedEdge], edges: Iterable[Edge], ports: dict[str, Ports], problems: Problems
) -> None:
    """Pictures that come to a display by way of models have to come from code."""
    into: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        into[edge.consumer_node].append(edge.producer_node)
    for item in items:
        if item.consumer not in into or _category(ports, item.consumer) != "media_sink":
            continue
        reached, ways = set[str](), [item.producer] if _category(ports, item.producer) == "ml_model" else []
        while ways:
            name = ways.pop()
            if name in reached:
                continue
            reached.add(name)
            if _category(ports, name) == "media_source":
                problems.add(item.place, _shows_nothing(item.consumer, name))
            elif _category(ports, name) == "ml_model":
                ways += into[name]


def _category(ports: dict[str, Ports], name: str) -> str:
    interface = ports[name].interface if name in ports else None
    return interface.category if interface is not None else ""


def _shows_nothing(display: str, camera: str) -> str:
    return f'"{display}" would show nothing of "{camera}": lead the camera to code, and the code to the display'


def _check_circles(items: Sequence[MergedEdge], edges: Iterable[Edge], problems: Problems) -> None:
    """Pictures that lead back to where they came from have no beginning."""
    onward: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        onward[edge.producer_node].add(edge.consumer_node)
    for item in items:
        reached, ways = set[str](), [item.consumer]
        while ways:
            name = ways.pop()
            if name not in reached:
                reached.add(name)
                ways += onward[name]
        if item.consumer in onward[item.producer] and item.producer in reached:
            problems.add(item.place, f'"{item.producer}" leads back to itself by way of "{item.consumer}"')


def _check_room(item: MergedEdge, port: PackageInput, edges: list[Edge], problems: Problems) -> None:
    if len(edges) == 2 and port.type is not PortType.MEDIA:
        problems.add(
            f"{item.place}.consumer",
            f"{item.consumer}.{port.name} takes one value, and {edges[0].producer_node} gives it already",
        )
    elif port.type is PortType.MEDIA and 0 < port.max_connections < len(edges):
        problems.add(
            f"{item.place}.consumer",
            f"{item.consumer}.{port.name} takes {port.max_connections} streams at most (maxConnections)",
        )


def _check_value(item: MergedEdge, port: PackageInput, parameter: LiteralNode | None, problems: Problems) -> None:
    if parameter is None or not port.constraint_regex:
        return
    if not meets(port.constraint_regex, parameter.value):
        problems.add(
            f"{parameter.place}.value",
            f"{shown(parameter.value)} is not allowed at {item.consumer}.{port.name}: "
            f"it must match {port.constraint_regex}",
        )


def _output(item: MergedEdge, ports: dict[str, Ports], stand_in: bool, problems: Problems) -> PackageOutput | None:
    place = f"{item.place}.producer"
    node = ports.get(item.producer)
    if node is None:
        problems.add(place, f'no node "{item.producer}" in nodes', needs=NODES)
        return None
    if node.parameter is not None:
        if item.producer_port:
            problems.add(place, f'"{item.producer}" is a value and has no ports: write "{item.producer}"')
            return None
        return PackageOutput("", node.parameter.type)
    if node.interface is None:
        return None
    outputs = node.interface.outputs
    found = node.interface.output(item.producer_port)
    if found is None and stand_in and len(outputs) == 1:
        # The edge was written for the node that this one stands in for; with one output there is nothing to confuse.
        return outputs[0]
    if found is None:
        problems.add(place, _no_port(item.producer, item.producer_port, "output", [port.name for port in outputs]))
    return found


def _input(item: MergedEdge, ports: dict[str, Ports], stand_in: bool, problems: Problems) -> PackageInput | None:
    place = f"{item.place}.consumer"
    node = ports.get(item.consumer)
    if node is None:
        problems.add(place, f'no node "{item.consumer}" in nodes', needs=NODES)
        return None
    if node.parameter is not None:
        problems.add(place, f'"{item.consumer}" is a value: nothing can lead to it')
        return None
    if node.interface is None:
        return None
    inputs = node.interface.inputs
    if node.interface.category == "media_source" and item.consumer_port in CAMERA_INPUTS:
        problems.add(
            place, f'address and credentials of "{item.consumer}" come from its registration, not from the graph'
        )
        return None
    found = node.interface.input(item.consumer_port)
    if found is None and stand_in and len(inputs) == 1:
        return inputs[0]
    if found is None:
        problems.add(place, _no_port(item.consumer, item.consumer_port, "input", [port.name for port in inputs]))
    return found


def _no_port(node: str, port: str, kind: str, has: list[str]) -> str:
    offer = ", ".join(f"{node}.{name}" for name in has) or "none"
    return (
        f'"{node}" has no {kind} "{port}" (it has {offer})' if port else f"name the {kind} of {node} (it has {offer})"
    )


def _end(node: str, port: str) -> str:
    return f"{node}.{port}" if port else node
