"""A bus that never gives up: real nats-server, restarts, revocations, slow and failing handlers."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from belvedere.bus import client as nats_client
from belvedere.bus import jwt
from belvedere.bus.client import Credentials
from belvedere.bus.connection import Bus, Message, Subscription
from belvedere.bus.errors import Disconnected, InvalidDocument, NoResponders, RequestTimeout
from belvedere.bus.jwt import Kind
from belvedere.bus.server import free_port
from belvedere.chassis.secret import Secret
from tests.support.hub import RunningHub, refusal, running_hub
from tests.support.waiting import until


async def test_a_request_is_answered(hub: RunningHub) -> None:
    async def double(message: Message) -> None:
        await message.respond({"twice": message.json()["n"] * 2}, headers={"X-Who": "me"})

    await hub.bus.subscribe("test.double", double)
    answer = await (await hub.connect()).request("test.double", {"n": 21})
    assert answer.json() == {"twice": 42} and answer.headers["X-Who"] == "me"


async def test_a_request_that_nobody_listens_to_fails_at_once(hub: RunningHub) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(NoResponders, match=r"test\.nobody"):
            await hub.bus.request("test.nobody", timeout_s=60)
        with pytest.raises(NoResponders):
            await hub.bus.request("test.nobody", timeout_s=60, reply="rsp.device-a.1")


async def test_a_request_that_nobody_answers_times_out(hub: RunningHub) -> None:
    async def ignore(_: Message) -> None:
        return

    await hub.bus.subscribe("test.silent", ignore)
    with pytest.raises(RequestTimeout, match=r"0\.2 s"):
        await hub.bus.request("test.silent", timeout_s=0.2)


async def test_one_member_of_a_queue_group_gets_each_message(hub: RunningHub) -> None:
    got: list[int] = []
    done = asyncio.Event()

    async def take(_: Message) -> None:
        got.append(1)
        if len(got) == 20:
            done.set()

    for _ in range(3):
        await (await hub.connect()).subscribe("test.work", take, queue="workers")
    for _ in range(20):
        await hub.bus.publish("test.work", b"x")
    await asyncio.wait_for(done.wait(), 30)
    await hub.bus.flush()
    assert len(got) == 20


async def test_a_handler_that_fails_is_counted_and_gets_the_next_message(hub: RunningHub) -> None:
    good = asyncio.Event()

    async def handle(message: Message) -> None:
        message.json()
        good.set()

    await hub.bus.subscribe("test.json", handle)
    await hub.bus.publish("test.json", b"{")
    await hub.bus.publish("test.json", b"{}")
    await asyncio.wait_for(good.wait(), 30)
    assert hub.bus.stats.handler_errors == 1
    with pytest.raises(InvalidDocument):
        Message("s", b"{").json()


async def test_what_is_subscribed_is_heard_from_when_that_returns_on(hub: RunningHub) -> None:
    async def echo(message: Message) -> None:
        await message.respond(message.data)

    other = await hub.connect()
    for number in range(300):  # without a barrier, about one in forty came too late
        subscription = await hub.bus.subscribe(f"test.echo.{number}", echo)
        assert (await other.request(f"test.echo.{number}", b"x")).data == b"x"
        await subscription.stop()


async def test_what_is_subscribed_while_the_connection_comes_back_is_heard(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, flushed = await hub.connect(), nats_client.flushed
    late: list[Subscription] = []

    async def echo(message: Message) -> None:
        await message.respond(message.data)

    async def subscribing(client: Client, timeout_s: float = 10.0) -> None:
        await flushed(client, timeout_s)
        if not late:
            assert not bus.connected
            late.append(await bus.subscribe("test.late", echo))

    monkeypatch.setattr(nats_client, "flushed", subscribing)
    assert bus._client is not None
    await bus._client.close()
    await until(lambda: late and bus.connected)
    assert (await hub.bus.request("test.late", b"x")).data == b"x"


async def test_a_stopped_subscription_hears_nothing_more(hub: RunningHub) -> None:
    got: list[bytes] = []

    async def take(message: Message) -> None:
        got.append(message.data)

    subscription = await hub.bus.subscribe("test.stop", take)
    await subscription.stop()
    with pytest.raises(NoResponders):
        await hub.bus.request("test.stop", b"x")
    assert got == []


async def test_subscriptions_live_on_through_a_hub_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    client_port, leaf_port = free_port(), free_port()
    got: list[bytes] = []
    arrived, reconnected = asyncio.Event(), asyncio.Event()

    async def take(message: Message) -> None:
        got.append(message.data)
        arrived.set()

    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port) as first:
        bus = await Bus.connect(first.hub.url, first.hub.services_credentials(), "survivor")
        await bus.subscribe("test.live", take)

        async def again() -> None:
            reconnected.set()

        bus.on_connected(again)
        lost = asyncio.Event()
        with bus.on_lost(lost.set):
            first.hub.server._child.signal(signal.SIGKILL)
            await asyncio.wait_for(lost.wait(), 30)
        with pytest.raises(Disconnected, match="not connected"):
            await bus.publish("test.live", b"lost", timeout_s=0.2)
    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port) as second:
        await asyncio.wait_for(reconnected.wait(), 30)
        await second.bus.publish("test.live", b"found")
        await asyncio.wait_for(arrived.wait(), 30)
        assert got == [b"found"] and bus.stats.connects == 2 and bus.stats.disconnects == 1
        await bus.close()


async def test_what_is_published_during_a_short_loss_waits_for_the_connection(tmp_path: Path) -> None:
    client_port, leaf_port = free_port(), free_port()
    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port) as first:
        bus = await Bus.connect(first.hub.url, first.hub.services_credentials(), "waiting")
    waiting = asyncio.create_task(bus.request("$JS.API.INFO", timeout_s=60))
    async with running_hub(tmp_path, client_port=client_port, leaf_port=leaf_port):
        assert (await waiting).json()["type"].endswith("account_info_response")
        await bus.close()


async def test_who_asks_for_some_ports_gets_different_ones_from_whichever_process() -> None:
    code = """
