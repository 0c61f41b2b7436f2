"""The documents one by one: what is tolerated, what is refused, and that no input crashes a reader."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belvedere.graph import (
    DocumentInvalid,
    GraphError,
    ImageInput,
    ModelDescriptor,
    RuntimeDescriptor,
    app_view,
    camera_document,
    parse_application,
    parse_descriptor,
    parse_manifest,
    parse_overrides,
    parse_package,
    resolve,
)
from tests.support import graphs

Document = dict[str, Any]
Reader = Callable[[str], object]


def problems(read: Reader, document: object) -> list[str]:
    with pytest.raises(DocumentInvalid) as caught:
        read(document if isinstance(document, str) else json.dumps(document))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("read", [parse_manifest, parse_overrides, parse_package, parse_descriptor])
@pytest.mark.parametrize(
    "text", ["", "x", "[]", "null", "{}", '{"nodeGraph": NaN}', "[" * 99_999, "1" * 9_999, b"\xff"]
)
def test_what_is_no_document_is_told_so(read: Reader, text: str) -> None:
    with pytest.raises(DocumentInvalid) as caught:
        read(text)
    assert caught.value.problems


def test_another_version_of_the_documents_is_refused() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["envelopeVersion"] = "2020-01-01"
    assert problems(parse_manifest, manifest) == [
        'envelopeVersion: must be "2021-01-01", not "2020-01-01": no other version is known'
    ]


def test_a_wrong_document_of_the_right_kind_is_told_everything() -> None:
    manifest = graphs.manifest()
    nodes = manifest["nodeGraph"]["nodes"]
    nodes[0]["overridable"] = "yes"
    nodes[1]["interface"] = "people_counter_code.code_interface"
    nodes[2]["name"] = "code node"
    nodes[3]["value"] = "high"
    nodes[4] = 7
    manifest["nodeGraph"]["edges"][0] = {"producer": "front_door.video_out"}
    manifest["nodeGraph"]["packages"][0]["version"] = 1
    says = "of the form owner::package.interface, or one of boolean, int32, float32, string"
    assert problems(parse_manifest, manifest) == [
        "packages[0].version: must be text, not 1",
        'nodes[0].overridable: must be true or false, not "yes"',
        f'nodes[1].interface: "people_counter_code.code_interface" must be {says}',
        'nodes[2].name: "code node" must be letters, digits, $, _ and - only',
        'nodes[3].value: must be a number of 32 bits, not "high"',
        "nodes[4]: must be an object, not 7",
        "edges[0].consumer: is missing",
    ]


def test_problems_of_both_documents_come_together() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        parse_application("{}", '{"nodeGraphOverrides": {"envelopeVersion": "2021-01-01", "nodeOverrides": [{}]}}')
    assert [problem.place for problem in caught.value.problems] == [
        "",
        "overrides.nodeOverrides[0].with",
        "overrides.nodeOverrides[0].replace",
    ]


def test_two_nodes_of_one_name_are_refused() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["nodes"][4]["name"] = "threshold"
    assert problems(parse_manifest, manifest) == ['nodes[4].name: "threshold" is the name of nodes[3] already']


def test_an_unknown_field_is_ignored_and_a_misspelt_one_is_not() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["nodes"][0]["colour"] = "red"
    assert parse_manifest(json.dumps(manifest))
    manifest["nodeGraph"]["nodes"][1]["overrideable"] = manifest["nodeGraph"]["nodes"][1].pop("overridable")
    assert problems(parse_manifest, manifest) == [
        'nodes[1].overrideable: is no known field; did you mean "overridable"?'
    ]


@pytest.mark.parametrize(
    ("type", "value", "read"),
    [("boolean", None, False), ("int32", None, 0), ("float32", None, 0.0), ("string", None, ""), ("float32", 1, 1.0)],
)
def test_values_have_their_types_and_defaults(type: str, value: object, read: object) -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["nodes"] = [{"name": "x", "interface": type, "value": value, "launch": "onAppStart"}]
    (node,) = parse_manifest(json.dumps(manifest)).nodes
    assert node.value == read  # type: ignore[union-attr]
    assert isinstance(node.value, builtin(read))  # type: ignore[union-attr]


def builtin(value: object) -> Any:
    return type(value)


@pytest.mark.parametrize(
    ("type", "value"),
    [("boolean", 1), ("int32", True), ("int32", 2**31), ("int32", 1.5), ("float32", "0.5"), ("float32", 10**400),
     ("float32", 1e39), ("string", 5), ("string", "\ud800"), ("string", "a\0b")],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(type: str, value: object) -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["nodes"] = [{"name": "x", "interface": type, "value": value}]
    assert problems(parse_manifest, manifest)[0].startswith("nodes[0].value: must be ")


def test_an_infinite_number_is_refused() -> None:
    text = json.dumps(graphs.manifest()).replace("0.5", "1e999")
    assert problems(parse_manifest, text)[0].startswith("nodes[3].value")


def test_the_template_asset_of_an_unfinished_package_can_be_parsed() -> None:
    package = graphs.model_package()
    package["nodePackage"]["assets"][0]["implementations"][0]["assetUri"] = ".tar.gz"
    assert parse_package(json.dumps(package)).assets[0].implementations[0].asset_uri == ".tar.gz"


def test_a_package_is_told_everything() -> None:
    package = graphs.code_package()
    interface = package["nodePackage"]["interfaces"][0]
    interface["asset"] = "other"
    interface["inputs"][0]["name"] = "video-in"
    interface["inputs"][1]["default"] = "high"
    interface["inputs"][2]["name"] = "interval"
    interface["category"] = "logic"
    interface["network"]["inboundPorts"][0]["port"] = 0
    assert problems(parse_package, package) == [
        "interfaces[0].category: must be one of media_source, media_sink, business_logic, ml_model, data_sink, "
        'not "logic"',
        'interfaces[0].inputs[0].name: "video-in" must be letters, digits, $ and _ only (no -)',
        'interfaces[0].inputs[1].default: "high" is no float32',
        'interfaces[0].inputs[3].name: "interval" is the name of inputs[2] already',
        "interfaces[0].network.inboundPorts[0].port: must be a whole number from 1 to 65535, not 0",
        'interfaces[0].asset: no asset "other" in assets',
    ]


def test_descriptors_are_told_apart_by_their_envelope() -> None:
    model = parse_descriptor(json.dumps(graphs.MODEL_DESCRIPTOR))
    code = parse_descriptor(json.dumps(graphs.RUNTIME_DESCRIPTOR))
    assert isinstance(model, ModelDescriptor)
    assert isinstance(code, RuntimeDescriptor)
    assert code.entry.arguments == ("--fast",)
    assert problems(parse_descriptor, {}) == [
        'has neither "mlModelDescriptor" nor "runtimeDescriptor": is this the right document?'
    ]


def test_a_model_descriptor_is_told_everything() -> None:
    descriptor: Document = json.loads(json.dumps(graphs.MODEL_DESCRIPTOR))
    inner = descriptor["mlModelDescriptor"]
    inner["framework"] = "CAFFE"
    inner["inputs"] = [{"name": "x", "shape": [1, 0, "3"], "type": "text"}]
    assert problems(parse_descriptor, descriptor) == [
        'framework: must be one of TENSORFLOW, PYTORCH, MXNET, ONNX, TFLITE, not "CAFFE"',
        "inputs[0].shape[1]: must be 1 or more, or -1 for any, not 0",
        'inputs[0].shape[2]: must be a whole number, not "3"',
        "inputs[0].type: must be one of int8, uint8, int16, uint16, int32, uint32, int64, uint64, float16, float32, "
        'float64, not "text"',
    ]


def test_a_camera_document_is_a_package() -> None:
    document = parse_package(camera_document("north", "1.0", "The door", interface="north", stream_url="rtsp://a/b"))
    assert document.interfaces[0].category == "media_source"
    assert document.interfaces[0].inputs[2].default == "rtsp://a/b"


# No input crashes anything


KEYS = list(
    dict.fromkeys(
        re.findall(r"[a-zA-Z]+", json.dumps([graphs.manifest(), graphs.overrides("x"), graphs.code_package()]))
        + re.findall(r"[a-zA-Z]+", json.dumps([graphs.MODEL_DESCRIPTOR, graphs.RUNTIME_DESCRIPTOR]))
    )
)


def test_a_model_descriptor_may_say_how_a_picture_becomes_an_input() -> None:
    descriptor: Document = json.loads(json.dumps(graphs.MODEL_DESCRIPTOR))
    first = descriptor["mlModelDescriptor"]["inputs"][0]
    first["image"] = {"color": "RGB", "scale": 0.5, "mean": [1, 2, 3], "std": [4], "fit": "letterbox"}
    parsed = parse_descriptor(json.dumps(descriptor))
    assert parsed.inputs[0].image == ImageInput("RGB", "letterbox", 0.5, (1.0, 2.0, 3.0), (4.0,))  # type: ignore[union-attr]
    first["image"] = {"color": "GRAY", "scale": 0, "mean": [1, 2, 3], "std": [0], "fit": "crop"}
    assert problems(parse_descriptor, descriptor) == [
        "inputs[0].image.scale: must be a number other than 0, not 0",
        "inputs[0].image.mean: must have one number, or one for each channel",
        "inputs[0].image.std[0]: must be a number other than 0, not 0",
        'inputs[0].image.fit: must be one of stretch, letterbox, not "crop"',
    ]


ENVELOPES = ["nodeGraph", "nodeGraphOverrides", "nodePackage", "mlModelDescriptor", "runtimeDescriptor"]
TEXTS = [
    "2021-01-01",
    "float32",
    "media",
    "a::b",
    "a::b.c",
    "a.b",
    "1.0",
    "(",
    "code_node",
    "front_door",
    "\ud800",
    "\0",
    "",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=30,
)
READERS: list[Reader] = [parse_manifest, parse_overrides, parse_package, parse_descriptor]


@given(JSON, st.sampled_from(ENVELOPES))
def test_no_json_crashes_a_reader(value: object, kind: str) -> None:
    for document in (
        value,
        {kind: value},
        {kind: {"envelopeVersion": "2021-01-01", **value}} if isinstance(value, dict) else 0,
    ):
        for read in READERS:
            try:
                read(json.dumps(document))
            except DocumentInvalid as error:
                assert error.problems


@given(st.text() | st.binary())
def test_no_text_crashes_a_reader(text: str | bytes) -> None:
    for read in READERS:
        with pytest.raises(DocumentInvalid):
            read(text)  # type: ignore[arg-type]


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def mutate(data: st.DataObject, document: Document) -> Document:
    """The document with one or a few values replaced, taken out or doubled."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        holder: Any = document
        for key in path[:-1]:
            holder = holder[key]
        match data.draw(st.sampled_from(["put", "drop", "double"])):
            case "put":
                holder[path[-1]] = data.draw(JSON)
            case "drop":
                del holder[path[-1]]
            case _ if isinstance(holder, list):
                holder.append(holder[path[-1]])
        if not document:
            break
    return document


