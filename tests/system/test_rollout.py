"""A rollout on a real appliance: its own figures decide, and what does not see well enough goes back by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.whole import CAMERA_USER, WholeSystem, run, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

SETTINGS = {
    "BELVEDERE_AGENT_FIGURES_S": "1",
    "BELVEDERE_DEPLOYMENTS_ROLLOUT_TICK_S": "0.5",
}
SLOW = FRAMES_THROUGH.replace("while True:", "import time\nwhile True:\n    time.sleep(2)")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[WholeSystem]:
    with WholeSystem(tmp_path, SETTINGS) as running:
        yield running


def test_figures_decide_and_what_sees_too_little_goes_back(system: WholeSystem) -> None:
    clip = make_clip(system.folder / "clip.mp4", fps=10)
    system.account.register_camera("front", system.camera("front", clip, "password"), CAMERA_USER, "password")
    arn = system.panorama.describe_device(DeviceId=system.device_id)["Arn"]
    system.panorama.tag_resource(ResourceArn=arn, Tags={"site": "yard"})
    app = application_folder(system.folder / "app", "counter", FRAMES_THROUGH, cameras=["front"])
    create = (
        "rollout", "create", app.root, "--data", system.cloud_data, "--tag", "site=yard",
        "--gate", "FrameRate>=2:4", "--wait",
    )  # fmt: skip

    system.account.register_packages(app)
    done = run(*create)
    assert (done.returncode, done.stdout.splitlines()[-1].split()[0]) == (0, "SUCCEEDED"), done.stdout + done.stderr
    (first,) = system.instances()

    change_source(app, SLOW)
    system.account.register_packages(app)
    done = run(*create)
    assert done.returncode == 1, done.stdout + done.stderr
    # Half a picture a second, or none within the window.
    assert re.search(r"FrameRate \(average over 4 s\) is 0(\.\d+)?, at least 2 is wanted", done.stdout), done.stdout
    (running,) = (
        instance for instance, status in system.instances().items() if status == "DEPLOYMENT_SUCCEEDED"
    )  # fmt: skip
    assert running != first
    taken = system.application(running)["frames_taken"]
    wait_for("the earlier code's pace", lambda: system.application(running)["frames_taken"] > taken + 10)
