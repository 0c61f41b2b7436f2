"""A loop that stays awake for clients that ask in a row, on real sockets: for whom it does, when it ends, who else has a turn."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import selectors
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from belvedere.chassis.settings import load
from services.__main__ import event_loop
from services.gateway.access import Access
from services.gateway.awake import EARNED_AFTER, WINDOW_MAX_US, Awake
from services.gateway.direct import Connections, Work
from services.gateway.server import FrontDoor
from services.gateway.service import front_door
from services.gateway.settings import ENV, Settings
from services.gateway.sigv4 import HttpRequest
from tests.services.gateway.wire import TIMEOUT_S, headers_for
from tests.support.cloud import ACCOUNT, RunningCloud
from tests.support.front_door import Door
from tests.support.waiting import until

REQUEST = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
SELDOM_S = 3 * WINDOW_MAX_US / 1e6
MANY_CORES = (0, 1)
"""Of whatever machine the test runs on."""
IDLE_S = 0.3
POLLS_OF_A_SLEEP = 3


class CountingSelector(selectors.DefaultSelector):
    """The system's, which says how often it was polled: once a turn of the loop."""

    polls = 0

    def select(self, timeout: float | None = None) -> Any:
        self.polls += 1
        return super().select(timeout)


class Answers:
    """Answers at once; /thread when a thread has done its part."""

    def take(self, request: HttpRequest, body: bytes, source_address: str) -> bytes | Work | None:
        return b"now;" if request.path == "/now" else self._from_a_thread()

    async def _from_a_thread(self) -> bytes:
        return await asyncio.to_thread(lambda: b"thread;")


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes = REQUEST) -> bytes:
        self.writer.write(request)
        return await self.reader.readuntil(b";")

    async def ask_until(self, enough: Callable[[], object]) -> None:
        """Asks in a row. On a busy machine some requests come too late to be one."""
        while not enough():
            await self.ask()


@dataclass
class Served:
    awake: Awake
    connections: Connections
    port: int

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def served(awake: Awake) -> AsyncIterator[Served]:
    connections = Connections(Answers(), asyncio.Protocol, 60.0, awake)
    server = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    connections.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield Served(awake, connections, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await connections.stop(0.1)


def always() -> Awake:
    return Awake(WINDOW_MAX_US, MANY_CORES)


def run(work: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)


@pytest.mark.parametrize("loop_factory", [None, event_loop()], ids=["asyncio", "as the services have it"])
def test_a_client_that_asks_in_a_row_keeps_the_loop_awake(
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    async def main() -> None:
        async with served(always()) as party, party.client() as client:
            await client.ask_until(lambda: party.awake.turns > 100)

    run(main(), loop_factory)


async def test_a_client_that_asks_seldom_does_not() -> None:
    async with served(always()) as party, party.client() as client:
        for _ in range(3 * EARNED_AFTER):
            await client.ask()
            await asyncio.sleep(SELDOM_S)
        assert party.awake.turns == 0 and not party.awake.looking


async def test_one_that_asks_for_some_things_at_once_has_not_earned_it() -> None:
    async with served(always()) as party, party.client() as client:
        for _ in range(EARNED_AFTER):
            await client.ask()
        assert party.awake.turns == 0 and not party.awake.looking


def test_the_first_window_in_which_nobody_asks_ends_it_and_an_idle_server_does_not_turn_its_loop() -> None:
    selector = CountingSelector()

    async def main() -> None:
        async with served(always()) as party, party.client() as client:
            await client.ask_until(lambda: party.awake.looking)
            await until(lambda: not party.awake.looking)
            polls, turns = selector.polls, party.awake.turns
            await asyncio.sleep(IDLE_S)
            assert party.awake.turns == turns and selector.polls - polls <= POLLS_OF_A_SLEEP
            # Who comes then has to earn it anew.
            await client.ask()
            assert not party.awake.looking

    run(main(), lambda: asyncio.SelectorEventLoop(selector))


async def test_other_connections_timers_tasks_and_threads_have_their_turn_while_it_is_awake() -> None:
    async with served(always()) as party, party.client() as client, party.client() as other:
        await client.ask_until(lambda: party.awake.looking)
        enough, turns = asyncio.Event(), party.awake.turns
        asking = asyncio.create_task(client.ask_until(enough.is_set))
        assert await other.ask() == b"now;"
        assert await other.ask(REQUEST.replace(b"/now", b"/thread")) == b"thread;"
        await asyncio.sleep(SELDOM_S)
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(told.set))
        thread.start()
        await told.wait()
        await until(lambda: party.awake.turns > turns)
        assert not asking.done()
        enough.set()
        await asking
        thread.join()


async def test_a_stop_ends_it_at_once() -> None:
    async with served(always()) as party, party.client() as client:
        await client.ask_until(lambda: party.awake.looking)
        turns = party.awake.turns
        await party.connections.stop(0.1)
        assert not party.awake.looking
        await asyncio.sleep(0)
        assert party.awake.turns == turns
        # Answers of requests that were under way do not wake it again.
        for _ in range(2 * EARNED_AFTER):
            party.awake.asked(client.writer.transport)
            party.awake.answered()
        assert not party.awake.looking


@pytest.mark.parametrize("window_us", [0, -1])
async def test_without_a_window_it_never_stays_awake(window_us: int) -> None:
    async with served(Awake(window_us, MANY_CORES)) as party, party.client() as client:
        for _ in range(10 * EARNED_AFTER):
            await client.ask()
        assert party.awake.turns == 0


@pytest.fixture
def one_core() -> Iterator[int]:
    """The only one that this thread may use, server and client alike."""
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})
    yield core
    os.sched_setaffinity(0, before)


