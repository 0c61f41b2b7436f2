"""The documents of an application (manifest, overrides, package, descriptors) and the one resolved graph they give.

Pure: no I/O, no clock. It must not know who stores the documents, nor what an appliance does with the result.
"""

from belvedere.graph.errors import DocumentInvalid, GraphError, GraphInvalid, Problem, ResolvedGraphError
from belvedere.graph.resolved import (
    Asset,
    CameraNode,
    CodeNode,
    DisplayNode,
    Edge,
    Entry,
    InputPort,
    Literal,
    ModelNode,
    NetworkRule,
    OutputPort,
    PackageRef,
    ParameterNode,
    PortType,
    ResolvedGraph,
    TensorInput,
)
from belvedere.graph.view import CodeView, Stream, ViewInput, ViewOutput, app_view

__all__ = [
    "Asset",
    "CameraNode",
    "CodeNode",
    "CodeView",
    "DisplayNode",
    "DocumentInvalid",
    "Edge",
    "Entry",
    "GraphError",
    "GraphInvalid",
    "InputPort",
    "Literal",
    "ModelNode",
    "NetworkRule",
    "OutputPort",
    "PackageRef",
    "ParameterNode",
    "PortType",
    "Problem",
    "ResolvedGraph",
    "ResolvedGraphError",
    "Stream",
    "TensorInput",
    "ViewInput",
    "ViewOutput",
    "app_view",
]
