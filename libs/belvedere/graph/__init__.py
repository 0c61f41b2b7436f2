"""The documents of an application (manifest, overrides, package, descriptors) and the one resolved graph they give.

Pure: no I/O, no clock. It must not know who stores the documents, nor what an appliance does with the result.
"""

from belvedere.graph.application import Manifest, Overrides, parse_application, parse_manifest, parse_overrides
from belvedere.graph.builtin import BUILT_IN, camera_document
from belvedere.graph.errors import DocumentInvalid, GraphError, GraphInvalid, Problem, ResolvedGraphError
from belvedere.graph.package import (
    Interface,
    ModelDescriptor,
    PackageDocument,
    RegisteredAsset,
    Release,
    RuntimeDescriptor,
    parse_descriptor,
    parse_package,
)
from belvedere.graph.resolve import PackageQuery, package_queries, resolve
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
    "BUILT_IN",
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
    "Interface",
    "Literal",
    "Manifest",
    "ModelDescriptor",
    "ModelNode",
    "NetworkRule",
    "OutputPort",
    "Overrides",
    "PackageDocument",
    "PackageQuery",
    "PackageRef",
    "ParameterNode",
    "PortType",
    "Problem",
    "RegisteredAsset",
    "Release",
    "ResolvedGraph",
    "ResolvedGraphError",
    "RuntimeDescriptor",
    "Stream",
    "TensorInput",
    "ViewInput",
    "ViewOutput",
    "app_view",
    "camera_document",
    "package_queries",
    "parse_application",
    "parse_descriptor",
    "parse_manifest",
    "parse_overrides",
    "parse_package",
    "resolve",
]
