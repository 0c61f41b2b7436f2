"""The gateway as a service of the cloud side: the AWS front door on one port, with the services that it serves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from belvedere import awsmodel
from belvedere.bus import subjects
from belvedere.bus.connection import Message
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from services.gateway.access import Access
from services.gateway.cloudformation import service as cloudformation
from services.gateway.cloudwatch import service as cloudwatch
from services.gateway.dispatch import Dispatcher
from services.gateway.guess import Guess
from services.gateway.logs import service as logs
from services.gateway.message import AwsService
from services.gateway.panorama.service import PanoramaService
from services.gateway.s3.service import S3Service
from services.gateway.server import FrontDoor
from services.gateway.settings import ENV, Settings
from services.gateway.sts import service as sts


def create(runtime: Runtime) -> Service:
    """Listens on `runtime.ports.gateway` once started; has no gRPC of its own and no tables."""
    settings = runtime.settings(Settings, ENV)
    access = Access(
        runtime.channel(),
        account=runtime.cloud.account,
        cache_entries=settings.key_cache_entries,
        cache_s=settings.key_cache_s,
        monotonic=time.monotonic,
        clock=runtime.clock,
    )
    door = front_door(runtime, settings, access)

    async def listen() -> None:
        await door.start(runtime.cloud.host, runtime.ports.gateway)

    async def hear_changes() -> None:
        """Until cancelled: deleted and disabled keys are refused as soon as identity has said so."""

        async def heard(message: Message) -> None:
            access.forget()

        subscription = await runtime.bus.subscribe(subjects.events("identity"), heard)
        try:
            await asyncio.Event().wait()
        finally:
            await subscription.stop()

    return Service(name="gateway", tasks=[hear_changes], ready=[listen], close=[door.stop])


def front_door(runtime: Runtime, settings: Settings, access: Access) -> FrontDoor:
    """The server and what stands behind it."""
    channel = runtime.channel()
    services: Mapping[str, AwsService] = {
        "panorama": PanoramaService(awsmodel.panorama(), channel),
        "s3": S3Service(channel, runtime.blobs, runtime.cloud.host_names, runtime.clock),
        "sts": sts.create(channel),
        "logs": logs.create(channel),
        "monitoring": cloudwatch.create(channel, runtime.clock),
        "cloudformation": cloudformation.create(channel, runtime.blobs, runtime.clock),
    }
    segments = frozenset(operation.segments[0] for operation in awsmodel.panorama().operations.values())
    guess = Guess(segments, (*runtime.cloud.host_names, "localhost"))
    cloud = runtime.cloud
    return FrontDoor(
        Dispatcher(services, guess), access, runtime.clock, settings, account=cloud.account, region=cloud.region
    )
