"""What a service gives to the runner: `create(runtime) -> Service` in services/<name>/service.py.

    def create(runtime: Runtime) -> Service:
        handlers = RegistryHandlers(runtime.database("registry"), runtime.bus, …)
        return Service(
            name="registry",
            servicers=[(add_RegistryServiceServicer_to_server, handlers, "belvedere.v1.RegistryService")],
            tasks=[handlers.watch_heartbeats, device_port.run],
            migrations=Path(__file__).parent / "migrations",
        )

`create` makes objects and does no I/O: no table is there yet. The order at start: create for every service → migrations
→ gRPC server → tasks → ready hooks. A task is a coroutine function without arguments that runs until cancelled (or
returns when its part is done); if it raises, the process logs it and ends in order. What must be up before the process
calls itself ready goes in `ready`. `close` runs at the end, after the tasks.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from belvedere.chassis.context import Caller

Task = Callable[[], Awaitable[Any]]
Servicer = tuple[Callable[[Any, Any], None], Any, str]
"""(add_XServicer_to_server, the servicer, full name: "belvedere.v1.XService" for health and reflection)"""


AtHand = Callable[[Caller, bytes], bytes | None]
"""(who calls, the request as it travels) -> the answer as it travels, where it is there without waiting for anything; None: it
is not, nothing was done, and the method itself is to be called."""


@dataclass(frozen=True)
class Service:
    """One service, ready to be run."""

    name: str
    """The folder's name; also the database's that it migrates."""
    servicers: Sequence[Servicer] = ()
    """gRPC servicers for the server of this process."""
    tasks: Sequence[Task] = ()
    """Run until cancelled."""
    migrations: Path | None = None
    """Folder of Alembic revisions for database `name`; None: it has no tables."""
    ready: Sequence[Task] = field(default=())
    """Awaited after the tasks were started, before the process says it is ready: "the port listens", "keys exist"."""
    close: Sequence[Task] = field(default=())
    """Awaited after the tasks have ended."""
    at_hand: Mapping[str, AtHand] = field(default_factory=dict)
    """By method path: what peers in this process may ask before they call (`chassis.local.at_hand`)."""
