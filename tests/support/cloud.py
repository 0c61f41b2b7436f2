"""The embedded cloud in the test's own process: real hub, real gRPC, real databases, free ports.

    async with running_cloud(tmp_path, services=["identity", "registry"]) as cloud:
        stub = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
        with cloud.caller():                                  # acting as the administrator of account 123456789012
            await stub.ListDevices(registry_pb2.ListDevicesRequest())
        cloud.runtime.bus, cloud.runtime.ports.gateway, cloud.runtime.database("registry"), cloud.runtime.hub

Leaving the block stops everything and checks that no task had failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from belvedere.chassis.context import Caller, acting_as, new_request_id
from belvedere.chassis.runtime import CloudSettings, Runtime
from services.runner import SERVICES, Cloud, present
from tests.support import databases

ACCOUNT = "123456789012"
REGION = "us-east-1"
ADMIN = f"arn:aws:iam::{ACCOUNT}:user/admin"


@dataclass(frozen=True)
class RunningCloud:
    """What a test works with."""

    cloud: Cloud

    @property
    def runtime(self) -> Runtime:
        """Bus, databases, ports, as the services have them."""
        return self.cloud.runtime

    @property
    def channel(self) -> grpc.aio.Channel:
        """To all services; stubs raise typed errors."""
        return self.cloud.runtime.channel()

    @contextmanager
    def caller(self, account: str = ACCOUNT, region: str = REGION, principal: str = ADMIN) -> Iterator[Caller]:
        """Calls inside the block are made as this caller."""
        with acting_as(Caller(account, region, principal, new_request_id())) as who:
            yield who


@asynccontextmanager
async def running_cloud(
    data: Path, services: Sequence[str] = SERVICES, *, port: int = 0, grpc_port: int | None = None
) -> AsyncIterator[RunningCloud]:
    """Starts `services` (those whose folder is there) on the data folder `data`; ready inside the block.

    On the same folder again: the same ports and state, as after a restart. On PostgreSQL where the test is to run there
    (`tests.support.databases`).
    """
    url = None if databases.server is None else await databases.server.database(str(data))
    settings = CloudSettings(account=ACCOUNT, region=REGION, grpc_port=grpc_port, database_url=url)
    async with Cloud(data, present(services), port=port, cloud_settings=settings) as cloud:
        yield RunningCloud(cloud)
    if cloud.failed is not None:
        raise AssertionError(f"{cloud.failed[0]} failed while the test ran") from cloud.failed[1]
