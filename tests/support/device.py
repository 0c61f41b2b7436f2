"""A device as the registry sees it: real keys, real HTTPS, a real leaf. No agent.

device = await provision(cloud, "front-door")              # ProvisionDevice and the bundle
await device.enrol()                                       # POST /enrol
async with device.leaf(tmp_path / "leaf") as bus:          # its nats-server, linked
    await device.beat(bus)
"""

from __future__ import annotations

import base64
import io
import json
import ssl
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from belvedere.bus import jwt, subjects
from belvedere.bus.connection import Bus
from belvedere.bus.jwt import Key, Kind
from belvedere.bus.keyring import write_secret
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from tests.support.cloud import RunningCloud
from tests.support.hub import RunningHub, linked, running_leaf_with

SEAL_KEY = b"s" * 32


@dataclass
class TestDevice:
    """One device."""

    __test__ = False
    cloud: RunningCloud
    device_id: str
    bundle: dict[str, Any]
    ca_pem: str
    key: Key = field(default_factory=lambda: jwt.new_key(Kind.USER))
    identity: dict[str, Any] = field(default_factory=dict)

    def request(self, **changes: Any) -> dict[str, Any]:
        """What its appliance would send to /enrol."""
        return {
            "device_id": self.device_id,
            "token": self.bundle["token"],
            "nats_public_key": self.key.public,
            "seal_public_key": base64.b64encode(SEAL_KEY).decode(),
            "serial_number": "1234567890",
            "software_version": "0.1.0",
        } | changes

    async def enrol(self) -> dict[str, Any]:
        """Takes its identity."""
        status, answer = await self.post("/enrol", self.request())
        assert status == 200, answer
        self.identity = answer
        return answer

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """POST to the device port, trusting the bundle's CA and nothing else."""
        url = self.bundle["enrol_url"].removesuffix("/enrol") + path
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=data, headers=headers, ssl=self.trust()) as response,
        ):
            return response.status, await response.json()

    async def post_raw(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """POST of bytes, answered with bytes."""
        url = self.bundle["enrol_url"].removesuffix("/enrol") + path
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers, ssl=self.trust()) as response,
        ):
            return response.status, await response.read()

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """GET, signed unless `headers` say otherwise."""
        url = self.bundle["enrol_url"].removesuffix("/enrol") + path
        headers = {"Authorization": self.signature("GET", path)} | (headers or {})
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, ssl=self.trust()) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    def signature(self, method: str, path: str, *, late_s: int = 0, key: Key | None = None) -> str:
        """The Authorization header (docs/architecture.md, section 2)."""
        seconds = int(time.time()) - late_s
        signed = (key or self.key).sign(f"{method} {path} {seconds}".encode())
        return f"Belvedere-Device {self.device_id}:{seconds}:{base64.b64encode(signed).decode()}"

    def trust(self) -> ssl.SSLContext:
        """The bundle's CA."""
        return ssl.create_default_context(cadata=self.ca_pem)

    def hub(self) -> RunningHub:
        """The hub as tests.support.hub has it."""
        return RunningHub(self.cloud.runtime.hub, self.cloud.runtime.bus, self.cloud.runtime.data)

    @asynccontextmanager
    async def leaf(self, folder: Path, *, user_jwt: str | None = None, wait: bool = True) -> AsyncIterator[Bus]:
        """Its nats-server, linked with its own credentials; gives the local bus."""
        folder.mkdir(parents=True, exist_ok=True)
        creds = folder / "device.1.creds"
        write_secret(creds, jwt.creds_text(user_jwt or self.identity["user_jwt"], self.key).encode())
        async with running_leaf_with(self.hub(), folder, self.device_id, creds) as (_, bus):
            if wait:
                await linked(bus)
            yield bus

    async def beat(self, bus: Bus) -> None:
        """One heartbeat."""
        await bus.publish(subjects.up_heartbeat(self.device_id))

    async def describe(self) -> pb.DescribeDeviceResponse:
        """As the API sees it."""
        with self.cloud.caller():
            stub = RegistryServiceStub(self.cloud.channel)
            return await stub.DescribeDevice(pb.DescribeDeviceRequest(device_id=self.device_id))


async def provision(cloud: RunningCloud, name: str, **more: Any) -> TestDevice:
    """ProvisionDevice, its bundle opened."""
    with cloud.caller():
        stub = RegistryServiceStub(cloud.channel)
        answer = await stub.ProvisionDevice(pb.ProvisionDeviceRequest(name=name, **more))
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(answer.certificates))) as archive:
        bundle = json.loads(archive.read("config.json"))
        ca_pem = archive.read(bundle["ca_pem"]).decode()
    return TestDevice(cloud, answer.device_id, bundle, ca_pem)
