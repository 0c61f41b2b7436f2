"""What an owner of an appliance lives through: the cloud side goes away and comes back, everything is started again,
an application is replaced while it serves, or by one that never works, any process of the appliance is killed, a camera is
paused, the appliance is rebooted, an application is removed; at last there are as many as AWS Panorama allowed.

One system serves all tests of this module. Each gets it with its cloud side and appliance up and the one application
running, or with none, whatever the test before has left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sized
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from belvedere.appdir import AppFolder
from belvedere.bus.server import free_port
from tests.support.clips import make_clip
from tests.support.folders import CODE_NODE, ENVELOPE, FRAMES_THROUGH, MODEL_NODE, application_folder, change_source
from tests.support.models import tiny_onnx
from tests.support.remains import Remains, naming, remains
from tests.support.whole import CAMERA_USER, OVER, WholeSystem, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

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

GUEST_PORT = 8080
HOST_PORTS = range(8000, 9001)
GUEST = f"""
import os, socketserver, threading
import numpy, panoramasdk

class Door(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"guest")

socketserver.ThreadingTCPServer.allow_reuse_address = True
door = socketserver.ThreadingTCPServer(("0.0.0.0", {GUEST_PORT}), Door)
threading.Thread(target=door.serve_forever, daemon=True).start()
for folder in ("storage", "logs"):
    os.makedirs(f"/opt/aws/panorama/{{folder}}/deep/below", exist_ok=True)
    with open(f"/opt/aws/panorama/{{folder}}/deep/below/file", "w") as out:
        out.write("kept?")
    os.chmod(f"/opt/aws/panorama/{{folder}}/deep", 0o500)
node = panoramasdk.node()
while True:
    streams = node.inputs.video_in.get()
    node.call(numpy.zeros((1, 3), numpy.float32), "{MODEL_NODE}")
    node.outputs.video_out.put(streams)
