"""Child processes that never outlive their parent.

    child = await Child.start("ingest", [sys.executable, "-m", "edge.ingest", …], log_file=paths.logs / "ingest.log")
    code = await child.wait()
    await child.stop()                       # SIGTERM, STOP_GRACE_S, SIGKILL

Must not know what it starts. The child gets PR_SET_PDEATHSIG=SIGKILL before its program begins: not by `preexec_fn`
(unsafe where the parent has threads, and it rules out vfork) but by a small Python start-up that sets it, checks that
the parent is still the one that started it, and execs the program, under the same process id. The kernel ties the
signal to the parent's *thread*: start children from the main thread's event loop only. Children have a session of their
own: Ctrl-C reaches the parent, and the parent stops them in its order.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from belvedere.chassis.logs import get_logger

log = get_logger(__name__)

STOP_GRACE_S = 3.0
"""Between SIGTERM and SIGKILL."""
KILL_TIMEOUT_S = 2.0
"""For a process to be gone after SIGKILL; longer means it hangs in the kernel, which is logged and left."""
LOG_FILE_MAX_BYTES = 16 * 1024 * 1024
"""A log file larger than this at a start is moved to `<name>.1`, over the one before."""

# argv: parent's pid, program, its arguments. 1 = PR_SET_PDEATHSIG, 9 = SIGKILL. Checking the parent after the call
# closes the race with a parent that died before it.
_STARTER = (
    "import ctypes,os,sys\n"
    "if ctypes.CDLL(None,use_errno=True).prctl(1,9,0,0,0):os._exit(126)\n"
    "if os.getppid()!=int(sys.argv[1]):os._exit(125)\n"
    "try:os.execvp(sys.argv[2],sys.argv[2:])\n"
    "except OSError as e:sys.stderr.write(f'cannot run {sys.argv[2]}: {e.strerror}\\n');os._exit(127)\n"
)


def guarded(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` so that it is killed when this process dies: for those who start processes by
    themselves."""
    return [sys.executable, "-I", "-S", "-c", _STARTER, str(os.getpid()), *argv]


class Child:
    """One running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process

    @classmethod
    async def start(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_file: Path | None = None,
        stdout: int | None = None,
        stdin: int | None = asyncio.subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> "Child":
        """Starts `argv`. Output goes to `log_file` (appended), else to this process's own stderr and stdout.

        `env` replaces the environment. `stdout=asyncio.subprocess.PIPE` keeps stdout readable as
        `child.process.stdout`. A program that does not exist ends with code 127 and a line in the log.
        """
        with contextlib.ExitStack() as stack:
            out: int | IO[Any] | None = stdout
            err: int | IO[Any] | None = None
            if log_file is not None:
                err = stack.enter_context(_open_log(log_file))
                out = err if stdout is None else stdout
            process = await asyncio.create_subprocess_exec(
                *guarded(argv),
                stdin=stdin,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env=None if env is None else dict(env),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
        return cls(name, process)

    @property
    def pid(self) -> int:
        """Process id, the same before and after the program begins."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative = ended by that signal."""
        return self.process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def wait(self) -> int:
        """Waits for its end; returns the exit code."""
        return await self.process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal; nothing happens where it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                # Not `process.send_signal`: it polls, and so takes the exit code of a process that has just ended away
                # from asyncio, which then reports 255.
                os.kill(self.process.pid, number)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> int | None:
        """SIGTERM, and after `grace_s` SIGKILL. Returns the exit code, None where even SIGKILL did not end it in
        time."""
        self.signal(signal.SIGTERM)
        for limit, then in ((grace_s, signal.SIGKILL), (KILL_TIMEOUT_S, None)):
            try:
                async with asyncio.timeout(limit):
                    return await self.wait()
            except TimeoutError:
                if then is not None:
                    log.warning("child does not stop: killing it", child=self.name, pid=self.pid, grace_s=grace_s)
                    self.signal(then)
        log.error("child survives SIGKILL", child=self.name, pid=self.pid)
        return None


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_FILE_MAX_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")
