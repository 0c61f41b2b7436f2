"""AWS's schema of manifests, overrides, packages and descriptors (2021-01-01), sentence by sentence: what it allows is taken,
at its limits too, and what it forbids is refused at its place. Where we take more than it does, the row says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from belvedere.graph import DocumentInvalid, parse_descriptor, parse_manifest, parse_overrides, parse_package
from belvedere.graph.application import InterfaceNode, LiteralNode
from belvedere.graph.resolved import PortType
from tests.support import graphs

Document = dict[str, Any]
Reader = Callable[[str], object]
ACCOUNT = graphs.ACCOUNT


def graph(**changes: object) -> Document:
    return {"nodeGraph": {**graphs.manifest()["nodeGraph"], **changes}}


def node(**changes: object) -> Document:
    base = {"name": "n", "interface": "string", "value": "x"}
    return {"nodeGraph": {**graphs.manifest()["nodeGraph"], "nodes": [{**base, **changes}], "edges": []}}


def package_item(**changes: object) -> Document:
    return graph(packages=[{"name": f"{ACCOUNT}::a", "version": "1.0", **changes}])


def overrides(**changes: object) -> Document:
    return {"nodeGraphOverrides": {"envelopeVersion": "2021-01-01", **changes}}


def package(**changes: object) -> Document:
    return {"nodePackage": {**graphs.code_package()["nodePackage"], **changes}}


def interface(**changes: object) -> Document:
    document = copy.deepcopy(graphs.code_package())
    document["nodePackage"]["interfaces"][0].update(changes)
    return document


def port(**changes: object) -> Document:
    return interface(inputs=[{"name": "p", "type": "float32", **changes}])


def implementation(**changes: object) -> Document:
    document = copy.deepcopy(graphs.code_package())
    document["nodePackage"]["assets"][0]["implementations"][0].update(changes)
    return document


def model(**changes: object) -> Document:
    return {"mlModelDescriptor": {**graphs.MODEL_DESCRIPTOR["mlModelDescriptor"], **changes}}


def tensor(**changes: object) -> Document:
    return model(inputs=[{"name": "t", "shape": [1, 3], **changes}])


def runtime(**changes: object) -> Document:
    return {"runtimeDescriptor": {**graphs.RUNTIME_DESCRIPTOR["runtimeDescriptor"], **changes}}


M, V, P, D = parse_manifest, parse_overrides, parse_package, parse_descriptor
RULE = {"node": "code_node", "containerPort": 1}

ALLOWED = [
    (M, graph(description="d" * 255)),
    (M, graph(edges=[])),
    (M, graph(networkRoutingRules=[RULE, {"node": "code_node", "containerPort": 65535, "hostPort": 8000, "decorator": {"title": "t"}}])),
    (M, package_item(patchVersion="package", generatedPatchVersion="1", uri="s3://x")),
    (M, package_item(patchVersion="ab12")),
    (M, package_item(name="$A_z9::a-B_9")),
    (M, node(name="$A-z_9" + "n" * 122)),
    (M, node(overridable=True, overrideMandatory=True, decorator={"title": "t" * 255, "constraintRegex": "^a+$"})),
    (M, node(interface=f"{ACCOUNT}::a.b-c", launch="onDemand")),
    (M, node(interface=f"{ACCOUNT}::a.b-c", launch="onSignal")),
    (M, node(launch="onAppStart")),  # the schema has no `launch` on values; it means nothing there
    (V, overrides()),
    (V, overrides(nodeOverrides=[{"replace": "a", "with": [{"name": "b"}, {"name": "c"}]}, {"replace": "d", "with": []}])),
    (V, overrides(networkRoutingRules=[RULE], edges=[{"producer": "a", "consumer": "b.c"}], description="d")),
    (P, package(description="d" * 255)),
    (P, interface(category="media_sink")),
    (P, interface(category="data_sink")),  # as the test utility has it
    (P, interface(network={"inboundPorts": [{"port": number + 1, "description": "d"} for number in range(10)]})),
    (P, interface(name="i" * 128, inputs=[], outputs=[])),
    (P, port(name="p" * 50, description="d", default=0.5, maxConnections=0, constraintRegex="^0", reference=True, referenceSource="s")),
    (P, port(type="boolean", default=True)),
    (P, port(type="int32", default=2)),
    (P, port(type="media", maxConnections=1)),
    (P, implementation(assetUri="a.tar.gz", description="d", requirements=[{"type": "ota", "minVersion": "4.3.0"}])),
    (P, implementation(requirements=[{"type": "device", "name": "panorama_devkit"}])),
    (P, implementation(requirements=[{
        "type": "hardware_access",
        "inferenceAccelerators": [{"deviceType": "nvhost_gpu", "sharedResourcePolicy": {"policy": "allow_all"}}],
    }])),
    (D, model(framework="PYTORCH", frameworkVersion="1.8", precisionMode="FP16")),
    (D, model(framework="MXNET", frameworkVersion="1.2.3.4.56")),
    (D, tensor(type="int8")),
    (D, tensor(type="float64")),
    (D, runtime(entry={"name": "a.py"})),
    (D, runtime(entry={"path": "bash", "name": "a", "arguments": ["-x"], "environment": [{"name": "A", "value": "b"}]})),
    (D, runtime(events=[{"type": "onExit", "handler": "h"}])),
]  # fmt: skip
REFUSED = [
    (M, graph(envelopeVersion="2020-01-01"), "envelopeVersion"),
    (M, graph(envelopeVersion=None), "envelopeVersion"),
    (M, graph(description="d" * 256), "description"),
    (M, graph(packages=[]), "packages"),
    (M, graph(nodes=[], edges=[]), "nodes"),
    (M, package_item(name="a"), "packages[0].name"),
    (M, package_item(name=f"{ACCOUNT}::a b"), "packages[0].name"),
    (M, package_item(version="1"), "packages[0].version"),
    (M, package_item(version="1.0.0"), "packages[0].version"),
    (M, node(name="n" * 129), "nodes[0].name"),
    (M, node(name=""), "nodes[0].name"),
    (M, node(name="a.b"), "nodes[0].name"),
    (M, node(interface="int64"), "nodes[0].interface"),
    (M, node(interface=f"{ACCOUNT}::a"), "nodes[0].interface"),
    (M, node(interface="int32", value=1.5), "nodes[0].value"),
    (M, node(interface=f"{ACCOUNT}::a.b", launch="never"), "nodes[0].launch"),
    (M, node(decorator={"title": "t" * 256}), "nodes[0].decorator.title"),
    (M, node(decorator={"constraintRegex": "("}), "nodes[0].decorator.constraintRegex"),
    (M, graph(edges=[{"producer": "a b", "consumer": "c"}]), "edges[0].producer"),
    (M, graph(edges=[{"producer": "a.b.c", "consumer": "c"}]), "edges[0].producer"),
    (M, graph(edges=[{"producer": "a.b"}]), "edges[0].consumer"),
    (M, graph(networkRoutingRules=[{"node": "n"}]), "networkRoutingRules[0].containerPort"),
    (M, graph(networkRoutingRules=[{"containerPort": 1}]), "networkRoutingRules[0].node"),
    (M, graph(networkRoutingRules=[{**RULE, "containerPort": 65536}]), "networkRoutingRules[0].containerPort"),
    (M, graph(networkRoutingRules=[{**RULE, "hostPort": "80"}]), "networkRoutingRules[0].hostPort"),
    (V, overrides(nodeOverrides=[{"with": []}]), "overrides.nodeOverrides[0].replace"),
    (V, overrides(nodeOverrides=[{"replace": "a"}]), "overrides.nodeOverrides[0].with"),
    (V, overrides(nodeOverrides=[{"replace": "a", "with": [{}]}]), "overrides.nodeOverrides[0].with[0].name"),
    (P, package(interfaces=[]), "interfaces"),
    (P, package(assets=[*graphs.code_package()["nodePackage"]["assets"], {"implementations": []}]), "assets[1].name"),
    (P, interface(name="i" * 129), "interfaces[0].name"),
    (P, interface(category="logic"), "interfaces[0].category"),
    (P, interface(network={"inboundPorts": [{"port": number + 1} for number in range(11)]}), "interfaces[0].network.inboundPorts"),
    (P, interface(network={"inboundPorts": [{"description": "d"}]}), "interfaces[0].network.inboundPorts[0].port"),
    (P, interface(outputs=[{"name": "o"}]), "interfaces[0].outputs[0].type"),
    (P, port(name="p" * 51), "interfaces[0].inputs[0].name"),
    (P, port(name="a-b"), "interfaces[0].inputs[0].name"),
    (P, port(type="int64"), "interfaces[0].inputs[0].type"),
    (P, port(default="x"), "interfaces[0].inputs[0].default"),
    (P, port(maxConnections=-1), "interfaces[0].inputs[0].maxConnections"),
    (P, implementation(type="wasm"), "assets[0].implementations[0].type"),
    (P, implementation(assetUri=None), "assets[0].implementations[0].assetUri"),
    (P, implementation(assetUri="a" * 256), "assets[0].implementations[0].assetUri"),
    (D, model(framework="CAFFE"), "framework"),
    (D, model(frameworkVersion="1" * 11), "frameworkVersion"),
    (D, model(precisionMode="FP8"), "precisionMode"),
    (D, model(inputs=[]), "inputs"),
    (D, tensor(name=None), "inputs[0].name"),
    (D, tensor(shape=[1.5]), "inputs[0].shape[0]"),
    (D, tensor(type="string"), "inputs[0].type"),
    (D, runtime(entry=None), "entry"),
    (D, runtime(entry={"path": "bash"}), "entry.name"),
    (D, runtime(entry={"name": "a", "arguments": [1]}), "entry.arguments[0]"),
    (D, runtime(entry={"name": "a", "environment": [{"value": "b"}]}), "entry.environment[0].name"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "document"), ALLOWED)
def test_what_the_schema_allows_is_taken(read: Reader, document: Document) -> None:
    read(json.dumps(document))


@pytest.mark.parametrize(("read", "document", "place"), REFUSED)
def test_what_the_schema_forbids_is_refused_at_its_place(read: Reader, document: Document, place: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        read(json.dumps(document))
    assert [problem.place for problem in caught.value.problems] == [place], str(caught.value)


def test_defaults_are_the_schemas() -> None:
    plain = parse_manifest(json.dumps(node(interface=f"{ACCOUNT}::a.b", value=None))).nodes[0]
    assert isinstance(plain, InterfaceNode)
    assert (plain.overridable, plain.override_mandatory, plain.launch) == (False, False, "onAppStart")
    zeros = {"boolean": False, "int32": 0, "float32": 0.0, "string": ""}
    for type, zero in zeros.items():
        literal = parse_manifest(json.dumps(node(interface=type, value=None))).nodes[0]
        assert isinstance(literal, LiteralNode) and (literal.type, literal.value) == (PortType(type), zero)
    assert parse_manifest(json.dumps(package_item())).packages[0].patch_version == "", "the latest"
    rule = parse_manifest(json.dumps(graph(networkRoutingRules=[{**RULE, "containerPort": 8080}]))).rules[0]
    assert rule.host_port == 8080, "the container's"
    runtime_entry = parse_descriptor(json.dumps(runtime(entry={"name": "a.py"})))
    assert runtime_entry.entry.path == "$default"  # type: ignore[union-attr]
