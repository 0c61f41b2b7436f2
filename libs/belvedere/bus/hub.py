"""The hub: its configuration, its keys at first start, its process.

    async with await Hub.start(HubConfig(data=Path("data"), client_port=8704, leaf_port=8703)) as hub:
        bus = await Bus.connect(hub.url, hub.services_credentials(), "registry")

nats-server in operator mode: it holds JWTs, no secrets. Services connect on loopback; appliances connect to the leaf port
over TLS. `start` returns once the hub answers, its accounts are in place and its streams exist.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from belvedere.bus import streams, tls
from belvedere.bus.accounts import Accounts
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError, ServerFailed
from belvedere.bus.jetstream import api
from belvedere.bus.keyring import Keyring, write_secret
from belvedere.bus.server import NatsServer, check, free_port
from belvedere.bus.tls import HubTls

START_TIMEOUT_S = 60.0  # 0.3 s is usual; a large store on a slow disk, or a machine with much to do, takes longer
CONNECT_TIMEOUT_S = 5.0
RETRY_S = 0.05
PORT_ATTEMPTS = 5  # a port that was free a moment ago may be taken by another process

log = structlog.get_logger("belvedere.bus.hub")


@dataclass(frozen=True)
class HubConfig:
    """How a hub runs."""

    data: Path
    """The cloud side's data folder: `nats/`, `secrets/` and `logs/` below it are used."""
    client_port: int = 0
    """For the services, on loopback. 0: a free one, told by `Hub.url`."""
    leaf_port: int = 0
    """For appliances, TLS. 0: a free one, told by `Hub.leaf_urls`."""
    leaf_host: str = "127.0.0.1"
    """The address to listen on for appliances; 0.0.0.0 for those elsewhere."""
    host_names: tuple[str, ...] = ()
    """Names and addresses by which appliances reach this machine, the first one preferred; in the certificate."""
    max_memory_bytes: int = 512 * 1024**2
    """JetStream in memory."""
    max_file_bytes: int = 20 * 1024**3
    """JetStream on disk."""


def render(config: HubConfig, keys: Keyring, certificates: HubTls, client_port: int, leaf_port: int, now: int) -> str:
    """The text of hub.conf. Pure."""
    nats = config.data.absolute() / "nats"
    quoted = {name: json.dumps(str(path)) for name, path in {
        "store": nats / "jetstream", "accounts": nats / "accounts", "certificate": certificates.certificate, "key": certificates.key,
    }.items()}  # fmt: skip
    return f"""# Written at each start by belvedere.bus.hub: changes here are lost.
server_name: hub
listen: "127.0.0.1:{client_port}"
max_payload: {streams.MAX_MESSAGE_BYTES + 64 * 1024}
ping_interval: "20s"
jetstream {{
  store_dir: {quoted["store"]}, domain: hub
  max_mem: {config.max_memory_bytes}, max_file: {config.max_file_bytes}
}}
operator: {keys.operator_jwt(now)}
system_account: {keys.system.public}
resolver: {{ type: full, dir: {quoted["accounts"]}, allow_delete: true, interval: "2m", limit: 100000 }}
resolver_preload: {{ {keys.system.public}: {keys.system_account_jwt(now)} }}
leafnodes {{
  listen: {json.dumps(f"{config.leaf_host}:{leaf_port}")}
  # Otherwise a leaf learns this address and leaves the one it was told.
  no_advertise: true
  # Longer than the defaults: after an outage all appliances come back at once.
  tls {{ cert_file: {quoted["certificate"]}, key_file: {quoted["key"]}, timeout: 20 }}
  authorization {{ timeout: 25 }}
}}
"""


