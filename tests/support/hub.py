"""A real hub, and real leaves, for tests.

async with running_hub(tmp_path) as hub:
    await hub.bus.publish(...)                      # account FLEET, as the services are
    other = await hub.connect("another service")
async with running_leaf(hub, tmp_path / "leaf", "device-a") as leaf:
    await leaf.bus.publish("up.device-a.heartbeat") # what the appliance's processes have
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from belvedere.bus import jwt, leaf, subjects
from belvedere.bus.accounts import Accounts
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError, Disconnected, NoResponders, Refused
from belvedere.bus.hub import Hub, HubConfig
from belvedere.bus.jwt import Key, Kind
from belvedere.bus.keyring import write_secret
from belvedere.bus.kv import get_target
from belvedere.bus.server import NatsServer, free_port

LISTENING_S = 30.0
"""For a link and what is subscribed behind it, on a loaded machine."""
LOOK_EVERY_S = 0.05


@dataclass
class RunningHub:
    """What a test works with."""

    hub: Hub
    bus: Bus
    """Account FLEET."""
    data: Path
    _opened: list[Bus] = field(default_factory=list)

    async def connect(self, name: str = "test", credentials: Credentials | None = None) -> Bus:
        """Another connection, closed at the end."""
        bus = await Bus.connect(self.hub.url, credentials or self.hub.services_credentials(), name)
        self._opened.append(bus)
        return bus

    async def system(self) -> Accounts:
        """The system account, as the registry has it."""
        bus = await self.connect("system", self.hub.system_credentials())
        return Accounts(bus, self.hub.keys.operator_signing.public)


@dataclass
class RunningLeaf:
    """An appliance's nats-server, linked to the hub."""

    device_id: str
    bus: Bus
    """As the appliance's processes have it: account DEV behind the leaf."""
    server: NatsServer
    folder: Path
    account: str
    user: Key


@asynccontextmanager
async def running_hub(data: Path, *, client_port: int = 0, leaf_port: int = 0) -> AsyncIterator[RunningHub]:
    """A hub on the data folder `data`; on the same folder and ports again it is the same hub after a restart."""
    async with await Hub.start(HubConfig(data, client_port=client_port, leaf_port=leaf_port)) as hub:
        bus = await Bus.connect(hub.url, hub.services_credentials(), "test")
        running = RunningHub(hub, bus, data)
        try:
            yield running
        finally:
            for opened in (*running._opened, bus):
                await opened.close()


@asynccontextmanager
async def running_leaf(
    hub: RunningHub, folder: Path, device_id: str, *, lease_s: int = 3600, wait: bool = True
) -> AsyncIterator[RunningLeaf]:
    """A device with an account, pushed to the hub, and its leaf. `wait`: until the link is there."""
    now, account, user = int(time.time()), jwt.new_key(Kind.ACCOUNT).public, jwt.new_key(Kind.USER)
    accounts, keys = await hub.system(), hub.hub.keys
    await accounts.push(keys.device_account_jwt(device_id, account, now))
    user_jwt = keys.device_user_jwt(device_id, account, user.public, now, now + lease_s)
    folder.mkdir(parents=True, exist_ok=True)
    creds = folder / "device.1.creds"
    write_secret(creds, jwt.creds_text(user_jwt, user).encode())
    async with running_leaf_with(hub, folder, device_id, creds) as (server, bus):
        found = RunningLeaf(device_id, bus, server, folder, account, user)
        if wait:
            await linked(bus)
        yield found


@asynccontextmanager
async def running_leaf_with(
    hub: RunningHub, folder: Path, device_id: str, creds: Path
) -> AsyncIterator[tuple[NatsServer, Bus]]:
    """A leaf with these credentials, whatever they are."""
    local, port = jwt.new_key(Kind.USER), free_port()
    config = leaf.write(
        folder,
        device_id=device_id,
        port=port,
        users=[local.public],
        leaf_urls=hub.hub.leaf_urls,
        credentials=creds,
        tls_ca=hub.hub.tls.ca,
    )
    server = await NatsServer.start(f"leaf {device_id}", config, folder / "leaf.log")
    try:
        async with await Bus.connect(f"nats://127.0.0.1:{port}", Credentials.of_key(local), "edge") as bus:
            yield server, bus
    finally:
        await server.stop()


async def linked(bus: Bus, timeout_s: float = LISTENING_S) -> None:
    """Returns once the device's imports answer, which they do only over the link."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                await get_target(bus, timeout_s=1.0)
                return
            except BusError:
                await asyncio.sleep(LOOK_EVERY_S)  # refused at once, and nobody tells when that changes


async def refusal(url: str, credentials: Credentials) -> Refused:
    """What a server says to these credentials. A bus tries again for as long as it is given, and tells then: a short time, and
    a long one where no answer came within that."""
    for timeout_s in (0.4, 5.0, LISTENING_S):
        try:
            bus = await Bus.connect(url, credentials, "stranger", timeout_s=timeout_s)
        except Refused as error:
            return error
        except Disconnected:
            continue
        await bus.close()
        raise AssertionError("these credentials are taken")
    raise AssertionError(f"{url} does not answer")


async def answered(hub: RunningHub, device_id: str, subject: str, body: Mapping[str, Any]) -> Message:
    """What the device answers to the hub, once its server has told the hub that somebody listens there."""
    async with asyncio.timeout(LISTENING_S):
        while True:
            try:
                return await hub.bus.request(subject, body, reply=subjects.rsp(device_id))
            except NoResponders:
                await asyncio.sleep(LOOK_EVERY_S)  # refused at once, and nobody tells when that changes
