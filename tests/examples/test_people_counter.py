"""The people counter, as an AWS user would write it, in its sandbox: real frames in, a detector's answers, marked pictures out, its metric sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from belvedere.appdir import AppFolder, build_container_asset
from belvedere.chassis.edge import ask
from belvedere.chassis.paths import EdgePaths
from belvedere.graph import (
    BUILT_IN,
    PackageQuery,
    PackageRef,
    RegisteredAsset,
    Release,
    ResolvedGraph,
    app_view,
    camera_document,
    parse_application,
    parse_descriptor,
    parse_package,
    resolve,
)
from framelink import CallServer, FrameReader, FrameWriter, Output, OutputReceiver, PixelFormat, Request, slot_bytes_for
from tests.support.edge_bus import edge_bus, edge_process
from tests.support.waiting import until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "people-counter"
ACCOUNT = "123456789012"
INSTANCE = "applicationInstance-people"
WIDTH, HEIGHT = 320, 240
BOXES = [[0.1, 0.2, 0.5, 0.4], [0.2, 0.5, 1.0, 0.75], [0.0, 0.0, 0.3, 0.3]]
SCORES = [0.9, 0.65, 0.55]
"""Two are above the 0.6 of the example's overrides."""


def resolved(folder: AppFolder) -> ResolvedGraph:
    """The example's documents, with its example of overrides, as the cloud side resolves them."""
    releases = dict(BUILT_IN)
    for package in folder.packages():
        document = parse_package(package.document_path.read_bytes())
        descriptor = parse_descriptor((package.folder / "descriptor.json").read_bytes())
        assets = tuple(
            RegisteredAsset(asset.name, item.type, f"sha256:{'0' * 64}", 1, descriptor)
            for asset in document.assets
            for item in asset.implementations
        )
        ref = PackageRef(ACCOUNT, package.name, package.version, package.patch_version)
        releases[PackageQuery(ACCOUNT, package.name, package.version)] = Release(ref, document, assets)
    camera = camera_document("exterior-south", "1.0", "", interface="exterior-south", stream_url="rtsp://camera/1")
    ref = PackageRef(ACCOUNT, "exterior-south", "1.0", "c" * 64)
    releases[PackageQuery(ACCOUNT, "exterior-south", "1.0")] = Release(ref, parse_package(camera))
    overrides = (folder.graph_path.parent / "override.json").read_bytes()
    manifest, changes = parse_application(folder.graph_path.read_bytes(), overrides)
    return resolve(manifest, changes, releases, ACCOUNT)


def app_spec(graph: ResolvedGraph, archive: Path) -> dict[str, Any]:
    view = app_view(graph)[0]
    inputs: dict[str, Any] = {}
    for port in view.inputs:
        streams = [
            {"camera_id": stream.camera_id, "stream_id": stream.stream_id, "stream_uri": "rtsp://camera/1"}
            for stream in port.streams
        ]
        value = {"streams": streams} if streams else {"value": port.value}
        inputs[port.name] = {"type": str(port.type), **value}
    return {
        "instance_id": INSTANCE,
        "name": "people-counter",
        "node": view.node.name,
        "rootfs": str(archive),
        "entry": view.node.entry.to_plain(),
        "inputs": inputs,
        "outputs": {port.name: {"type": "media", "connected": port.connected} for port in view.outputs},
        "models": {
            model.name: {"model_id": model.model_id, "inputs": [tensor.to_plain() for tensor in model.inputs]}
            for model in view.models
        },
        "region": "us-east-1",
        "account_id": ACCOUNT,
        "has_role": True,
        "limits": {"memory_mb": 1024, "cpu": 0.0, "pids": 256, "disk_mb": 256},
    }


@contextlib.contextmanager
def camera(path: Path) -> Iterator[FrameWriter]:
    """Frames as ingest writes them, ten a second."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = threading.Event()
    with FrameWriter(path, "exterior-south", slot_bytes=slot_bytes_for(WIDTH, HEIGHT)) as writer:

        def write() -> None:
            while not stop.wait(0.1):
                slot = writer.acquire()
                if slot is None:
                    continue
                for plane in slot.planes(WIDTH, HEIGHT, PixelFormat.I420):
                    plane[:] = 100
                slot.bgr(WIDTH, HEIGHT)[:] = (255, 0, 128)
                now = time.monotonic_ns()
                writer.publish(
                    slot,
                    capture_ns=now,
                    pts_us=now // 1000,
                    width=WIDTH,
                    height=HEIGHT,
                    format=PixelFormat.I420,
                    has_bgr=True,
                )

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield writer
        finally:
            stop.set()
            thread.join()


class Detector:
    """Answers as the SSDLite detector does, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, np.ndarray[Any, Any]]] = []

    def __call__(self, request: Request) -> None:
        self.asked.append((request.model_id, np.array(request.inputs["image_tensor"])))
        boxes, scores = np.zeros((1, 100, 4), np.float32), np.zeros((1, 100), np.float32)
        boxes[0, : len(BOXES)], scores[0, : len(SCORES)] = BOXES, SCORES
        request.reply(
            {
                "detection_boxes": boxes,
                "detection_classes": np.ones((1, 100), np.float32),
                "detection_scores": scores,
                "num_detections": np.array([100], np.float32),
            }
        )


