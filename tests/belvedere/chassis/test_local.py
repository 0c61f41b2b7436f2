"""Calls inside one process give what the wire gives; reads of SQLite need no thread; answers are remembered while true."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from belvedere.chassis import context
from belvedere.chassis.batch import BatchWriter
from belvedere.chassis.context import Caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Internal, Invalid, NotFound, Unavailable
from belvedere.chassis.local import LocalChannel, at_hand, collect
from belvedere.chassis.memo import Memo
from belvedere.chassis.rpc import open_channel
from belvedere.chassis.service import AtHand, Service
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1 import registry_pb2_grpc as pb_grpc

WHO = Caller("123456789012", "eu-central-1", "arn:aws:iam::123456789012:user/admin", "request-1")
NOW = datetime(2026, 11, 22, tzinfo=UTC)


class OwnInvalid(Invalid):
    """A service's own."""


class Handlers(pb_grpc.RegistryServiceServicer):
    raises: Exception | None = None
    hangs = False
    begun = ended = 0

    async def DescribeDevice(self, request: pb.DescribeDeviceRequest, rpc: Any) -> pb.DescribeDeviceResponse:
        self.begun += 1
        try:
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.ended += 1
        if self.raises is not None:
            raise self.raises
        answer = pb.DescribeDeviceResponse(name=request.device_id, description=context.caller().principal, type=1)
        request.device_id = "changed"
        return answer


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[tuple[Handlers, pb_grpc.RegistryServiceStub]]:
    handlers = Handlers()
    add = pb_grpc.add_RegistryServiceServicer_to_server
    methods = collect([Service("registry", [(add, handlers, "belvedere.v1.RegistryService")])])
    # Nobody listens there: what answers is local.
    channel = LocalChannel(methods, open_channel(f"unix:{tmp_path}/nobody.sock"))
    yield handlers, pb_grpc.RegistryServiceStub(channel)
    await channel.close()


async def test_an_answer_at_hand_is_asked_of_its_own_service_and_of_nobody_elsewhere(tmp_path: Path) -> None:
    behind = open_channel(f"unix:{tmp_path}/nobody.sock")
    answers: dict[str, AtHand] = {}
    asks = [at_hand(channel, "/a.B/C") for channel in (LocalChannel({}, behind, answers), behind)]
    assert [ask(WHO, b"1") for ask in asks] == [None, None]
    # Services ask for theirs before all of them are there.
    answers["/a.B/C"] = lambda who, packet: who.account.encode() + packet
    assert [ask(WHO, b"1") for ask in asks] == [WHO.account.encode() + b"1", None]
    await behind.close()


async def test_a_peer_gets_a_message_of_its_own_and_the_caller(
    local: tuple[Handlers, pb_grpc.RegistryServiceStub],
) -> None:
    request = pb.DescribeDeviceRequest(device_id="x")
    with context.acting_as(WHO):
        answer = await local[1].DescribeDevice(request)
    assert (answer.name, answer.description, request.device_id) == ("x", WHO.principal, "x")
    assert context.current() is None
    answer = await local[1].DescribeDevice(request, metadata=context.call_metadata(WHO))
    assert answer.description == WHO.principal


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (NotFound("DEVICE", "device-1"), NotFound),
        (Conflict("DEVICE", "device-1", "not now"), Conflict),
        (OwnInvalid("wrong", [("a.b", "missing")]), Invalid),
        (ValueError("secret text"), Internal),
        (TimeoutError("its own"), Internal),
    ],
)
async def test_errors_arrive_as_over_the_wire(
    local: tuple[Handlers, pb_grpc.RegistryServiceStub], raised: Exception, arrives: type[Exception]
) -> None:
    local[0].raises = raised
    with context.acting_as(WHO), pytest.raises(arrives) as caught:
        await local[1].DescribeDevice(pb.DescribeDeviceRequest(device_id="x"))
    assert type(caught.value) is arrives
    if isinstance(caught.value, Internal):
        assert "request-1" in str(caught.value) and "secret" not in str(caught.value)
    if isinstance(caught.value, Invalid):
        assert list(caught.value.fields) == [("a.b", "missing")]


