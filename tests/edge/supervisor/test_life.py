"""What becomes of applications that hang, crash, are replaced and are removed; their storage, logs and figures."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from belvedere.chassis.paths import EdgePaths
from tests.edge.supervisor.appliance import STAY, WAIT_S, Appliance, running_appliance
from tests.edge.supervisor.archives import app_spec
from tests.edge.supervisor.frames import CAMERA, MEDIA, Frames
from tests.support.shared_memory import eventually

LOOKS = """
import panoramasdk, time
node = panoramasdk.node()
print("value", node.inputs.value.get())
"""


def looking(data: Path, code: str, **changes: Any) -> dict[str, Any]:
    """An application with a camera and the SDK."""
    inputs = {"video_in": MEDIA, "value": {"type": "int32", "value": 7}}
    return app_spec(data, LOOKS + textwrap.dedent(code), inputs=inputs, **changes)


@pytest.fixture
async def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Appliance]:
    """An appliance with little patience, and a camera that delivers. What does not hang must not need as long on a busy machine."""
    monkeypatch.setenv("BELVEDERE_SUPERVISOR_HUNG_AFTER_S", "3")
    monkeypatch.setenv("BELVEDERE_SUPERVISOR_START_HUNG_AFTER_S", "15")
    async with running_appliance(tmp_path) as appliance, Frames(tmp_path):
        yield appliance


@pytest.fixture
async def delivering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Appliance]:
    """An appliance with all patience, and a camera that delivers."""
    monkeypatch.setenv("BELVEDERE_SUPERVISOR_ERRORS_EVERY_S", "0.5")
    async with running_appliance(tmp_path) as appliance, Frames(tmp_path):
        yield appliance


HANGS_ONCE = """
import os
node.inputs.video_in.get()
def stuck_at_this():
    import threading
    threading.Event().wait()
if not os.path.exists("/opt/aws/panorama/storage/hung"):
    open("/opt/aws/panorama/storage/hung", "w").close()
    stuck_at_this()
while True:
    node.inputs.video_in.get()
