"""The cloud side's TCP ports: chosen once, kept in ports.json, checked before anything starts.

Must not know what listens there. A restarted cloud side is found again by its appliances because `devices` and `leaf`
never move; `--port` at a later start moves only what people open, the front door and the console.
"""

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from belvedere.bus.server import free_port
from belvedere.chassis.runtime import Ports

DEFAULT_PORT = 8700
MEANINGS = {
    "gateway": "the AWS front door",
    "console": "the live page",
    "devices": "enrolment of appliances",
    "leaf": "the link of appliances",
    "hub": "the message hub",
}
MOVABLE = ("gateway", "console")
"""What a later `--port` moves."""


class PortError(Exception):
    """A port is taken, or ports.json cannot be used; the message says what to do."""


def choose(file: Path, port: int | None) -> Ports:
    """The ports of this data folder: from `file`, else `port` (DEFAULT_PORT) and the four after it, else (0) free ones.

    Kept by `keep`, once they are known to be free: a first start that fails must not bind the next one to its ports.
    """
    ports = _read(file)
    if ports is None:
        ports = _free_ports() if port == 0 else _consecutive(port or DEFAULT_PORT)
    elif port and port != ports.gateway:
        ports = replace(ports, gateway=port, console=port + 1)
        if len(set(asdict(ports).values())) != len(MEANINGS):
            raise PortError(f"--port {port} meets another port of {file} ({ports}): give one further away.")
    return ports


def beside(file: Path, host: str, port: int | None) -> tuple[Ports, Ports]:
    """Those of a replica, and those that `file` holds, which everybody is told. A replica listens at `port` and the two
    after it (0: free ones), without at those that everybody is told where they are free: who comes first answers there."""
    told = _read(file)
    if told is None:
        raise PortError(f"{file} is not there: start the process that runs the hub (--only hub) first.")
    if port:
        return replace(told, gateway=port, console=port + 1, devices=port + 2), told
    own, free = ("gateway", "console", "devices"), asdict(_free_ports())
    return replace(told, **{name: free[name] for name in own if port == 0 or not _is_free(host, told, name)}), told


def _is_free(host: str, ports: Ports, name: str) -> bool:
    try:
        check_free(host, ports, [name], kept=True)
    except PortError:
        return False
    return True


def check_free(host: str, ports: Ports, wanted: Iterable[str], *, kept: bool) -> None:
    """Raises PortError naming the first of `wanted` (fields of Ports) that somebody else listens on. `kept`: appliances
    may know these ports already."""
    for name in wanted:
        port = getattr(ports, name)
        address = "127.0.0.1" if name == "hub" else host
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as probe:
            # As the servers do it, so that connections of the last run in TIME_WAIT do not count as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                movable = not kept or name in MOVABLE
                raise PortError(
                    f"port {port} on {address} ({MEANINGS[name]}) cannot be used: {os.strerror(error.errno or 0)}. "
                    "Stop what listens there"
                    + (", or give another --port." if movable else ": appliances of this data folder look for it.")
                ) from error


def keep(file: Path, ports: Ports) -> None:
    """For the next start."""
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps(asdict(ports), indent=2) + "\n")
    fresh.replace(file)


def _consecutive(first: int) -> Ports:
    if not 0 < first <= 65535 - len(MEANINGS):
        raise PortError(f"--port {first}: a number from 1 to {65535 - len(MEANINGS)} is needed, 0 for free ones.")
    return Ports(*range(first, first + len(MEANINGS)))


def _free_ports() -> Ports:
    found: set[int] = set()
    while len(found) < len(MEANINGS):
        found.add(free_port())
    return Ports(*found)


def _read(file: Path) -> Ports | None:
    if not file.exists():
        return None
    try:
        return Ports(**{name: int(value) for name, value in json.loads(file.read_text()).items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise PortError(
            f"{file} is damaged ({error}): appliances look for the ports in it. Restore or remove it."
        ) from error
