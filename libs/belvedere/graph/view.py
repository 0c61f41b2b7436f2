"""A resolved graph as its application sees it: what comes in at each port, where outputs go, which models it can call.

Pure. It must not know how an appliance carries frames, tensors or values to the application.
"""

from __future__ import annotations

from dataclasses import dataclass

from belvedere.graph.resolved import CodeNode, Edge, Literal, ModelNode, PortType, ResolvedGraph

ZERO: dict[PortType, Literal] = {
    PortType.BOOLEAN: False,
    PortType.INT32: 0,
    PortType.FLOAT32: 0.0,
    PortType.STRING: "",
}
"""What a parameter is that nobody set, as the manifest's schema has it."""


@dataclass(frozen=True)
class Stream:
    """One camera at a media input."""

    camera_id: str
    stream_id: str
    """The camera node's name in the graph: what the application reads as `media.stream_id`."""


@dataclass(frozen=True)
class ViewInput:
    """One input port: a parameter has a `value`, media has `streams` (none where nothing is connected)."""

    name: str
    type: PortType
    value: Literal | None = None
    streams: tuple[Stream, ...] = ()


@dataclass(frozen=True)
class ViewOutput:
    """One output port."""

    name: str
    type: PortType
    displays: tuple[str, ...] = ()
    """Names of the display nodes it leads to."""

    @property
    def connected(self) -> bool:
        """Whether anybody sees what is put here."""
        return bool(self.displays)


@dataclass(frozen=True)
class ViewPort:
    """A port of the appliance that leads to a port that the code listens on."""

    host_port: int
    container_port: int


@dataclass(frozen=True)
class CodeView:
    """One code node with everything around it."""

    node: CodeNode
    inputs: tuple[ViewInput, ...]
    outputs: tuple[ViewOutput, ...]
    models: tuple[ModelNode, ...]
    """Every model of the graph: applications call them by node name, whether or not the graph draws an edge."""
    ports: tuple[ViewPort, ...] = ()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera ids at its media inputs, each once."""
        return tuple({stream.camera_id: None for port in self.inputs for stream in port.streams})


def app_view(graph: ResolvedGraph) -> tuple[CodeView, ...]:
    """One view a code node: none for a graph that only tries cameras, otherwise one."""
    return tuple(_view(graph, node) for node in graph.code)


def _view(graph: ResolvedGraph, node: CodeNode) -> CodeView:
    incoming = [edge for edge in graph.edges if edge.consumer_node == node.name]
    return CodeView(
        node,
        inputs=tuple(
            ViewInput(port.name, port.type, streams=_streams(graph, node.name, port.name))
            if port.type is PortType.MEDIA
            else ViewInput(port.name, port.type, value=_value(graph, incoming, port.name, port.default, port.type))
            for port in node.inputs
        ),
        outputs=tuple(
            ViewOutput(port.name, port.type, _displays(graph, node.name, port.name)) for port in node.outputs
        ),
        models=graph.models,
        ports=tuple(
            ViewPort(rule.host_port, rule.container_port) for rule in graph.network_rules if rule.node == node.name
        ),
    )


def _streams(graph: ResolvedGraph, node: str, port: str) -> tuple[Stream, ...]:
    """The cameras that lead to the port, also by way of models: those are called by the code, and let pictures pass."""
    cameras = {camera.name: camera.camera_id for camera in graph.cameras}
    models = {model.name for model in graph.models}
    found: dict[str, None] = {}
    seen: set[str] = set()
    ways = [edge.producer_node for edge in graph.edges if (edge.consumer_node, edge.consumer_port) == (node, port)]
    while ways:
        name = ways.pop(0)
        if name in cameras:
            found[name] = None
        elif name in models and name not in seen:
            seen.add(name)
            ways += [edge.producer_node for edge in graph.edges if edge.consumer_node == name]
    return tuple(Stream(cameras[name], name) for name in found)


def _displays(graph: ResolvedGraph, node: str, port: str) -> tuple[str, ...]:
    """The displays that the port leads to, also by way of models."""
    displays = {display.name for display in graph.displays}
    models = {model.name for model in graph.models}
    found: dict[str, None] = {}
    seen: set[str] = set()
    ways = [edge.consumer_node for edge in graph.edges if (edge.producer_node, edge.producer_port) == (node, port)]
    while ways:
        name = ways.pop(0)
        if name in displays:
            found[name] = None
        elif name in models and name not in seen:
            seen.add(name)
            ways += [edge.consumer_node for edge in graph.edges if edge.producer_node == name]
    return tuple(found)


def _value(graph: ResolvedGraph, incoming: list[Edge], port: str, default: Literal | None, type: PortType) -> Literal:
    parameters = {parameter.name: parameter.value for parameter in graph.parameters}
    for edge in incoming:
        if edge.consumer_port == port and edge.producer_node in parameters:
            return parameters[edge.producer_node]
    return ZERO[type] if default is None else default
