"""Graphs and targets for the agent's tests: small, complete, made by hand."""

from __future__ import annotations

from belvedere.fleet import Target, TargetApplication, TargetCamera
from belvedere.graph import (
    Asset,
    CameraNode,
    CodeNode,
    DisplayNode,
    Edge,
    Entry,
    InputPort,
    ModelNode,
    OutputPort,
    PackageRef,
    ParameterNode,
    PortType,
    ResolvedGraph,
    TensorInput,
)

DEVICE = "device-test"


def digest(letter: str) -> str:
    """A digest that is recognised in a failed test."""
    return "sha256:" + letter * 64


def package(name: str) -> PackageRef:
    return PackageRef("123456789012", name, "1.0", "0" * 64)


def graph(code: str = "c", model: str = "d", camera: str = "door-1.0-aaaaaaaa") -> ResolvedGraph:
    """One camera, one model, one parameter, one display; `code` and `model` are the assets' digests' letters."""
    return ResolvedGraph(
        code=(
            CodeNode(
                "code_node",
                package("CODE"),
                "interface",
                Asset(digest(code), 10),
                Entry("python3", "/panorama/app.py"),
                (InputPort("video_in", PortType.MEDIA), InputPort("threshold", PortType.FLOAT32, 0.1)),
                (OutputPort("video_out", PortType.MEDIA),),
            ),
        ),
        cameras=(CameraNode("front", camera, package("door")),),
        models=(
            ModelNode(
                "detector",
                package("MODEL"),
                "interface",
                Asset(digest(model), 20),
                "TENSORFLOW",
                "FP32",
                (TensorInput("image", (1, 300, 300, 3), "uint8"),),
            ),
        ),
        displays=(DisplayNode("screen", package("hdmi")),),
        parameters=(ParameterNode("threshold", PortType.FLOAT32, 0.5),),
        edges=(
            Edge("front", "video_out", "code_node", "video_in"),
            Edge("threshold", "", "code_node", "threshold"),
            Edge("code_node", "video_out", "screen", "video_in"),
        ),
    )


def camera(camera_id: str = "door-1.0-aaaaaaaa") -> TargetCamera:
    return TargetCamera(camera_id, f"rtsp://{camera_id}.example/stream", "c2VhbGVk")


def application(instance_id: str, of: ResolvedGraph, **more: object) -> TargetApplication:
    return TargetApplication(instance_id, "counter", of.digest(), camera_ids=of.camera_ids, **more)  # type: ignore[arg-type]


def target(
    *applications: TargetApplication, cameras: tuple[TargetCamera, ...] = (camera(),), version: int = 1
) -> Target:
    return Target(DEVICE, version, applications, cameras)
