"""A folder as it lies there, resolved: what comes out, and that everything wrong in it is told at once, with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from belvedere.appdir import AppFolder, Choices, FolderInvalid, FolderWork
from belvedere.graph import app_view
from tests.support.local_run import code_of, copied, motion_app
from tests.support.models import tiny_onnx

Change = Callable[[dict[str, Any]], None]
ONE_CAMERA = Choices(cameras={"camera": ("door",)})


def change(path: Path, how: Change) -> None:
    document = json.loads(path.read_text())
    how(next(iter(document.values())))
    path.write_text(json.dumps(document))


def work(app: AppFolder, tmp_path: Path, **models: Path) -> FolderWork:
    return FolderWork(app, tmp_path / "built", models)


def problems(folder: FolderWork, choices: Choices = ONE_CAMERA) -> list[str]:
    with pytest.raises(FolderInvalid) as caught:
        folder.resolve(choices)
    root = folder.app.root
    return [str(problem).replace(f"{root}/", "") for problem in caught.value.problems]


def test_an_application_that_was_never_built_is_resolved_and_its_folder_stays_as_it_was(tmp_path: Path) -> None:
    app = motion_app(tmp_path / "watch")
    before = {path: path.read_bytes() for path in app.root.rglob("*") if path.is_file()}
    found = work(app, tmp_path).resolve(
        Choices(cameras={"camera": ("door", "yard")}, values={"sensitivity": ("float32", "0.25")})
    )
    (view,) = app_view(found.graph)
    assert [stream.stream_id for stream in view.inputs[0].streams] == ["door", "yard"]
    assert view.inputs[1].value == 0.25
    assert sorted(found.cameras.values()) == ["door", "yard"]
    (digest,) = found.files
    assert found.graph.code[0].asset.digest == digest and found.files[digest].is_file()
    assert {path: path.read_bytes() for path in app.root.rglob("*") if path.is_file()} == before


def test_only_a_change_changes_the_graph(tmp_path: Path) -> None:
    app = motion_app(tmp_path / "watch")
    folder = work(app, tmp_path)
    first = folder.resolve(ONE_CAMERA)
    assert folder.resolve(ONE_CAMERA).graph == first.graph
    code = code_of(app.root)
    code.write_text(code.read_text() + "# changed\n")
    second = folder.resolve(ONE_CAMERA)
    assert second.graph != first.graph and second.cameras == first.cameras


def test_every_mistake_is_told_at_once_with_its_file_and_place(tmp_path: Path) -> None:
    root = copied("facing-people", tmp_path)
    app = AppFolder.load(root)
    code = code_of(root)
    code.write_text(code.read_text() + "def broken(:\n")
    change(app.graph_path, lambda graph: graph["edges"].append({"producer": "nobody.out", "consumer": "hdmi.video_in"}))
    package = next(root.glob("packages/*FACE_CLASSIFIER*"))
    change(package / "package.json", lambda document: document["interfaces"][0].update(category="oracle"))
    change(package / "descriptor.json", lambda document: document["inputs"][0].update(shape=[0]))
    model = tiny_onnx(tmp_path / "face.onnx")
    choices = Choices(cameras={"entrance": ("door",)}, values={"face_threshold": ("float32", "2")})
    found = problems(work(app, tmp_path, FACE_CLASSIFIER=model, NOBODYS=model), choices)
    expected = [
        'packages: no package "NOBODYS" for the model',
        "packages/123456789012-FACE_CLASSIFIER-1.0/package.json: nodePackage.interfaces[0].category: must be one of",
        "packages/123456789012-FACE_CLASSIFIER-1.0/descriptor.json: inputs[0].shape[0]: must be 1 or more",
        "packages/123456789012-FACING_PEOPLE_CODE-1.0/src/application.py: line",
        "packages/123456789012-PERSON_DETECTOR-1.0/package.json: asset person_detector: add the model first",
        'graphs/facing-people/graph.json: nodes[1]: camera "exit" is abstract',
        'graphs/facing-people/graph.json: edges[5].producer: no node "nobody" in nodes',
        "the command line: nodes[1].value: 2.0 is not allowed",
    ]
    missing = [text for text in expected if not any(line.startswith(text) for line in found)]
    assert not missing, "\n".join(found)


def test_a_document_that_is_none_does_not_hide_the_others(tmp_path: Path) -> None:
    app = motion_app(tmp_path / "watch")
    app.graph_path.write_text("{")
    next(app.root.glob("packages/*/package.json")).write_text("[]")
    found = problems(work(app, tmp_path))
    assert any(line.startswith("graphs/watch/graph.json: is not JSON") for line in found)
    assert any("package.json" in line for line in found)


def test_a_camera_that_the_graph_itself_names_is_played_by_the_chosen_one(tmp_path: Path) -> None:
    app = motion_app(tmp_path / "watch")

    def concrete(graph: dict[str, Any]) -> None:
        graph["packages"][0] = {"name": "123456789012::gate", "version": "1.0"}
        graph["nodes"][0] = {"name": "camera", "interface": "123456789012::gate.gate"}

    change(app.graph_path, concrete)
    folder = work(app, tmp_path)
    assert folder.camera_nodes() == ("camera",)
    found = folder.resolve(ONE_CAMERA)
    assert found.cameras == {"gate-1.0-00000000": "camera"}


def test_ports_of_the_graph_are_open_in_a_local_run(tmp_path: Path) -> None:
    app = AppFolder.load(copied("debug-server", tmp_path))
    (rule,) = work(app, tmp_path).resolve(ONE_CAMERA).graph.network_rules
    assert (rule.node, rule.container_port, rule.host_port) == ("code_node", 8080, 8080)
    assert (
        work(app, tmp_path).resolve(Choices(cameras={"camera": ("door",)}, open_ports=False)).graph.network_rules == ()
    )


def test_code_that_needs_a_container_engine_is_asked_to_be_built_first(tmp_path: Path) -> None:
    app = motion_app(tmp_path / "watch")
    dockerfile = next(app.root.glob("packages/*/Dockerfile"))
    dockerfile.write_text(dockerfile.read_text() + "RUN pip3 install scipy\n")
    change(
        dockerfile.with_name("package.json"),
        lambda package: package["assets"].append(
            {"name": "watch_code", "implementations": [{"type": "container", "assetUri": "a.tar.gz"}]}
        ),
    )
    (text,) = problems(work(app, tmp_path))
    assert "build it first with `belvedere app build`" in text
