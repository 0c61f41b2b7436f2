"""What an owner of an appliance lives through: the cloud side goes away and comes back, everything is started again,
an application is replaced while it serves, or by one that never works, any process of the appliance is killed, a camera is
paused, the appliance is rebooted, an application is removed; at last there are as many as AWS Panorama allowed.

One system serves all tests of this module, in their order. One application runs from the first to the last but two.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from belvedere.appdir import AppFolder
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.whole import CAMERA_USER, WholeSystem, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PASSWORD = "secret"
NEW_FRAMES = 5
APPLICATIONS = 10
MANY_CAMERAS = [f"camera_{number}_" + "x" * 100 for number in range(8)]
"""As long as names may be: sockets would lie too deep under such names."""
WATCHES_ALL = f"""
import panoramasdk
node = panoramasdk.node()
seen = set()
while True:
    streams = node.inputs.video_in.get()
    if len(seen) < {len(MANY_CAMERAS)}:
        seen |= {{stream.stream_id for stream in streams if not stream.is_cached}}
        if len(seen) == {len(MANY_CAMERAS)}:
            print("saw them all", sorted(seen)[0][:8], sorted(seen)[-1][:8])
    node.outputs.video_out.put(streams)
"""


class Shop(WholeSystem):
    """An appliance with one camera and one application, whose processes can be stopped and started again."""

    app: AppFolder
    instance_id: str

    def __enter__(self) -> Shop:
        super().__enter__()
        try:
            clip = make_clip(self.folder / "clip.mp4", fps=10)
            url = self.camera("front", clip, PASSWORD)
            self.account.register_camera("front", url, CAMERA_USER, PASSWORD)
            self.app = application_folder(self.folder / "apps" / "door", "door", FRAMES_THROUGH, cameras=["front"])
            self.instance_id = self.deploy(self.app)
            self.wait_running(self.instance_id)
        except BaseException:
            super().__exit__()
            raise
        return self

    def connection(self) -> str:
        return str(self.panorama.describe_device(DeviceId=self.device_id)["DeviceConnectionStatus"])

    def row(self) -> dict[str, Any]:
        return self.application(self.instance_id)

    def frames_come(self) -> None:
        """More frames than now; counters begin anew with each start of the application."""
        before = self.row()

        def more() -> bool:
            now = self.row()
            new = now.get("frames_put", 0) - (before["frames_put"] if now.get("pid") == before.get("pid") else 0)
            return now.get("state") == "running" and new >= NEW_FRAMES

        wait_for("frames", more)

    def start_cloud(self) -> None:
        self.cloud = self.start("cloud-again", "up", "--data", self.cloud_data)
        self.cloud.line("ready ")

    def start_appliance(self) -> None:
        self.appliance = self.start("appliance-again", "appliance", "run", "--data", self.appliance_data)
        self.appliance.line("running")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    settings = {"BELVEDERE_AGENT_DELIVERY_LIMIT_S": "12", "BELVEDERE_SUPERVISOR_ERRORS_EVERY_S": "2"}
    with Shop(tmp_path_factory.mktemp("shop"), settings) as system:
        yield system


def test_with_the_cloud_away_the_appliance_goes_on_and_reports_when_it_is_back(shop: Shop) -> None:
    pid = shop.row()["pid"]
    shop.running("cloud").stop()
    wait_for("the agent notices", lambda: not shop.overview()["link_up"])
    shop.frames_come()
    shop.start_cloud()
    wait_for("the device is ONLINE", lambda: shop.connection() == "ONLINE")
    shop.wait_running(shop.instance_id)
    assert (shop.row()["pid"], shop.row()["restarts"]) == (pid, 0)


def test_what_was_logged_while_the_cloud_was_away_is_there_afterwards(shop: Shop) -> None:
    group = f"/aws/panorama/devices/{shop.device_id}"
    wait_for(
        "the agent's own word on the lost link",
        lambda: any("the cloud is out of reach" in line for line in shop.log_messages(group, "occ_log")),
    )


def test_everything_started_again_is_what_it_was(shop: Shop) -> None:
    shop.running("appliance").stop()
    wait_for("the device is OFFLINE", lambda: shop.connection() == "OFFLINE")
    shop.cloud.stop()
    shop.start_appliance()
    shop.frames_come()  # without the cloud: from what it kept
    shop.start_cloud()
    wait_for("the device is ONLINE", lambda: shop.connection() == "ONLINE")
    shop.wait_running(shop.instance_id)


def test_a_replacement_takes_over_without_a_gap(shop: Shop) -> None:
    old = shop.instance_id
    change_source(shop.app, "print('one changed line')\n" + FRAMES_THROUGH)
    new = shop.deploy(shop.app, replaces=old)
    seen_together = False
    while True:
        rows = {row["instance_id"]: row["state"] for row in shop.overview()["supervisor"]["applications"]}
        assert "running" in rows.values(), "for a moment nobody served"
        seen_together |= set(rows) == {old, new}
        if rows == {new: "running"}:
            break
    shop.instance_id = new
    shop.wait_running(new)
    assert seen_together
    shop.wait_status(old, "REMOVAL_SUCCEEDED")


def test_a_replacement_that_never_delivers_has_failed_and_the_old_one_runs_on(shop: Shop) -> None:
    old, pid = shop.instance_id, shop.row()["pid"]
    change_source(shop.app, "raise RuntimeError('a changed line that breaks it')\n" + FRAMES_THROUGH)
    new = shop.deploy(shop.app, replaces=old)
    shop.wait_status(new, "DEPLOYMENT_FAILED", says="RuntimeError: a changed line that breaks it")
    shop.wait_running(old)
    shop.frames_come()
    assert (shop.row()["pid"], shop.row()["restarts"]) == (pid, 0)
    assert shop.application(new) == {}
    assert not (shop.appliance_data / "storage" / new).exists()


@pytest.mark.parametrize("process", ["ingest", "inference", "display", "agent", "supervisor"])
def test_any_process_of_the_appliance_may_be_killed(shop: Shop, process: str) -> None:
    pid = shop.row()["pid"]
    (before,) = (use["pid"] for use in shop.overview()["processes"] if use["name"] == f"edge.{process}")
    os.kill(before, signal.SIGKILL)

    def again() -> bool:
        names = {use["name"]: use["pid"] for use in shop.overview()["processes"]}
        return names.get(f"edge.{process}", before) != before

    wait_for(f"another {process}", again)
    shop.frames_come()
    shop.wait_running(shop.instance_id)
    if process != "supervisor":
        assert shop.row()["pid"] == pid, "the application goes on"


def test_an_application_that_is_killed_runs_again_and_the_api_says_why(shop: Shop) -> None:
    os.kill(shop.row()["pid"], signal.SIGKILL)
    wait_for("the restart", lambda: shop.row().get("restarts") == 1 and shop.row()["state"] == "running")
    says = "Application deployed successfully. Restarted once; the last time: killed by signal 9 (SIGKILL)"
    shop.wait_status(shop.instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING", says)
    assert shop.nodes(shop.instance_id)["code_node"] == "RUNNING"

    def errors() -> float:
        now = datetime.now(UTC)
        answer = shop.account.cloudwatch.get_metric_statistics(
            Namespace="PanoramaDeviceMetrics", MetricName="ApplicationErrors", Period=60, Statistics=["Sum"],
            Dimensions=[
                {"Name": "ApplicationInstanceName", "Value": "door"},
                {"Name": "ApplicationInstanceId", "Value": shop.instance_id},
            ],
            StartTime=now - timedelta(minutes=10), EndTime=now + timedelta(minutes=1),
        )  # fmt: skip
        return sum(point["Sum"] for point in answer["Datapoints"])

    wait_for("the error in ApplicationErrors", lambda: errors() >= 1)


def test_a_paused_camera_rests_and_comes_back(shop: Shop) -> None:
    send = lambda what: shop.panorama.signal_application_instance_node_instances(  # noqa: E731
        ApplicationInstanceId=shop.instance_id, NodeSignals=[{"NodeInstanceId": "front", "Signal": what}]
    )
    send("PAUSE")
    wait_for("the camera is paused", lambda: shop.nodes(shop.instance_id)["front"] == "PAUSED")
    send("RESUME")
    wait_for("the camera runs", lambda: shop.nodes(shop.instance_id)["front"] == "RUNNING")
    shop.frames_come()


def test_a_reboot_job_restarts_the_appliance_and_says_so(shop: Shop) -> None:
    pid = shop.row()["pid"]
    (job,) = shop.panorama.create_job_for_devices(DeviceIds=[shop.device_id], JobType="REBOOT")["Jobs"]
    wait_for("the job is done", lambda: shop.panorama.describe_device_job(JobId=job["JobId"])["Status"] == "COMPLETED")
    wait_for("the device is ONLINE", lambda: shop.connection() == "ONLINE")
    shop.frames_come()
    assert shop.row()["pid"] != pid


def test_a_removed_application_leaves_the_appliance_and_stays_listed(shop: Shop) -> None:
    shop.panorama.remove_application_instance(ApplicationInstanceId=shop.instance_id)
    shop.wait_status(shop.instance_id, "REMOVAL_SUCCEEDED")
    overview = shop.overview()
    assert overview["supervisor"]["applications"] == []
    wait_for("the camera is let go", lambda: shop.overview()["ingest"]["cameras"] == [])


def test_ten_applications_with_eight_cameras_each_run_beside_each_other(shop: Shop) -> None:
    clip = make_clip(shop.folder / "tiny.mp4", fps=2, width=64, height=48, seconds=3)
    url = shop.camera("all", clip, PASSWORD)
    for camera in MANY_CAMERAS:
        shop.account.register_camera(camera, url, CAMERA_USER, PASSWORD)
    app = application_folder(shop.folder / "apps" / "watch", "watch", WATCHES_ALL, cameras=MANY_CAMERAS)
    instances = [shop.deploy(app)]
    manifest = app.graph_path.read_text()
    instances += [shop.create(manifest, f"watch-{n}") for n in range(1, APPLICATIONS - 1)]
    waiting = shop.create(_on_signal(manifest, MANY_CAMERAS[-1]), f"watch-{APPLICATIONS - 1}")
    instances.append(waiting)
    for instance_id in instances:
        shop.wait_running(instance_id)
    overview = shop.overview()
    assert len(overview["ingest"]["cameras"]) == len(MANY_CAMERAS), "each camera is read once, whoever looks"
    assert {row["restarts"] for row in overview["supervisor"]["applications"]} == {0}

    def saw_all(instance_id: str) -> bool:
        group = f"/aws/panorama/devices/{shop.device_id}/applications/{instance_id}"
        try:
            return any("saw them all camera_0 camera_7" in line for line in shop.log_messages(group, "console_output"))
        except shop.account.logs.exceptions.ResourceNotFoundException:
            return False  # nothing of it has arrived yet

    for instance_id in instances[:-1]:
        wait_for(f"every camera in {instance_id}", lambda one=instance_id: saw_all(one))
    # One of them has a camera that waits for its signal, which delivers to the others all the same.
    assert shop.nodes(waiting)[MANY_CAMERAS[-1]] == "PAUSED"
    assert not saw_all(waiting)
    shop.panorama.signal_application_instance_node_instances(
        ApplicationInstanceId=waiting, NodeSignals=[{"NodeInstanceId": MANY_CAMERAS[-1], "Signal": "RESUME"}]
    )
    wait_for("every camera in the one that waited", lambda: saw_all(waiting))
    assert shop.nodes(waiting)[MANY_CAMERAS[-1]] == "RUNNING"


def _on_signal(manifest: str, node: str) -> str:
    graph = json.loads(manifest)
    for each in graph["nodeGraph"]["nodes"]:
        if each["name"] == node:
            each["launch"] = "onSignal"
    return json.dumps(graph)
