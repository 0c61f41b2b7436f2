"""The services' gRPC over TCP and TLS, for tests of it: a running cloud, a plain client's channel, tokens, users, refusals.

Tests take the fixtures in by name: `from tests.support.public_grpc import channel, cloud`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_status import rpc_status

from belvedere.v1 import identity_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from tests.support.cloud import RunningCloud, running_cloud


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCloud]:
    wanted = ["identity", "registry", "packages", "deployments", "device_jobs", "logs_metrics"]
    async with running_cloud(tmp_path_factory.mktemp("cloud"), services=wanted, grpc_port=0) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def channel(cloud: RunningCloud) -> AsyncIterator[grpc.aio.Channel]:
    """A plain client, which trusts the cloud's own authority."""
    assert cloud.cloud.public is not None
    credentials = grpc.ssl_channel_credentials(cloud.runtime.hub.tls.ca.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{cloud.cloud.public.port}", credentials) as found:
        yield found


async def token(cloud: RunningCloud, user: str = "admin") -> tuple[tuple[str, str], ...]:
    with cloud.caller():
        made = await IdentityServiceStub(cloud.channel).CreateBearerToken(
            identity_pb2.CreateBearerTokenRequest(user_name=user)
        )
    assert made.token.startswith("bvd_")
    return (("authorization", f"Bearer {made.token}"),)


async def user(cloud: RunningCloud, name: str, *policies: str) -> None:
    with cloud.caller():
        identity = IdentityServiceStub(cloud.channel)
        await identity.CreateUser(identity_pb2.CreateUserRequest(user_name=name))
        for policy in policies:
            await identity.AttachPolicy(identity_pb2.AttachPolicyRequest(policy_arn=policy, user_name=name))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, list[Any]]:
    """Code, text and the details that are packed beside them."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    return caught.value.code(), caught.value.details() or "", list(status.details) if status is not None else []
