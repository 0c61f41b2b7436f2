"""What every sandbox must do. A kind of sandbox is tested by a subclass with a fixture `sandbox`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
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
from edge.supervisor.spec import Limits

END_S = 20.0
"""For a test's process to come up or end, on a loaded machine."""


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


class SandboxContract:
    """The suite."""

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        raise NotImplementedError

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

    async def test_the_root_is_read_only_and_tmp_is_not(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import json, tempfile
            def try_(path):
                try:
                    open(path, "w").write("x")
                    return "written"
                except OSError as error:
                    return error.strerror
            names = ["/x", "/panorama/app.py", "/usr/x", "/etc/x", "/dev/x", "/root/x", "/tmp/x", "/dev/shm/x"]
            print(json.dumps({name: try_(name) for name in names}))
        """
        result = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert [name for name, what in result.items() if what == "written"] == ["/tmp/x", "/dev/shm/x"]

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

    async def test_nothing_of_the_machine_is_seen_but_what_was_given(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        canary = tmp_path / "device" / "canary-key"
        canary.parent.mkdir()
        canary.write_text("canary-9d1c")
        own = Path(__file__).resolve()
        paths = [str(path) for path in (canary, tmp_path, own, own.parents[3] / "pyproject.toml", "/home", "/var")]
        code = f"""
            import json, os
            seen = {{path: os.path.exists(path) for path in {paths!r}}}
            found = []
            for folder, folders, files in os.walk("/"):
                if folder.startswith(("/proc", "/usr", "/lib", "/dev")):
                    folders.clear()
                found += [os.path.join(folder, name) for name in files if name == "canary-key"]
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
            commands = [open(f"/proc/{{pid}}/cmdline").read() for pid in pids]
            tests = any("pytest" in command for command in commands)
            print(json.dumps([seen, found, len(pids), tests, os.listdir("/")]))
        """
        seen, found, processes, tests_seen, root = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert not any(seen.values()), seen
        assert found == []
        assert processes <= 2 and not tests_seen
        assert not {"home", "var", "sys", "mnt", "srv", "boot"} & set(root)

    async def test_there_is_no_network_but_its_own_loopback(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as outside:
            port = outside.getsockname()[1]
            code = f"""
                import json, socket
                def try_(address):
                    try:
                        socket.create_connection(address, timeout=2).close()
                        return "connected"
                    except OSError as error:
                        return type(error).__name__
                names = [name for _, name in socket.if_nameindex()]
                print(json.dumps([try_(("127.0.0.1", {port})), try_(("192.0.2.1", 80)), names, socket.gethostname()]))
            """
            local, far, interfaces, host = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert local == "ConnectionRefusedError"
        assert far == "OSError"
        assert interfaces == ["lo"]
        assert host == "instance-1"

    async def test_a_port_that_was_asked_for_is_accepted_outside(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import socket
            for port in (8700, 8701):
                with socket.create_connection(("localhost", port), timeout=5) as connection:
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

    async def test_it_has_no_capabilities_and_can_gain_none(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import ctypes, json, os
            status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
            libc = ctypes.CDLL(None, use_errno=True)
            failures = {
                "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
                "unshare": libc.unshare(0x10000000),
                "sethostname": libc.sethostname(b"x", 1),
            }
            caps = [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")]
            print(json.dumps([caps, status["NoNewPrivs"].strip(), failures]))
        """
        caps, no_new_privileges, failures = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert caps == [0] * 5
        assert no_new_privileges == "1"
        assert set(failures.values()) == {-1}

    async def test_it_inherits_no_descriptor_but_its_output(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import json, os
            names = [(fd, os.readlink(f"/proc/self/fd/{fd}")) for fd in os.listdir("/proc/self/fd") if int(fd) < 3]
            others = [fd for fd in range(3, 1024) if os.path.exists(f"/proc/self/fd/{fd}")]
            print(json.dumps([dict(names)["0"], others]))
        """
        assert await self.answer(sandbox, self.spec(tmp_path, code, search_path)) == ["/dev/null", []]

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
        assert seen["FSIZE"] == [16 << 20] * 2
        assert seen["NPROC"] == [77, 77]
        assert number in (27, 28)  # EFBIG, ENOSPC

    async def test_who_eats_memory_is_ended_and_it_is_told_how_much(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import time
            kept = []
            while True:
                kept.append(bytearray(8 << 20))
                time.sleep(0.02)
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
        end = await running.stop(grace_s=10)
        assert end.code == 3
        assert output.text("stdout") == "ready\nstopping"

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
        self.spec(tmp_path, "import time\nprint('ready')\ntime.sleep(600)", search_path)
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
        process = psutil.Process(pid)
        supervisor.kill()
        await supervisor.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, [process], END_S)
        assert not alive

    def supervisor_script(self, tmp_path: Path, search_path: str) -> str:
        """A program that starts `rootfs` and prints the application's pid once it is ready."""
        raise NotImplementedError

    async def ready(self, sandbox: Sandbox, spec: SandboxSpec) -> tuple[Running, Output]:
        output = Output()
        running = await sandbox.start(spec, output)
        await output.saw("ready")
        return running, output
