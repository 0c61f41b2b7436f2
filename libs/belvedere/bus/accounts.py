"""The system account's view: pushing accounts into the hub, and hearing when their links come and go.

Only the hub's start and the registry use it. The resolver takes any well-formed account JWT from the system user, one
signed by a stranger too, and would lock the account out at the next restart: the issuer is checked here first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from belvedere.bus import jwt, subjects
from belvedere.bus.connection import Bus, Message, Subscription
from belvedere.bus.errors import BusError, InvalidDocument

PUSH_TIMEOUT_S = 5.0


class PushRefused(BusError):
    """The resolver did not take an account."""


@dataclass(frozen=True)
class Connections:
    """How many links an account has on the hub now."""

    account: str
    """Its public key, `A…`."""
    connections: int
    leafs: int


class Accounts:
    """Accounts on the hub. `bus` is connected as the system user."""

    def __init__(self, bus: Bus, issuer: str) -> None:
        self._bus = bus
        self._issuer = issuer

    async def push(self, account_jwt: str) -> None:
        """Puts an account in place, at once; its revocations end live links. Raises PushRefused, InvalidDocument."""
        claims = jwt.decode(account_jwt)
        if claims["iss"] != self._issuer or claims["nats"].get("type") != "account":
            raise InvalidDocument("only accounts signed by this hub's operator are pushed")
        answer = await self._bus.request(subjects.SYS_CLAIMS_UPDATE, account_jwt.encode(), timeout_s=PUSH_TIMEOUT_S)
        body = answer.json()
        if int(body.get("data", {}).get("code", 0)) != 200:
            reason = body.get("error", body.get("data"))
            raise PushRefused(f"the hub refuses account {claims['name']}: {reason}")

    async def watch(self, handler: Callable[[Connections], Awaitable[None]]) -> Subscription:
        """Calls `handler` whenever the number of an account's links changes."""

        async def heard(message: Message) -> None:
            body = message.json()
            account = str(body.get("acc") or message.subject.split(".")[2])
            await handler(Connections(account, int(body.get("conns", 0)), int(body.get("leafnodes", 0))))

        return await self._bus.subscribe(subjects.SYS_ACCOUNT_CONNECTIONS_ALL, heard)
