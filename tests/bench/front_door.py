"""F1–F3, F5: what the front door answers, beside moto's server and a bare echo of the same bytes.

Raw: requests signed beforehand over kept connections, so that the server alone is measured. boto3: what a script sees,
most of it boto3's own. A different device each round; servers on one core, whoever asks on the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlmodel import col, select

from belvedere.chassis.context import Caller, acting_as
from belvedere.chassis.database import Database
from belvedere.chassis.paths import CloudPaths
from belvedere.chassis.rpc import open_channel
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry.store import DeviceRow
from tests.bench import machine, raw, servers
from tests.bench.peers import PeerAbsent
from tests.bench.raw import Request
from tests.bench.result import LIMIT, Line, Report, compared
from tests.bench.servers import Server

ROUNDS = 7
RAW_ROUND_S = 0.5
BOTO_CALLS = 60
"""A round."""
FEW, MANY = 200, 10_000
FILL_CONCURRENCY = 16
ADMIN = Caller("123456789012", servers.REGION, "arn:aws:iam::123456789012:user/admin", "bench")
MEMORY_REACH_MB = 250
LISTINGS: Mapping[str, Mapping[str, str | int]] = {
    "newest first": {},
    "by name": {"SortBy": "NAME"},
    "by id, last first": {"SortBy": "DEVICE_ID", "SortOrder": "DESCENDING"},
    "by status": {"SortBy": "DEVICE_AGGREGATED_STATUS"},
    "online ones": {"DeviceAggregatedStatusFilter": "ONLINE"},
    "online ones by name": {"DeviceAggregatedStatusFilter": "ONLINE", "SortBy": "NAME"},
    "expired ones": {"DeviceAggregatedStatusFilter": "LEASE_EXPIRED"},
    "a name's beginning": {"NameFilter": "device-"},
}
PAGES = 8
"""Of each listing and round: as many as 200 devices have."""


def f1_f2(folder: Path) -> Report:
    """DescribeDevice and ListDevices with 200 devices."""
    with _parties(folder) as (parties, devices, notes):
        lines: list[Line] = []
        for name, reach, requests in (
            ("F1", "≥ 5× moto", {p.name: Request("panorama", "GET", f"/devices/{devices[p.name]}") for p in parties}),
            (
                "F2",
                "≥ 20× moto",
                {p.name: Request("panorama", "GET", "/devices", {"MaxResults": 25}) for p in parties},
            ),
            # Not equal work: a page of ours has 25 devices, one of moto's 123. For information, without an aim.
            ("F2", "", {p.name: Request("panorama", "GET", "/devices") for p in parties}),
        ):
            what = "DescribeDevice" if name == "F1" else f"ListDevices({FEW})"
            if name == "F2":
                what += ", pages of 25" if requests["ours"].parameters else ", no MaxResults (ours: 25, moto: 123)"
            with _with_echo(folder, parties, requests) as (everybody, asked):
                for connections in (1, 8):
                    lines += _raw_lines(name, what, reach, everybody, asked, connections)
                if requests["ours"].parameters or name == "F1":
                    lines.append(_boto_line(name, what, everybody, devices))
    return Report(lines, notes)


def f3_f5(folder: Path) -> Report:
    """ListDevices with 10,000 devices against 200, and the memory of the cloud side that holds them."""
    pages: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        sized = {}
        for count in (FEW, MANY):
            place = folder / str(count)
            place.mkdir()
            server = stack.enter_context(servers.ours(place))
            asyncio.run(_fill(place / "cloud", count))
            sized[count] = server
        for what, parameters in LISTINGS.items():
            rounds: dict[str, list[float]] = {"few": [], "many": []}
            for turn in range(ROUNDS):
                pair = (("few", FEW), ("many", MANY))
                for name, count in pair if turn % 2 else pair[::-1]:
                    # Another size each round: an answer that is remembered would say nothing.
                    rounds[name].append(_page_ms(sized[count], {**parameters, "MaxResults": 25 - turn}))
            pages[what] = rounds
        lines = [
            Line(
                "F3",
                f"ListDevices p50 a page, {what}: {MANY} devices",
                "ms",
                statistics.median(rounds["many"]),
                {f"{FEW} devices": statistics.median(rounds["few"])},
                None,
                {
                    f"{FEW} devices": statistics.median(
                        m / f for m, f in zip(rounds["many"], rounds["few"], strict=True)
                    )
                },
                compared("", "", "", {"ours": rounds["many"]}).spread,
                "≤ 1.3×",
            )
            for what, rounds in pages.items()
        ]
        memory = machine.resident_mb(sized[MANY].pid)
        small = machine.resident_mb(sized[FEW].pid)
    lines.append(
        Line(
            "F5",
            f"resident memory of the cloud process after {MANY} devices were made and listed",
            "MB",
            memory,
            {f"{FEW} devices": small},
            None,
            {f"{FEW} devices": memory / small},
            reach=f"< {MEMORY_REACH_MB} MB",
        )
    )
    return Report(lines)


@contextlib.contextmanager
def _parties(folder: Path) -> Iterator[tuple[list[Server], dict[str, str], list[str]]]:
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        parties = [stack.enter_context(servers.ours(folder))]
        try:
            parties.append(stack.enter_context(servers.moto(folder)))
        except PeerAbsent as absent:
            notes.append(f"left out: {absent}")
        devices = {}
        for party in parties:
            client = party.client("panorama")
            for number in range(FEW):
                made = client.provision_device(Name=f"device-{number:05d}", Description="a bench", Tags={"site": "a"})
                devices[party.name] = made["DeviceId"]
        yield parties, devices, notes


@contextlib.contextmanager
def _with_echo(
    folder: Path, parties: Sequence[Server], requests: Mapping[str, Request]
) -> Iterator[tuple[list[Server], dict[str, Request]]]:
    """With the bare echo of what we answer to this request."""
    reply = raw.answer(parties[0], requests["ours"])
    with servers.echo(folder, reply) as limit:
        yield [*parties, limit], {**requests, LIMIT: requests["ours"]}


def _raw_lines(
    id: str, what: str, reach: str, parties: Sequence[Server], requests: Mapping[str, Request], connections: int
) -> list[Line]:
    rates: dict[str, list[float]] = {party.name: [] for party in parties}
    cpu: dict[str, list[float]] = {party.name: [] for party in parties}
    with machine.on(machine.CLIENT_CORE):
        for party in parties:
            raw.load(party, requests[party.name], connections, 0.2)  # warm
        for _ in range(ROUNDS):
            for party in parties:
                before = machine.cpu_seconds(party.pid)
                done = raw.load(party, requests[party.name], connections, RAW_ROUND_S)
                rates[party.name].append(done.rate)
                cpu[party.name].append((machine.cpu_seconds(party.pid) - before) / done.answers * 1000)
    many = f"{connections} connection{'s' * (connections > 1)}"
    lines = [compared(id, f"{what}, raw, {many}", "1/s", rates, reach=reach)]
    if connections == 1:
        lines.append(compared(id, f"{what}, raw: the server's CPU a request", "ms", cpu))
    return lines


def _boto_line(id: str, what: str, parties: Sequence[Server], devices: Mapping[str, str]) -> Line:
    clients = {party.name: party.client("panorama") for party in parties}
    rounds: dict[str, list[float]] = {party.name: [] for party in parties}
    with machine.on(machine.CLIENT_CORE):
        for number in range(ROUNDS + 1):
            for party in parties:
                client, device = clients[party.name], devices.get(party.name, devices["ours"])
                call: Callable[[], Any] = (
                    partial(client.describe_device, DeviceId=device)
                    if id == "F1"
                    else partial(client.list_devices, MaxResults=25)
                )
                started = time.perf_counter()
                for _ in range(BOTO_CALLS):
                    call()
                if number:  # the first is warm-up
                    rounds[party.name].append(BOTO_CALLS / (time.perf_counter() - started))
    return compared(id, f"{what}, boto3, 1 client", "1/s", rounds)


def _page_ms(server: Server, parameters: Mapping[str, str | int]) -> float:
    """The median time of the first pages of a listing, each asked for once."""
    times: list[float] = []
    token = ""
    with machine.on(machine.CLIENT_CORE):
        for _ in range(PAGES):
            asked = {**parameters, **({"NextToken": token} if token else {})}
            request = Request("panorama", "GET", "/devices", asked)
            started = time.perf_counter()
            answer = json.loads(raw.answer(server, request))
            times.append((time.perf_counter() - started) * 1000)
            token = answer.get("NextToken") or ""
            if not token:
                break
    return statistics.median(times)


@dataclass(frozen=True)
class _State:
    """What some of the devices are in."""

    provisioning: str
    connected: bool
    lease: timedelta | None


_STATES = (
    _State("SUCCEEDED", True, timedelta(days=5)),
    _State("SUCCEEDED", True, timedelta(days=5)),
    _State("SUCCEEDED", False, timedelta(days=5)),
    _State("SUCCEEDED", False, -timedelta(days=5)),
    _State("PENDING", False, timedelta(days=5)),
)


async def _fill(data: Path, count: int) -> None:
    """Devices made by the registry's own gRPC in the running process; then most of them are given the state of
    appliances that have been there, as its own store would write it."""
    paths = CloudPaths(data)
    channel = open_channel(f"unix:{paths.grpc_socket}")
    registry = RegistryServiceStub(channel)
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await registry.ProvisionDevice(
                pb.ProvisionDeviceRequest(name=f"device-{number:05d}", description="a bench", tags={"site": "a"})
            )

    try:
        with acting_as(ADMIN):
            await asyncio.gather(*(work() for _ in range(FILL_CONCURRENCY)))
    finally:
        await channel.close()
    database, now = Database.at(paths.db / "registry.sqlite3", "registry"), datetime.now(UTC)
    try:
        async with database.session() as session, session.begin():
            for number, row in enumerate((await session.exec(select(DeviceRow).order_by(col(DeviceRow.name)))).all()):
                state = _STATES[number % len(_STATES)]
                row.provisioning, row.connected = state.provisioning, state.connected
                row.lease_expires = now + state.lease if state.lease else None
                row.software_version = "7.0.1"
                session.add(row)
    finally:
        await database.close()