import random
from belvedere.bus.server import free_port
random.seed(7)  # as hypothesis does: the same choice again and again
print(*(free_port(range(19_990, 19_996)) for _ in range(3)), flush=True)
input()
"""
    asked = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    try:
        lines = [await process.stdout.readline() for process in asked if process.stdout is not None]
        assert sorted(int(port) for line in lines for port in line.split()) == list(range(19_990, 19_996))
    finally:
        for process in asked:
            await process.communicate(b"\n")


async def test_unknown_credentials_are_refused_with_words(hub: RunningHub) -> None:
    stranger = jwt.new_key(Kind.USER)
    for credentials in (Credentials.of_key(stranger), Credentials.of_key(stranger, "a.b.c")):
        assert "refuses these credentials" in str(await refusal(hub.hub.url, credentials))


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(Disconnected, match=url):
        await Bus.connect(url, Credentials.of_key(jwt.new_key(Kind.USER)), "lost", timeout_s=0.3)


async def test_a_closed_bus_says_so(hub: RunningHub) -> None:
    bus = await hub.connect()
    await bus.close()
    with pytest.raises(Disconnected, match="closed"):
        await bus.publish("test.x")


def test_credentials_show_no_seed() -> None:
    key = jwt.new_key(Kind.USER)
    assert key.seed.reveal() not in repr(Credentials.of_key(key)) + repr(key)
    assert Credentials(Secret(key.seed.reveal())).public_key == key.public


async def test_a_cancellation_that_meets_an_answer_is_not_lost(hub: RunningHub) -> None:
    # asyncio.wait_for of Python 3.11 forgets a cancellation that comes in the same turn as its result.
    asked: list[asyncio.Task[Message]] = []

    async def answer(message: Message) -> None:
        await message.respond(b"x")

    await hub.bus.subscribe("test.race", answer)
    client = hub.bus._client
    assert client is not None
    original = client._request_sub_callback

    async def cancel_with_the_answer(raw: Msg) -> None:
        await original(raw)
        asked[0].cancel()

    client._request_sub_callback = cancel_with_the_answer
    await client._init_request_sub()
    other = await hub.connect()
    await other.subscribe("test.other", answer)
    asked.append(asyncio.create_task(hub.bus.request("test.other")))
    with pytest.raises(asyncio.CancelledError):
        await asked[0]
    assert asked[0].cancelled()


async def test_a_cancellation_that_meets_an_error_is_not_lost() -> None:
    # So a bus could go on connecting to a server that was gone, though it was closed.
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waits = asyncio.Event()

    async def connecting() -> None:
        waits.set()
        await asyncio.wait_for(refused, 30)

    task = asyncio.create_task(nats_client.cancellable(connecting()))
    await waits.wait()
    refused.set_exception(ConnectionRefusedError())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
