"""JetStream over plain requests: publish with an acknowledgement, streams, pull consumers.

nats-py's own helpers hold on to one client and do not work across domains; these go through `Bus.request`, so they
outlive reconnects and work on a device, whose imports are ordinary subjects.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import (
    BusError,
    Disconnected,
    NoResponders,
    RequestTimeout,
    StreamError,
    StreamNotFound,
    WrongRevision,
)

API_TIMEOUT_S = 5.0
FETCH_EXPIRES_S = 30.0  # how long one pull stays open at the server
HEARTBEAT_S = 5.0  # the server's sign of life within a pull; three missing ones mean that the pull is lost
RESTART_PAUSE_S = 0.5  # between attempts to open a consumer that is not there
NOT_FOUND_CODES = {10059, 10014, 10037}  # stream, consumer, message
NOT_READY_CODES = {10008}
WRONG_SEQUENCE_CODES = {10071, 10164}

MSG_ID = "Nats-Msg-Id"
EXPECTED_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True)
class PubAck:
    """What JetStream says once a message is stored."""

    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True)
class StoredMessage:
    """A message out of a stream."""

    subject: str
    data: bytes
    sequence: int
    headers: Mapping[str, str] = field(default_factory=dict)
    timestamp_ns: int = 0
    """Unix nanoseconds at which the stream stored it."""
    delivered: int = 1
    """How often this consumer has handed it out."""
    pending: int = 0
    """How many more messages wait behind it."""
    _ack: str = ""
    _bus: Bus | None = field(default=None, repr=False, compare=False)

    async def ack(self) -> None:
        """Done with it: it is not delivered again."""
        await self._answer(b"+ACK")

    async def nak(self, delay_s: float = 0.0) -> None:
        """Not now: deliver it again after `delay_s`."""
        await self._answer(b'-NAK {"delay": %d}' % int(delay_s * 1e9) if delay_s else b"-NAK")

    async def term(self) -> None:
        """Never again: it cannot be processed."""
        await self._answer(b"+TERM")

    async def _answer(self, word: bytes) -> None:
        if self._bus is not None and self._ack:
            await self._bus.publish(self._ack, word)


async def publish_stored(
    bus: Bus,
    subject: str,
    data: bytes | Mapping[str, Any],
    *,
    msg_id: str | None = None,
    expected_revision: int | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = API_TIMEOUT_S,
) -> PubAck:
    """Publishes and waits until a stream has stored it.

    `msg_id`: a second copy within the stream's duplicate window is dropped (`PubAck.duplicate`).
    `expected_revision`: the sequence of the last message on this subject, 0 for none; WrongRevision if it is another.
    Raises NoResponders when no stream listens on `subject`.
    """
    all_headers = dict(headers or {})
    if msg_id is not None:
        all_headers[MSG_ID] = msg_id
    if expected_revision is not None:
        all_headers[EXPECTED_SUBJECT_SEQUENCE] = str(expected_revision)
    answer = await bus.request(subject, data, headers=all_headers, timeout_s=timeout_s)
    body = answer.json()
    _raise_error(body, f"cannot store on {subject}")
    return PubAck(str(body["stream"]), int(body["seq"]), bool(body.get("duplicate", False)))


async def api(bus: Bus, subject: str, body: Mapping[str, Any] | None = None, *, what: str) -> dict[str, Any]:
    """One call of the JetStream API: `subject` without its `$JS.API.` front. Raises StreamError."""
    answer = await bus.request(f"$JS.API.{subject}", body if body is not None else b"", timeout_s=API_TIMEOUT_S)
    result = answer.json()
    _raise_error(result, what)
    return dict(result)


async def ensure_stream(bus: Bus, config: Mapping[str, Any]) -> None:
    """Makes the stream, or brings it to this configuration."""
    name = str(config["name"])
    try:
        await api(bus, f"STREAM.INFO.{name}", what=f"stream {name}")
    except StreamNotFound:
        await api(bus, f"STREAM.CREATE.{name}", config, what=f"cannot make stream {name}")
        return
    await api(bus, f"STREAM.UPDATE.{name}", config, what=f"cannot update stream {name}")


async def stream_info(bus: Bus, name: str) -> dict[str, Any]:
    """The stream's `config`, `state` and `created`; StreamNotFound."""
    return await api(bus, f"STREAM.INFO.{name}", what=f"stream {name}")


async def last_message(bus: Bus, stream: str, subject: str) -> StoredMessage | None:
    """The newest message of `subject` in `stream`, None if there is none."""
    try:
        body = await api(bus, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}, what=f"cannot read {subject}")
    except StreamNotFound as error:
        if error.code == 10037:
            return None
        raise
    message = body["message"]
    headers = parse_headers(base64.b64decode(message["hdrs"])) if message.get("hdrs") else {}
    data = base64.b64decode(message.get("data", ""))
    return StoredMessage(str(message["subject"]), data, int(message["seq"]), headers)


