"""From documents to one graph: what every refusal says, and where."""

import json

import pytest

from belvedere.graph import (
    GraphInvalid,
    PackageQuery,
    Release,
    parse_application,
    read_application,
    resolve,
    resolve_draft,
)
from tests.support import graphs
from tests.support.graphs import node, problems, resolved


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