class Hub:
    """A running hub."""

    server: NatsServer

    def __init__(self, config: HubConfig, keys: Keyring, certificates: HubTls, ports: tuple[int, int]) -> None:
        self.config = config
        self.keys = keys
        self.tls = certificates
        self.client_port, self.leaf_port = ports

    @classmethod
    async def start(cls, config: HubConfig) -> Hub:
        """Starts it and waits until it really answers. Raises ServerFailed with the server's last words."""
        secrets, nats = config.data / "secrets", config.data / "nats"
        secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        nats.mkdir(parents=True, exist_ok=True)
        keys, certificates = Keyring.open(secrets), tls.prepare(secrets, config.host_names)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            ports = (config.client_port or free_port(), config.leaf_port or free_port())
            conf = nats / "hub.conf"
            write_secret(conf, render(config, keys, certificates, *ports, int(time.time())).encode())
            await check(conf)
            server = await NatsServer.start("nats-server", conf, config.data / "logs" / "nats-server.log")
            hub = cls(config, keys, certificates, ports)
            hub.server = server
            try:
                await hub._until_ready()
                return hub
            except ServerFailed:
                await server.stop()
                chosen = not (config.client_port and config.leaf_port)
                if attempt == PORT_ATTEMPTS or not chosen or "address already in use" not in server.last_words():
                    raise
            except BaseException:
                await server.stop()
                raise
        raise ServerFailed("unreachable")  # the loop returns or raises

    @classmethod
    def join(cls, config: HubConfig) -> Hub:
        """The hub that another process of this data folder runs, with its keys: for a replica of the services."""
        secrets = config.data / "secrets"
        if not (secrets / "nats").is_dir():
            raise ServerFailed(f"there is no hub in {config.data} yet: start it first")
        return JoinedHub(config, Keyring.open(secrets), HubTls(secrets / "tls"), (config.client_port, config.leaf_port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where services connect."""
        return f"nats://127.0.0.1:{self.client_port}"

    @property
    def leaf_urls(self) -> list[str]:
        """Where appliances connect."""
        names = self.config.host_names or ("127.0.0.1",)
        return [f"tls://{f'[{name}]' if ':' in name else name}:{self.leaf_port}" for name in names]

    def services_credentials(self) -> Credentials:
        """For every service: account FLEET."""
        return self.keys.services_credentials(int(time.time()))

    def system_credentials(self) -> Credentials:
        """For the registry only."""
        return self.keys.system_credentials(int(time.time()))

    async def stop(self) -> None:
        """Ends the server in order; its clients should be closed by now."""
        await self.server.stop()

    async def wait(self) -> int:
        """Returns the server's exit code once it ends: unasked for, that is a failure of the whole cloud side."""
        return await self.server.wait()

    async def _until_ready(self) -> None:
        """Accounts pushed, JetStream answering, streams there."""
        ended = asyncio.create_task(self.server.wait())
        ready = asyncio.create_task(self._make_ready())
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise ServerFailed(
                f"nats-server does not answer after {START_TIMEOUT_S:g} s: {self.server.last_words()}"
            ) from None
        finally:
            if not ready.done():
                ready.cancel()
            ended.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)
        if not self.server.running or ready.cancelled():
            raise ServerFailed(f"nats-server ended at once: {self.server.last_words()}")
        if (error := ready.exception()) is not None:
            raise ServerFailed(f"the hub runs but cannot be used: {error}") from error

    async def _make_ready(self) -> None:
        async with await Bus.connect(
            self.url, self.system_credentials(), "hub-start", timeout_s=START_TIMEOUT_S
        ) as system:
            accounts = Accounts(system, self.keys.operator_signing.public)
            await accounts.push(self.keys.fleet_account_jwt(int(time.time())))
        async with await Bus.connect(
            self.url, self.services_credentials(), "hub-start", timeout_s=START_TIMEOUT_S
        ) as bus:
            while True:
                try:
                    await api(bus, "INFO", what="JetStream")
                    break
                except BusError as error:
                    log.debug("JetStream is not up yet", reason=str(error))
                    await asyncio.sleep(RETRY_S)
            await streams.ensure(bus)


class JoinedHub(Hub):
    """One that another process runs: neither stopped nor watched from here. Connections to it come back by themselves."""

    async def stop(self) -> None:
        return

    async def wait(self) -> int:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
