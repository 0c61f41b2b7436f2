"""nats-py's client as the bus uses it: one try to connect, one question, and the ways round what nats-py gets wrong.

Knows nothing of connecting again, of subscriptions that outlive a connection, or of what a message is to us: see
`connection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.aio.client
import nats.errors
import structlog
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg

from belvedere.bus import jwt
from belvedere.bus.errors import BusError, Disconnected, Refused
from belvedere.chassis.secret import Secret

ATTEMPT_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 10.0
PING_INTERVAL_S = 5  # a peer that is silently gone is noticed after PING_INTERVAL_S * (PINGS_OUTSTANDING + 1)
PINGS_OUTSTANDING = 2

log = structlog.get_logger("belvedere.bus")
T = TypeVar("T")


@dataclass(frozen=True)
class Credentials:
    """Who connects: an nkey seed alone (a leaf's local users), or a user JWT with it (everybody else)."""

    seed: Secret[str]
    user_jwt: str | None = None

    @classmethod
    def of_key(cls, key: jwt.Key, user_jwt: str | None = None) -> Credentials:
        """Credentials of a key pair, with the JWT issued to it."""
        return cls(key.seed, user_jwt)

    @property
    def public_key(self) -> str:
        """The user's public key, `U…`."""
        return jwt.key_from_seed(self.seed.reveal()).public


async def connect(
    client: Client,
    url: str,
    credentials: Credentials,
    name: str,
    tls: ssl.SSLContext | None,
    on_closed: Callable[[], Awaitable[None]],
    on_error: Callable[[Exception], Awaitable[None]],
) -> None:
    """One try, for this client only; `url` is one or several with commas between. Raises what nats-py raises.

    nats-py's own connecting again is off: it closes for good on a refused, revoked or expired credential.
    """
    options: dict[str, Any] = {
        "servers": url.split(","),
        "name": name,
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": 0.1,
        "connect_timeout": ATTEMPT_TIMEOUT_S,
        "ping_interval": PING_INTERVAL_S,
        "max_outstanding_pings": PINGS_OUTSTANDING,
        "closed_cb": on_closed,
        "error_cb": on_error,
    }
    if tls is not None:
        options["tls"] = tls
    seed = credentials.seed.reveal()
    if credentials.user_jwt is None:
        options["nkeys_seed_str"] = seed
    else:
        options["user_credentials"] = RawCredentials(jwt.creds_text(credentials.user_jwt, jwt.key_from_seed(seed)))
    await cancellable(client.connect(**options))


async def request_on(
    client: Client, reply: str, subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None
) -> Msg:
    """Asks, and returns the one answer that comes to the subject `reply`."""
    inbox = await client.subscribe(reply, max_msgs=1)
    try:
        await client.publish(subject, data, reply=reply, headers=headers)
        return await cancellable(inbox.next_msg(timeout=timeout_s))
    finally:
        with contextlib.suppress(nats.errors.Error):  # used up by its one message, or the connection is gone
            await inbox.unsubscribe()


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """`work`, without its losing a cancellation.

    nats-py waits with `asyncio.wait_for`, which up to Python 3.11 gives the answer or raises the error, the cancellation
    forgotten, when that comes in the same turn of the loop: a task told to end would go on for ever.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        result = await work
    except Exception as error:
        if task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


async def flushed(client: Client, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
    """Returns once the server has read everything sent so far.

    Two round trips: nats-py 2.16 writes the first one's PING past what still waits to be written, which the server then
    may read only after it has answered: a subscription that was not there yet when its `subscribe` returned.
    """
    for _ in range(2):
        await cancellable(client.flush(timeout=max(1, int(timeout_s))))


async def close(client: Client) -> None:
    """Ends the connection; one that has gone already is none to end."""
    try:
        await cancellable(client.close())
    except (nats.errors.Error, OSError) as error:
        log.debug("while closing", error=repr(error))


def explain(error: Exception) -> BusError:
    """Why there is no connection, in our own errors."""
    if isinstance(error, BusError):
        return error
    text = str(error).lower()
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in text or "authentication" in text:
        return Refused(f"the server refuses these credentials ({error}): revoked, expired, or of another hub")
    return Disconnected(str(error) or type(error).__name__)
