"""Replicas: a process with the hub, and two with the services, on one PostgreSQL. One of them is killed in the middle."""

from __future__ import annotations

import asyncio
import collections
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.exceptions import ClientError

from belvedere.bus import subjects
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume
from belvedere.chassis import rpc
from belvedere.chassis.errors import BelvedereError, Conflict
from belvedere.chassis.paths import CloudPaths
from belvedere.chassis.runtime import CloudSettings
from belvedere.v1 import identity_pb2, packages_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.packages_pb2_grpc import PackagesServiceStub
from services.runner import Cloud, StartError
from tests.support.cloud import ACCOUNT, REGION, RunningCloud
from tests.support.postgres import Postgres
from tests.support.waiting import until

if TYPE_CHECKING:
    from belvedere.v1.packages_pb2_grpc import PackagesServiceAsyncStub

pytestmark = pytest.mark.timeout(300)
"""Its tests start programs, each of which takes seconds of a busy machine."""
SERVICES = ["identity", "packages", "gateway"]
START_TIMEOUT_S = 120
EVENTS_TIMEOUT_S = 60
"""For the outbox of a replica that died: others look for rows every 5 s."""


@dataclass
class Replicas:
    """`first` in this process, `second` in one of its own."""

    first: RunningCloud
    second: asyncio.subprocess.Process
    second_url: str
    data: Path


async def _start(data: Path, database_url: str) -> tuple[asyncio.subprocess.Process, str]:
    with (data / "second.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", "--data", str(data), "--only", ",".join(SERVICES)),
            *("--replica", "second", "--port", "0"),
            env={**os.environ, "BELVEDERE_DATABASE_URL": database_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    async with asyncio.timeout(START_TIMEOUT_S):
        line = (await process.stdout.readline()).decode().strip()
    assert line.startswith("ready "), (data / "second.log").read_text()[-3000:]
    return process, line.removeprefix("ready ")


@pytest.fixture
async def replicas(tmp_path: Path, postgresql: Postgres) -> AsyncIterator[Replicas]:
    url = await postgresql.database(str(tmp_path))
    settings = CloudSettings(account=ACCOUNT, region=REGION, database_url=url)
    async with (
        Cloud(tmp_path, [], port=0, cloud_settings=settings),
        Cloud(tmp_path, SERVICES, cloud_settings=settings, replica="first") as cloud,
    ):
        process, second_url = await _start(tmp_path, url.reveal())
        first = RunningCloud(cloud)
        try:
            with first.caller():
                yield Replicas(first, process, second_url, tmp_path)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.communicate()
                assert process.returncode == 0, (tmp_path / "second.log").read_text()[-3000:]
    assert cloud.failed is None


@asynccontextmanager
async def second_channel(replicas: Replicas) -> AsyncIterator[PackagesServiceAsyncStub]:
    channel = rpc.open_channel(f"unix:{CloudPaths(replicas.data, 'second').grpc_socket}")
    try:
        yield PackagesServiceStub(channel)
    finally:
        await channel.close()


async def created_events(cloud: RunningCloud, names: set[str]) -> collections.Counter[str]:
    """How often the stream tells of each package, once it has told of all of them."""
    told: collections.Counter[str] = collections.Counter()
    subject = subjects.event("packages.package.created")
    async with asyncio.timeout(EVENTS_TIMEOUT_S):
        async for message in consume(cloud.runtime.bus, subjects.EVENTS_STREAM, filter_subject=subject, ack=False):
            told[Event.from_json(message.data).data["packageName"]] += 1
            if names <= told.keys() and message.pending == 0:
                return told
    raise AssertionError("the stream ended")


async def test_both_take_requests_nothing_is_lost_or_told_twice_and_one_may_be_killed(replicas: Replicas) -> None:
    first = PackagesServiceStub(replicas.first.channel)
    async with second_channel(replicas) as second:

        async def create(stub: PackagesServiceAsyncStub, name: str) -> str | None:
            try:
                await stub.CreatePackage(packages_pb2.CreatePackageRequest(package_name=name))
            except Conflict:
                return None
            return name

        asked = [(stub, f"both-{number}") for number in range(15) for stub in (first, second)]
        asked += [(stub, f"{who}-{number}") for number in range(15) for who, stub in (("a", first), ("b", second))]
        made = [name for name in await asyncio.gather(*(create(*one) for one in asked)) if name]
        assert len(made) == len(set(made)) == 45, "of two who take the same name, one gets it"

        answered: set[str] = set()

        async def go_on() -> None:
            for number in range(10_000):
                name = f"late-{number}"
                try:
                    await create(second, name)
                except BelvedereError:
                    return  # it is dead, and may have written this one or not
                answered.add(name)

        going_on = asyncio.create_task(go_on())
        await until(lambda: len(answered) >= 20)
        replicas.second.kill()
        await replicas.second.communicate()
        await going_on

    found: set[str] = set()
    token = ""
    while True:
        page = await first.ListPackages(packages_pb2.ListPackagesRequest(next_token=token))
        found |= {package.package_name for package in page.packages}
        token = page.next_token
        if not token:
            break
    assert set(made) | answered <= found
    told = await created_events(replicas.first, found)
    assert set(told.values()) == {1} and told.keys() == found


async def test_a_key_that_is_taken_back_at_one_is_refused_at_the_other(replicas: Replicas) -> None:
    identity = IdentityServiceStub(replicas.first.channel)
    key = await identity.CreateAccessKey(identity_pb2.CreateAccessKeyRequest(user_name="admin"))
    urls = [f"http://127.0.0.1:{replicas.first.runtime.ports.gateway}", replicas.second_url]
    known = replicas.first.runtime.announced
    assert known.gateway == replicas.first.runtime.ports.gateway, "who comes first has the known address"

    def who(url: str) -> str:
        session = boto3.Session(key.access_key_id, key.secret_access_key, region_name=REGION)
        try:
            return str(session.client("sts", endpoint_url=url).get_caller_identity()["Arn"])
        except ClientError as error:
            return str(error.response["Error"]["Code"])

    assert {await asyncio.to_thread(who, url) for url in urls} == {f"arn:aws:iam::{ACCOUNT}:user/admin"}
    await identity.DeleteAccessKey(identity_pb2.DeleteAccessKeyRequest(access_key_id=key.access_key_id))
    for url in urls:
        async with asyncio.timeout(30):  # what is remembered of a key lasts longer
            while await asyncio.to_thread(who, url) != "InvalidClientTokenId":
                pass


async def test_a_replica_without_a_common_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="BELVEDERE_DATABASE_URL"):
        async with Cloud(tmp_path, SERVICES, cloud_settings=CloudSettings(), replica="first"):
            pass
