"""The console of a running cloud, over real HTTP: who looks, and what there is to see."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from belvedere.v1 import (
    identity_pb2,
    identity_pb2_grpc,
    logs_metrics_pb2,
    logs_metrics_pb2_grpc,
)
from tests.support.cloud import RunningCloud

SERVICES = ["identity", "registry", "packages", "deployments", "logs_metrics", "console"]


@dataclass
class Console:
    """The console of a running cloud, and a browser's memory."""

    cloud: RunningCloud
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.cloud.runtime.ports.console}"

    async def link(self, user: str = "admin") -> str:
        """A fresh login link."""
        identity = identity_pb2_grpc.IdentityServiceStub(self.cloud.channel)
        made = await identity.CreateLoginToken(identity_pb2.CreateLoginTokenRequest(user_name=user))
        return f"{self.url}/login?token={made.token}"

    async def get(self, path: str, status: int = 200, **parameters: str) -> Any:
        async with self.http.get(self.url + path, params=parameters) as answer:
            assert answer.status == status, await answer.text()
            assert answer.content_type == "application/json"
            return await answer.json()


async def log_in(console: Console, user: str = "admin") -> None:
    async with console.http.get(await console.link(user)) as answer:
        assert answer.status == 200


async def user(console: Console, name: str, *statements: dict[str, Any], policy: str = "") -> None:
    """A user with a policy of these statements, or one that is always there."""
    identity = identity_pb2_grpc.IdentityServiceStub(console.cloud.channel)
    await identity.CreateUser(identity_pb2.CreateUserRequest(user_name=name))
    if statements:
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        request = identity_pb2.CreatePolicyRequest(policy_name=name, policy_document=document)
        policy = (await identity.CreatePolicy(request)).policy.arn
    if policy:
        await identity.AttachPolicy(identity_pb2.AttachPolicyRequest(policy_arn=policy, user_name=name))


async def write_log(cloud: RunningCloud, group: str, message: str, *, create: bool = True) -> None:
    logs = logs_metrics_pb2_grpc.LogsServiceStub(cloud.channel)
    if create:
        await logs.CreateLogGroup(logs_metrics_pb2.CreateLogGroupRequest(group=group))
        await logs.CreateLogStream(logs_metrics_pb2.CreateLogStreamRequest(group=group, stream="console_output"))
    event = logs_metrics_pb2.LogEvent(timestamp_ms=int(time.time() * 1000), message=message)
    await logs.PutLogEvents(logs_metrics_pb2.PutLogEventsRequest(group=group, stream="console_output", events=[event]))


async def write_metric(cloud: RunningCloud, namespace: str, name: str, value: float, **dimensions: str) -> None:
    datum = logs_metrics_pb2.MetricDatum(
        name=name, dimensions=dimensions, sum=value, minimum=value, maximum=value, sample_count=1
    )
    await logs_metrics_pb2_grpc.MetricsServiceStub(cloud.channel).PutMetricData(
        logs_metrics_pb2.PutMetricDataRequest(namespace=namespace, data=[datum])
    )
