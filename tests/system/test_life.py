"""What an owner of an appliance lives through: the cloud side goes away and comes back, everything is started again,
an application is replaced while it serves, a camera is paused, the appliance is rebooted, an application is removed.

One system serves all tests of this module, in their order. One application runs from the first to the last but one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from belvedere.appdir import AppFolder
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.whole import CAMERA_USER, WholeSystem, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PASSWORD = "secret"
NEW_FRAMES = 5


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
        before = self.row().get("frames_put", 0)
        wait_for(
            "frames", lambda: self.row().get("state") == "running" and self.row()["frames_put"] >= before + NEW_FRAMES
        )

    def start_cloud(self) -> None:
        self.cloud = self.start("cloud-again", "up", "--data", self.cloud_data)
        self.cloud.line("ready ")

    def start_appliance(self) -> None:
        self.appliance = self.start("appliance-again", "appliance", "run", "--data", self.appliance_data)
        self.appliance.line("running")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(tmp_path_factory.mktemp("shop")) as system:
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


def test_a_paused_camera_rests_and_comes_back(shop: Shop) -> None:
    signal = lambda what: shop.panorama.signal_application_instance_node_instances(  # noqa: E731
        ApplicationInstanceId=shop.instance_id, NodeSignals=[{"NodeInstanceId": "front", "Signal": what}]
    )
    signal("PAUSE")
    wait_for("the camera is paused", lambda: shop.nodes(shop.instance_id)["front"] == "PAUSED")
    signal("RESUME")
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
