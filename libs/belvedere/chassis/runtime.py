"""What a service is given: `create(runtime)`.

    runtime.data                     Path of the data folder     runtime.paths     CloudPaths
    runtime.bus                      Bus, account FLEET          runtime.blobs     BlobStore
    runtime.database("registry")     Database                    runtime.channel() to every peer; typed errors
    runtime.clock()                  datetime in UTC             runtime.stop      asyncio.Event, set when it ends
    runtime.ports                    Ports                       runtime.settings(Settings, "BELVEDERE_REGISTRY_")
    runtime.cloud                    CloudSettings               runtime.hub       Hub: its keys and addresses

Must not know any service. Everything here is opened and closed by the runner.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import grpc

from belvedere.chassis import settings as chassis_settings
from belvedere.chassis.database import Database
from belvedere.chassis.paths import CloudPaths
from belvedere.chassis.secret import Secret

if TYPE_CHECKING:
    from belvedere.blobs import BlobStore
    from belvedere.bus.connection import Bus
    from belvedere.bus.hub import Hub

S = TypeVar("S")


@dataclass(frozen=True)
class Ports:
    """TCP ports of the cloud side, kept in ports.json from the first start on."""

    gateway: int
    """The AWS front door, HTTP."""
    console: int
    """The live page, HTTP."""
    devices: int
    """Enrolment and blobs for appliances, HTTPS."""
    leaf: int
    """Where appliances connect, NATS leaf nodes over TLS."""
    hub: int
    """NATS clients, loopback."""


@dataclass(frozen=True)
class CloudSettings:
    """What all services of the cloud side share: BELVEDERE_<FIELD>."""

    account: str = "123456789012"
    """The account that the first start makes, 12 digits."""
    region: str = "us-east-1"
    """The region that the first start makes; ARNs carry it."""
    host: str = "127.0.0.1"
    """Address that gateway, console, device port and leaf listener bind; 0.0.0.0 for all."""
    host_names: tuple[str, ...] = ("127.0.0.1",)
    """Names and addresses by which appliances and users reach this machine, the first one preferred."""
    grpc_port: int | None = None
    """TCP port on `host` where the services' gRPC is open to holders of bearer tokens, over TLS; 0: a free one, absent: none.
    The owner's socket is always there."""
    database_url: Secret[str] | None = None
    """PostgreSQL for all services, one schema each; absent: SQLite files in the data folder."""

    @property
    def url_host(self) -> str:
        """The preferred name, as it stands in a URL."""
        name = self.host_names[0]
        return f"[{name}]" if ":" in name else name


def utc_now() -> datetime:
    """Now, with a time zone."""
    return datetime.now(UTC)


@dataclass
class Runtime:
    """Everything that services are given. One a process."""

    data: Path
    bus: "Bus"
    blobs: "BlobStore"
    hub: "Hub"
    ports: Ports
    """Where this process listens."""
    announced: Ports
    """Where appliances and users are told to go: the data folder's, whichever replica or balancer listens there."""
    open_channel: Callable[[], grpc.aio.Channel]
    cloud: CloudSettings = field(default_factory=CloudSettings)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Callable[[], datetime] = utc_now
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    replica: str = ""
    """The name of a process that does not run the hub; empty: the one that does."""
    _databases: dict[str, Database] = field(default_factory=dict)
    _channel: grpc.aio.Channel | None = None

    @property
    def paths(self) -> CloudPaths:
        """Where things lie in the data folder."""
        return CloudPaths(self.data, self.replica)

    def settings(self, cls: type[S], env: str) -> S:
        """`settings.load` with this process's environment."""
        return chassis_settings.load(cls, env, self.environ)

    def database(self, name: str) -> Database:
        """The database of service `name`, the same object each time. Its tables are there when the tasks start."""
        if name not in self._databases:
            url = self.cloud.database_url
            self._databases[name] = Database(name, url) if url else Database.at(self.paths.db / f"{name}.sqlite3", name)
        return self._databases[name]

    @property
    def databases(self) -> list[Database]:
        """All that were asked for, for the runner."""
        return list(self._databases.values())

    def channel(self) -> grpc.aio.Channel:
        """The channel to peers, one a process; don't close it. Calls carry the present caller and raise
        `chassis.errors`."""
        if self._channel is None:
            self._channel = self.open_channel()
        return self._channel

    async def close(self) -> None:
        """Closes channel and databases, these side by side: each brings what it has to the disk."""
        if self._channel is not None:
            await self._channel.close()
        async with asyncio.TaskGroup() as group:
            for database in self._databases.values():
                group.create_task(database.close())
