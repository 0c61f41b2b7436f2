"""B8: a changed line, from `belvedere app deploy` to the new code's first frame, beside an application that must not notice.

Everything as a user has it: a cloud side, an appliance, a simulated camera, the command line. The archive holds the code
and ARCHIVE_MB of real libraries (compressed; what an image brings besides the code); only the code changes. Time is from
the command's start to the moment at which the SDK has put the new code's first picture. Bytes are those that the
appliance fetches of assets, over the compressed size of the archive. Limit: `belvedere` starting and doing nothing.

The 500 MB lines: `large_archive`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from belvedere.appdir import AppFolder
from tests.bench.large_archive import large_archive
from tests.bench.result import LIMIT, Line, Report, spread
from tests.support.clips import make_clip
from tests.support.folders import FRAMES_THROUGH, application_folder, change_source
from tests.support.whole import CAMERA_USER, WholeSystem, command, wait_for

ROUNDS = 5
ARCHIVE_MB = int(os.environ.get("BENCH_ARCHIVE_MB", "40"))
SECONDS_REACH, SHARE_REACH = 3.0, 0.01
PASSWORD = "password"
COUNTING = """
import panoramasdk, re
node = panoramasdk.node()
last, lost = None, 0
while True:
    streams = node.inputs.video_in.get()
    now = int(re.search(r"frame ([0-9]+)", repr(streams[0])).group(1))
    if last is None or now - last > 1:
        lost += now - last - 1 if last is not None else 0
        with open("/opt/aws/panorama/storage/lost", "w") as out:
            out.write(str(lost))
    last = now
    node.outputs.video_out.put(streams)
"""
"""Counts the frames that passed it by: each is numbered."""
LIBRARIES = ("numpy", "numpy.libs", "cv2", "opencv_python_headless.libs", "PIL", "pillow.libs", "botocore", "av.libs")


def b8(folder: Path) -> Report:
    """Seconds, bytes and lost frames of a changed line; memory and time of a large archive."""
    with WholeSystem(folder) as system:
        clip = make_clip(folder / "clip.mp4", fps=20)
        system.account.register_camera("front", system.camera("front", clip, PASSWORD), CAMERA_USER, PASSWORD)
        other = system.deploy(application_folder(folder / "other", "other", COUNTING, cameras=["front"]))
        app = application_folder(folder / "app", "changing", FRAMES_THROUGH, cameras=["front"])
        _fill(app.package("changing_code").folder / "src" / "vendor", ARCHIVE_MB << 20)
        change_source(app, FRAMES_THROUGH)
        system.wait_running(other)
        environment = _environment(system)
        _deploy(app, environment)
        before = _instance(system, "changing")
        system.wait_running(before)
        seconds, shares, lost = [], [], []
        for number in range(ROUNDS):
            change_source(app, FRAMES_THROUGH.replace('"seen"', f'"seen {number}"'))
            size = max(path.stat().st_size for path in app.assets.glob("*.tar.gz"))
            fetched, missed = system.overview()["fetched_bytes"], _missed(system, other)
            began = time.time()
            _deploy(app, environment, "--replace", "same-name", "--no-wait")
            new = _instance(system, "changing", besides=before)
            first = wait_for("the new code's first frame", _first_output(system, new))
            system.wait_running(new)
            seconds.append(first / 1000 - began)
            shares.append((system.overview()["fetched_bytes"] - fetched) / size)
            lost.append(_missed(system, other) - missed)
            before = new
        bare = statistics.median(_bare_command() for _ in range(3))
        large = large_archive(system, folder / "large", "front")
    lines = [
        Line("B8", f"a changed line in {size >> 20} MB, `app deploy` to its first frame", "s", statistics.median(seconds),
             limit=bare, ratios={LIMIT: statistics.median(seconds) / bare}, spread=spread(seconds),
             reach=f"≤ {SECONDS_REACH:g} s"),
        Line("B8", "what the appliance fetched for it, of the archive", "%", statistics.median(shares) * 100,
             spread=spread(shares), reach=f"< {SHARE_REACH:.0%}"),
        Line("B8", "frames that the other application lost meanwhile", "", float(sum(lost)), reach="0"),
    ]  # fmt: skip
    return Report([*lines, *large], [f"B8: rounds {', '.join(f'{value:.2f} s' for value in seconds)}"])


def _first_output(system: WholeSystem, instance_id: str) -> Callable[[], float | None]:
    return lambda: system.application(instance_id).get("first_output_at_ms")


def _missed(system: WholeSystem, instance_id: str) -> int:
    """Frames that the application did not get, as it counts them itself."""
    row = system.application(instance_id)
    assert (row["restarts"], row["state"]) == (0, "running")
    return int((system.appliance_data / "storage" / instance_id / "lost").read_text() or 0)


def _environment(system: WholeSystem) -> dict[str, str]:
    access = system.access
    return dict(os.environ) | {
        "AWS_ENDPOINT_URL": access.endpoint_url,
        "AWS_ACCESS_KEY_ID": access.access_key_id,
        "AWS_SECRET_ACCESS_KEY": access.secret_access_key,
        "AWS_DEFAULT_REGION": access.region,
    }


def _deploy(app: AppFolder, environment: dict[str, str], *more: str) -> None:
    done = subprocess.run(
        command("app", "deploy", app.root, *more), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _instance(system: WholeSystem, name: str, besides: str = "") -> str:
    found = system.panorama.list_application_instances(MaxResults=25)["ApplicationInstances"]
    newest = max((item for item in found if item["Name"] == name), key=lambda item: item["CreatedTime"])
    assert newest["ApplicationInstanceId"] != besides
    return str(newest["ApplicationInstanceId"])


def _bare_command() -> float:
    began = time.monotonic()
    subprocess.run(command("app", "deploy", "--help"), capture_output=True, check=True)
    return time.monotonic() - began


def _fill(folder: Path, size: int) -> None:
    """Libraries of this environment, until so many bytes of them are compressed (a third of what they are)."""
    packages = Path(sys.prefix) / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    left = 2.7 * size
    for name in LIBRARIES:
        for path in sorted(packages.glob(f"{name}/**/*")):
            if path.is_file() and "__pycache__" not in path.parts:
                left -= path.stat().st_size
                target = folder / path.relative_to(packages)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                if left <= 0:
                    return
