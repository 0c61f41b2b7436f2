"""What every sandbox must do about limits. A kind of sandbox, with control groups or without, is tested by a subclass with a
fixture `sandbox`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from edge.supervisor import limits as limits_module
from edge.supervisor.limits import tree
from edge.supervisor.sandbox import Bind, Sandbox
from edge.supervisor.spec import Limits
from tests.edge.supervisor.contract import END_S, Output, SandboxCase
from tests.support.whole import wait_for


class LimitsContract(SandboxCase):
    """The suite."""

    groups = True
    """Whether control groups keep them."""
    counted = True
    """Whether the kernel counts processes, by a group or for the user."""

    async def test_resource_limits_hold(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import json, resource
            names = ("CORE", "FSIZE", "NOFILE", "NPROC")
            limits = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}
            try:
                with open("/tmp/large", "wb") as out:
                    for _ in range(64):
                        out.write(bytes(1 << 20))
            except OSError as error:
                print(json.dumps([limits, error.errno]))
        """
        limits = Limits(disk_mb=16, pids=77)
        seen, number = await self.answer(sandbox, self.spec(tmp_path, code, search_path, limits=limits))
        assert seen["CORE"] == [0, 0]
        assert seen["FSIZE"] == [17 << 20] * 2
        assert seen["NPROC"] == [77, 77]
        assert number in (27, 28)  # EFBIG, ENOSPC

    async def test_who_eats_memory_is_ended_and_it_is_told_how_much(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import time
            kept = []
            for _ in range(45):  # less than what is asserted below, however late it is ended
                kept.append(bytearray(8 << 20))
                time.sleep(0.02)
            time.sleep(60)
        """
        limits = Limits(memory_mb=96)
        end, _ = await self.run(sandbox, self.spec(tmp_path, code, search_path, limits=limits))
        assert end.over is not None and end.over.limit == "memory_mb" and 96 <= end.over.used < 400

    async def test_memory_of_children_counts_too(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import os, time
            for _ in range(3):
                if os.fork() == 0:
                    kept = b"x" * (50 << 20)
                    time.sleep(60)
            time.sleep(60)
        """
        limits = Limits(memory_mb=120)
        end, _ = await self.run(sandbox, self.spec(tmp_path, code, search_path, limits=limits))
        assert end.over is not None and end.over.limit == "memory_mb" and end.over.used >= 120

    async def test_files_in_memory_count_as_memory(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import time
            for number in range(8):
                with open(f"/tmp/{number}", "wb") as out:
                    out.write(bytes(16 << 20))
                time.sleep(0.02)
            time.sleep(60)
        """
        limits = Limits(memory_mb=64, disk_mb=256)
        end, _ = await self.run(sandbox, self.spec(tmp_path, code, search_path, limits=limits))
        assert end.over is not None and end.over.limit == "memory_mb"

    async def test_a_bomb_of_processes_gets_no_more_than_its_number(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import os, time
            while True:
                try:
                    if os.fork() == 0:
                        time.sleep(60)
                except OSError as error:
                    print("refused", error.strerror)
                    break
            time.sleep(60)
        """
        spec = self.spec(tmp_path, code, search_path, limits=Limits(pids=24))
        output = Output()
        running = await sandbox.start(spec, output)
        waiting = asyncio.ensure_future(running.wait())
        refused = asyncio.ensure_future(output.saw("refused"))
        async with asyncio.timeout(END_S):
            await asyncio.wait((waiting, refused), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                # Where the kernel does not count, it is ended.
                refused.cancel()
                over = waiting.result().over
                assert not self.counted and over is not None and over.limit == "pids"
            else:
                await asyncio.to_thread(wait_for, "the refusal is counted", lambda: running.hits.pids)
                assert running.pid is not None and len(tree(running.pid)) <= 24
        await running.stop(0)

    @pytest.mark.parametrize("kept", [True, False], ids=["kept", "deleted"])
    async def test_who_fills_the_disk_is_ended_and_it_is_told_how_much(
        self, kept: bool, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = f"""
            import os, time
            opened = []
            for number in range(64):
                path = f"/opt/aws/panorama/storage/{{number}}"
                opened.append(open(path, "wb"))
                opened[-1].write(os.urandom(4 << 20))
                opened[-1].flush()
                if not {kept}:
                    os.unlink(path)
                time.sleep(0.02)
            time.sleep(60)
        """
        storage = tmp_path / "storage"
        storage.mkdir()
        binds = (Bind(storage, "/opt/aws/panorama/storage", writable=True),)
        spec = self.spec(tmp_path, code, search_path, limits=Limits(disk_mb=16), binds=binds)
        end, _ = await self.run(sandbox, spec)
        assert end.over is not None and end.over.limit == "disk_mb" and 16 < end.over.used <= 256
        assert "of its 16 MB on the disk" in end.over.describe()

    async def test_who_fills_the_disk_with_one_file_is_told_too(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import os
            with open("/opt/aws/panorama/storage/large", "wb") as out:
                while True:
                    out.write(os.urandom(1 << 20))
        """
        storage = tmp_path / "storage"
        storage.mkdir()
        binds = (Bind(storage, "/opt/aws/panorama/storage", writable=True),)
        spec = self.spec(tmp_path, code, search_path, limits=Limits(disk_mb=16), binds=binds)
        end, output = await self.run(sandbox, spec)
        # By itself, since the write failed, or before it had failed.
        assert end.over is not None and end.over.limit == "disk_mb", output.text("stderr")

    async def test_a_full_tmp_is_counted_and_leaves_it_running(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import time
            for number in range(4):
                try:
                    with open(f"/tmp/{number}", "wb") as out:
                        out.write(bytes(6 << 20))
                except OSError:
                    print("ready")
            time.sleep(60)
        """
        spec = self.spec(tmp_path, code, search_path, limits=Limits(disk_mb=16))
        running, _ = await self.ready(sandbox, spec)
        await asyncio.to_thread(wait_for, "the full /tmp is counted", lambda: running.hits.tmp_full == 1)
        await running.stop(0)

    async def test_who_finds_too_much_on_the_disk_may_delete_it(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        storage = tmp_path / "storage"
        storage.mkdir()
        (storage / "old").write_bytes(os.urandom(20 << 20))
        code = """
            import os, time
            time.sleep(0.5)
            os.unlink("/opt/aws/panorama/storage/old")
            time.sleep(0.5)
            print("went on")
        """
        binds = (Bind(storage, "/opt/aws/panorama/storage", writable=True),)
        spec = self.spec(tmp_path, code, search_path, limits=Limits(disk_mb=16), binds=binds)
        end, output = await self.run(sandbox, spec)
        assert (end.code, end.over, output.text("stdout")) == (0, None, "went on")

    async def test_a_share_of_the_cpu_is_kept(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import os, time
            print("ready")
            begun, end = time.process_time(), time.monotonic() + 1
            while time.monotonic() < end:
                pass
            print(len(os.sched_getaffinity(0)), time.process_time() - begun)
        """
        spec = self.spec(tmp_path, code, search_path, limits=Limits(cpu=0.25))
        running, output = await self.ready(sandbox, spec)
        pid = running.pid
        assert pid is not None
        quota = cpu_quota(pid) if self.groups else ""
        async with asyncio.timeout(END_S):
            await running.wait()
        cores, used_s = output.lines[-1][1].split()
        if self.groups:
            assert quota == "25000" and float(used_s) < 0.6
        else:
            assert cores == "1"

    async def test_a_share_of_the_cpu_that_is_used_up_is_counted(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Less than it gets on a machine so busy that nobody gets a quarter of a core.
        monkeypatch.setattr(limits_module, "CPU_USED_UP", 0.02)
        code = """
            import time
            print("ready")
            end = time.monotonic() + 60
            while time.monotonic() < end:
                pass
        """
        spec = self.spec(tmp_path, code, search_path, limits=Limits(cpu=0.02))
        running, _ = await self.ready(sandbox, spec)
        await asyncio.to_thread(wait_for, "it is counted", lambda: running.hits.cpu_throttled_ms > 0)
        await running.stop(0)


def cpu_quota(pid: int) -> str:
    """Microseconds in 100,000, as the kernel was told for this process's group."""
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "cpu" in controllers.split(","):
            return (_mounted("cgroup", "cpu") / path[1:] / "cpu.cfs_quota_us").read_text().strip()
    return (_mounted("cgroup2") / groups[-1][2][1:] / "cpu.max").read_text().split()[0]


def _mounted(kind: str, controller: str = "") -> Path:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        words = after.split(" ")
        if words[0] == kind and (not controller or controller in words[2].split(",")):
            return Path(before.split(" ")[4])
    raise AssertionError(f"no {kind} is mounted")
