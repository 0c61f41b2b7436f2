"""One connection to NATS that never gives up.

nats-py reconnects by itself, but closes for good on a refused, revoked or expired credential and on most protocol errors.
So its own reconnecting is off, and there is one loop here for every reason to lose a connection: a new client, the same
subscriptions. What is published meanwhile waits up to its timeout and then raises `Disconnected`: nothing is buffered
behind the caller's back.

It knows subjects, bytes and headers. nats-py's own oddities are in `client`, JetStream is in `jetstream`, documents are in
`kv` and `event`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from belvedere.bus import client as nats_client
from belvedere.bus import jwt
from belvedere.bus.client import Credentials
from belvedere.bus.errors import BusError, Disconnected, InvalidDocument, NoResponders, RequestTimeout

FIRST_CONNECT_TIMEOUT_S = 15.0  # a hub that starts beside us answers within 2 s; the rest is for a slow machine
BACKOFF_FIRST_S = 0.05  # the first retry is nearly at once: most losses are restarts
BACKOFF_LAST_S = 2.0
PUBLISH_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 5.0
PENDING_MESSAGES = 65_536  # per subscription; beyond it messages are dropped and counted
PENDING_BYTES = 64 * 1024 * 1024

log = structlog.get_logger("belvedere.bus")


@dataclass(frozen=True)
class Message:
    """One message. `headers` holds NATS's own (`Nats-Sequence`, `Status`) and the sender's."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    bus: Bus | None = field(default=None, repr=False, compare=False)

    @property
    def status(self) -> int | None:
        """The status of a control answer (404, 408, 503 …), None for data."""
        code = self.headers.get("Status")
        return int(code) if code and code.isdigit() else None

    def json(self) -> Any:
        """The data as JSON; InvalidDocument if it is none."""
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise InvalidDocument(f"the message on {self.subject} is not JSON") from error

    async def respond(self, data: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Answers a request; a mapping goes as JSON. Nothing happens if no answer is wanted."""
        if self.reply and self.bus is not None:
            await self.bus.publish(self.reply, data, headers=headers)


Handler = Callable[[Message], Awaitable[None]]


@dataclass
class BusStats:
    """Counters since the bus was made."""

    connects: int = 0
    disconnects: int = 0
    dropped: int = 0
    """Messages that a subscription's handler was too slow for."""
    handler_errors: int = 0


class Subscription:
    """A standing wish to hear a subject; renewed at every reconnect until `stop`."""

    def __init__(self, bus: Bus, subject: str, queue: str, handler: Handler) -> None:
        self.subject = subject
        self._bus = bus
        self._queue = queue
        self._handler = handler
        self._live: NatsSubscription | None = None

    async def _attach(self, client: Client) -> None:
        self._live = await client.subscribe(
            self.subject,
            queue=self._queue,
            cb=self._deliver,
            pending_msgs_limit=PENDING_MESSAGES,
            pending_bytes_limit=PENDING_BYTES,
        )

    async def _deliver(self, raw: Msg) -> None:
        try:
            await self._handler(self._bus._message(raw))
        except Exception as error:
            # One bad message must not end the subscription; it is counted and logged with its traceback.
            self._bus.stats.handler_errors += 1
            log.error("a handler failed", subject=raw.subject, exc_info=error)

    async def stop(self) -> None:
        """No more messages."""
        self._bus._subscriptions.discard(self)
        live, self._live = self._live, None
        if live is not None and self._bus.connected:
            with contextlib.suppress(nats.errors.Error):  # the connection went at the same moment: nothing to end
                await live.unsubscribe()


class Bus:
    """A connection that reconnects for ever. Make it with `await Bus.connect(...)`; an async context manager."""

    def __init__(self, url: str | Sequence[str], credentials: Credentials, name: str, tls_ca: Path | None) -> None:
        self.url = url if isinstance(url, str) else ",".join(url)
        self.name = name
        self.stats = BusStats()
        self._credentials = credentials
        self._tls: ssl.SSLContext | None = ssl.create_default_context(cafile=str(tls_ca)) if tls_ca else None
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._subscriptions: set[Subscription] = set()
        self._on_connected: list[Callable[[], Awaitable[None]]] = []
        self._on_lost: set[Callable[[], None]] = set()
        self._closing = False
        self._last_error: BusError | None = None
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str | Sequence[str],
        credentials: Credentials,
        name: str,
        *,
        tls_ca: Path | None = None,
        timeout_s: float = FIRST_CONNECT_TIMEOUT_S,
    ) -> Bus:
        """Connects and stays connected. `url` is `nats://host:port` or several; `tls_ca` a PEM file, for TLS.

        Raises Refused or Disconnected when the first connection is not there after `timeout_s`.
        """
        bus = cls(url, credentials, name, tls_ca)
        bus._keeper = asyncio.create_task(bus._keep(), name=f"bus {name}")
        try:
            await bus.wait_connected(timeout_s)
        except BaseException:
            await bus.close()
            raise
        return bus

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._up.is_set()

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, bytes."""
        return self._client.max_payload if self._client is not None else jwt.DEVICE_PAYLOAD_BYTES

    def on_connected(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Calls back after every connect from now on, the subscriptions being in place."""
        self._on_connected.append(callback)

    @contextlib.contextmanager
    def on_lost(self, callback: Callable[[], None]) -> Iterator[None]:
        """Inside the block, calls back at once when the connection is lost: what was asked of the server is forgotten."""
        self._on_lost.add(callback)
        try:
            yield
        finally:
            self._on_lost.discard(callback)

    async def wait_connected(self, timeout_s: float) -> None:
        """Returns once connected; Refused or Disconnected after `timeout_s`, saying why the last attempt failed."""
        await self._current(timeout_s)

    async def publish(
        self,
        subject: str,
        data: bytes | Mapping[str, Any] = b"",
        *,
        headers: Mapping[str, str] | None = None,
        reply: str = "",
        timeout_s: float = PUBLISH_TIMEOUT_S,
    ) -> None:
        """Sends a message to whoever listens; a mapping goes as JSON. At most once: see `jetstream` for more."""
        client = await self._current(timeout_s)
        try:
            await client.publish(subject, payload(data), reply=reply, headers=dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as error:
            raise Disconnected(f"cannot publish on {subject}: {error}") from error

    async def flush(self, timeout_s: float = PUBLISH_TIMEOUT_S) -> None:
        """Returns once the server has read everything sent so far."""
        client = await self._current(timeout_s)
        try:
            await nats_client.flushed(client, timeout_s)
        except (nats.errors.Error, OSError) as error:
            raise Disconnected(f"cannot flush: {error}") from error

    async def request(
        self,
        subject: str,
        data: bytes | Mapping[str, Any] = b"",
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
        reply: str | None = None,
    ) -> Message:
        """Asks, and returns the one answer. `reply`: where it has to be sent; devices answer on `subjects.rsp(id)` only.

        Raises NoResponders at once when nobody listens, RequestTimeout when nobody answered, Disconnected.
        """
        client = await self._current(timeout_s)
        sent = dict(headers) if headers else None
        try:
            if reply is None:
                raw = await nats_client.cancellable(
                    client.request(subject, payload(data), timeout=timeout_s, headers=sent)
                )
            else:
                raw = await nats_client.request_on(client, reply, subject, payload(data), timeout_s, sent)
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody answers {subject}: the service or device is not connected") from error
        except (TimeoutError, nats.errors.TimeoutError) as error:
            raise RequestTimeout(f"no answer to {subject} within {timeout_s:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise Disconnected(f"cannot ask {subject}: {error}") from error
        message = self._message(raw)
        if message.status == 503 and not message.data:
            raise NoResponders(f"nobody answers {subject}: the service or device is not connected")
        return message

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Calls `handler` with every message, one after the other; with `queue`, one member of the group gets each."""
        subscription = Subscription(self, subject, queue, handler)
        self._subscriptions.add(subscription)
        client = self._client
        if client is not None and self.connected:
            try:
                await subscription._attach(client)
                await nats_client.flushed(client)
            except (nats.errors.Error, OSError):
                log.debug("the connection went while subscribing; the next one subscribes", subject=subject)
        return subscription

    async def close(self) -> None:
        """Ends the connection, what is still to be sent being sent first."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        client, self._client = self._client, None
        self._up.clear()
        if client is not None:
            await nats_client.close(client)

    # --- the loop ------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause = BACKOFF_FIRST_S
        while True:
            lost = asyncio.Event()
            try:
                client = await self._open(lost)
            except BusError as error:
                if str(error) != str(self._last_error):
                    log.warning("not connected", bus=self.name, reason=str(error))
                self._last_error = error
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_LAST_S)
                continue
            pause, self._last_error = BACKOFF_FIRST_S, None
            self._client = client
            self.stats.connects += 1
            self._up.set()
            for callback in list(self._on_connected):
                await self._call_back(callback)
            await lost.wait()
            self._up.clear()
            self._client = None
            self.stats.disconnects += 1
            for lost_callback in list(self._on_lost):
                lost_callback()
            self._last_error = nats_client.explain(
                client.last_error or Disconnected("the server closed the connection")
            )
            log.warning("connection lost", bus=self.name, reason=str(self._last_error))

    async def _open(self, lost: asyncio.Event) -> Client:
        client = Client()

        async def closed() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            if isinstance(error, nats.errors.SlowConsumerError):
                self.stats.dropped += 1
                if self.stats.dropped & (self.stats.dropped - 1) == 0:  # 1, 2, 4, 8 …: a flood is not logged as one
                    log.warning(
                        "a handler is too slow", bus=self.name, subject=error.subject, dropped=self.stats.dropped
                    )
            else:
                log.debug("nats", bus=self.name, error=repr(error))

        try:
            async with asyncio.timeout(nats_client.ATTEMPT_TIMEOUT_S):
                await nats_client.connect(client, self.url, self._credentials, self.name, self._tls, closed, failed)
                attached: set[Subscription] = set()
                while True:
                    for subscription in self._subscriptions - attached:
                        await subscription._attach(client)
                        attached.add(subscription)
                    await nats_client.flushed(client)
                    if self._subscriptions <= attached:  # who subscribed meanwhile has found no connection
                        break
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await nats_client.close(client)
            raise nats_client.explain(client.last_error or error) from error
        except BaseException:
            await nats_client.close(client)
            raise
        return client

    async def _call_back(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await callback()
        except Exception as error:
            log.error("a connect callback failed", bus=self.name, exc_info=error)

    async def _current(self, timeout_s: float) -> Client:
        if self._closing:
            raise Disconnected("this bus is closed")
        if self._client is not None and self._client.is_closed:
            self._up.clear()  # closed a moment ago: the keeper is about to notice
        if not self._up.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._up.wait()
            except TimeoutError:
                reason = self._last_error or Disconnected(f"{self.url} does not answer")
                raise type(reason)(f"not connected to {self.url} for {timeout_s:g} s: {reason}") from None
        assert self._client is not None
        return self._client

    def _message(self, raw: Msg) -> Message:
        return Message(raw.subject, bytes(raw.data), raw.reply or "", raw.headers or {}, self)


def payload(data: bytes | Mapping[str, Any]) -> bytes:
    """Bytes as they are, a mapping as compact JSON."""
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