async def test_a_handler_that_hangs_is_given_up_and_one_that_is_not_there_named(
    local: tuple[Handlers, pb_grpc.RegistryServiceStub],
) -> None:
    local[0].hangs = True
    with context.acting_as(WHO):
        with pytest.raises(Unavailable):
            await local[1].DescribeDevice(pb.DescribeDeviceRequest(device_id="x"), timeout=0.05)
        with pytest.raises(Internal, match="UNIMPLEMENTED"):
            await local[1].ListDevices(pb.ListDevicesRequest())


async def test_a_handler_begins_at_once_and_is_cancelled_with_who_waits_for_it(
    local: tuple[Handlers, pb_grpc.RegistryServiceStub],
) -> None:
    local[0].hangs = True
    with context.acting_as(WHO):
        call = asyncio.create_task(local[1].DescribeDevice(pb.DescribeDeviceRequest(device_id="x")))
        await asyncio.sleep(0)
        assert (local[0].begun, local[0].ended) == (1, 0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (local[0].begun, local[0].ended) == (1, 1)
        local[0].hangs = False
        # Nothing to wait for: answered before anybody else gets his turn.
        turns: list[str] = []
        asyncio.get_running_loop().call_soon(turns.append, "another's")
        await local[1].DescribeDevice(pb.DescribeDeviceRequest(device_id="x"))
        assert not turns


async def test_what_this_process_does_not_serve_goes_over_the_channel_behind(tmp_path: Path) -> None:
    channel = LocalChannel({}, open_channel(f"unix:{tmp_path}/nobody.sock"))
    with context.acting_as(WHO), pytest.raises(Unavailable):
        await pb_grpc.RegistryServiceStub(channel).ListDevices(pb.ListDevicesRequest())
    await channel.close()


async def test_a_reader_sees_every_commit_and_cannot_write(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "a.sqlite3", "a")
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    for number in range(3):
        async with database.session() as session, session.begin():
            await (await session.connection()).execute(text(f"INSERT INTO t VALUES ({number})"))
        async with database.session(read_only=True) as session:
            found = await (await session.connection()).execute(text("SELECT count(*) FROM t"))
            assert found.scalar() == number + 1
    async with database.session(read_only=True) as session:
        with pytest.raises(Exception, match="readonly"):
            await (await session.connection()).execute(text("INSERT INTO t VALUES (9)"))
    await database.close()


async def test_an_answer_is_forgotten_with_the_next_commit_of_anybody_and_when_its_time_is_over(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    database = Database.at(path, "a")
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    memo: Memo[str] = Memo(database, entries=2)
    assert memo.get("k", NOW) is None
    memo.put("k", "answer", memo.mark(), until=NOW + timedelta(seconds=5))
    assert memo.get("k", NOW) == "answer"
    assert memo.get("k", NOW + timedelta(seconds=5)) is None
    for key in ("a", "b", "c"):
        memo.put(key, key, memo.mark())
    assert [memo.get(key, NOW) for key in ("a", "b", "c")] == [None, "b", "c"]
    seen = memo.mark()
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO t VALUES (1)")
    assert memo.get("c", NOW) is None
    memo.put("late", "read before the commit", seen)
    assert memo.get("late", NOW) is None
    await database.close()


async def test_a_batch_is_written_whole_or_not_at_all_even_after_the_end(tmp_path: Path) -> None:
    database = Database.at(tmp_path / "a.sqlite3", "a")
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))
    writer = BatchWriter(database)

    def two(connection: Connection, fails: bool = False) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        if fails:
            raise ValueError("in the midst of it")
        connection.execute(text("INSERT INTO t VALUES (2)"))

    async def count() -> int:
        async with database.session(read_only=True) as session:
            return int((await (await session.connection()).execute(text("SELECT count(*) FROM t"))).scalar() or 0)

    await writer.write(two)
    with pytest.raises(ValueError, match="midst"):
        await writer.write(lambda connection: two(connection, fails=True))
    assert await count() == 2
    await writer.close()
    await writer.write(two)
    assert await count() == 4
    await writer.close()
    await database.close()