async def test_the_only_core_of_the_server_is_left_to_a_client_that_is_on_it(one_core: int) -> None:
    async with served(Awake(WINDOW_MAX_US)) as party, party.client() as client:
        for _ in range(10 * EARNED_AFTER):
            await client.ask()
        assert party.awake.turns == 0


async def test_a_server_of_one_core_stays_awake_for_a_client_on_another_one(one_core: int) -> None:
    # As the server sees it: the packets come in on `one_core`.
    async with served(Awake(WINDOW_MAX_US, (one_core + 1,))) as party, party.client() as client:
        await client.ask_until(lambda: party.awake.turns > 100)


@contextlib.contextmanager
def front_door_with(door: Door, stay_awake_us: str) -> Iterator[FrontDoor]:
    """Another front door of the same cloud, with this setting."""

    async def start(cloud: RunningCloud) -> FrontDoor:
        settings = load(Settings, ENV, {f"{ENV}STAY_AWAKE_US": stay_awake_us})
        access = Access(
            cloud.channel,
            account=ACCOUNT,
            cache_entries=8,
            cache_s=60.0,
            monotonic=lambda: 0.0,
            clock=lambda: datetime.now(UTC),
        )
        made = front_door(cloud.runtime, settings, access)
        await made.start("127.0.0.1", 0)
        return made

    async def stop(_: RunningCloud) -> None:
        await made.stop()

    made = door.call(start)
    try:
        yield made
    finally:
        door.call(stop)


def in_a_row(door: Door, port: int) -> Iterator[int]:
    """The status of one ListDevices after the other over one connection."""
    # As it was signed: for the cloud's own front door.
    headers = {**headers_for(door, "panorama", "GET", "/devices", b"", {}), "Host": door.url.removeprefix("http://")}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        while True:
            connection.request("GET", "/devices", headers=headers)
            response = connection.getresponse()
            response.read()
            yield response.status


def test_the_front_door_stays_awake_as_its_setting_says(door: Door) -> None:
    with front_door_with(door, str(WINDOW_MAX_US)) as made:
        for status in in_a_row(door, made.port):
            assert status == 200
            if made.awake.turns > 0:
                break
    assert not made.awake.looking


def test_the_front_door_with_the_setting_0_always_sleeps(door: Door) -> None:
    with front_door_with(door, "0") as made:
        for _, status in zip(range(10 * EARNED_AFTER), in_a_row(door, made.port), strict=False):
            assert status == 200
        assert made.awake.turns == 0
