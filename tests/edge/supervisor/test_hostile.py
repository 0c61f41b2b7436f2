"""Applications that mean harm, or are broken as if they did. Each runs beside an innocent one, which takes frames, calls a
model and shows its pictures through the same processes: whatever the other does, it goes on with what the camera
delivers, and is neither restarted nor reported.

One appliance serves all tests of this module. Cameras, models and display are framelink's own servers, in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from belvedere.chassis.paths import EdgePaths
from framelink import CallServer, FrameReader, OutputReceiver, Request
from tests.edge.supervisor.appliance import WAIT_S, Appliance, running_appliance
from tests.edge.supervisor.archives import app_spec
from tests.edge.supervisor.frames import CAMERA, MEDIA, Frames

pytestmark = pytest.mark.asyncio(loop_scope="module")

INNOCENT, HOSTILE = "innocent", "hostile"
NEW_FRAMES = 20
"""So many more of the innocent one's are waited for: a second of them."""
LOST_SHARE = 0.5
"""Of the camera's frames that it may miss meanwhile. Not less: the machine of the test may have other things to do."""
LIMITS = {"memory_mb": 160, "cpu": 0.0, "pids": 40, "disk_mb": 32}

DECENT = """
import numpy, panoramasdk
node = panoramasdk.node()
while True:
    streams = node.inputs.video_in.get()
    assert node.call({"x": numpy.ones((1, 3), "float32")}, "net") is not None
    node.outputs.video_out.put(streams)
"""
SOCKETS = """
import glob, os, socket, time
FRAMES, = glob.glob("/run/belvedere/cameras/*/frames.sock")
CALLS, OUTPUTS = "/run/belvedere/inference/calls.sock", "/run/belvedere/display/outputs.sock"
CONTROL = "/run/belvedere/app/control.sock"
def connect(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(2)
    connection.connect(path)
    return connection
"""


