"""A code asset built on AWS's base image, as it is: its own Python, its own panoramasdk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edge.supervisor.appliance import Appliance
from tests.edge.supervisor.archives import app_spec
from tests.edge.supervisor.frames import MEDIA, Frames
from tests.support.oldest_python import INSTALL_TIMEOUT_S, base_image

pytestmark = pytest.mark.timeout(2 * INSTALL_TIMEOUT_S + 150)  # the first test may have to install it

APP = """
import os, subprocess, sys
without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
alone = subprocess.run([sys.executable, "-c", "import panoramasdk"], env=without, stderr=subprocess.PIPE)
print("its own:", alone.stderr.decode().strip().splitlines()[-1])

import numpy, panoramasdk
print("python", sys.version.split()[0], "numpy", numpy.__version__, numpy.__file__)
print("sdk", panoramasdk.__file__)

class Application(panoramasdk.node):
    def __init__(self):
        self.value = self.inputs.value.get()

    def process_streams(self):
        streams = self.inputs.video_in.get()
        for stream in streams:
            stream.image[:10] = 0
            stream.add_label("value %d" % self.value, 0.1, 0.1)
        self.outputs.video_out.put(streams)

app = Application()
print("at", os.getcwd(), os.listdir("/panorama"), sys.argv)
while True:
    app.process_streams()
"""


@pytest.mark.peers
async def test_a_base_images_own_sdk_gives_way_to_ours_without_a_rebuild(appliance: Appliance, tmp_path: Path) -> None:
    rootfs = base_image(tmp_path / "image", APP)
    entry = {"path": "python" + next((rootfs / "usr" / "bin").glob("python*")).name[6:], "name": "/panorama/app.py"}
    spec = app_spec(
        appliance.data,
        "",
        rootfs=str(rootfs),
        entry={**entry, "arguments": [], "environment": {"PYTHONPATH": "/panorama/lib"}},
        inputs={"video_in": MEDIA, "value": {"type": "int32", "value": 7}},
        outputs={"video_out": {"type": "media", "connected": False}},
    )
    async with Frames(appliance.data):
        await appliance.apply(spec)
        app = await appliance.app(lambda app: app["state"] == "running" and app["frames_put"] > 1)
    assert app["restarts"] == 0
    assert (await appliance.line("its own:"))["message"].startswith("its own: ImportError: /usr/lib/python3")
    assert "numpy 1.18.0 /usr/lib/python3" in (await appliance.line("python 3."))["message"]
    assert (await appliance.line("sdk /"))["message"] == "sdk /opt/belvedere/sdk/panoramasdk/__init__.py"
    assert (await appliance.line("at /"))["message"] == "at / ['app.py'] ['/panorama/app.py']"
