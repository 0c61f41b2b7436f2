"""Children: they end in order, and with their parent whatever ended that."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from belvedere.chassis.process import Child
from tests.support.waiting import until

STUBBORN = (
    "import signal,time,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)
PARENT = """
import asyncio, sys
from belvedere.chassis.process import Child
async def main():
    child = await Child.start("sleeper", ["sleep", "60"])
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


async def test_a_child_that_stops_when_asked_is_not_killed(tmp_path: Path) -> None:
    child = await Child.start("sleeper", ["sleep", "60"])
    assert child.running
    assert await child.stop() == -signal.SIGTERM
    assert not child.running


async def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = await Child.start("stubborn", [sys.executable, "-c", STUBBORN], stdout=asyncio.subprocess.PIPE)
    assert child.process.stdout is not None
    assert await child.process.stdout.readline() == b"up\n"
    begun = time.monotonic()
    assert await child.stop(grace_s=0.3) == -signal.SIGKILL
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
async def test_a_child_ends_with_its_parent_however_that_ends(ending: signal.Signals) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    child = psutil.Process(pid)
    # The id is the program's own: the start-up execs it.
    await until(lambda: child.name() == "sleep")
    parent.send_signal(ending)
    await parent.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_output_goes_to_the_log_file_which_is_moved_aside_when_large(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    for _ in range(2):
        child = await Child.start("echo", ["sh", "-c", "echo out; echo err >&2; exit 3"], log_file=log)
        assert await child.wait() == 3
    assert log.read_text() == "out\nerr\n" * 2
    os.truncate(log, 17 * 1024 * 1024)
    await (await Child.start("echo", ["echo", "fresh"], log_file=log)).wait()
    assert log.read_text() == "fresh\n"
    assert log.with_name("x.log.1").exists()


async def test_a_program_that_is_not_there_is_said_in_the_log(tmp_path: Path) -> None:
    child = await Child.start("none", ["no-such-program"], log_file=tmp_path / "x.log")
    assert await child.wait() == 127
    assert "cannot run no-such-program: No such file or directory" in (tmp_path / "x.log").read_text()


async def test_environment_and_descriptors_are_handed_on() -> None:
    read, write = os.pipe()
    code = f"import os; os.write({write}, os.environ['X'].encode())"
    child = await Child.start("writer", [sys.executable, "-c", code], env={"X": "handed on"}, pass_fds=[write])
    os.close(write)
    assert await child.wait() == 0
    assert os.read(read, 100) == b"handed on"
    os.close(read)
