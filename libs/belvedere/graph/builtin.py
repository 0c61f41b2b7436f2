"""The packages that every appliance has: the abstract RTSP camera, to be overridden by a real one, and the HDMI sink.

Pure data, written as documents so that they go the way of every other package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from belvedere.graph.application import ENVELOPE_VERSION
from belvedere.graph.package import Release, parse_package
from belvedere.graph.resolved import BUILT_IN_OWNER, PackageRef

ABSTRACT_CAMERA = "abstract_rtsp_media_source"
HDMI_SINK = "hdmi_data_sink"
RTSP_SYSTEM_ASSET = "source/video/camera/rtsp/source_rtsp"
HDMI_SYSTEM_ASSET = "sink/video/hdmi/sink_hdmi"
CAMERA_INPUTS = ("username", "password", "streamUrl")
"""Input ports of a camera's interface. Their values come with the camera's registration, never through a graph."""


def camera_document(name: str, version: str, description: str, *, interface: str, stream_url: str = "") -> str:
    """The package.json of a camera; without credentials. `stream_url` must hold none either."""
    inputs: list[dict[str, object]] = [{"name": port, "type": "string"} for port in CAMERA_INPUTS]
    if stream_url:
        inputs[-1]["default"] = stream_url
    return _document(
        name, version, description, interface, "media_source", "rtsp_camera", RTSP_SYSTEM_ASSET,
        inputs, [{"name": "video_out", "type": "media"}],
    )  # fmt: skip


def _document(
    name: str,
    version: str,
    description: str,
    interface: str,
    category: str,
    asset: str,
    uri: str,
    inputs: list[dict[str, object]],
    outputs: list[dict[str, object]],
) -> str:
    node_package = {
        "envelopeVersion": ENVELOPE_VERSION,
        "name": name,
        "version": version,
        "description": description,
        "assets": [{"name": asset, "implementations": [{"type": "system", "assetUri": uri}]}],
        "interfaces": [
            {"name": interface, "category": category, "asset": asset, "inputs": inputs, "outputs": outputs},
        ],
    }
    return json.dumps({"nodePackage": node_package}, sort_keys=True)


def _release(name: str, text: str) -> Release:
    document = parse_package(text)
    patch = hashlib.sha256(text.encode()).hexdigest()
    return Release(PackageRef(BUILT_IN_OWNER, name, document.version, patch), document)


BUILT_IN: Mapping[tuple[str, str], Release] = {
    (ABSTRACT_CAMERA, "1.0"): _release(
        ABSTRACT_CAMERA,
        camera_document(
            ABSTRACT_CAMERA, "1.0", "A camera that every deployment names anew", interface="rtsp_v1_interface"
        ),
    ),
    (HDMI_SINK, "1.0"): _release(
        HDMI_SINK,
        _document(
            HDMI_SINK, "1.0", "The appliance's display", "hdmi0", "media_sink", "hdmi", HDMI_SYSTEM_ASSET,
            [{"name": "video_in", "type": "media"}], [],
        ),
    ),
}  # fmt: skip
"""Built-in packages by (name, version)."""
