"""Documents of a small application, as the AWS tools write them, and the packages behind it."""

import copy
import hashlib
import json
from typing import Any

import pytest

from belvedere.graph import (
    DocumentInvalid,
    GraphInvalid,
    PackageQuery,
    PackageRef,
    RegisteredAsset,
    Release,
    ResolvedGraph,
    parse_application,
    parse_descriptor,
    parse_package,
    resolve,
)

ACCOUNT = "123456789012"
ENVELOPE = "2021-01-01"

Document = dict[str, Any]


def manifest() -> dict[str, Any]:
    """A people counter: camera, code, model, two parameters, display."""
    return copy.deepcopy(_MANIFEST)


def overrides(*cameras: str) -> dict[str, Any]:
    """Overrides that put these cameras in the place of the abstract one."""
    return {
        "nodeGraphOverrides": {
            "envelopeVersion": ENVELOPE,
            "packages": [{"name": f"{ACCOUNT}::{name}", "version": "1.0"} for name in cameras],
            "nodes": [
                {"name": name.replace("-", "_"), "interface": f"{ACCOUNT}::{name}.{name}", "overridable": True}
                for name in cameras
            ],
            "nodeOverrides": [
                {"replace": "front_door", "with": [{"name": name.replace("-", "_")} for name in cameras]}
            ],
        }
    }


def code_package() -> dict[str, Any]:
    """The package.json of the code."""
    return copy.deepcopy(_CODE)


def model_package() -> dict[str, Any]:
    """The package.json of the model."""
    return copy.deepcopy(_MODEL)


def camera_package(name: str) -> dict[str, Any]:
    """The package.json of a camera, as AWS's template has it."""
    return {
        "nodePackage": {
            "envelopeVersion": ENVELOPE,
            "name": name,
            "version": "1.0",
            "description": "",
            "assets": [
                {
                    "name": "rtsp_camera",
                    "implementations": [{"type": "system", "assetUri": "source/video/camera/rtsp/source_rtsp"}],
                }
            ],
            "interfaces": [
                {
                    "name": name,
                    "category": "media_source",
                    "asset": "rtsp_camera",
                    "inputs": [
                        {"name": "username", "type": "string"},
                        {"name": "password", "type": "string"},
                        {"name": "streamUrl", "type": "string"},
                    ],
                    "outputs": [{"name": "video_out", "type": "media"}],
                }
            ],
        }
    }


RUNTIME_DESCRIPTOR = {
    "runtimeDescriptor": {
        "envelopeVersion": ENVELOPE,
        "entry": {
            "path": "python3",
            "name": "/panorama/app.py",
            "arguments": ["--fast"],
            "environment": [{"name": "MODE", "value": "count"}],
        },
    }
}
MODEL_DESCRIPTOR = {
    "mlModelDescriptor": {
        "envelopeVersion": ENVELOPE,
        "framework": "TENSORFLOW",
        "frameworkVersion": "2.4",
        "precisionMode": "FP32",
        "inputs": [{"name": "image_tensor", "shape": [1, 300, 300, 3], "type": "uint8"}],
    }
}


def release(document: dict[str, Any], owner: str = ACCOUNT) -> Release:
    """A registered package: assets are stored under made-up digests, with the descriptors above."""
    text = json.dumps(document)
    parsed = parse_package(text)
    patch = hashlib.sha256(text.encode()).hexdigest()
    descriptors = {
        "container": parse_descriptor(json.dumps(RUNTIME_DESCRIPTOR)),
        "model": parse_descriptor(json.dumps(MODEL_DESCRIPTOR)),
    }
    assets = tuple(
        RegisteredAsset(
            asset.name,
            item.type,
            "" if item.type == "system" else "sha256:" + hashlib.sha256(asset.name.encode()).hexdigest(),
            0 if item.type == "system" else 1000,
            descriptors.get(item.type),
        )
        for asset in parsed.assets
        for item in asset.implementations
    )
    return Release(PackageRef(owner, parsed.name, parsed.version, patch), parsed, assets)


def releases(*cameras: str) -> dict[PackageQuery, Release]:
    """What is registered: code, model and these cameras."""
    documents = [code_package(), model_package(), *(camera_package(name) for name in cameras)]
    found = [release(document) for document in documents]
    return {PackageQuery(item.ref.owner, item.ref.name, item.ref.version): item for item in found}


