"""Typed errors and the caller, over a real gRPC server on a unix socket."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from belvedere.chassis import context
from belvedere.chassis.context import Caller
from belvedere.chassis.errors import (
    BelvedereError,
    Conflict,
    Denied,
    Internal,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unavailable,
)
from belvedere.chassis.grpc_server import GrpcServer, ServerError
from belvedere.chassis.rpc import open_channel
from belvedere.chassis.service import Service
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1 import registry_pb2_grpc as pb_grpc

WHO = Caller("123456789012", "eu-central-1", "arn:aws:iam::123456789012:user/admin", "request-1")
ERRORS: list[BelvedereError] = [
    NotFound("DEVICE", "device-1"),
    Conflict("DEVICE", "device-1", "it is being deleted"),
    Invalid("the manifest is wrong", [("nodes[2].interface", 'no package "x::y"'), ("nodes", "empty")]),
    Denied("not you"),
    QuotaExceeded("DEVICES", "no more than 10"),
    Unavailable("later, with an umlaut: ü"),
]


class ManifestInvalid(Invalid):
    """A service's own subclass."""


class Handlers(pb_grpc.RegistryServiceServicer):
    """Waits for `hangs`, then answers with what `raises` says."""

    raises: Exception | None = None
    hangs: asyncio.Event | None = None

    async def DescribeDevice(self, request: pb.DescribeDeviceRequest, rpc: Any) -> pb.DescribeDeviceResponse:
        if self.hangs is not None:
            await self.hangs.wait()
        if self.raises is not None:
            raise self.raises
        who = context.caller()
        return pb.DescribeDeviceResponse(arn=who.account, name=who.region, description=who.principal, type=1)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Handlers, grpc.aio.Channel, GrpcServer]]:
    handlers = Handlers()
    server = GrpcServer(f"unix:{tmp_path}/grpc.sock")
    add = pb_grpc.add_RegistryServiceServicer_to_server
    server.add(Service("registry", [(add, handlers, "belvedere.v1.RegistryService")]))
    await server.start()
    channel = open_channel(server.address)
    yield handlers, channel, server
    await channel.close()
    await server.stop()


async def describe(channel: grpc.aio.Channel) -> pb.DescribeDeviceResponse:
    with context.acting_as(WHO):
        return await pb_grpc.RegistryServiceStub(channel).DescribeDevice(pb.DescribeDeviceRequest(device_id="x"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_arrives_as_it_was_raised(error: BelvedereError, served: Any) -> None:
    handlers, channel, _ = served
    handlers.raises = error
    with pytest.raises(type(error)) as caught:
        await describe(channel)
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error)


async def test_a_subclass_of_a_service_arrives_as_the_class_that_everybody_knows(served: Any) -> None:
    handlers, channel, _ = served
    handlers.raises = ManifestInvalid("wrong", [("a", "b")])
    with pytest.raises(Invalid) as caught:
        await describe(channel)
    assert caught.value.fields == (("a", "b"),)


async def test_anything_else_is_internal_and_tells_nothing_but_the_request_id(served: Any) -> None:
    handlers, channel, _ = served
    handlers.raises = RuntimeError("password=hunter2")
    with pytest.raises(Internal) as caught:
        await describe(channel)
    assert "hunter2" not in str(caught.value)
    assert WHO.request_id in str(caught.value)


async def test_the_caller_travels_as_metadata_and_a_nameless_call_is_denied(served: Any) -> None:
    _, channel, _ = served
    answer = await describe(channel)
    assert (answer.arn, answer.name, answer.description) == (WHO.account, WHO.region, WHO.principal)
    with pytest.raises(Denied, match="x-belvedere-account"):
        await pb_grpc.RegistryServiceStub(channel).DescribeDevice(pb.DescribeDeviceRequest())
    assert context.current() is None


async def test_a_peer_that_is_away_is_unavailable(tmp_path: Path) -> None:
    channel = open_channel(f"unix:{tmp_path}/nobody.sock")
    with pytest.raises(Unavailable):
        await describe(channel)
    await channel.close()


async def test_a_handler_that_takes_too_long_is_unavailable(served: Any) -> None:
    handlers, channel, _ = served
    handlers.hangs = asyncio.Event()
    with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"), context.acting_as(WHO):
        await pb_grpc.RegistryServiceStub(channel).DescribeDevice(pb.DescribeDeviceRequest(), timeout=0.1)


async def test_a_method_that_is_not_there_says_so(served: Any) -> None:
    _, channel, _ = served
    with pytest.raises(Internal, match="UNIMPLEMENTED"):
        await pb_grpc.RegistryServiceStub(channel).ListDevices(pb.ListDevicesRequest())


async def test_health_turns_to_serving_and_reflection_lists_the_services(served: Any) -> None:
    _, channel, server = served
    health = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="belvedere.v1.RegistryService")
    assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await server.serving(True)
    assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    answers = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    async for answer in answers:
        names = [service.name for service in answer.list_services_response.service]
        assert "belvedere.v1.RegistryService" in names
        break


async def test_the_socket_is_the_owners_alone_and_one_left_behind_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "grpc.sock"))
    left.close()
    server = GrpcServer(f"unix:{tmp_path}/grpc.sock")
    await server.start()
    assert stat.S_IMODE((tmp_path / "grpc.sock").stat().st_mode) == 0o600
    await server.stop()
    with pytest.raises(ServerError):
        await GrpcServer(f"unix:{tmp_path}/no/such/folder/grpc.sock").start()
