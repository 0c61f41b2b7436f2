"""The whole of Belvedere, looked at from outside: `belvedere demo`, a player, a browser, boto3, and a power cut.

One demo serves all tests of this module that leave it running; after one that does not, the next starts another.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import boto3
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from belvedere.chassis.edge import ask
from belvedere.cli.cloud import CloudAccess
from belvedere.footage import ensure_detector
from tests.support.browser import expect, live_page
from tests.support.people import boxes_of_people, share_of_red_border

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

REPOSITORY = Path(__file__).parents[2]
LIVE_TIMEOUT_S = 180.0
OFFLINE_TIMEOUT_S = 60.0
PICTURE_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
BROWSER_TIMEOUT_S = 60.0
FIGURES_TIMEOUT_S = 90.0
SEEN_FRAMES = 40


@dataclass
class RunningDemo:
    """What the demo printed, and its process."""

    process: subprocess.Popen[str]
    data: Path
    lines: list[str]
    page: str
    rtsp_url: str
    rtsp_user: str
    rtsp_password: str

    @property
    def is_up(self) -> bool:
        """It has not ended."""
        return self.process.poll() is None

    @property
    def is_whole(self) -> bool:
        """Its own appliance runs, too."""
        return self.is_up and _pid_of(self.process.pid, "edge") is not None

    def stop(self) -> None:
        if self.is_up:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def video(self) -> str:
        """The address as a player takes it."""
        return self.rtsp_url.replace("rtsp://", f"rtsp://{self.rtsp_user}:{self.rtsp_password}@")

    def client(self, service: str) -> Any:
        access = CloudAccess.load(self.data / "cloud")
        session = boto3.Session(access.access_key_id, access.secret_access_key, region_name=access.region)
        session._loader.search_paths.append(str(self.data / "aws-models"))
        return session.client(service, endpoint_url=access.endpoint_url)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningDemo]]:
    """Those started so far."""
    started: list[RunningDemo] = []
    yield started
    for one in started:
        one.stop()


@pytest.fixture
def demo(demos: list[RunningDemo], tmp_path_factory: pytest.TempPathFactory) -> RunningDemo:
    """A whole demo."""
    if not demos or not demos[-1].is_whole:
        for one in demos:
            one.stop()
        demos.append(_start(tmp_path_factory.mktemp("demo")))
    return demos[-1]


@pytest.fixture
def any_demo(demos: list[RunningDemo], request: pytest.FixtureRequest) -> RunningDemo:
    """One whose appliance may have been killed."""
    if demos and demos[-1].is_up:
        return demos[-1]
    whole: RunningDemo = request.getfixturevalue("demo")
    return whole


def _start(data: Path) -> RunningDemo:
    process = subprocess.Popen(
        [sys.executable, "-m", "belvedere.cli.main", "demo", "--data", str(data), "--port", "0"],
        cwd=REPOSITORY,
        env={
            name: value
            for name, value in os.environ.items()
            if name not in ("DEMO_SECONDS", "DEMO_JSON", "CAMERA", "CLIP")
        }
        | {"BELVEDERE_AGENT_STAGES_S": "5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    live = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C ends it" in line:
                live.set()
        live.set()

    threading.Thread(target=read, daemon=True).start()
    came_live = live.wait(LIVE_TIMEOUT_S)
    text = "".join(lines)
    page = re.search(r"live page\s+(\S+)", text)
    rtsp = re.search(r"RTSP\s+(\S+) \(user (\S+), password (\S+)\)", text)
    if not came_live or page is None or rtsp is None:
        process.kill()
        process.wait()
        pytest.fail(f"the demo did not come live:\n{text}\n{_logs(data)}")
    return RunningDemo(process, data, lines, page[1], rtsp[1], rtsp[2], rtsp[3])


def test_the_picture_shows_boxes_where_a_detector_of_ones_own_finds_people(demo: RunningDemo) -> None:
    model = ensure_detector(REPOSITORY / ".cache", lambda _: None)
    shares = []
    for image in _frames(demo.video, SEEN_FRAMES)[::4]:
        shares += [share_of_red_border(image, box) for box in boxes_of_people(model, image, threshold=0.5)]
    assert shares, "nobody was found in the picture"
    assert float(np.median(shares)) > 0.5


def test_a_browser_plays_the_live_page(demo: RunningDemo, tmp_path: Path) -> None:
    with live_page(demo.page) as page:
        # It may load itself again when it learns of a new video's address: "playing" is told by an empty state.
        expect(page.locator("#status")).not_to_be_empty(timeout=BROWSER_TIMEOUT_S * 1000)
        expect(page.locator("#video-state")).to_be_empty(timeout=BROWSER_TIMEOUT_S * 1000)

        # Asked from outside the page: its content security policy rightly allows no evaluated code inside.
        def shown_s() -> float:
            return float(page.evaluate("document.querySelector('#video').currentTime"))

        _until("the video plays", BROWSER_TIMEOUT_S, lambda: shown_s() > 1)
        before = shown_s()
        _until("the video goes on", BROWSER_TIMEOUT_S, lambda: shown_s() > before + 1)
        _until("lines of the log are shown", BROWSER_TIMEOUT_S, lambda: page.inner_text("#lines").strip() != "")
        _until("the graph has a curve", BROWSER_TIMEOUT_S, lambda: page.locator("#chart .curve").count() > 0)
        picture = tmp_path / "video.png"
        page.locator("#video").screenshot(path=str(picture))
        text = page.inner_text("body")
    with av.open(str(picture)) as image:
        shown = next(image.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    red = (shown[..., 0] > 140) & (shown[..., 1] < 110) & (shown[..., 2] < 110)
    assert red.sum() > 100, "no boxes in the screenshot"
    assert "people_counter" in text and "demo_appliance" in text


def test_the_api_tells_status_logs_and_metrics(demo: RunningDemo) -> None:
    panorama, logs, cloudwatch = demo.client("panorama"), demo.client("logs"), demo.client("cloudwatch")
    (device,) = panorama.list_devices()["Devices"]
    device_id = device["DeviceId"]
    _until("the device is ONLINE", FIGURES_TIMEOUT_S, lambda: _connection(panorama, device_id) == "ONLINE")

    def running() -> list[dict[str, Any]]:
        applications = panorama.list_application_instances()["ApplicationInstances"]
        return [app for app in applications if app["Status"] == "DEPLOYMENT_SUCCEEDED"]

    _until("one runs", FIGURES_TIMEOUT_S, lambda: [app["HealthStatus"] for app in running()] == ["RUNNING"])
    instance_id = running()[0]["ApplicationInstanceId"]

    def nodes() -> set[str]:
        answer = panorama.list_application_instance_node_instances(ApplicationInstanceId=instance_id)
        return {node["CurrentStatus"] for node in answer["NodeInstances"]}

    _until("its nodes run", FIGURES_TIMEOUT_S, lambda: nodes() == {"RUNNING"})
    group = f"/aws/panorama/devices/{device_id}"

    def streams() -> set[str]:
        answer = logs.describe_log_streams(logGroupName=f"{group}/applications/{instance_id}")
        return {stream["logStreamName"] for stream in answer["logStreams"]}

    _until("its logs are there", FIGURES_TIMEOUT_S, lambda: {"code_node", "console_output"} <= streams())
    assert logs.get_log_events(logGroupName=group, logStreamName="occ_log")["events"]
    wanted = {("PanoramaDeviceMetrics", "DeviceActive"), ("PeopleCounter", "People")}

    def metrics() -> set[tuple[str, str]]:
        return {(metric["Namespace"], metric["MetricName"]) for metric in cloudwatch.list_metrics()["Metrics"]}

    _until("its metrics are there", FIGURES_TIMEOUT_S, lambda: wanted <= metrics())


def test_every_stage_of_the_data_plane_says_what_it_measures(demo: RunningDemo) -> None:
    overview = asyncio.run(ask(demo.data / "appliance", "agent", "overview", {}, timeout_s=20))

    def figures() -> dict[str, float]:
        with urllib.request.urlopen(overview["metrics_url"], timeout=20) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {sample.name: sample.value for family in families for sample in family.samples if sample.value}

    wanted = {"camera_frames_decoded_total", "camera_decode_seconds", "camera_received_bytes_total",
              "model_calls_total", "model_infer_seconds", "application_frames_taken_total", "application_latency_seconds",
              "display_frames_received_total"}  # fmt: skip
    _until(
        "every stage has figures", FIGURES_TIMEOUT_S, lambda: {f"belvedere_{name}" for name in wanted} <= set(figures())
    )
    cloudwatch = demo.client("cloudwatch")

    def names() -> set[str]:
        return {
            metric["MetricName"] for metric in cloudwatch.list_metrics(Namespace="PanoramaDeviceMetrics")["Metrics"]
        }

    wanted = {"FrameRate", "ResultRate", "CameraFrameRate", "CameraFramesDecoded", "InferenceTimeP50", "DisplayViewers"}
    _until("the cloud has them", FIGURES_TIMEOUT_S, lambda: wanted <= names())


def test_no_password_is_in_any_log(demo: RunningDemo) -> None:
    secrets = {
        (demo.data / "camera.password").read_text(),
        demo.rtsp_password,
        CloudAccess.load(demo.data / "cloud").secret_access_key,
    }
    for log in [*demo.data.rglob("*.log"), *demo.data.rglob("logs/*")]:
        text = log.read_text(errors="replace") if log.is_file() else ""
        assert not [secret for secret in secrets if secret in text], f"a secret stands in {log.name}"


def test_after_a_power_cut_the_appliance_shows_offline_and_comes_back_by_itself(demo: RunningDemo) -> None:
    panorama = demo.client("panorama")
    (device,) = panorama.list_devices()["Devices"]
    appliance = _pid_of(demo.process.pid, "edge")
    assert appliance is not None
    os.kill(appliance, signal.SIGKILL)
    _until("the device is OFFLINE", OFFLINE_TIMEOUT_S, lambda: _connection(panorama, device["DeviceId"]) == "OFFLINE")
    again = subprocess.Popen(
        [sys.executable, "-m", "belvedere.cli.main", "appliance", "run", "--data", str(demo.data / "appliance")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until("the device is ONLINE", PICTURE_TIMEOUT_S, lambda: _connection(panorama, device["DeviceId"]) == "ONLINE")
        _until("frames come again", PICTURE_TIMEOUT_S, lambda: len(_frames(demo.video, 5)) == 5)
    finally:
        again.send_signal(signal.SIGTERM)
        again.wait(STOP_TIMEOUT_S)


def test_ctrl_c_ends_everything_and_leaves_nothing_behind(any_demo: RunningDemo) -> None:
    demo = any_demo
    begun = _processes_of(demo.data)
    assert begun, "nothing was running"
    demo.process.send_signal(signal.SIGINT)
    demo.process.wait(STOP_TIMEOUT_S)
    _until("every process has ended", STOP_TIMEOUT_S, lambda: not _processes_of(demo.data))
    assert not [path for path in demo.data.rglob("*") if path.is_socket()]
    assert str(demo.data) not in Path("/proc/mounts").read_text()


def _frames(url: str, count: int) -> list[np.ndarray[Any, Any]]:
    """The next frames of a stream, RGB; fewer where it does not open or ends."""
    frames: list[np.ndarray[Any, Any]] = []
    try:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=(30.0, 30.0)) as video:
            for frame in video.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == count:
                    return frames
    except av.error.FFmpegError:
        return frames
    return frames


def _connection(panorama: Any, device_id: str) -> str:
    return str(panorama.describe_device(DeviceId=device_id)["DeviceConnectionStatus"])


def _until(what: str, timeout_s: float, reached: Any) -> None:
    """Asks again and again: what is asked lies outside this process and tells nobody when it changes."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        threading.Event().wait(0.2)


def _processes_of(data: Path) -> list[int]:
    """Processes that were started for this data folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(os.fsencode(str(data)) in part for part in command):
            found.append(int(folder.name))
    return found


def _pid_of(root: int, module: str) -> int | None:
    """The process below the demo that runs `-m module`."""
    for process in psutil.Process(root).children(recursive=True):
        try:
            command = process.cmdline()
        except psutil.Error:
            continue  # it has ended since it was listed
        if "-m" in command and command[command.index("-m") + 1] == module:
            return int(process.pid)
    return None


def _logs(data: Path) -> str:
    """The ends of the logs, for a failed start."""
    return "\n".join(
        f"--- {log.relative_to(data)}\n{log.read_text(errors='replace')[-1500:]}" for log in data.rglob("*.log")
    )
