"""From documents to one graph: what comes out, and what every refusal says and where."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from belvedere.graph import (
    BUILT_IN,
    DocumentInvalid,
    GraphInvalid,
    ImageInput,
    NetworkRule,
    PackageQuery,
    PortType,
    Release,
    ResolvedGraph,
    ResolvedGraphError,
    Stream,
    app_view,
    package_queries,
    parse_application,
    read_application,
    resolve,
    resolve_draft,
)
from tests.support import graphs

Document = dict[str, Any]


def resolved(
    manifest: Document, overrides: Document | None = None, releases: dict[PackageQuery, Release] | None = None
) -> ResolvedGraph:
    parsed = parse_application(json.dumps(manifest), None if overrides is None else json.dumps(overrides))
    return resolve(*parsed, graphs.releases("north", "south") if releases is None else releases, graphs.ACCOUNT)


def problems(
    manifest: Document, overrides: Document | None = None, releases: dict[PackageQuery, Release] | None = None
) -> list[str]:
    with pytest.raises((DocumentInvalid, GraphInvalid)) as caught:
        resolved(manifest, overrides, releases)
    return [str(problem) for problem in caught.value.problems]


def node(document: Document, name: str) -> Document:
    inner = next(iter(document.values()))
    found: Document = next(item for item in inner["nodes"] if item["name"] == name)
    return found


def test_the_graph_holds_everything_by_digest() -> None:
    graph = resolved(graphs.manifest(), graphs.overrides("north"))
    known = graphs.releases("north")
    code = known[PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0")]
    assert graph.code[0].package == code.ref
    assert graph.code[0].asset.digest == code.assets[0].digest
    assert graph.code[0].entry.path == "python3"
    assert graph.code[0].entry.environment == {"MODE": "count"}
    assert graph.models[0].framework == "TENSORFLOW"
    assert graph.models[0].inputs[0].shape == (1, 300, 300, 3)
    assert re.fullmatch(r"[0-9a-f]{64}-FP32-[0-9a-f]{8}", graph.models[0].model_id)
    assert [asset.size_bytes for asset in graph.assets] == [1000, 1000]
    camera = known[PackageQuery(graphs.ACCOUNT, "north", "1.0")].ref
    assert graph.cameras[0].camera_id == f"north-1.0-{camera.patch_version[:8]}"
    assert [ref.name for ref in graph.packages] == ["people_counter_code", "person_detector", "north"]


def test_the_same_file_with_other_inputs_is_another_model_to_an_appliance() -> None:
    model = resolved(graphs.manifest(), graphs.overrides("north")).models[0]
    other_shape = replace(model, inputs=(replace(model.inputs[0], shape=(1, 320, 320, 3)),))
    other_picture = replace(model, inputs=(replace(model.inputs[0], image=ImageInput("RGB")),))
    same_again = replace(model, name="another_node", inputs=tuple(model.inputs))
    assert same_again.model_id == model.model_id
    assert len({one.model_id for one in (model, other_shape, other_picture)}) == 3


def test_the_same_documents_give_the_same_digest_and_come_back_from_json() -> None:
    graph = resolved(graphs.manifest(), graphs.overrides("north"))
    again = ResolvedGraph.from_json(graph.to_json())
    assert again == graph
    assert again.digest() == resolved(graphs.manifest(), graphs.overrides("north")).digest()
    assert graph.digest() != resolved(graphs.manifest(), graphs.overrides("south")).digest()


def test_a_stored_graph_that_can_not_be_read_names_the_place() -> None:
    with pytest.raises(ResolvedGraphError) as caught:
        ResolvedGraph.from_json('{"schema": 1, "cameras": [{"name": "x"}]}')
    assert caught.value.place == "cameras[0].camera_id"


def test_the_code_sees_streams_values_and_models() -> None:
    (view,) = app_view(resolved(graphs.manifest(), graphs.overrides("north", "south")))
    inputs = {port.name: port for port in view.inputs}
    assert [stream.stream_id for stream in inputs["video_in"].streams] == ["north", "south"]
    assert view.cameras == tuple(stream.camera_id for stream in inputs["video_in"].streams)
    assert (inputs["threshold"].type, inputs["threshold"].value) == (PortType.FLOAT32, 0.5)
    assert inputs["title"].value == "people"
    assert inputs["interval"].value == 5, "nothing leads to it: the package's default"
    assert inputs["verbose"].value is False, "and without a default the schema's"
    assert view.outputs[0].connected
    assert [model.name for model in view.models] == ["detector"], "no edge leads to it, yet it can be called"


def test_a_sink_replaced_by_nothing_leaves_the_output_unconnected() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    node(manifest, "output")["overridable"] = True
    overrides["nodeGraphOverrides"]["nodeOverrides"].append({"replace": "output", "with": []})
    graph = resolved(manifest, overrides)
    assert graph.displays == ()
    assert not app_view(graph)[0].outputs[0].connected


def test_a_camera_replaced_by_nothing_leaves_the_input_without_streams() -> None:
    overrides = graphs.overrides()
    graph = resolved(graphs.manifest(), overrides)
    assert graph.cameras == ()
    assert app_view(graph)[0].inputs[0].streams == ()


def test_a_camera_that_waits_for_its_signal_says_so() -> None:
    overrides = graphs.overrides("north", "south")
    overrides["nodeGraphOverrides"]["nodes"][1]["launch"] = "onSignal"
    graph = resolved(graphs.manifest(), overrides)
    assert [(camera.name, camera.launch) for camera in graph.cameras] == [
        ("north", "onAppStart"),
        ("south", "onSignal"),
    ]
    assert ResolvedGraph.from_json(graph.to_json()) == graph


def test_a_graph_of_cameras_only_can_be_deployed() -> None:
    manifest = {
        "nodeGraph": {
            "envelopeVersion": "2021-01-01",
            "packages": [{"name": "panorama::abstract_rtsp_media_source", "version": "1.0"}],
            "nodes": [
                {
                    "name": "front_door",
                    "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface",
                    "overridable": True,
                }
            ],
            "edges": [],
        }
    }
    graph = resolved(manifest, graphs.overrides("north", "south"))
    assert [camera.name for camera in graph.cameras] == ["north", "south"]
    assert app_view(graph) == ()


def test_a_camera_may_stand_in_the_manifest_itself() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["packages"].append({"name": f"{graphs.ACCOUNT}::north", "version": "1.0"})
    node(manifest, "front_door")["interface"] = f"{graphs.ACCOUNT}::north.north"
    assert app_view(resolved(manifest))[0].inputs[0].streams[0].stream_id == "front_door"


def test_a_parameter_is_overridden_by_another_node_or_by_one_of_its_name() -> None:
    for name, replacing in (("t2", [{"replace": "threshold", "with": [{"name": "t2"}]}]), ("threshold", [])):
        overrides = graphs.overrides("north")
        overrides["nodeGraphOverrides"]["nodes"].append({"name": name, "interface": "float32", "value": 0.75})
        overrides["nodeGraphOverrides"]["nodeOverrides"].extend(replacing)
        graph = resolved(graphs.manifest(), overrides)
        values = {port.name: port.value for port in app_view(graph)[0].inputs}
        assert values["threshold"] == 0.75


def test_overrides_can_move_to_another_patch_of_a_package() -> None:
    overrides = graphs.overrides("north")
    item = {"name": f"{graphs.ACCOUNT}::people_counter_code", "version": "1.0", "patchVersion": "beef"}
    overrides["nodeGraphOverrides"]["packages"].append(item)
    queries = package_queries(*parse_application(json.dumps(graphs.manifest()), json.dumps(overrides)))
    assert PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0", "beef") in queries
    assert PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0") not in queries
    assert not any(query.owner == "panorama" for query in queries)


def test_a_port_is_opened_only_where_the_overrides_repeat_its_rule() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    rule = {"node": "code_node", "containerPort": 8080, "hostPort": 8001}
    manifest["nodeGraph"]["networkRoutingRules"] = [rule]
    assert resolved(manifest, overrides).network_rules == ()
    overrides["nodeGraphOverrides"]["networkRoutingRules"] = [rule]
    assert resolved(manifest, overrides).network_rules == (NetworkRule("code_node", 8080, 8001),)


def test_blanks_are_not_needed() -> None:
    # The samples' deploy script strips every blank, inside texts too.
    manifest = json.dumps(graphs.manifest()).replace(" ", "")
    overrides = json.dumps(graphs.overrides("north")).replace(" ", "")
    parsed = parse_application(manifest, overrides)
    assert resolve(*parsed, graphs.releases("north"), graphs.ACCOUNT).cameras


def test_a_sink_may_call_itself_a_data_sink() -> None:
    sink = graphs.camera_package("sink")
    interface = sink["nodePackage"]["interfaces"][0]
    interface.update(category="data_sink", inputs=[{"name": "video_in", "type": "media"}], outputs=[])
    manifest = graphs.manifest()
    manifest["nodeGraph"]["packages"].append({"name": f"{graphs.ACCOUNT}::sink", "version": "1.0"})
    node(manifest, "output")["interface"] = f"{graphs.ACCOUNT}::sink.sink"
    known = {**graphs.releases("north"), PackageQuery(graphs.ACCOUNT, "sink", "1.0"): graphs.release(sink)}
    assert resolved(manifest, graphs.overrides("north"), known).displays[0].name == "output"


def test_the_built_in_packages_are_the_ones_that_graphs_name() -> None:
    assert {name for name, _ in BUILT_IN} == {"abstract_rtsp_media_source", "hdmi_data_sink"}
    for release in BUILT_IN.values():
        assert release.document.interfaces[0].name in ("rtsp_v1_interface", "hdmi0")


def test_streams_are_named_by_their_camera_nodes() -> None:
    graph = resolved(graphs.manifest(), graphs.overrides("north"))
    assert app_view(graph)[0].inputs[0].streams == (Stream(graph.cameras[0].camera_id, "north"),)


# What is refused


def test_an_abstract_camera_that_nobody_replaced_is_named() -> None:
    (text,) = problems(graphs.manifest())
    assert text.startswith('nodes[0]: camera "front_door" is abstract')


def test_a_missing_package_entry_names_the_node() -> None:
    manifest = graphs.manifest()
    del manifest["nodeGraph"]["packages"][1]
    assert f'nodes[2].interface: no package "{graphs.ACCOUNT}::person_detector" in packages' in problems(
        manifest, graphs.overrides("north")
    )


def test_an_unregistered_version_has_awss_own_words() -> None:
    overrides = graphs.overrides("north")
    overrides["nodeGraphOverrides"]["packages"][0]["version"] = "2.0"
    assert problems(graphs.manifest(), overrides) == [
        "overrides.packages[0]: No registered package version found for accountId:123456789012, packageName:north, "
        "packageVersion:2.0"
    ]


def test_every_problem_is_told_at_once() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"] += [
        {"producer": "nobody.video_out", "consumer": "code_node.video_in"},
        {"producer": "code_node.sound_out", "consumer": "output.video_in"},
        {"producer": "threshold", "consumer": "code_node.title"},
        {"producer": "title", "consumer": "threshold"},
        {"producer": "front_door", "consumer": "code_node.video_in"},
    ]
    assert problems(manifest, graphs.overrides("north")) == [
        'edges[4].producer: no node "nobody" in nodes',
        'edges[5].producer: "code_node" has no output "sound_out" (it has code_node.video_out)',
        "edges[6]: threshold is float32, but code_node.title takes string",
        'edges[7].consumer: "threshold" is a value: nothing can lead to it',
    ]


def test_a_parameter_input_takes_one_value() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["nodes"].append({"name": "other", "interface": "string", "value": "x"})
    manifest["nodeGraph"]["edges"].append({"producer": "other", "consumer": "code_node.title"})
    assert problems(manifest, graphs.overrides("north")) == [
        "edges[4].consumer: code_node.title takes one value, and title gives it already"
    ]


def test_a_media_input_takes_as_many_streams_as_it_says() -> None:
    code = graphs.code_package()
    code["nodePackage"]["interfaces"][0]["inputs"][0]["maxConnections"] = 1
    known = graphs.releases("north", "south")
    known[PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0")] = graphs.release(code)
    assert resolved(graphs.manifest(), graphs.overrides("north"), known)
    (text,) = problems(graphs.manifest(), graphs.overrides("north", "south"), known)
    assert text == "edges[0].consumer: code_node.video_in takes 1 streams at most (maxConnections)"


def test_an_application_has_one_business_logic_node() -> None:
    manifest = graphs.manifest()
    second = {"name": "second", "interface": f"{graphs.ACCOUNT}::people_counter_code.code_interface"}
    manifest["nodeGraph"]["nodes"].append(second)
    (text,) = problems(manifest, graphs.overrides("north"))
    assert text.startswith('nodes[6]: "second" is the second business logic node after "code_node"')


def test_a_value_outside_its_constraint_is_refused() -> None:
    overrides = graphs.overrides("north")
    overrides["nodeGraphOverrides"]["nodes"].append({"name": "t2", "interface": "float32", "value": 1.5})
    overrides["nodeGraphOverrides"]["nodeOverrides"].append({"replace": "threshold", "with": [{"name": "t2"}]})
    assert problems(graphs.manifest(), overrides) == ["overrides.nodes[1].value: 1.5 is not allowed: 0.0 to 0.9"]


def test_overrides_that_do_not_fit_are_refused() -> None:
    overrides = graphs.overrides("north")
    inner = overrides["nodeGraphOverrides"]
    inner["nodes"] += [{"name": "word", "interface": "string", "value": "x"}]
    inner["nodeOverrides"] += [
        {"replace": "nobody", "with": [{"name": "north"}]},
        {"replace": "threshold", "with": [{"name": "word"}]},
        {"replace": "title", "with": [{"name": "word"}]},
        {"replace": "front_door", "with": [{"name": "absent"}]},
    ]
    assert problems(graphs.manifest(), overrides) == [
        'overrides.nodeOverrides[1].replace: no node "nobody" in the manifest',
        'overrides.nodeOverrides[2].with[0].name: "threshold" is float32, but "word" is string',
        'overrides.nodeOverrides[3].replace: "title" can not be replaced: it is not overridable',
        'overrides.nodeOverrides[4].replace: "front_door" is replaced by an earlier entry already',
        "edges[1]: word is string, but code_node.threshold takes float32",
    ]


def test_what_must_be_overridden_is_asked_for() -> None:
    manifest = graphs.manifest()
    node(manifest, "threshold")["overrideMandatory"] = True
    (text,) = problems(manifest, graphs.overrides("north"))
    assert text.startswith('nodes[3]: "threshold" must be overridden')


def test_a_camera_can_not_stand_in_for_a_display() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    node(manifest, "output")["overridable"] = True
    overrides["nodeGraphOverrides"]["nodeOverrides"].append({"replace": "output", "with": [{"name": "north"}]})
    assert (
        'overrides.nodes[0].interface: "north" is a media_source, but "output", which it replaces, is a media_sink'
    ) in problems(manifest, overrides)


def test_ports_of_the_appliance_have_a_range_and_one_owner() -> None:
    overrides = graphs.overrides("north")
    overrides["nodeGraphOverrides"]["networkRoutingRules"] = [
        {"node": "code_node", "containerPort": 8080, "hostPort": 22},
        {"node": "code_node", "containerPort": 1234, "hostPort": 8001},
        {"node": "output", "containerPort": 8080, "hostPort": 8001},
    ]
    assert problems(graphs.manifest(), overrides) == [
        "overrides.networkRoutingRules[0].hostPort: must lie between 8000 and 9000, not 22",
        "overrides.networkRoutingRules[1].containerPort: "
        '1234 is not among the inboundPorts of interface "code_interface"',
        'overrides.networkRoutingRules[2].node: no business logic node "output"',
        "overrides.networkRoutingRules[2].hostPort: 8001 is taken by an earlier rule",
    ]


def test_code_without_its_file_is_refused() -> None:
    known = graphs.releases("north")
    query = PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0")
    known[query] = Release(known[query].ref, known[query].document)
    (text,) = problems(graphs.manifest(), graphs.overrides("north"), known)
    assert text.startswith("nodes[1].interface: asset")


def test_credentials_never_come_through_the_graph() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"].append({"producer": "title", "consumer": "front_door.password"})
    (text,) = problems(manifest, graphs.overrides("north"))
    assert text.startswith('edges[4].consumer: address and credentials of "north" come from its registration')


def test_a_port_that_another_application_has_is_named_with_everything_else() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    manifest["nodeGraph"]["edges"].append({"producer": "nobody", "consumer": "code_node.video_in"})
    rule = {"node": "code_node", "containerPort": 8080, "hostPort": 8001}
    overrides["nodeGraphOverrides"]["networkRoutingRules"] = [rule, rule]
    parsed = parse_application(json.dumps(manifest), json.dumps(overrides))
    with pytest.raises(GraphInvalid) as caught:
        resolve(*parsed, graphs.releases("north"), graphs.ACCOUNT, {8001: 'application "door"'})
    assert [str(problem) for problem in caught.value.problems] == [
        'edges[4].producer: no node "nobody" in nodes',
        'overrides.networkRoutingRules[0].hostPort: 8001 is taken on this device by application "door": choose another',
        'overrides.networkRoutingRules[1].hostPort: 8001 is taken on this device by application "door": choose another',
    ]


def test_the_code_hears_which_ports_lead_to_it() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    # Without hostPort, the appliance's port is the container's.
    rules = [
        {"node": "code_node", "containerPort": 8080},
        {"node": "code_node", "containerPort": 8080, "hostPort": 9000},
    ]
    overrides["nodeGraphOverrides"]["networkRoutingRules"] = rules
    (view,) = app_view(resolved(manifest, overrides))
    assert [(port.host_port, port.container_port) for port in view.ports] == [(8080, 8080), (9000, 8080)]


def test_pictures_that_pass_by_a_model_reach_the_code_and_the_display() -> None:
    # Graphs may draw a model between camera and code, or code and display: models declare media in and out.
    manifest = graphs.manifest()
    inner = manifest["nodeGraph"]
    model = "detector"
    inner["edges"] = [
        {"producer": "front_door.video_out", "consumer": f"{model}.video_in"},
        {"producer": f"{model}.video_out", "consumer": "code_node.video_in"},
        {"producer": "code_node.video_out", "consumer": "output.video_in"},
    ]
    (view,) = app_view(resolved(manifest, graphs.overrides("north", "south")))
    assert [stream.stream_id for stream in view.inputs[0].streams] == ["north", "south"]
    assert view.outputs[0].displays == ("output",)

    inner["edges"] = [
        {"producer": "front_door.video_out", "consumer": "code_node.video_in"},
        {"producer": "code_node.video_out", "consumer": f"{model}.video_in"},
        {"producer": f"{model}.video_out", "consumer": "output.video_in"},
    ]
    (view,) = app_view(resolved(manifest, graphs.overrides("north")))
    assert view.outputs[0].displays == ("output",)


def test_pictures_that_lead_in_a_circle_or_past_the_code_are_refused() -> None:
    manifest = graphs.manifest()
    inner = manifest["nodeGraph"]
    model = "detector"
    inner["edges"] = [
        {"producer": "front_door.video_out", "consumer": "output.video_in"},
        {"producer": "code_node.video_out", "consumer": f"{model}.video_in"},
        {"producer": f"{model}.video_out", "consumer": "code_node.video_in"},
    ]
    assert problems(manifest, graphs.overrides("north")) == [
        'edges[0]: "output" would show nothing of "north": lead the camera to code, and the code to the display',
        f'edges[1]: "code_node" leads back to itself by way of "{model}"',
        f'edges[2]: "{model}" leads back to itself by way of "code_node"',
    ]


def test_pictures_of_a_camera_that_only_a_model_sees_are_shown_by_no_display() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"] = [
        {"producer": "front_door.video_out", "consumer": "detector.video_in"},
        {"producer": "detector.video_out", "consumer": "output.video_in"},
    ]
    assert problems(manifest, graphs.overrides("north")) == [
        'edges[1]: "output" would show nothing of "north": lead the camera to code, and the code to the display',
    ]


def test_values_that_no_edge_can_carry_are_refused_by_name() -> None:
    model = graphs.model_package()
    (interface,) = model["nodePackage"]["interfaces"]
    interface["outputs"].append({"name": "score", "type": "float32"})
    interface["inputs"].append({"name": "floor", "type": "float32"})
    code = graphs.code_package()
    (interface,) = code["nodePackage"]["interfaces"]
    interface["outputs"].append({"name": "count", "type": "int32"})
    interface["inputs"].append({"name": "last_count", "type": "int32"})
    known = graphs.releases("north")
    for document in (model, code):
        known[PackageQuery(graphs.ACCOUNT, document["nodePackage"]["name"], "1.0")] = graphs.release(document)
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"] = [
        {"producer": "front_door.video_out", "consumer": "code_node.video_in"},
        {"producer": "detector.score", "consumer": "code_node.threshold"},
        {"producer": "threshold", "consumer": "detector.floor"},
        {"producer": "code_node.count", "consumer": "code_node.last_count"},
    ]
    by_call = "only pictures and the values of parameters; the results of a model come to code by node.call"
    assert problems(manifest, graphs.overrides("north"), known) == [
        f"edges[1].producer: detector.score gives float32: no edge can carry that, {by_call}",
        'edges[2].consumer: "detector" is no code: the value of "threshold" can be led to a business logic node only',
        f"edges[3].producer: code_node.count gives int32: no edge can carry that, {by_call}",
        'edges[3]: "code_node" leads back to itself by way of "code_node"',
    ]


def test_several_models_draw_edges_to_each_other_and_the_code_calls_each() -> None:
    manifest = graphs.manifest()
    inner = manifest["nodeGraph"]
    again = next(node for node in inner["nodes"] if node["name"] == "detector")
    inner["nodes"].append({**again, "name": "classifier"})
    inner["edges"] = [
        {"producer": "front_door.video_out", "consumer": "detector.video_in"},
        {"producer": "detector.video_out", "consumer": "classifier.video_in"},
        {"producer": "classifier.video_out", "consumer": "code_node.video_in"},
        {"producer": "front_door.video_out", "consumer": "classifier.video_in"},
    ]
    (view,) = app_view(resolved(manifest, graphs.overrides("north", "south")))
    assert [model.name for model in view.models] == ["detector", "classifier"]
    assert [stream.stream_id for stream in view.inputs[0].streams] == ["north", "south"]


def test_what_the_code_asks_of_the_appliance_is_in_its_graph() -> None:
    package = graphs.code_package()
    implementation = package["nodePackage"]["assets"][0]["implementations"][0]
    implementation["requirements"] = [
        {"type": "ota", "minVersion": "4.3.0"},
        {"type": "hardware_access", "inferenceAccelerators": [{"deviceType": "nvhost_gpu"}]},
        {"type": "resources", "memoryMb": 256, "cpu": 0.5},
    ]
    known = graphs.releases("north")
    known[PackageQuery(graphs.ACCOUNT, "people_counter_code", "1.0")] = graphs.release(package)
    graph = resolved(graphs.manifest(), graphs.overrides("north"), known)
    assert graph.code[0].limits.given() == {"memory_mb": 256, "cpu": 0.5}
    assert ResolvedGraph.from_json(graph.to_json()) == graph


def test_what_reading_finds_and_what_the_packages_say_is_told_together_and_once() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    inner = manifest["nodeGraph"]
    inner["envelopeVersion"] = "2020"
    inner["packages"] += [
        {"name": "some::bad", "version": "1"},
        {"name": f"{graphs.ACCOUNT}::absent", "version": "1.0"},
    ]
    inner["nodes"] += [
        {"name": "extra", "interface": f"{graphs.ACCOUNT}::undeclared.code", "launch": "sometimes"},
        {"name": "count", "interface": "int32", "value": "three"},
    ]
    inner["edges"] += [
        {"producer": "ghost.video_out", "consumer": "code_node.video_in"},
        {"producer": "count", "consumer": "code_node.nothing"},
        {"producer": "extra.video_out", "consumer": "output.video_in"},
    ]
    overrides["nodeGraphOverrides"]["nodeOverrides"].append({"replace": "nobody", "with": []})
    overrides["nodeGraphOverrides"]["networkRoutingRules"] = [{"node": "code_node", "containerPort": 70000}]
    draft = read_application(json.dumps(manifest), json.dumps(overrides))
    with pytest.raises(GraphInvalid) as caught:
        resolve_draft(draft, graphs.releases("north"), graphs.ACCOUNT)
    assert sorted(problem.place for problem in caught.value.problems) == [
        "edges[4].producer",
        "edges[5].consumer",
        "envelopeVersion",
        "nodes[6].interface",
        "nodes[6].launch",
        "nodes[7].value",
        "overrides.networkRoutingRules[0].containerPort",
        "overrides.nodeOverrides[1].replace",
        "packages[4].version",
        "packages[5]",
    ]


def test_what_only_follows_from_something_unreadable_is_not_told() -> None:
    manifest, overrides = graphs.manifest(), graphs.overrides("north")
    node(manifest, "code_node")["name"] = "code node"
    overrides["nodeGraphOverrides"]["nodes"][0]["interface"] = "north"
    draft = read_application(json.dumps(manifest), json.dumps(overrides))
    with pytest.raises(GraphInvalid) as caught:
        resolve_draft(draft, graphs.releases("north"), graphs.ACCOUNT)
    assert [problem.place for problem in caught.value.problems] == ["nodes[1].name", "overrides.nodes[0].interface"]
    draft = read_application(json.dumps(graphs.manifest()), "{")
    with pytest.raises(GraphInvalid) as caught:
        resolve_draft(draft, graphs.releases("north"), graphs.ACCOUNT)
    assert [problem.place for problem in caught.value.problems] == ["overrides."]
