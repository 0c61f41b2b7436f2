"""Device accounts on the hub, and leases: what the registry signs and pushes. It holds the system account's connection.

Knows the keyring and the hub, no tables and no gRPC.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from belvedere.bus import jwt
from belvedere.bus.accounts import Accounts, Connections
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.bus.hub import Hub
from belvedere.bus.jwt import Kind
from belvedere.chassis.errors import Unavailable
from belvedere.chassis.logs import get_logger

PUSHES_AT_ONCE = 32  # a push takes 4 ms: ten thousand devices are back within seconds of a start

log = get_logger(__name__)


@dataclass(frozen=True)
class Lease:
    """Credentials for a while."""

    user_jwt: str
    expires: datetime


def new_account() -> str:
    """The public key of a new account. Its private half is never needed and forgotten here."""
    return jwt.new_key(Kind.ACCOUNT).public


class Issuer:
    """Signs and pushes."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._bus: Bus | None = None
        self._accounts: Accounts | None = None

    async def open(self, devices: Iterable[tuple[str, str]], heard: Callable[[Connections], Awaitable[None]]) -> None:
        """Connects as the system user, puts the accounts of (device id, account) in place, and reports their links.

        Pushing all of them at each start heals a hub that lost them, or was given a wrong one.
        """
        self._bus = await Bus.connect(self._hub.url, self._hub.system_credentials(), "registry-system")
        self._accounts = Accounts(self._bus, self._hub.keys.operator_signing.public)
        await self._accounts.watch(heard)
        slots = asyncio.Semaphore(PUSHES_AT_ONCE)

        async def push(device_id: str, account: str) -> None:
            async with slots:
                await self.open_account(device_id, account)

        pushed = list(devices)
        async with asyncio.TaskGroup() as group:
            for device_id, account in pushed:
                group.create_task(push(device_id, account))
        log.info("device accounts are in place", count=len(pushed))

    async def close(self) -> None:
        """Ends the connection."""
        if self._bus is not None:
            await self._bus.close()

    async def open_account(self, device_id: str, account: str) -> None:
        """Puts a device's account in place. Raises Unavailable."""
        await self._push(self._hub.keys.device_account_jwt(device_id, account, int(time.time())))

    async def close_account(self, device_id: str, account: str, user: str) -> None:
        """Revokes the device's user and closes its account: a live link drops within milliseconds. Raises Unavailable."""
        now = int(time.time())
        revocations = {user: now} if user else {}
        await self._push(
            self._hub.keys.device_account_jwt(device_id, account, now, revocations=revocations, closed=True)
        )

    def lease(self, device_id: str, account: str, user: str, expires: datetime) -> Lease:
        """A user JWT for the device's own key until `expires`."""
        now = int(time.time())
        signed = self._hub.keys.device_user_jwt(device_id, account, user, now, int(expires.timestamp()))
        return Lease(signed, expires)

    async def _push(self, account_jwt: str) -> None:
        if self._accounts is None:
            raise Unavailable("The registry is still starting: try again in a moment.")
        try:
            await self._accounts.push(account_jwt)
        except BusError as error:
            raise Unavailable(f"The message hub did not take a device's account: {error}") from error
