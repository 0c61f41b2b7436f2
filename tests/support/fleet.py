"""A device as the cloud side sees it: really provisioned and enrolled, its reports written by the test.

device = await Device.provision(cloud, "yard")
await device.enrol()
await device.report(ReportedApplication(...))
await eventually(lambda: status_is(...))
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from belvedere.bus import jwt, subjects
from belvedere.bus.kv import KeyValue
from belvedere.chassis.secret import Secret
from belvedere.fleet import (
    DesiredState,
    DeviceReportedStatus,
    Health,
    Reported,
    ReportedApplication,
    ReportedJob,
    ReportedVideo,
    Target,
    sealing,
)
from belvedere.v1 import registry_pb2, registry_pb2_grpc
from tests.support.cloud import RunningCloud

T = TypeVar("T")
EVENTUALLY_S = 60.0
"""Many times what anything takes, also on a busy machine."""


async def eventually(probe: Callable[[], Awaitable[T]], what: str = "it", timeout_s: float = EVENTUALLY_S) -> T:
    """What `probe` gives once that is true; fails after `timeout_s`, saying what it gave last."""
    until = time.monotonic() + timeout_s
    while True:
        found = await probe()
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not happen within {timeout_s} s: {found!r}"
        await asyncio.sleep(0.02)


@dataclass
class Device:
    """One device. What its appliance would do, the test does."""

    cloud: RunningCloud
    device_id: str
    bundle: bytes
    _keys: tuple[Secret[bytes], bytes] = field(default_factory=sealing.generate_keys)

    @classmethod
    async def provision(cls, cloud: RunningCloud, name: str, tags: Mapping[str, str] | None = None) -> Device:
        """ProvisionDevice, as the present caller."""
        stub = registry_pb2_grpc.RegistryServiceStub(cloud.channel)
        made = await stub.ProvisionDevice(registry_pb2.ProvisionDeviceRequest(name=name, tags=tags))
        return cls(cloud, made.device_id, base64.b64decode(made.certificates))

    @property
    def private_key(self) -> Secret[bytes]:
        """What opens credentials sealed to it."""
        return self._keys[0]

    async def enrol(self) -> dict[str, Any]:
        """Sends what an appliance sends to /enrol, over TLS; returns what it is told."""
        with zipfile.ZipFile(io.BytesIO(self.bundle)) as bundle:
            config = json.loads(bundle.read("config.json"))
            ca = bundle.read("ca.pem").decode()
        body = {
            "device_id": self.device_id,
            "token": config["token"],
            "nats_public_key": jwt.new_key(jwt.Kind.USER).public,
            "seal_public_key": base64.b64encode(self._keys[1]).decode(),
            "serial_number": "1234567",
            "software_version": "0.1.0",
        }
        context = ssl.create_default_context(cadata=ca)
        async with (
            aiohttp.ClientSession() as session,
            session.post(config["enrol_url"], json=body, ssl=context) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    async def target(self) -> Target:
        """The target document as it stands."""
        entry = await KeyValue(self.cloud.runtime.bus, subjects.TARGET_BUCKET).get(self.device_id)
        return Target(self.device_id) if entry is None or entry.value is None else Target.from_json(entry.value)

    async def report(
        self,
        *applications: ReportedApplication,
        jobs: tuple[ReportedJob, ...] = (),
        video: tuple[ReportedVideo, ...] = (),
        version: int | None = None,
    ) -> None:
        """Reports these applications, jobs and video and no others; `version`: of the target, the newest if None."""
        reported = Reported(
            device_id=self.device_id,
            target_version=(await self.target()).version if version is None else version,
            reported_at_ms=int(time.time() * 1000),
            software_version="0.1.0",
            applications=applications,
            jobs=jobs,
            video=video,
        )
        bucket = KeyValue(self.cloud.runtime.bus, subjects.REPORTED_BUCKET)
        await bucket.put(self.device_id, reported.to_json().encode())


Verdict = Callable[[str], ReportedApplication | None]
"""What an appliance makes of an application instance that it is to run; None: it delivers."""


@asynccontextmanager
async def living(device: Device, verdict: Verdict = lambda _: None, every_s: float = 0.05) -> AsyncIterator[None]:
    """The device does what its target says, at once, and sends heartbeats: an application that is to run runs, unless
    `verdict` says otherwise; one that is replaced goes when the new one runs. ONLINE inside the block."""

    async def live() -> None:
        said: tuple[int, tuple[ReportedApplication, ...]] | None = None
        while True:
            await device.cloud.runtime.bus.publish(subjects.up_heartbeat(device.device_id))
            target = await device.target()
            wanted = [item for item in target.applications if item.desired is DesiredState.RUNNING]
            rows = {item.instance_id: verdict(item.instance_id) or _runs(item.instance_id) for item in wanted}
            held = {
                item.replaces
                for item in wanted
                if item.replaces and rows[item.instance_id].state is not DeviceReportedStatus.RUNNING
            }
            going = [
                ReportedApplication(item.instance_id, DeviceReportedStatus.REMOVAL_IN_PROGRESS)
                for item in target.applications
                if item.instance_id in held
            ]
            now = (target.version, (*rows.values(), *going))
            if now != said:
                await device.report(*now[1], version=now[0])
                said = now
            await asyncio.sleep(every_s)

    async def online() -> bool:
        stub = registry_pb2_grpc.RegistryServiceStub(device.cloud.channel)
        found = await stub.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=device.device_id))
        return found.device_connection_status == registry_pb2.DEVICE_CONNECTION_STATUS_ONLINE

    task = asyncio.create_task(live())
    try:
        await eventually(online, f"{device.device_id} online")
        yield
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            raise AssertionError(f"{device.device_id} ended by itself") from ended


def _runs(instance_id: str) -> ReportedApplication:
    return ReportedApplication(instance_id, DeviceReportedStatus.RUNNING, Health.RUNNING)