"""


async def test_an_application_that_hangs_says_where_and_is_started_again(strict: Appliance) -> None:
    await strict.apply(looking(strict.data, HANGS_ONCE))
    failed = await strict.app(lambda app: app["last_error"] is not None)
    assert failed["last_error"]["code"] == "APP_HUNG"
    assert "asked for no frame in 3 s while its cameras deliver" in failed["last_error"]["message"]
    assert (await strict.line("in stuck_at_this"))["stream"] == "console_output"
    await strict.line("in _look_after")
    again = await strict.app(lambda app: app["state"] == "running" and app["restarts"] == 1)
    assert again["reason"] is None and again["last_error"] == failed["last_error"], (
        "what was wrong last can still be read"
    )
    texts = [entry["message"] for entry in strict.lines]
    noted = next(number for number, text in enumerate(texts) if "what its threads were doing" in text)
    assert noted < next(number for number, text in enumerate(texts) if "in stuck_at_this" in text)
    assert not any("can't be had" in text for text in texts)


async def test_one_that_is_stopped_or_holds_the_interpreter_hangs_too(strict: Appliance) -> None:
    await strict.apply(looking(strict.data, "while True:\n    node.inputs.video_in.get()\n"))
    pid = (await strict.app(lambda app: app["state"] == "running"))["pid"]
    os.kill(pid, signal.SIGSTOP)
    failed = await strict.app(lambda app: app["last_error"] is not None)
    assert failed["last_error"]["code"] == "APP_HUNG"
    await strict.line("that can't be had")
    assert (await strict.app(lambda app: app["state"] == "running"))["pid"] != pid


async def test_one_that_never_asks_for_a_frame_has_longer_and_hangs_then(strict: Appliance) -> None:
    code = """
        import os
        time.sleep(4)                      # loads a model: longer than what hangs may take
        node.inputs.video_in.get()
        print("its first frame")
        os.chdir("/")
        while True:
            node.inputs.video_in.get()
    """
    never = app_spec(strict.data, STAY, instance_id="never", inputs={"video_in": MEDIA})
    await strict.apply(looking(strict.data, code), never)
    await strict.app(lambda app: app["state"] == "running" and app["restarts"] == 0)
    failed = await strict.app(lambda app: app["last_error"] is not None, "never")
    assert "first frame in 15 s" in failed["last_error"]["message"]
    await strict.line('File "/panorama/app.py"')
    assert (await strict.app(lambda app: True))["last_error"] is None


async def test_being_busy_while_the_camera_gives_nothing_is_not_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_SUPERVISOR_HUNG_AFTER_S", "1.5")
    code = """
        node.inputs.video_in.get()
        print("its only frame")
        time.sleep(4)
        print("never killed")
        node.inputs.video_in.get()
    """
    async with running_appliance(tmp_path) as appliance:
        frames = Frames(tmp_path)
        frames.camera.publish(bgr=True)
        await appliance.apply(looking(tmp_path, code))
        await appliance.line("never killed")
        assert (await appliance.app(lambda app: True))["last_error"] is None
        frames.camera.close()


async def test_a_crash_leaves_its_stack_in_the_log(appliance: Appliance) -> None:
    code = "import ctypes\ndef into_nothing():\n    ctypes.string_at(0)\ninto_nothing()\n"
    await appliance.apply(app_spec(appliance.data, code))
    assert (
        await appliance.failed("APP_EXITED") == "killed by signal 11 (SIGSEGV): Fatal Python error: Segmentation fault"
    )
    await appliance.line("in into_nothing")


async def test_the_first_restart_is_at_once_and_the_others_wait_ever_longer(appliance: Appliance) -> None:
    await appliance.apply(app_spec(appliance.data, "raise SystemExit(3)"))
    await appliance.line("exit code 3; starting again at once")
    await appliance.line("exit code 3; starting again in 1 s")
    await appliance.line("exit code 3; starting again in 2 s")


async def test_errors_are_a_metric_and_no_error_is_too(delivering: Appliance) -> None:
    good = app_spec(delivering.data, f'say(type="hello")\n{STAY}', instance_id="good", name="good-app")
    await delivering.apply(good, app_spec(delivering.data, "raise SystemExit(3)"))

    def sums(instance_id: str) -> list[float]:
        return [
            datum["sum"]
            for datum in delivering.metrics
            if datum["name"] == "ApplicationErrors" and datum["dimensions"]["ApplicationInstanceId"] == instance_id
        ]

    async with asyncio.timeout(WAIT_S), delivering.news:
        await delivering.news.wait_for(lambda: sum(sums("applicationInstance-1")) >= 3 and len(sums("good")) >= 2)
    assert set(sums("good")) == {0}
    datum = next(one for one in delivering.metrics if one["dimensions"].get("ApplicationInstanceId") == "good")
    assert datum["namespace"] == "PanoramaDeviceMetrics" and datum["unit"] == "Count"
    assert datum["dimensions"]["ApplicationInstanceName"] == "good-app"


async def test_a_camera_is_paused_for_one_application_without_a_restart(delivering: Appliance) -> None:
    code = """
        while True:
            try:
                print("got", len(node.inputs.video_in.get(0.3)))
            except TimeoutError:
                print("got none")
    """
    other = looking(delivering.data, "while True:\n    node.inputs.video_in.get()\n", instance_id="other")
    spec = looking(delivering.data, code)
    await delivering.apply(spec, other)
    await delivering.line("got 1")
    pid = (await delivering.app(lambda app: app["state"] == "running"))["pid"]
    before = (await delivering.app(lambda app: app["state"] == "running", "other"))["frames_taken"]
    await delivering.apply({**spec, "paused": [CAMERA]}, other)
    await delivering.line("got none")
    await delivering.app(lambda app: app["frames_taken"] > before + 20, "other")
    delivering.lines.clear()
    await delivering.apply(spec, other)
    await delivering.line("got 1")
    app = await delivering.app(lambda app: app["state"] == "running")
    assert (app["pid"], app["restarts"]) == (pid, 0)


async def test_an_application_may_begin_with_its_camera_paused(delivering: Appliance) -> None:
    code = """
        try:
            node.inputs.video_in.get(0.5)
        except TimeoutError:
            print("nothing at first")
        print("got", len(node.inputs.video_in.get()))
        while True:
            node.inputs.video_in.get()
    """
    spec = looking(delivering.data, code)
    await delivering.apply({**spec, "paused": [CAMERA]})
    await delivering.line("nothing at first")
    await delivering.apply(spec)
    await delivering.line("got 1")


NOTES = """
import os
kept = "/opt/aws/panorama/storage/notes"
print("found", open(kept).read() if os.path.exists(kept) else "nothing")
open(kept, "a").write("{mark} ")
say(type="hello")
"""


async def test_storage_outlives_restarts_goes_to_the_replacement_and_ends_with_the_last(appliance: Appliance) -> None:
    storage = EdgePaths(appliance.data).storage
    old = app_spec(appliance.data, NOTES.format(mark="old") + STAY, instance_id="old")
    await appliance.apply(old, keep=["old"])
    first = await appliance.app(lambda app: app["state"] == "running", "old")
    os.kill(first["pid"], signal.SIGKILL)
    await appliance.line("found old")

    new = app_spec(appliance.data, NOTES.format(mark="new") + STAY, instance_id="new", replaces="old")
    await appliance.app(lambda app: app["state"] == "running" and app["restarts"] == 1, "old")
    await appliance.apply(old, new, keep=["old", "new"])
    await appliance.line("found old old")
    await appliance.app(lambda app: app["state"] == "running", "new")
    await appliance.apply(new, keep=["new"])
    await appliance.process.status(lambda status: [app["instance_id"] for app in status["applications"]] == ["new"])
    assert (storage("new") / "notes").read_text() == "old old new "

    newest = app_spec(appliance.data, NOTES.format(mark="newest") + STAY, instance_id="newest", replaces="new")
    await appliance.apply(newest, keep=["newest"])
    await appliance.line("found old old new")
    await appliance.process.status(lambda status: [app["instance_id"] for app in status["applications"]] == ["newest"])
    assert (storage("newest") / "notes").read_text() == "old old new newest "
    assert {path.name for path in (appliance.data / "applogs").iterdir()} == {"newest"}

    await appliance.apply(keep=[])
    await appliance.process.status(lambda status: status["applications"] == [])
    assert list((appliance.data / "storage").iterdir()) == []
    assert list((appliance.data / "applogs").iterdir()) == []


async def test_what_is_stopped_keeps_its_storage_and_an_application_that_ends_is_shown_until_it_has(
    appliance: Appliance,
) -> None:
    code = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.makedirs("/opt/aws/panorama/storage/locked/inner")
        os.chmod("/opt/aws/panorama/storage/locked", 0)
        say(type="hello")
        time.sleep(600)
    """
    await appliance.apply(app_spec(appliance.data, code), keep=["applicationInstance-1"])
    await appliance.app(lambda app: app["state"] == "running")
    await appliance.apply(keep=["applicationInstance-1"])
    # It is told on another way than the answer to the command comes.
    await appliance.app(lambda app: app["state"] == "stopping")
    await appliance.process.status(lambda status: status["applications"] == [])
    assert (appliance.data / "storage" / "applicationInstance-1" / "locked").is_dir()
    await appliance.apply(keep=[])
    await asyncio.to_thread(eventually, lambda: not list((appliance.data / "storage").iterdir()), "the sweeping")


async def test_a_fifo_in_the_logs_folder_is_the_applications_own(appliance: Appliance) -> None:
    """AWS's samples send metrics between their processes that way: whoever read it would take them away."""
    code = """
        import os, struct, time
        name = "/opt/aws/panorama/logs/post_metrics_ipc"
        os.mkfifo(name)
        if os.fork() == 0:
            with open(name, "wb", buffering=0) as fifo:
                for number in range(30):
                    fifo.write(struct.pack("<I", number))
                    time.sleep(0.05)
            os._exit(0)
        open("/opt/aws/panorama/logs/app.log", "w").write("a line of a file beside it\\n")
        with open(name, "rb") as fifo:
            seen = [struct.unpack("<I", fifo.read(4))[0] for _ in range(30)]
        print("whole", seen == list(range(30)))
    """
    code = f'{textwrap.dedent(code)}say(type="hello")\n{STAY}'
    await appliance.apply(app_spec(appliance.data, code))
    await appliance.line("a line of a file beside it")
    await appliance.line("whole True")
