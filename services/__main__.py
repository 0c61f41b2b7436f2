"""`python -m services --data DIR [--port N] [--only registry,packages] [--replica NAME]`: the cloud side, or some of its services, in
one process.

Prints `console http://…` and `ready http://…` on stdout when everything is up; logs go to stderr. SIGTERM and SIGINT
stop it in order, exit code 0. Exit code 1: something failed while it ran; 2: it could not start, and stderr says why.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from belvedere.bus.errors import BusError
from belvedere.chassis import logs
from belvedere.chassis.database import DatabaseError
from belvedere.chassis.paths import UnsafePath
from belvedere.chassis.settings import SettingError
from belvedere.chassis.stop import stop_on_signals
from services.runner import HUB, SERVICES, Cloud, StartError, present

log = logs.get_logger(__name__)

FAILED = 1
CANNOT_START = 2


async def serve(data: Path, services: list[str], port: int | None, replica: str = "") -> int:
    """Runs until a signal or a failure; returns the exit code."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    cloud = Cloud(data, services, port=port, stop=stop, replica=replica)
    starting = asyncio.create_task(cloud.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # Stopped while it starts: what is up already goes down in order.
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if not cloud.failed:
            return 0
    else:
        try:
            await starting
        except BaseException:
            stopping.cancel()
            raise
        _announce(cloud, services)
        await stopping
        await cloud.__aexit__(None, None, None)
    if cloud.failed:
        log.error("ended by a failure", task=cloud.failed[0])
        return FAILED
    return 0


def _announce(cloud: Cloud, services: list[str]) -> None:
    host, ports = cloud.settings.url_host, cloud.runtime.ports
    if "console" in services:
        print(f"console http://{host}:{ports.console}", flush=True)
    print(f"ready http://{host}:{ports.gateway}", flush=True)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop: uvloop where it is there (CPython on Linux and macOS), for a request costs a seventh less on it."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def main(argv: Sequence[str] | None = None) -> int:
    """The command; `argv`: the process's where None."""
    parser = argparse.ArgumentParser(prog="python -m services", description="The cloud side of Belvedere.")
    parser.add_argument("--data", type=Path, required=True, help="the data folder; made at the first start")
    parser.add_argument(
        "--port", type=int, help="first of five ports (8700): front door, console, devices, leaf, hub; 0: free ones"
    )
    parser.add_argument(
        "--only",
        help=f"these services, separated by commas, of: {', '.join(SERVICES)}; {HUB}: none, for replicas to join",
    )
    parser.add_argument(
        "--replica",
        default="",
        help="a name: joins the hub that another process of this data folder runs (docs/storage.md)",
    )
    options = parser.parse_args(argv)
    logs.configure("services")
    try:
        services = present(options.only.split(",") if options.only else SERVICES)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            return runner.run(serve(options.data, services, options.port, options.replica))
    except (StartError, SettingError, UnsafePath, DatabaseError, BusError, OSError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
