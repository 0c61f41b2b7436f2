"""From documents to one graph: what comes out."""

import json
import re
from dataclasses import replace

import pytest

from belvedere.graph import (
    BUILT_IN,
    ImageInput,
    NetworkRule,
    PackageQuery,
    PortType,
    ResolvedGraph,
    ResolvedGraphError,
    Stream,
    app_view,
    package_queries,
    parse_application,
    resolve,
)
from tests.support import graphs
from tests.support.graphs import node, problems, resolved


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


def test_pictures_of_a_camera_that_only_a_model_sees_are_shown_by_no_display() -> None:
    manifest = graphs.manifest()
    manifest["nodeGraph"]["edges"] = [
        {"producer": "front_door.video_out", "consumer": "detector.video_in"},
        {"producer": "detector.video_out", "consumer": "output.video_in"},
    ]
    assert problems(manifest, graphs.overrides("north")) == [
        'edges[1]: "output" would show nothing of "north": lead the camera to code, and the code to the display',
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