KNOWN = graphs.releases("north", "south")


@settings(max_examples=200)
@given(st.data())
def test_documents_with_slips_give_a_graph_or_named_problems(data: st.DataObject) -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north", "south")
    if data.draw(st.booleans()):
        mutate(data, manifest)
    else:
        mutate(data, overrides)
    try:
        graph = resolve(*parse_application(json.dumps(manifest), json.dumps(overrides)), KNOWN, graphs.ACCOUNT)
    except GraphError as error:
        assert error.problems
        assert all(problem.message for problem in error.problems)
    else:
        assert graph.digest().startswith("sha256:")
        app_view(graph)


@settings(max_examples=100)
@given(st.data())
def test_packages_with_slips_give_a_graph_or_named_problems(data: st.DataObject) -> None:
    package = mutate(data, graphs.code_package())
    known = dict(KNOWN)
    query = next(query for query in known if query.name == "people_counter_code")
    try:
        known[query] = graphs.release(package)
        parsed = parse_application(json.dumps(graphs.manifest()), json.dumps(graphs.overrides("north")))
        app_view(resolve(*parsed, known, graphs.ACCOUNT))
    except GraphError as error:
        assert error.problems


def test_what_is_asked_of_the_appliance_is_checked() -> None:
    package = graphs.code_package()
    package["nodePackage"]["assets"][0]["implementations"][0]["requirements"] = [
        {"type": "device", "name": "panorama_devkit"},
        {"type": "resources", "memoryMb": 1, "cpu": True, "pids": "many", "diskMb": 1.5},
        {"minVersion": "1.0"},
    ]
    with pytest.raises(DocumentInvalid) as caught:
        parse_package(json.dumps(package))
    place = "assets[0].implementations[0].requirements"
    assert [problem.place for problem in caught.value.problems] == [
        f"{place}[1].memoryMb", f"{place}[1].cpu", f"{place}[1].pids", f"{place}[1].diskMb", f"{place}[2].type",
    ]  # fmt: skip