async def consume(
    bus: Bus,
    stream: str,
    *,
    durable: str | None = None,
    filter_subject: str = "",
    deliver: str = "all",
    ack: bool = True,
    ack_wait_s: float = 30.0,
    max_ack_pending: int = 512,
    batch: int = 64,
) -> AsyncIterator[StoredMessage]:
    """The messages of a stream, for ever, across reconnects and restarts of the hub. `ack` each of them.

    `durable`: the server remembers the place under this name. Without it the consumer is this iterator's own and starts
    again at `deliver` ("all", "new", "last_per_subject") only if the server forgot it.
    """
    name = durable or f"tmp-{secrets.token_hex(8)}"
    config: dict[str, Any] = {
        "name": name,
        "filter_subject": filter_subject,
        "deliver_policy": deliver,
        "ack_policy": "explicit" if ack else "none",
        "replay_policy": "instant",
        "max_deliver": -1,
    }
    if ack:
        config |= {"ack_wait": int(ack_wait_s * 1e9), "max_ack_pending": max_ack_pending}
    config |= {"durable_name": name} if durable else {"inactive_threshold": int(120e9), "mem_storage": True}
    if not filter_subject:
        del config["filter_subject"]
    while True:
        try:
            body = {"stream_name": stream, "config": config}
            await api(bus, f"CONSUMER.CREATE.{stream}.{name}", body, what=f"consumer {name} of {stream}")
            async for message in _pull(bus, stream, name, batch):
                yield message
        except StreamError:
            raise
        except BusError:
            # Connection or server gone: the loop is the next step, once there is a connection again.
            await asyncio.sleep(RESTART_PAUSE_S)


async def _pull(bus: Bus, stream: str, consumer: str, batch: int) -> AsyncIterator[StoredMessage]:
    """Pulls until the consumer is gone (returns) or the connection is (raises)."""
    while True:
        arrived: asyncio.Queue[Message | None] = asyncio.Queue()  # bounded by `batch` and the heartbeats of one pull
        inbox = f"_INBOX.{secrets.token_hex(16)}"

        async def put(message: Message, into: asyncio.Queue[Message | None] = arrived) -> None:
            into.put_nowait(message)

        def lost(into: asyncio.Queue[Message | None] = arrived) -> None:
            into.put_nowait(None)

        subscription = await bus.subscribe(inbox, put)
        try:
            with bus.on_lost(lost):
                pull = {"batch": batch, "expires": int(FETCH_EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
                await bus.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", pull, reply=inbox)
                left = batch
                while left:
                    message = await _next(arrived, stream)
                    status = message.status
                    if status is None:
                        left -= 1
                        yield _stored(message)
                    elif status == 100:
                        continue
                    elif status == 408:
                        break  # the pull ran out, as asked
                    elif status == 503:
                        raise NoResponders(f"consumer {consumer} of {stream} is not there")
                    else:
                        return  # 404, 409: deleted, or moved: make it again
        finally:
            with contextlib.suppress(BusError):  # the connection is gone, and the inbox with it
                await subscription.stop()


async def _next(arrived: asyncio.Queue[Message | None], stream: str) -> Message:
    try:
        async with asyncio.timeout(HEARTBEAT_S * 3):
            message = await arrived.get()
    except TimeoutError:
        raise RequestTimeout(f"the pull on {stream} went silent") from None
    if message is None:
        raise Disconnected(f"the connection was lost while pulling from {stream}")
    return message


def _stored(message: Message) -> StoredMessage:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time ns>.<pending>, or with a domain and an
    # account hash before the stream and a random token at the end (ADR-15).
    parts = message.reply.split(".")
    at = 4 if len(parts) >= 11 else 2
    delivered, sequence, _, timestamp, pending = (int(part) for part in parts[at + 2 : at + 7])
    return StoredMessage(
        message.subject,
        message.data,
        sequence,
        message.headers,
        timestamp,
        delivered,
        pending,
        message.reply,
        message.bus,
    )


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a stored message (`NATS/1.0` and lines); the last of equal names wins."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def _raise_error(body: Any, what: str) -> None:
    if not isinstance(body, dict):
        raise StreamError(500, f"an answer that is no object: {json.dumps(body)[:200]}", what)
    error: dict[str, Any] | None = body.get("error")
    if not error:
        return
    code, description = int(error.get("err_code") or error.get("code") or 0), str(error.get("description", ""))
    if code in NOT_READY_CODES:
        raise NoResponders(f"{what}: {description}; JetStream is still starting")
    if code in WRONG_SEQUENCE_CODES:
        raise WrongRevision(code, description, what)
    if code in NOT_FOUND_CODES:
        raise StreamNotFound(code, description, what)
    raise StreamError(code, description, what)