def resolved(
    manifest: Document, overrides: Document | None = None, known: dict[PackageQuery, Release] | None = None
) -> ResolvedGraph:
    """The graph of these documents; `known`: of other packages than the application's with two cameras."""
    parsed = parse_application(json.dumps(manifest), None if overrides is None else json.dumps(overrides))
    return resolve(*parsed, releases("north", "south") if known is None else known, ACCOUNT)


def problems(
    manifest: Document, overrides: Document | None = None, known: dict[PackageQuery, Release] | None = None
) -> list[str]:
    """What is told of documents that give none."""
    with pytest.raises((DocumentInvalid, GraphInvalid)) as caught:
        resolved(manifest, overrides, known)
    return [str(problem) for problem in caught.value.problems]


def node(document: Document, name: str) -> Document:
    """Of a manifest or of overrides, by name."""
    inner = next(iter(document.values()))
    found: Document = next(item for item in inner["nodes"] if item["name"] == name)
    return found


_MANIFEST: dict[str, Any] = {
    "nodeGraph": {
        "envelopeVersion": ENVELOPE,
        "packages": [
            {"name": f"{ACCOUNT}::people_counter_code", "version": "1.0"},
            {"name": f"{ACCOUNT}::person_detector", "version": "1.0"},
            {"name": "panorama::abstract_rtsp_media_source", "version": "1.0"},
            {"name": "panorama::hdmi_data_sink", "version": "1.0"},
        ],
        "nodes": [
            {
                "name": "front_door",
                "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface",
                "overridable": True,
                "launch": "onAppStart",
                "decorator": {"title": "Camera front_door", "description": "Default description for the camera"},
            },
            {"name": "code_node", "interface": f"{ACCOUNT}::people_counter_code.code_interface", "overridable": False},
            {"name": "detector", "interface": f"{ACCOUNT}::person_detector.detector_interface"},
            {
                "name": "threshold",
                "interface": "float32",
                "value": 0.5,
                "overridable": True,
                "decorator": {
                    "title": "Threshold",
                    "constraintText": "0.0 to 0.9",
                    "constraintRegex": r"0(\.[0-9]+)?",
                },
            },
            {"name": "title", "interface": "string", "value": "people"},
            {"name": "output", "interface": "panorama::hdmi_data_sink.hdmi0", "overridable": False},
        ],
        "edges": [
            {"producer": "front_door.video_out", "consumer": "code_node.video_in"},
            {"producer": "threshold", "consumer": "code_node.threshold"},
            {"producer": "title", "consumer": "code_node.title"},
            {"producer": "code_node.video_out", "consumer": "output.video_in"},
        ],
    }
}
_CODE: dict[str, Any] = {
    "nodePackage": {
        "envelopeVersion": ENVELOPE,
        "name": "people_counter_code",
        "version": "1.0",
        "description": "Counts people",
        "assets": [
            {
                "name": "code",
                "implementations": [
                    {"type": "container", "assetUri": "a" * 64 + ".tar.gz", "descriptorUri": "b" * 64 + ".json"}
                ],
            }
        ],
        "interfaces": [
            {
                "name": "code_interface",
                "category": "business_logic",
                "asset": "code",
                "inputs": [
                    {"name": "video_in", "type": "media"},
                    {"name": "threshold", "type": "float32", "default": 0.25},
                    {"name": "title", "type": "string"},
                    {"name": "interval", "type": "int32", "default": 5},
                    {"name": "verbose", "type": "boolean"},
                ],
                "outputs": [{"name": "video_out", "type": "media"}],
                "network": {"inboundPorts": [{"port": 8080, "description": "http"}]},
            }
        ],
    }
}
_MODEL: dict[str, Any] = {
    "nodePackage": {
        "envelopeVersion": ENVELOPE,
        "name": "person_detector",
        "version": "1.0",
        "assets": [
            {
                "name": "detector",
                "implementations": [
                    {"type": "model", "assetUri": "c" * 64 + ".tar.gz", "descriptorUri": "d" * 64 + ".json"}
                ],
            }
        ],
        "interfaces": [
            {
                "name": "detector_interface",
                "category": "ml_model",
                "asset": "detector",
                "inputs": [{"name": "video_in", "type": "media"}],
                "outputs": [{"name": "video_out", "type": "media"}],
            }
        ],
    }
}
