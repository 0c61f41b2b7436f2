"""The seam: what any sandbox does.

    sandbox = Bubblewrap(settings); await sandbox.prepare()          # raises SandboxUnavailable
    running = await sandbox.start(spec, on_line)                     # raises SandboxUnavailable
    exit = await running.wait()      |      exit = await running.stop(grace_s)

The contract: the process sees its own files, its own processes and its own loopback, and nothing else of the machine;
it has no capabilities and can gain none; its root is read-only; it ends when the supervisor does, however that ended.
Knows nothing of applications: only files, arguments and limits.
"""

from __future__ import annotations

import abc
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.supervisor.limits import Hits, LimitHit
from edge.supervisor.spec import Limits

OnLine = Callable[[str, str], None]
"""Called with "stdout" or "stderr", and a line."""
OnDropped = Callable[[int], None]
"""Called with a count of lines that came too fast to be looked at."""


def ignore_dropped(_count: int) -> None:
    """For whoever does not want to know."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the machine, at `target` in the sandbox."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class SandboxSpec:
    """What to run."""

    name: str
    """Of the host, as it appears in the sandbox."""
    rootfs: Path
    """An unpacked archive: a whole root file system, or "bare", only application files for the appliance's own base."""
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment."""
    binds: tuple[Bind, ...] = ()
    limits: Limits = field(default_factory=Limits)
    ports: tuple[int, ...] = ()
    """TCP ports of the sandbox's loopback whose listening sockets are handed out: `Running.listeners`."""


@dataclass(frozen=True)
class Exit:
    """How it ended."""

    code: int | None
    """None: by a signal."""
    signal: int | None = None
    over: LimitHit | None = None
    """Set where it was ended for reaching a limit."""
    refused: str | None = None
    """Set where the entry could not be executed: why."""

    def describe(self) -> str:
        """In words."""
        if self.signal is not None:
            known = self.signal in set(signal.Signals)
            return f"killed by signal {self.signal}" + (f" ({signal.Signals(self.signal).name})" if known else "")
        return f"exit code {self.code}"


class Running(abc.ABC):
    """A sandbox with its process."""

    listeners: Mapping[int, socket.socket]
    """Listening sockets by port; whoever started it closes them."""

    @property
    @abc.abstractmethod
    def hits(self) -> Hits:
        """Limits that were reached so far and let it go on."""

    @property
    @abc.abstractmethod
    def pid(self) -> int | None:
        """The application's process, as this machine numbers it; None: there is none, it has just ended."""

    @abc.abstractmethod
    async def socket(self) -> socket.socket:
        """A TCP socket of the sandbox's network, not yet connected: the way to a port at which the application listens.
        Raises SandboxUnavailable."""

    @abc.abstractmethod
    async def wait(self) -> Exit:
        """Waits for its end, and for the last line of its output."""

    @abc.abstractmethod
    async def stop(self, grace_s: float) -> Exit:
        """SIGTERM to the application's process; after `grace_s`, SIGKILL to all of them."""


class Sandbox(abc.ABC):
    """A way to make sandboxes."""

    name: str
    """As it is shown."""

    @abc.abstractmethod
    async def prepare(self) -> None:
        """Tries once whether sandboxes can be made here. Raises SandboxUnavailable, which says what to change."""

    @abc.abstractmethod
    async def start(self, spec: SandboxSpec, on_line: OnLine, on_dropped: OnDropped = ignore_dropped) -> Running:
        """Starts the process. Raises SandboxUnavailable; an entry that can't be executed shows in `Exit.refused`."""
