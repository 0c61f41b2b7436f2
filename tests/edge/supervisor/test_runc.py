"""runc keeps the sandbox's contract; and what is particular to it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edge.supervisor import cgroups
from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.sandbox import Sandbox
from edge.supervisor.sandbox.hostbase import HostBase
from edge.supervisor.sandbox.runc import INIT_PROGRAMS, Runc
from tests.edge.supervisor.contract import GROUPS_OWNER, SandboxContract
from tests.edge.supervisor.contract_isolation import IsolationContract
from tests.edge.supervisor.contract_limits import LimitsContract

pytestmark = pytest.mark.debian


def needed() -> str:
    """What is missing for these tests; empty: nothing."""
    if shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        return "needs the Debian package runc"
    if not any(Path(program).exists() for program in INIT_PROGRAMS):
        return "needs the Debian package tini"
    return ""


@pytest.fixture(autouse=True)
def _skip() -> None:
    if missing := needed():
        pytest.skip(missing)


class TestRunc(SandboxContract, IsolationContract, LimitsContract):
    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        found = cgroups.find(GROUPS_OWNER)
        groups = None if isinstance(found, str) else found
        if groups is None and os.geteuid() == 0:
            pytest.skip(f"root's containers need control groups: {found}")
        self.groups = groups is not None
        return Runc(HostBase(tmp_path / "base"), tmp_path / "runc", memory_check_s=0.05, groups=groups)

    @pytest.fixture
    def search_path(self, tmp_path: Path) -> str:
        return HostBase(tmp_path / "base").search_path

    def supervisor_script(self, tmp_path: Path, search_path: str) -> str:
        return f"""
            import asyncio
            from pathlib import Path
            from edge.supervisor import cgroups
            from edge.supervisor.sandbox import SandboxSpec
            from edge.supervisor.sandbox.hostbase import HostBase
            from edge.supervisor.sandbox.runc import Runc

            async def main():
                ready = asyncio.Event()
                here = Path({str(tmp_path)!r})
                found = cgroups.find({GROUPS_OWNER!r})
                groups = None if isinstance(found, str) else found
                sandbox = Runc(HostBase(here / "base"), here / "runc", groups=groups)
                environment = {{"PATH": {search_path!r}, "PYTHONUNBUFFERED": "1"}}
                argv = ("python3", "/panorama/app.py")
                spec = SandboxSpec("x", here / "rootfs", argv, environment)
                running = await sandbox.start(spec, lambda *_: ready.set())
                await ready.wait()
                print(running.pid, flush=True)
                await running.wait()

            asyncio.run(main())
        """

    async def test_what_a_killed_supervisor_left_is_taken_away(self, tmp_path: Path, sandbox: Sandbox) -> None:
        await sandbox.prepare()
        folder = tmp_path / "runc"
        (folder / "state" / "left-behind").mkdir(parents=True)
        (folder / "left-behind" / "rootfs" / "proc").mkdir(parents=True)
        await Runc(HostBase(tmp_path / "base"), folder).prepare()
        assert sorted(path.name for path in folder.iterdir()) == ["empty", "state"]
        assert list((folder / "state").iterdir()) == []

    async def test_a_missing_program_is_named_with_what_to_install(self, tmp_path: Path) -> None:
        sandbox = Runc(HostBase(tmp_path / "base"), tmp_path / "runc", program="no-such-runc")
        with pytest.raises(SandboxUnavailable, match="no-such-runc is not there: install the system packages runc and"):
            await sandbox.prepare()
