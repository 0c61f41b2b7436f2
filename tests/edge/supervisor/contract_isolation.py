"""What no sandbox may let out, and what none may let in. A kind of sandbox is tested by a subclass with a fixture `sandbox`."""

from __future__ import annotations

import shutil
import socket
import textwrap
from pathlib import Path

from edge.supervisor.sandbox import Sandbox, seccomp
from tests.edge.supervisor.contract import SandboxCase

MACHINE = seccomp.here() or seccomp.X86_64
DENIED = {
    name: numbers[MACHINE.column]
    for name, numbers in seccomp.DENIED.items()
    # Those that would do harm, should they pass, are left to test_seccomp. The newest, which need a privilege all the same,
    # are not known to the library of Debian's runc.
    if name not in ("reboot", "vhangup", "acct", "swapoff", "syslog") and (numbers[MACHINE.column] or 999) < 450
}
CLONE, CLONE3 = seccomp.CLONE[MACHINE.column], seccomp.CLONE3[MACHINE.column]


class IsolationContract(SandboxCase):
    """The suite."""

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

    async def test_calls_that_it_has_no_use_for_are_refused_and_threads_and_children_are_not(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = f"""
            import ctypes, errno, json, socket, subprocess, threading
            status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
            libc = ctypes.CDLL(None, use_errno=True)
            def try_(number, *arguments):
                ctypes.set_errno(0)
                answer = libc.syscall(number, *arguments)
                return errno.errorcode.get(ctypes.get_errno(), "done") if answer == -1 else "done"
            found = {{name: try_(number, 0, 0, 0, 0, 0) for name, number in {DENIED!r}.items()}}
            found["clone"] = try_({CLONE}, 0x10000011, 0, 0, 0, 0)
            found["clone3"] = try_({CLONE3}, 0, 0)
            try:
                socket.socket(40, socket.SOCK_STREAM)
                found["vsock"] = "done"
            except OSError as error:
                found["vsock"] = errno.errorcode[error.errno]
            heard = []
            thread = threading.Thread(target=lambda: heard.append(subprocess.check_output(["echo", "child"], text=True)))
            thread.start()
            thread.join()
            print(json.dumps([status["Seccomp"].strip(), found, heard]))
        """
        mode, found, heard = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert mode == "2" and heard == ["child\n"]
        assert found.pop("clone3") == "ENOSYS" and found.pop("vsock") == "EAFNOSUPPORT"
        assert set(found.values()) == {"EPERM"}, found

    async def test_nothing_of_the_kernel_can_be_changed_and_little_of_it_is_seen(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import json, os
            def written(path):
                try:
                    with open(path, "r+") as file:
                        text = file.read()
                        file.write(text)
                    return True
                except OSError:
                    return False
            names = ["sysrq-trigger", "sys/vm/swappiness", "sys/kernel/core_pattern", "irq/default_smp_affinity"]
            changed = [name for name in names if written("/proc/" + name)]
            shown = []
            for name in ("kcore", "keys", "timer_list", "sched_debug"):
                try:
                    with open("/proc/" + name, "rb") as file:
                        if file.read(1):
                            shown.append(name)
                except OSError:
                    pass
            print(json.dumps([changed, shown, os.path.exists("/sys/kernel"), os.path.exists("/sys/fs/cgroup")]))
        """
        answer = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert answer == [[], [], False, False], answer

    async def test_devices_are_the_usual_ones_and_no_other_can_be_made(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        code = """
            import json, os, stat
            devices = []
            for folder, _, names in os.walk("/dev"):
                for name in names:
                    path = os.path.join(folder, name)
                    mode = os.lstat(path).st_mode
                    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                        devices.append(path)
            try:
                os.mknod("/tmp/sda", stat.S_IFBLK | 0o600, os.makedev(8, 0))
                made = "made"
            except OSError as error:
                made = error.strerror
            random = len(open("/dev/urandom", "rb").read(16))
            print(json.dumps([devices, made, random]))
        """
        devices, made, random = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        usual = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
        assert {Path(name).name for name in devices} <= usual, devices
        assert made == "Operation not permitted" and random == 16

    async def test_programs_that_change_the_user_are_ordinary_ones(
        self, sandbox: Sandbox, tmp_path: Path, search_path: str
    ) -> None:
        (tmp_path / "rootfs" / "panorama").mkdir(parents=True)
        program = tmp_path / "rootfs" / "panorama" / "su"
        shutil.copy("/bin/cat", program)
        program.chmod(0o6755)
        code = """
            import json, subprocess
            lines = [line.split() for line in open("/proc/self/mountinfo")]
            loose = [line[4] for line in lines if "nosuid" not in line[5].split(",")]
            loose = [target for target in loose if target != "/" and not target.startswith(("/dev/", "/proc/"))]
            status = subprocess.check_output(["/panorama/su", "/proc/self/status"], text=True)
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            print(json.dumps([loose, fields["Uid"].split(), fields["CapEff"].strip(), fields["NoNewPrivs"].strip()]))
        """
        loose, uid, capabilities, no_new = await self.answer(sandbox, self.spec(tmp_path, code, search_path))
        assert loose == [], loose
        assert set(uid) == {"0"} and int(capabilities, 16) == 0 and no_new == "1"

    async def test_two_applications_do_not_meet(self, sandbox: Sandbox, tmp_path: Path, search_path: str) -> None:
        host = """
            import ctypes, os, socket, time
            socket.create_server(("127.0.0.1", 9000))
            abstract = socket.socket(socket.AF_UNIX)
            abstract.bind("\\0meeting-point")
            abstract.listen()
            assert ctypes.CDLL(None).shmget(4711, 4096, 0o1666) >= 0
            open("/tmp/meeting-point", "w").close()
            open("/dev/shm/meeting-point", "w").close()
            print("ready")
            time.sleep(600)
        """
        guest = """
            import ctypes, json, os, socket
            def reaches(family, address):
                try:
                    socket.socket(family).connect(address)
                    return True
                except OSError:
                    return False
            names = [name for name in os.listdir("/proc") if name.isdigit()]
            commands = [open(f"/proc/{name}/cmdline").read() for name in names]
            print(json.dumps([
                reaches(socket.AF_INET, ("127.0.0.1", 9000)),
                reaches(socket.AF_UNIX, "\\0meeting-point"),
                ctypes.CDLL(None).shmget(4711, 4096, 0o666) >= 0,
                os.path.exists("/tmp/meeting-point"),
                os.path.exists("/dev/shm/meeting-point"),
                any("host.py" in command for command in commands),
            ]))
        """
        (tmp_path / "rootfs" / "panorama").mkdir(parents=True)
        (tmp_path / "rootfs" / "panorama" / "host.py").write_text(textwrap.dedent(host))
        argv = ("python3", "/panorama/host.py")
        running, _ = await self.ready(sandbox, self.spec(tmp_path, "", search_path, name="instance-2", argv=argv))
        answer = await self.answer(sandbox, self.spec(tmp_path, guest, search_path))
        await running.stop(0)
        assert answer == [False] * 6

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
