"""Application folders as the AWS tools have them, written on the spot: one code package, cameras, perhaps one model.

app = application_folder(tmp_path / "door", "door", FRAMES_THROUGH, cameras=["front"])
register(account, app)
change_source(app, BETTER)            # the same package, a new patch once it is registered again
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from belvedere.appdir import AppFolder, add_model_asset, build_container_asset

ACCOUNT = "123456789012"
ENVELOPE = "2021-01-01"
CODE_NODE = "code_node"
MODEL_NODE = "net"

FRAMES_THROUGH = """
import panoramasdk
node = panoramasdk.node()
while True:
    streams = node.inputs.video_in.get()
    for stream in streams:
        stream.add_label("seen", 0.1, 0.1)
    node.outputs.video_out.put(streams)
"""
"""Takes every frame, labels it, hands it on."""


def application_folder(
    folder: Path, name: str, source: str, *, cameras: Sequence[str], model: Path | None = None
) -> AppFolder:
    """A folder whose application `name` takes the registered cameras; with `model`, an ONNX file, as node MODEL_NODE.

    The model's only input is `x`, float32 (1, 3).
    """
    code_package = _package(folder, f"{name}_code", "container", "business_logic")
    (code_package / "src").mkdir()
    (code_package / "Dockerfile").write_text("FROM public.ecr.aws/panorama/panorama-application\nCOPY src /panorama\n")
    entry = {"path": "python3", "name": "/panorama/application.py"}
    _write(code_package / "descriptor.json", {"runtimeDescriptor": {"envelopeVersion": ENVELOPE, "entry": entry}})
    if model is not None:
        model_package = _package(folder, f"{name}_net", "model", "ml_model")
        descriptor = {
            "envelopeVersion": ENVELOPE,
            "framework": "ONNX",
            "frameworkVersion": "1.8",
            "precisionMode": "FP32",
            "inputs": [{"name": "x", "shape": [1, 3], "type": "float32"}],
        }
        _write(model_package / "descriptor.json", {"mlModelDescriptor": descriptor})
    graph = folder / "graphs" / name / "graph.json"
    graph.parent.mkdir(parents=True)
    _write(graph, {"nodeGraph": _graph(name, cameras, with_model=model is not None)})
    app = AppFolder.load(folder)
    change_source(app, source)
    if model is not None:
        change_model(app, model)
    return app


def change_source(app: AppFolder, source: str) -> None:
    """Puts other code into the application."""
    package = app.package(f"{app.name}_code").folder
    (package / "src" / "application.py").write_text(source)
    build_container_asset(package, app.assets)


def change_model(app: AppFolder, model: Path) -> None:
    """Puts another file into the model's package."""
    package = app.package(f"{app.name}_net").folder
    add_model_asset(package, app.assets, model, package / "descriptor.json")


def _graph(name: str, cameras: Sequence[str], *, with_model: bool) -> dict[str, Any]:
    own = [f"{name}_code", *([f"{name}_net"] if with_model else [])]
    nodes = [
        {"name": CODE_NODE, "interface": f"{ACCOUNT}::{name}_code.{name}_code"},
        {"name": "screen", "interface": "panorama::hdmi_data_sink.hdmi0"},
        *({"name": camera, "interface": f"{ACCOUNT}::{camera}.{camera}"} for camera in cameras),
        *([{"name": MODEL_NODE, "interface": f"{ACCOUNT}::{name}_net.{name}_net"}] if with_model else []),
    ]
    return {
        "envelopeVersion": ENVELOPE,
        "packages": [
            *({"name": f"{ACCOUNT}::{package}", "version": "1.0"} for package in [*own, *cameras]),
            {"name": "panorama::hdmi_data_sink", "version": "1.0"},
        ],
        "nodes": nodes,
        "edges": [
            *({"producer": f"{camera}.video_out", "consumer": f"{CODE_NODE}.video_in"} for camera in cameras),
            {"producer": f"{CODE_NODE}.video_out", "consumer": "screen.video_in"},
        ],
    }


def _package(folder: Path, name: str, kind: str, category: str) -> Path:
    package = folder / "packages" / f"{ACCOUNT}-{name}-1.0"
    package.mkdir(parents=True)
    interface = {
        "name": name,
        "category": category,
        "asset": name,
        "inputs": [{"name": "video_in", "type": "media"}],
        "outputs": [{"name": "video_out", "type": "media"}],
    }
    document = {
        "envelopeVersion": ENVELOPE,
        "name": name,
        "version": "1.0",
        "assets": [{"name": name, "implementations": [{"type": kind}]}],
        "interfaces": [interface],
    }
    _write(package / "package.json", {"nodePackage": document})
    return package


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2))
