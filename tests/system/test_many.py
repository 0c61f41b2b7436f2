"""As many as AWS Panorama allowed on one appliance: ten applications with eight cameras each, whose names are as long as
names may be. Tiny pictures: what is tested is that they all start and get their frames, not how fast."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.clips import make_clip
from tests.support.folders import application_folder
from tests.support.whole import CAMERA_USER, WholeSystem, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

APPLICATIONS = 10
CAMERAS = [f"camera_{number}_" + "x" * 100 for number in range(8)]
"""Sockets would lie too deep under such names."""
PASSWORD = "secret"
APP = f"""
import panoramasdk
node = panoramasdk.node()
seen = set()
while True:
    streams = node.inputs.video_in.get()
    if len(seen) < {len(CAMERAS)}:
        seen |= {{stream.stream_id for stream in streams if not stream.is_cached}}
        if len(seen) == {len(CAMERAS)}:
            print("saw them all", sorted(seen)[0][:8], sorted(seen)[-1][:8])
    node.outputs.video_out.put(streams)
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with WholeSystem(tmp_path_factory.mktemp("full")) as system:
        yield system


def test_ten_applications_with_eight_cameras_each_run_beside_each_other(full: WholeSystem) -> None:
    clip = make_clip(full.folder / "clip.mp4", fps=2, width=64, height=48, seconds=3)
    url = full.camera("all", clip, PASSWORD)
    for camera in CAMERAS:
        full.account.register_camera(camera, url, CAMERA_USER, PASSWORD)
    app = application_folder(full.folder / "app", "watch", APP, cameras=CAMERAS)
    instances = [full.deploy(app)]
    manifest = app.graph_path.read_text()
    instances += [full.create(manifest, f"watch-{n}") for n in range(1, APPLICATIONS - 1)]
    waiting = full.create(_on_signal(manifest, CAMERAS[-1]), f"watch-{APPLICATIONS - 1}")
    instances.append(waiting)
    for instance_id in instances:
        full.wait_running(instance_id)
    overview = full.overview()
    assert len(overview["ingest"]["cameras"]) == len(CAMERAS), "each camera is read once, whoever looks"
    assert {row["restarts"] for row in overview["supervisor"]["applications"]} == {0}

    def saw_all(instance_id: str) -> bool:
        group = f"/aws/panorama/devices/{full.device_id}/applications/{instance_id}"
        try:
            return any("saw them all camera_0 camera_7" in line for line in full.log_messages(group, "console_output"))
        except full.account.logs.exceptions.ResourceNotFoundException:
            return False  # nothing of it has arrived yet

    for instance_id in instances[:-1]:
        wait_for(f"every camera in {instance_id}", lambda one=instance_id: saw_all(one))
    # One of them has a camera that waits for its signal, which delivers to the others all the same.
    assert full.nodes(waiting)[CAMERAS[-1]] == "PAUSED"
    assert not saw_all(waiting)
    full.panorama.signal_application_instance_node_instances(
        ApplicationInstanceId=waiting, NodeSignals=[{"NodeInstanceId": CAMERAS[-1], "Signal": "RESUME"}]
    )
    wait_for("every camera in the one that waited", lambda: saw_all(waiting))
    assert full.nodes(waiting)[CAMERAS[-1]] == "RUNNING"


def _on_signal(manifest: str, node: str) -> str:
    graph = json.loads(manifest)
    for each in graph["nodeGraph"]["nodes"]:
        if each["name"] == node:
            each["launch"] = "onSignal"
    return json.dumps(graph)
