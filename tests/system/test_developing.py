"""What a developer sees of an application on a real appliance: which limits it has reached, and every saved change running
(`belvedere app dev --device`).

One system serves all tests of this module.
"""

from __future__ import annotations

import json
import shlex
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from belvedere.appdir import AppFolder
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.whole import CAMERA_USER, Running, WholeSystem, command, run, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

AT_ITS_LIMITS = FRAMES_THROUGH.replace(
    "while True:",
    """
import os, threading, time
def work():
    while True:
        pass
def fork():
    while True:
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        except OSError:
            time.sleep(1)
for harm in (work, fork):
    threading.Thread(target=harm, daemon=True).start()
while True:""",
)
FILLING_THE_DISK = """
import os
with open("/opt/aws/panorama/storage/large", "wb") as out:
    while True:
        out.write(os.urandom(1 << 20))
"""
LIMITS = {"type": "resources", "cpu": 0.05, "pids": 24, "diskMb": 8}
"""A share that it uses up in any moment in which nobody else works: where others do all the time, it has the weight of it."""
IDLE_S = 5.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with WholeSystem(tmp_path_factory.mktemp("site")) as system:
        clip = make_clip(system.folder / "clip.mp4", fps=10)
        url = system.camera("front", clip, "secret")
        system.account.register_camera("front", url, CAMERA_USER, "secret")
        yield system


def app_of(site: WholeSystem, name: str, source: str) -> AppFolder:
    """A new application folder."""
    return application_folder(site.folder / "apps" / name, name, source, cameras=["front"])


def test_limits_that_are_reached_are_told_by_the_api_and_counted_as_metrics(site: WholeSystem) -> None:
    app = _limited(app_of(site, "at_its_limits", AT_ITS_LIMITS))
    instance_id = site.deploy(app)
    pids = "(it is not given more than 24 processes and threads: raise pids or start fewer)"
    site.wait_status(instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING", pids)
    share = uses_up_its_share(site, instance_id)
    site.wait_nodes(instance_id, code_node="RUNNING")
    metrics_url = site.overview()["metrics_url"]

    def reached() -> dict[str, bool]:
        with urllib.request.urlopen(metrics_url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        name = "belvedere_application_limit_hits_total"
        hits = [line for line in lines if line.startswith(name) and instance_id in line]
        return {line.partition('cause="')[2].partition('"')[0]: float(line.split()[-1]) > 0 for line in hits}

    wanted = {"memory_mb": False, "cpu": share, "pids": True, "disk_mb": False}
    wait_for(f"the metrics {wanted}", lambda: reached() | ({} if share else {"cpu": False}) == wanted)
    wait_for("its log says so", lambda: "not given more than 24 processes" in _log(site, instance_id))
    site.panorama.remove_application_instance(ApplicationInstanceId=instance_id)

    change_source(app, FILLING_THE_DISK)
    ended = site.deploy(app)
    site.wait_status(ended, "DEPLOYMENT_ERROR", "ERROR", "MB of its 8 MB on the disk: raise disk_mb")
    row = wait_for("its row says so", lambda: _hit(site, ended, "disk_mb"))
    assert row["last_error"]["code"] == "APP_LIMIT_REACHED"
    site.panorama.remove_application_instance(ApplicationInstanceId=ended)
    for each in (instance_id, ended):
        site.wait_status(each, "REMOVAL_SUCCEEDED")
    if not share:
        pytest.skip("others took all of this machine's cpu: what an application uses up was not told apart")


def uses_up_its_share(site: WholeSystem, instance_id: str) -> bool:
    """Whether the API tells that it has. False: the machine had no moment to give, or it would have taken that."""
    idle_s = psutil.cpu_times().idle
    try:
        told = site.wait_status(
            instance_id, "DEPLOYMENT_SUCCEEDED", "RUNNING", "(its share of the cpu, 0.05 cores, was used up"
        )
    except AssertionError:
        if psutil.cpu_times().idle - idle_s > IDLE_S:
            raise
        return False
    assert told["StatusDescription"].startswith("Application deployed successfully. Limits reached: cpu ")
    return True


def test_every_saved_change_is_deployed_and_code_that_is_no_python_is_not(site: WholeSystem) -> None:
    app = app_of(site, "developed", FRAMES_THROUGH)
    source = app.package("developed_code").folder / "src" / "application.py"
    exports = run("env", "--data", site.cloud_data).stdout.splitlines()
    env = dict(line.removeprefix("export ").split("=", 1) for line in exports if line.startswith("export "))
    env = {name: shlex.split(value)[0] for name, value in env.items()}
    dev = Running("dev", site.folder / "logs", command("app", "dev", app.root, "--device", site.device_id), env)
    try:
        first = wait_for("the first deployment", lambda: _running_named(site, "developed"))
        source.write_text("while True\n")
        wait_for("the refusal", lambda: "the old code runs on" in dev.errors.read_text())
        assert _running_named(site, "developed") == first

        source.write_text("print('changed')\n" + FRAMES_THROUGH)
        dev.line("from the change to the new code's first frame")
        second = wait_for("the second deployment", lambda: _running_named(site, "developed", but=first))
        site.wait_status(first, "REMOVAL_SUCCEEDED")
        wait_for("the new code's line", lambda: "changed" in _log(site, second))
    finally:
        assert dev.stop() == 0
    site.wait_running(second)  # what was deployed stays


def _limited(app: AppFolder) -> AppFolder:
    """The application with LIMITS in its package's requirements."""
    file = app.package(f"{app.name}_code").folder / "package.json"
    document = json.loads(file.read_text())
    for asset in document["nodePackage"]["assets"]:
        asset["implementations"][0]["requirements"] = [LIMITS]
    file.write_text(json.dumps(document))
    return AppFolder.load(app.root)


def _hit(site: WholeSystem, instance_id: str, limit: str) -> dict[str, Any] | None:
    """The supervisor's row, once it counts that the limit was reached."""
    row = site.application(instance_id)
    return row if row.get("last_error") and row["limit_hits"][limit] >= 1 else None


def _running_named(site: WholeSystem, name: str, but: str = "") -> str | None:
    """The instance of that name that is deployed and is to stay."""
    for item in site.panorama.list_application_instances(MaxResults=25)["ApplicationInstances"]:
        if item["Name"] == name and item["Status"] == "DEPLOYMENT_SUCCEEDED" and item["ApplicationInstanceId"] != but:
            return str(item["ApplicationInstanceId"])
    return None


def _log(site: WholeSystem, instance_id: str) -> str:
    """The newest lines of an application's output, as the API has them."""
    group = f"/aws/panorama/devices/{site.device_id}/applications/{instance_id}"
    return "\n".join(site.account.log_lines(group, "console_output", limit=1000))