class Screen:
    """Receives as the display does."""

    def __init__(self) -> None:
        self.pictures: list[tuple[str, str, list[Any], list[Any]]] = []

    def __call__(self, output: Output) -> None:
        shown = (output.instance_id, output.stream_id, list(output.rects), list(output.labels))
        self.pictures.append(shown)
        output.done()


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[str, list[web.Request]]]:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request)
        return web.Response(status=200)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    await runner.cleanup()


async def test_people_are_marked_counted_and_reported(tmp_path: Path, gateway: tuple[str, list[web.Request]]) -> None:
    gateway_url, requests = gateway
    folder = AppFolder.load(EXAMPLE, into=tmp_path / "build")
    built = build_container_asset(folder.package("PEOPLE_COUNTER_CODE").folder, folder.assets)
    graph = resolved(folder)
    camera_id = graph.cameras[0].camera_id
    data = tmp_path / "data"
    paths = EdgePaths(data)
    archive = paths.assets / "sha256" / built.archive.name.removesuffix(".tar.gz")
    detector, screen = Detector(), Screen()
    async with edge_bus(data) as bus, edge_process("supervisor", data, bus) as supervisor:
        archive.write_bytes(built.archive.read_bytes())
        config = json.loads(paths.config_file.read_text())
        paths.config_file.write_text(json.dumps({**config, "gateway_url": gateway_url}))

        async def credentials(message: Any) -> None:
            keys = {"AccessKeyId": "ASIA", "SecretAccessKey": "secret", "Token": "token"}
            await message.respond({"ok": True, **keys, "Expiration": "2999-01-01T00:00:00Z"})

        await bus.subscribe("edge.agent.credentials", credentials)
        with contextlib.ExitStack() as stack:
            for socket in (paths.inference_client_socket(INSTANCE), paths.display_socket(INSTANCE)):
                socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(camera(paths.camera_socket(camera_id)))
            stack.enter_context(CallServer(paths.inference_client_socket(INSTANCE), detector, name="inference"))
            ring = await asyncio.to_thread(FrameReader, paths.camera_socket(camera_id), "display")
            stack.callback(ring.close)
            rings = {camera_id: ring}
            stack.enter_context(OutputReceiver(paths.display_socket(INSTANCE), screen, rings.get))

            await ask(data, "supervisor", "apply", {"applications": [app_spec(graph, archive)]})
            status = await supervisor.status(lambda status: status["applications"][0]["state"] == "running")
            await until(lambda: len(screen.pictures) >= 3 and requests, timeout_s=30)
            await ask(data, "supervisor", "apply", {"applications": []})
            await supervisor.status(lambda status: status["applications"] == [])

    app = status["applications"][0]
    assert app["frames_taken"] >= 1 and app["frames_put"] >= 1
    instance_id, stream_id, rects, labels = screen.pictures[-1]
    assert (instance_id, stream_id) == (INSTANCE, "exterior_south")
    # The detector says top, left, bottom, right; boxes are left, top, right, bottom.
    assert np.allclose(rects, [[0.2, 0.1, 0.4, 0.5], [0.5, 0.2, 0.75, 1.0]], atol=1e-6)
    assert [text for text, _, _ in labels] == ["People: 2"]
    model_id, tensor = detector.asked[0]
    assert model_id == graph.models[0].model_id
    assert (tensor.shape, tensor.dtype) == ((1, 300, 300, 3), np.uint8)
    assert tuple(tensor[0, 150, 150]) == (128, 0, 255), "RGB, from a BGR picture"
    log = (paths.app_logs(INSTANCE) / "app.log").read_text()
    assert "counting people with a threshold of 0.60" in log
    sent = [
        request.headers.get("X-Amz-Target", request.path) + request.headers["Authorization"] for request in requests
    ]
    assert any("monitoring" in text for text in sent)