"""
"""Has something of everything that an application can have."""


class Shop(WholeSystem):
    """An appliance with one camera and one application, whose processes can be stopped and started again."""

    app: AppFolder
    instance_id: str = ""

    def __enter__(self) -> Shop:
        super().__enter__()
        try:
            clip = make_clip(self.folder / "clip.mp4", fps=10)
            url = self.camera("front", clip, PASSWORD)
            self.account.register_camera("front", url, CAMERA_USER, PASSWORD)
            self.app = application_folder(self.folder / "apps" / "door", "door", FRAMES_THROUGH, cameras=["front"])
        except BaseException:
            super().__exit__()
            raise
        return self

    def serve(self) -> None:
        """Everything up, and the one application runs and nothing else; quick where it is so already."""
        self.bring_up()
        self.remove_all_but(self.instance_id)
        if not self.serves():
            self.remove_all_but()
            change_source(self.app, FRAMES_THROUGH)
            self.instance_id = self.deploy(self.app)
            self.wait_running(self.instance_id)
            wait_for("its process", self.has_process)

    def serves(self) -> bool:
        """The one application runs, perhaps after a while."""
        if self.instances().get(self.instance_id, OVER[0]) in OVER:
            return False
        try:
            if self.nodes(self.instance_id).get("front") == "PAUSED":
                self.signal("RESUME")
            self.wait_running(self.instance_id)
            wait_for("its camera runs", lambda: self.nodes(self.instance_id).get("front") == "RUNNING")
            wait_for("its process", self.has_process)
        except AssertionError:
            return False
        return True

    def has_process(self) -> bool:
        row = self.row()
        return row.get("state") == "running" and psutil.pid_exists(row["pid"])

    def row(self) -> dict[str, Any]:
        return self.application(self.instance_id)

    def signal(self, what: str) -> None:
        """To the camera."""
        self.panorama.signal_application_instance_node_instances(
            ApplicationInstanceId=self.instance_id, NodeSignals=[{"NodeInstanceId": "front", "Signal": what}]
        )

    def frames_come(self) -> None:
        """More frames than now; counters begin anew with each start of the application, which may not be there yet."""
        before = self.row()

        def more() -> bool:
            now = self.row()
            new = now.get("frames_put", 0) - (before.get("frames_put", 0) if now.get("pid") == before.get("pid") else 0)
            return now.get("state") == "running" and new >= NEW_FRAMES

        wait_for("frames", more)

    def remains(self) -> Remains:
        return remains(self.appliance_data, self.running("appliance").process.pid)


@pytest.fixture(scope="module")
def any_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    settings = {"BELVEDERE_AGENT_DELIVERY_LIMIT_S": "12", "BELVEDERE_SUPERVISOR_ERRORS_EVERY_S": "2"}
    with Shop(tmp_path_factory.mktemp("shop"), settings) as system:
        yield system


@pytest.fixture
def shop(any_shop: Shop) -> Shop:
    """The one application runs."""
    any_shop.serve()
    return any_shop


@pytest.fixture
def idle_shop(any_shop: Shop) -> Shop:
    """No application runs."""
    any_shop.bring_up()
    any_shop.remove_all_but()
    wait_for("the cameras are let go", lambda: any_shop.rows("ingest", "cameras") == [])
    return any_shop


def test_with_the_cloud_away_the_appliance_goes_on_and_reports_and_delivers_its_log_when_it_is_back(shop: Shop) -> None:
    before = shop.row()
    shop.running("cloud").stop()
    wait_for("the agent notices", lambda: not shop.overview()["link_up"])
    shop.frames_come()
    shop.start_cloud()
    wait_for("the device is ONLINE", lambda: shop.connection() == "ONLINE")
    shop.wait_running(shop.instance_id)
    assert (shop.row()["pid"], shop.row()["restarts"]) == (before["pid"], before["restarts"])
    group = f"/aws/panorama/devices/{shop.device_id}"
    wait_for(
        "the agent's own word on the lost link",
        lambda: any("the cloud is out of reach" in line for line in shop.log_messages(group, "occ_log")),
    )


def test_everything_started_again_is_what_it_was(shop: Shop) -> None:
    shop.running("appliance").stop()
    wait_for("the device is OFFLINE", lambda: shop.connection() == "OFFLINE")
    shop.running("cloud").stop()
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
        rows = {row["instance_id"]: row["state"] for row in shop.rows("supervisor", "applications")}
        assert "running" in rows.values(), "for a moment nobody served"
        seen_together |= set(rows) == {old, new}
        if rows == {new: "running"}:
            break
    shop.instance_id = new
    shop.wait_running(new)
    assert seen_together
    shop.wait_status(old, "REMOVAL_SUCCEEDED")


def test_a_replacement_that_never_delivers_has_failed_and_the_old_one_runs_on(shop: Shop) -> None:
    old, before = shop.instance_id, shop.row()
    change_source(shop.app, "raise RuntimeError('a changed line that breaks it')\n" + FRAMES_THROUGH)
    new = shop.deploy(shop.app, replaces=old)
    shop.wait_status(new, "DEPLOYMENT_FAILED", says="RuntimeError: a changed line that breaks it")
    shop.wait_running(old)
    shop.frames_come()
    assert (shop.row()["pid"], shop.row()["restarts"]) == (before["pid"], before["restarts"])
    # Its status is told before the appliance has cleared up.
    wait_for("the new one is gone", lambda: shop.application(new) == {})
    wait_for("its storage is gone", lambda: not (shop.appliance_data / "storage" / new).exists())


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
    before = shop.row()
    os.kill(before["pid"], signal.SIGKILL)
    again = before["restarts"] + 1
    wait_for("the restart", lambda: (row := shop.row()).get("restarts") == again and row["state"] == "running")
    times = "once" if again == 1 else f"{again} times"
    says = f"Application deployed successfully. Restarted {times}; the last time: killed by signal 9 (SIGKILL)"
    shop.wait_status(shop.instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING", says)
    shop.wait_nodes(shop.instance_id, code_node="RUNNING")

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
    shop.signal("PAUSE")
    shop.wait_nodes(shop.instance_id, front="PAUSED")
    shop.signal("RESUME")
    shop.wait_nodes(shop.instance_id, front="RUNNING")
    shop.frames_come()


def test_a_reboot_job_restarts_the_appliance_and_says_so(shop: Shop) -> None:
    pid = shop.row()["pid"]
    (job,) = shop.panorama.create_job_for_devices(DeviceIds=[shop.device_id], JobType="REBOOT")["Jobs"]
    wait_for("the job is done", lambda: shop.panorama.describe_device_job(JobId=job["JobId"])["Status"] == "COMPLETED")
    wait_for("the device is ONLINE", lambda: shop.connection() == "ONLINE")
    shop.frames_come()
    assert shop.row()["pid"] != pid


def test_an_application_that_is_removed_leaves_nothing_behind_and_another_does_not_notice(shop: Shop) -> None:
    port = free_port(HOST_PORTS)
    side = shop.camera("side", make_clip(shop.folder / "side.mp4", fps=5, width=64, height=48, seconds=3), PASSWORD)
    shop.account.register_camera("side", side, CAMERA_USER, PASSWORD)
    model = tiny_onnx(shop.folder / "tiny.onnx")
    app = application_folder(shop.folder / "apps" / "guest", "guest", GUEST, cameras=["front", "side"], model=model)
    overrides = _route(app, port)
    shop.frames_come()
    before, known = shop.remains(), shop.overview()
    digests = set(_graphs_of(shop))
    pid, restarts = shop.row()["pid"], shop.row()["restarts"]

    shop.account.register_packages(app)
    guest = shop.create(app.graph_path.read_text(), "guest", overrides=overrides)
    shop.wait_running(guest)
    wait_for("its port answers", lambda: _ask(port) == b"guest")
    there = shop.remains().more_than(before)
    assert set(there) == {"files", "processes", "shared memory"}, "it has something that it could leave behind"
    for folder in ("storage", "applogs", "run/apps", "run/cameras", "run/inference", "run/display"):
        assert any(name.startswith(f"{folder}/") for name in there["files"]), folder
    overview = shop.overview()
    assert {row["camera_id"] for row in overview["ingest"]["cameras"]} != {
        row["camera_id"] for row in known["ingest"]["cameras"]
    }
    assert overview["inference"]["models"] != []

    shop.panorama.remove_application_instance(ApplicationInstanceId=guest)
    shop.wait_status(guest, "REMOVAL_SUCCEEDED")
    _wait_empty("left behind", lambda: shop.remains().more_than(before))
    _wait_empty("documents that name it", lambda: naming(shop.appliance_data, guest))
    # Each process tells of its rows when they change, not at one time with the others.
    _wait_empty("told otherwise than before", lambda: _told(shop.overview()) ^ _told(known))
    assert set(_graphs_of(shop)) == digests
    with socket.create_server(("0.0.0.0", port)):
        pass  # the port is free
    shop.frames_come()
    assert (shop.row()["pid"], shop.row()["restarts"]) == (pid, restarts)
    shop.wait_status(shop.instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING")


def test_a_removed_application_leaves_the_appliance_and_stays_listed(shop: Shop) -> None:
    shop.panorama.remove_application_instance(ApplicationInstanceId=shop.instance_id)
    shop.wait_status(shop.instance_id, "REMOVAL_SUCCEEDED")
    wait_for("nothing runs", lambda: shop.rows("supervisor", "applications") == [])
    wait_for("the camera is let go", lambda: shop.rows("ingest", "cameras") == [])


def test_ten_applications_with_eight_cameras_each_run_beside_each_other(idle_shop: Shop) -> None:
    shop = idle_shop
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
    assert len(shop.rows("ingest", "cameras")) == len(MANY_CAMERAS), "each camera is read once, whoever looks"
    assert {row["restarts"] for row in shop.rows("supervisor", "applications")} == {0}

    def saw_all(instance_id: str) -> bool:
        group = f"/aws/panorama/devices/{shop.device_id}/applications/{instance_id}"
        try:
            return any("saw them all camera_0 camera_7" in line for line in shop.log_messages(group, "console_output"))
        except shop.account.logs.exceptions.ResourceNotFoundException:
            return False  # nothing of it has arrived yet

    for instance_id in instances[:-1]:
        wait_for(f"every camera in {instance_id}", lambda one=instance_id: saw_all(one))
    # One of them has a camera that waits for its signal, which delivers to the others all the same.
    shop.wait_nodes(waiting, **{MANY_CAMERAS[-1]: "PAUSED"})
    assert not saw_all(waiting)
    shop.panorama.signal_application_instance_node_instances(
        ApplicationInstanceId=waiting, NodeSignals=[{"NodeInstanceId": MANY_CAMERAS[-1], "Signal": "RESUME"}]
    )
    wait_for("every camera in the one that waited", lambda: saw_all(waiting))
    shop.wait_nodes(waiting, **{MANY_CAMERAS[-1]: "RUNNING"})


def _told(overview: dict[str, Any]) -> set[tuple[str, str]]:
    """What there is, by process."""
    kinds = (
        ("ingest", "cameras", "camera_id"), ("inference", "models", "model_id"), ("display", "outputs", "instance_id"),
        ("supervisor", "applications", "instance_id"),
    )  # fmt: skip
    return {(process, row[key]) for process, rows, key in kinds for row in overview[process][rows]}


def _wait_empty(what: str, look: Callable[[], Sized]) -> None:
    found: list[Sized] = [()]

    def empty() -> bool:
        found[0] = look()
        return not found[0]

    try:
        wait_for(f"nothing {what}", empty)
    except AssertionError as error:
        raise AssertionError(f"{error}: {found[0]}") from None


def _route(app: AppFolder, host_port: int) -> str:
    """Gives the application's code a port of the appliance; the overrides that say so once more."""
    package = app.package(f"{app.name}_code").folder / "package.json"
    document = json.loads(package.read_text())
    (interface,) = document["nodePackage"]["interfaces"]
    interface["network"] = {"inboundPorts": [{"port": GUEST_PORT, "description": "http"}]}
    package.write_text(json.dumps(document))
    rules = [{"node": CODE_NODE, "containerPort": GUEST_PORT, "hostPort": host_port}]
    graph = json.loads(app.graph_path.read_text())
    graph["nodeGraph"]["networkRoutingRules"] = rules
    app.graph_path.write_text(json.dumps(graph))
    return json.dumps({"nodeGraphOverrides": {"envelopeVersion": ENVELOPE, "networkRoutingRules": rules}})


def _ask(port: int) -> bytes:
    """What the application says to whoever connects."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(100)
    return b""


def _graphs_of(shop: Shop) -> list[str]:
    """Of the applications that the appliance's target lists."""
    state = json.loads((shop.appliance_data / "state.json").read_text())
    return [application["graph_digest"] for application in state["target"]["applications"]]


def _on_signal(manifest: str, node: str) -> str:
    graph = json.loads(manifest)
    for each in graph["nodeGraph"]["nodes"]:
        if each["name"] == node:
            each["launch"] = "onSignal"
    return json.dumps(graph)
