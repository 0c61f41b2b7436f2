"""New folders, folders from others, and overrides made from choices."""

from __future__ import annotations

import json
import py_compile
import re
from pathlib import Path

import pytest

from belvedere.appdir import (
    AppFolder,
    CameraNode,
    NotAnAppFolder,
    OverrideInvalid,
    add_model,
    build_code_asset,
    literal_type,
    new_app,
    overrides_document,
    take_over,
)
from belvedere.graph import parse_application, parse_package

ACCOUNT = "123456789012"
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "people-counter"


def camera(name: str, version: str = "1.0") -> CameraNode:
    return CameraNode(ACCOUNT, name, version, name)


def test_a_new_folder_holds_documents_that_are_right_and_code_that_compiles(tmp_path: Path) -> None:
    app = new_app(tmp_path / "shop-floor", ACCOUNT)
    assert app.name == "shop-floor"
    (package,) = app.packages()
    assert (package.account, package.name) == (ACCOUNT, "SHOP_FLOOR_CODE")
    build_code_asset(app, package, say=print, engine="bare")
    parse_package(package.document_path.read_text())
    parse_application(app.graph_path.read_text(), None)
    py_compile.compile(str(package.folder / "src" / "application.py"), cfile=str(tmp_path / "x.pyc"), doraise=True)
    documents = [path for path in app.root.rglob("*") if path.is_file() and path.suffix != ".gz"]
    assert not [path for path in documents if re.search("@[A-Z]+@", f"{path} {path.read_text()}")], "all filled in"


def test_a_folder_that_is_there_or_has_no_usable_name_is_refused(tmp_path: Path) -> None:
    new_app(tmp_path / "watch", ACCOUNT)
    with pytest.raises(NotAnAppFolder, match="exists already"):
        new_app(tmp_path / "watch", ACCOUNT)
    with pytest.raises(NotAnAppFolder, match="letters, digits"):
        new_app(tmp_path / "my watch", ACCOUNT)
    (tmp_path / "empty").mkdir()
    assert new_app(tmp_path / "empty", ACCOUNT).name == "empty"


def test_a_folder_from_somebody_else_is_taken_over(tmp_path: Path) -> None:
    app = AppFolder.load(EXAMPLE, into=tmp_path)
    assert take_over(app, "210987654321") == (ACCOUNT,)
    assert {package.account for package in app.packages()} == {"210987654321"}
    texts = [path.read_text() for path in app.graph_path.parent.glob("*.json")]
    assert len(texts) == 2 and not any(ACCOUNT in text for text in texts)
    assert "panorama::abstract_rtsp_media_source" in texts[0] + texts[1]
    assert take_over(app, "210987654321") == ()


def test_cameras_and_values_become_an_overrides_document_that_resolves(tmp_path: Path) -> None:
    app = new_app(tmp_path / "watch", ACCOUNT)
    graph = app.graph()
    assert [literal_type(graph, node) for node in ("sensitivity", "camera")] == ["float32", None]
    with pytest.raises(OverrideInvalid, match="can be overridden: camera, sensitivity"):
        literal_type(graph, "door")
    taken = [node["name"] for node in graph["nodeGraph"]["nodes"]]
    document = overrides_document(
        {"camera": [camera("door"), camera("camera")]}, {"sensitivity": ("float32", "0.25")}, None, taken
    )
    inner = document["nodeGraphOverrides"]
    assert [package["name"] for package in inner["packages"]] == [f"{ACCOUNT}::door", f"{ACCOUNT}::camera"]
    assert inner["nodeOverrides"] == [
        {"replace": "camera", "with": [{"name": "door"}, {"name": "camera_camera"}]},
        {"replace": "sensitivity", "with": [{"name": "sensitivity_override"}]},
    ]
    assert inner["nodes"][2]["value"] == 0.25
    parse_application(app.graph_path.read_text(), json.dumps(document))


def test_a_choice_takes_the_place_of_the_one_in_the_document_it_starts_from() -> None:
    start = json.loads((EXAMPLE / "graphs" / "people-counter" / "override.json").read_text())
    document = overrides_document({"front_camera": [camera("door", "2.0")]}, {}, start)
    overrides = document["nodeGraphOverrides"]["nodeOverrides"]
    assert [item["replace"] for item in overrides] == ["threshold", "front_camera"]
    assert overrides[1]["with"] == [{"name": "door"}]
    assert start == json.loads((EXAMPLE / "graphs" / "people-counter" / "override.json").read_text())


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("int32", "7", 7), ("float32", "1e-1", 0.1), ("boolean", "No", False), ("string", "a=b", "a=b")],
)
def test_a_value_is_of_its_parameters_type(kind: str, text: str, value: object) -> None:
    document = overrides_document({}, {"p": (kind, text)})
    assert document["nodeGraphOverrides"]["nodes"][0]["value"] == value


@pytest.mark.parametrize(("kind", "text"), [("int32", "1.5"), ("float32", "much"), ("boolean", "perhaps")])
def test_a_value_that_is_not_of_that_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(OverrideInvalid, match=text):
        overrides_document({}, {"p": (kind, text)})


def test_a_model_that_is_new_in_its_package_gets_an_interface_and_a_node(tmp_path: Path) -> None:
    app = AppFolder.load(EXAMPLE, into=tmp_path / "app")
    package = app.package("PERSON_DETECTOR")
    (tmp_path / "model.pb").write_bytes(b"weights")
    asset, node = add_model(app, package, tmp_path / "model.pb")
    assert (asset.name, asset.new, node) == ("person_detector", False, None)

    document = json.loads(package.document_path.read_text())
    document["nodePackage"].update(assets=[], interfaces=[])
    package.document_path.write_text(json.dumps(document))
    asset, node = add_model(app, package, tmp_path / "model.pb", asset_name="eyes")
    assert (asset.name, asset.new, node) == ("eyes", True, "eyes")
    assert asset.patch_version == package.patch_version
    assert [(item["name"], item["category"]) for item in package.document()["interfaces"]] == [
        ("eyes_interface", "ml_model")
    ]
    assert app.graph()["nodeGraph"]["nodes"][-1]["interface"] == f"{ACCOUNT}::PERSON_DETECTOR.eyes_interface"