class Site:
    """The appliance and its camera."""

    def __init__(self, appliance: Appliance, frames: Frames) -> None:
        self.appliance = appliance
        self.frames = frames
        self.innocent = self.spec(DECENT, INNOCENT)

    def spec(self, code: str, instance_id: str = HOSTILE, **changes: Any) -> dict[str, Any]:
        ports = {
            "inputs": {"video_in": MEDIA},
            "outputs": {"video_out": {"type": "media", "connected": True}},
            "models": {"net": {"model_id": "net-FP32", "inputs": [{"name": "x", "shape": [1, 3], "dtype": "float32"}]}},
        }
        return app_spec(self.appliance.data, textwrap.dedent(code), instance_id, **{**ports, **changes})

    async def beside(self, code: str, **changes: Any) -> None:
        """Lets it run beside the innocent one."""
        await self.appliance.apply(self.innocent, self.spec(code, **{"limits": LIMITS, **changes}))

    async def hostile(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Its status, once it is so."""
        return await self.appliance.app(lambda app: bool(wanted(app)), HOSTILE)

    async def fails(self, code: str) -> str:
        """The reason's message."""
        found = await self.hostile(lambda app: app["last_error"] and app["last_error"]["code"] == code)
        return str(found["last_error"]["message"])

    async def innocent_goes_on(self) -> None:
        """It takes what the camera delivers, and nobody has touched it."""

        def row() -> dict[str, Any]:
            rows = self.appliance.process.statuses[-1]["applications"]
            return next(app for app in rows if app["instance_id"] == INNOCENT)

        before, written = row(), self.frames.camera.writer.stats().frames_written
        after = await self.appliance.app(lambda app: app["frames_put"] >= before["frames_put"] + NEW_FRAMES, INNOCENT)
        published = self.frames.camera.writer.stats().frames_written - written
        taken = after["frames_taken"] - before["frames_taken"]
        # Its status is a second old.
        assert taken >= (1 - LOST_SHARE) * (published - NEW_FRAMES), (taken, published)
        assert (after["state"], after["restarts"], after["reason"]) == ("running", 0, None)
        assert after["pid"] == before["pid"]

    async def gone(self) -> None:
        """Only the innocent one is left."""
        await self.appliance.apply(self.innocent, keep=[INNOCENT])
        await self.appliance.process.status(
            lambda status: [app["instance_id"] for app in status["applications"]] == [INNOCENT], WAIT_S
        )


def answer(request: Request) -> None:
    """The model."""
    request.reply({"y": np.ones(1)})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    data = tmp_path_factory.mktemp("site")
    paths = EdgePaths(data)
    os.environ["BELVEDERE_SUPERVISOR_STOP_GRACE_S"] = "0.5"
    try:
        async with running_appliance(data) as appliance, Frames(data) as frames:
            with contextlib.ExitStack() as stack:
                ring = await asyncio.to_thread(FrameReader, paths.camera_socket(CAMERA), "display")
                stack.callback(ring.close)
                for name in (INNOCENT, HOSTILE):
                    calls, outputs = paths.inference_client_socket(name), paths.display_socket(name)
                    for path in (calls, outputs):
                        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    stack.enter_context(CallServer(calls, answer, name=name))
                    stack.enter_context(OutputReceiver(outputs, lambda output: output.done(), {CAMERA: ring}.get))
                site = Site(appliance, frames)
                await appliance.apply(site.innocent)
                await appliance.app(lambda app: app["state"] == "running", INNOCENT)
                yield site
    finally:
        del os.environ["BELVEDERE_SUPERVISOR_STOP_GRACE_S"]


@pytest_asyncio.fixture(loop_scope="module")
async def site(running: Site) -> AsyncIterator[Site]:
    yield running
    await running.gone()


async def test_a_bomb_of_processes(site: Site) -> None:
    await site.beside(
        """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """
    )
    await site.hostile(lambda app: app["limit_hits"]["pids"] or app["last_error"])
    await site.innocent_goes_on()


async def test_one_that_fills_the_disk(site: Site) -> None:
    await site.beside(
        """
        import os
        number = 0
        while True:
            number += 1
            try:
                with open(f"/opt/aws/panorama/storage/{number}", "wb") as out:
                    while True:
                        out.write(bytes(1 << 20))
            except OSError:
                pass
        """
    )
    assert "MB of its 32 MB on the disk: raise disk_mb" in await site.fails("APP_LIMIT_REACHED")
    await site.innocent_goes_on()


async def test_one_that_fills_memory(site: Site) -> None:
    await site.beside("kept = []\nwhile True:\n    kept.append(b'x' * (4 << 20))")
    assert "of its 160 MB: raise memory_mb" in await site.fails("APP_OUT_OF_MEMORY")
    await site.innocent_goes_on()


async def test_one_that_ignores_the_stop(site: Site) -> None:
    await site.beside(
        """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        say(type="hello")
        say(type="stats", frames_taken=1, frames_put=1)
        while True:
            pass
        """
    )
    await site.hostile(lambda app: app["state"] == "running")
    await site.innocent_goes_on()
    await site.gone()


async def test_one_that_comes_and_goes_at_the_camera(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import framelink
say(type="hello")
number = 0
while True:
    number += 1
    try:
        with framelink.FrameReader(FRAMES, "hostile") as reader:
            reader.request()
            if number % 2:
                reader.take()
    except framelink.FramelinkError:
        time.sleep(0.001)
    say(type="stats", frames_taken=number, frames_put=number)
"""
    )
    await site.hostile(lambda app: app["frames_taken"] > 20)
    await site.innocent_goes_on()


async def test_one_that_holds_every_frame(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import framelink
say(type="hello")
readers = [framelink.FrameReader(FRAMES, f"hostile-{number}") for number in range(8)]
held = []
while True:
    for reader in readers:
        try:
            held.append(reader.get(0.05))
        except framelink.FramelinkError:
            time.sleep(0.01)
    say(type="stats", frames_taken=len(held), frames_put=1)
"""
    )
    await site.hostile(lambda app: app["frames_taken"] >= 4)
    await site.innocent_goes_on()


async def test_one_that_writes_its_log_without_end(site: Site) -> None:
    await site.beside(
        """
        import os, sys, threading
        say(type="hello")
        def files():
            with open("/opt/aws/panorama/logs/endless.log", "w") as out:
                for _ in range(1000):
                    out.write("line\\n" * 2000)
        threading.Thread(target=files).start()
        block = b"the same line again and again\\n" * 4000
        for number in range(2000):
            os.write(1, block)
        print("its last words", flush=True)
        sys.exit("and the reason")
        """
    )
    await site.hostile(lambda app: app["log_lines_dropped"] > 10_000)
    await site.innocent_goes_on()


async def test_its_last_words_come_however_much_it_wrote_before(site: Site) -> None:
    await site.beside(
        """
        import os, sys
        os.write(1, b"the same line again and again\\n" * 300_000)
        print("its last words", flush=True)
        sys.exit("and the reason")
        """
    )
    assert await site.fails("APP_EXITED") == "exit code 1: and the reason"
    await site.appliance.line("its last words")
    await site.appliance.line("lines were dropped here")
    await site.innocent_goes_on()


async def test_one_that_speaks_no_protocol_at_any_of_its_sockets(site: Site) -> None:
    await site.beside(
        SOCKETS
        + """
import itertools, random
say(type="hello")
words = [b"", b"x", b"GET / HTTP/1.1\\r\\n\\r\\n", bytes(65536), b"{", b'{"type": 7}', b"[" * 9000, b'{"type": "stats", "frames_taken": 1e400}',
         b'{"type": "stats", "latency_app_ms": {"p50": "x", "count": []}}']
for number in itertools.count(1):
    for path in (CONTROL, FRAMES, CALLS, OUTPUTS):
        try:
            with connect(path) as connection:
                for _ in range(20):
                    connection.send(random.choice(words) + random.randbytes(random.randrange(64)))
                descriptor = os.memfd_create("mine")
                socket.send_fds(connection, [random.randbytes(64)], [descriptor] * 4)
        except OSError:
            pass
        finally:
            for fd in range(8, 64):
                try:
                    os.close(fd)
                except OSError:
                    pass
    if number % 10 == 0:
        print("rounds", number)
"""
    )
    await site.appliance.line("rounds 20")
    await site.innocent_goes_on()


async def test_one_that_floods_its_control_socket(site: Site) -> None:
    await site.beside("while True:\n    say(type='stats', frames_taken=1, frames_put=1)")
    await site.hostile(lambda app: app["state"] == "running")
    await site.innocent_goes_on()


async def test_one_that_asks_for_what_belongs_to_others(site: Site) -> None:
    paths = EdgePaths(site.appliance.data)
    others = [paths.inference_client_socket(INNOCENT), paths.display_socket(INNOCENT), paths.app_run(INNOCENT)]
    others += [paths.storage(INNOCENT), paths.bus_file, paths.device, Path("/run/belvedere") / INNOCENT]
    await site.beside(
        SOCKETS
        + f"""
found = [path for path in {[str(path) for path in others]!r} if os.path.exists(path)]
for up in ("..", "../..", "../../.."):
    for path in (FRAMES, CALLS, OUTPUTS, CONTROL):
        there = os.path.join(os.path.dirname(path), up)
        found += [name for name in os.listdir(there) if {INNOCENT!r} in name]
print("found", found, "cameras", len(os.listdir("/run/belvedere/cameras")))
import framelink, numpy
try:
    framelink.FrameReader("/run/belvedere/cameras/yard/frames.sock", "hostile", connect_timeout_s=0.2)
    print("another ring was opened")
except framelink.FramelinkError as error:
    print("another ring:", type(error).__name__)
say(type="hello")
say(type="stats", frames_taken=1, frames_put=1)
time.sleep(600)
"""
    )
    assert (await site.appliance.line("found ["))["message"] == "found [] cameras 1"
    await site.appliance.line("another ring: ")
    await site.innocent_goes_on()


@pytest.mark.parametrize("code", ["", "import os; os._exit(7)"], ids=["exits 0", "exits at once"])
async def test_one_that_ends_for_ever(site: Site, code: str) -> None:
    await site.beside(code)
    await site.hostile(lambda app: app["restarts"] >= 2 and app["reason"] and app["reason"]["code"] == "APP_EXITED")
    await site.innocent_goes_on()
