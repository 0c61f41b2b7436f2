"""What every sandbox must do. A kind of sandbox is tested by a subclass with a fixture `sandbox`."""

from __future__ import annotations

import abc
import asyncio
import json
import os
import signal
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge.supervisor.environment import DEFAULT_PATH
from edge.supervisor.sandbox import Bind, Exit, Running, Sandbox, SandboxSpec

END_S = 40.0
"""For a test's process to come up or end, on a loaded machine."""
GROUPS_OWNER = f"test{os.getpid()}"
"""Of control groups: suites that run beside each other have the same names of sandboxes."""


class Output:
    """Lines of a sandbox, with a way to wait for one."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, source: str, line: str) -> None:
        self.lines.append((source, line))
        self._changed.set()

    def text(self, source: str | None = None) -> str:
        return "\n".join(line for name, line in self.lines if source in (None, name))

    async def saw(self, line: str) -> None:
        async with asyncio.timeout(END_S):
            while not any(line in seen for _, seen in self.lines):
                self._changed.clear()
                await self._changed.wait()


class SandboxCase(abc.ABC):
    """What the suites share."""

    @abc.abstractmethod
    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        """Of the kind under test."""

    @pytest.fixture
    def search_path(self) -> str:
        return DEFAULT_PATH

    def spec(self, tmp_path: Path, code: str, search_path: str, **changes: Any) -> SandboxSpec:
        rootfs = tmp_path / "rootfs"
        (rootfs / "panorama").mkdir(parents=True, exist_ok=True)
        (rootfs / "panorama" / "app.py").write_text(textwrap.dedent(code))
        values: dict[str, Any] = {
            "name": "instance-1",
            "rootfs": rootfs,
            "argv": ("python3", "/panorama/app.py"),
            "environment": {"PATH": search_path, "PYTHONUNBUFFERED": "1"},
        }
        return SandboxSpec(**{**values, **changes})

    async def run(self, sandbox: Sandbox, spec: SandboxSpec) -> tuple[Exit, Output]:
        output = Output()
        running = await sandbox.start(spec, output)
        async with asyncio.timeout(END_S):
            return await running.wait(), output

    async def answer(self, sandbox: Sandbox, spec: SandboxSpec) -> Any:
        """What the code prints, as JSON."""
        end, output = await self.run(sandbox, spec)
        assert end.code == 0, output.text()
        return json.loads(output.text("stdout"))

    async def ready(self, sandbox: Sandbox, spec: SandboxSpec) -> tuple[Running, Output]:
        output = Output()
        running = await sandbox.start(spec, output)
        await output.saw("ready")
        return running, output


class SandboxContract(SandboxCase):
    """The suite."""

    async def test_an_application_runs_with_its_arguments_its_environment_and_the_root_as_its_folder(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ), os.getcwd()]))"
        environment = {"PATH": search_path, "COLOUR": "blue sky"}
        spec = self.spec(
            tmp_path, code, search_path, argv=("python3", "/panorama/app.py", "a b", "c"), environment=environment
        )
        argv, seen, folder = await self.answer(sandbox, spec)
        assert argv == ["/panorama/app.py", "a b", "c"]
        assert {name: value for name, value in seen.items() if name not in ("PWD", "LC_CTYPE", "HOME")} == environment
        assert folder == "/"

    async def test_output_and_exit_code_arrive_whole(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import sys
            print("to output")
            print("to error", file=sys.stderr)
            sys.stdout.write("no end of line")
            sys.exit(7)
        """
        end, output = await self.run(sandbox, self.spec(tmp_path, code, search_path))
        assert (end.code, end.signal, end.refused) == (7, None, None)
        assert output.text("stdout") == "to output\nno end of line"
        assert output.text("stderr") == "to error"

    async def test_an_end_by_a_signal_is_told(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        end, _ = await self.run(sandbox, self.spec(tmp_path, code, search_path))
        assert (end.code, end.signal) == (None, signal.SIGSEGV)
        assert end.describe() == "killed by signal 11 (SIGSEGV)"

    async def test_an_entry_that_is_not_there_is_refused_with_the_reason(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        spec = self.spec(tmp_path, "", search_path, argv=("python2.6", "/panorama/app.py"))
        end, _ = await self.run(sandbox, spec)
        assert end.refused is not None and "python2.6" in end.refused and "No such file" in end.refused

    async def test_a_writable_folder_keeps_what_is_written_and_a_read_only_one_takes_nothing(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        storage, shown = tmp_path / "storage", tmp_path / "shown"
        storage.mkdir()
        shown.mkdir()
        (shown / "given").write_text("from outside")
        code = """
            import json
            open("/opt/aws/panorama/storage/kept", "w").write(open("/run/shown/given").read())
            try:
                open("/run/shown/given", "a")
            except OSError as error:
                print(json.dumps(error.strerror))
        """
        binds = (Bind(storage, "/opt/aws/panorama/storage", writable=True), Bind(shown, "/run/shown"))
        spec = self.spec(tmp_path, code, search_path, binds=binds)
        assert await self.answer(sandbox, spec) == "Read-only file system"
        assert (storage / "kept").read_text() == "from outside"

    async def test_a_port_that_was_asked_for_is_accepted_outside(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import socket
            for port in (8700, 8701):
                with socket.create_connection(("localhost", port), timeout=30) as connection:
                    print(connection.recv(100).decode())
        """
        output = Output()
        running = await sandbox.start(self.spec(tmp_path, code, search_path, ports=(8700, 8701)), output)
        assert sorted(running.listeners) == [8700, 8701]
        for port, listener in running.listeners.items():
            with listener:
                listener.setblocking(False)
                async with asyncio.timeout(END_S):
                    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                connection.sendall(f"from outside {port}\n".encode())
                connection.close()
        async with asyncio.timeout(END_S):
            await running.wait()
        assert output.text("stdout").split("\n\n") == ["from outside 8700", "from outside 8701\n"] or (
            output.text("stdout").replace("\n\n", "\n").strip() == "from outside 8700\nfrom outside 8701"
        )

    async def test_a_port_of_its_own_can_be_reached_from_outside(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import socket
            with socket.create_server(("127.0.0.1", 8080)) as server:
                print("ready")
                connection, address = server.accept()
                connection.sendall(connection.recv(100).upper())
        """
        running, _ = await self.ready(sandbox, self.spec(tmp_path, code, search_path))
        with await running.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", 8080))
            await loop.sock_sendall(sock, b"from outside")
            async with asyncio.timeout(END_S):
                assert await loop.sock_recv(sock, 100) == b"FROM OUTSIDE"
                assert (await running.wait()).code == 0

    async def test_a_stop_lets_it_end_by_itself(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        code = """
            import signal, sys, time
            def stop(*_):
                print("stopping")
                sys.exit(3)
            signal.signal(signal.SIGTERM, stop)
            print("ready")
            time.sleep(60)
        """
        running, output = await self.ready(sandbox, self.spec(tmp_path, code, search_path))
        assert psutil.Process(running.pid).cmdline()[-1] == "/panorama/app.py"
        end = await running.stop(grace_s=END_S)
        assert end.code == 3
        assert output.text("stdout") == "ready\nstopping"
        assert running.pid is None, "whoever asks is not given another process of the sandbox"

    async def test_who_ignores_the_stop_is_killed_with_all_its_children(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import os, signal, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            print("ready")
            time.sleep(600)
        """
        running, _ = await self.ready(sandbox, self.spec(tmp_path, code, search_path))
        family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        began = time.monotonic()
        end = await running.stop(grace_s=0.3)
        assert 0.25 < time.monotonic() - began < END_S
        assert end.signal == signal.SIGKILL
        assert len(family) == 2
        assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)

    async def test_it_ends_when_its_supervisor_is_killed(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        """The supervisor is a process of its own here, that starts a sandbox of the same kind."""
        code = """
            import os, time
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            print("ready")
            time.sleep(600)
        """
        self.spec(tmp_path, code, search_path)
        script = tmp_path / "supervisor.py"
        script.write_text(textwrap.dedent(self.supervisor_script(tmp_path, search_path)))
        root = Path(__file__).resolve().parents[3]
        environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": f"{root}:{root / 'libs'}"}
        supervisor = await asyncio.create_subprocess_exec(
            sys.executable, str(script), stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert supervisor.stdout is not None
        async with asyncio.timeout(END_S):
            pid = int(await supervisor.stdout.readline())
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        assert len(family) == 2
        supervisor.kill()
        await supervisor.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, END_S)
        assert not alive

    @abc.abstractmethod
    def supervisor_script(self, tmp_path: Path, search_path: str) -> str:
        """A program that starts `rootfs` and prints the application's pid once it is ready."""
