"""The service's tasks: reports of devices, events of other services, and what waits.

Must not know what a report or event means for an instance: `deployer` does.
"""

from __future__ import annotations

import asyncio

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError, InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.jetstream import consume
from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DocumentError, Reported
from services.deployments.deployer import NOT_NOW, Deployer

log = get_logger(__name__)

AGAIN_S = 2.0
"""Until an event that could not be dealt with now comes again."""


class Listener:
    """Runs for as long as the service."""

    def __init__(self, deployer: Deployer, bus: Bus, retry_s: float) -> None:
        self._deployer = deployer
        self._bus = bus
        self._retry_s = retry_s

    async def watch_reports(self) -> None:
        """Every report as it stands, then every new one."""
        async for entry in self._deployer.reports.watch():
            if entry.value is None:
                continue
            try:
                reported = Reported.from_json(entry.value)
                if reported.device_id != entry.key:
                    raise DocumentError("device_id", f"is {reported.device_id}, but stands at {entry.key}")
                await self._deployer.take_report(reported)
            except DocumentError as error:
                log.error("a device's report can't be read", device_id=entry.key, error=str(error))
            except BusError as error:
                # The device's next report, or the next look at all of them after a loss of the hub, does it.
                log.warning("a report is not dealt with", device_id=entry.key, error=str(error))

    async def registry_events(self) -> None:
        """What happens to devices."""
        await self._consume("registry")

    async def packages_events(self) -> None:
        """What happens to cameras."""
        await self._consume("packages")

    async def settle_waiting(self) -> None:
        """Tries what waits, at the start and every `retry_s`: for whatever was missed."""
        while True:
            try:
                await self._deployer.settle_waiting()
            except NOT_NOW as error:
                log.warning("what waits goes on waiting", error=str(error))
            await asyncio.sleep(self._retry_s)

    async def _consume(self, service: str) -> None:
        messages = consume(
            self._bus, subjects.EVENTS_STREAM, durable=f"deployments-{service}", filter_subject=subjects.events(service)
        )
        async for message in messages:
            try:
                event = Event.from_json(message.data)
                with acting_as(_on_behalf_of(event)):
                    await self._handle(event)
                await message.ack()
            except (InvalidDocument, DocumentError) as error:
                log.error("an event can't be dealt with", subject=message.subject, error=str(error))
                await message.term()
            except NOT_NOW as error:
                log.warning("an event waits", subject=message.subject, error=str(error), again_s=AGAIN_S)
                await message.nak(AGAIN_S)

    async def _handle(self, event: Event) -> None:
        deployer = self._deployer
        match event.type:
            case "registry.device.enrolled":
                await deployer.settle_waiting(event.subject)
            case "registry.device.online":
                await deployer.heard_of(event.subject)
            case "registry.device.offline":
                await deployer.health_unknown(event.subject)
            case "registry.device.deleted":
                await deployer.device_deleted(event.subject)
            case "packages.camera.created":
                data = {key: str(value) for key, value in event.data.items()}
                await deployer.new_credentials(
                    event.account,
                    event.region,
                    data.get("packageName", ""),
                    data.get("packageVersion", ""),
                    data.get("patchVersion", ""),
                )


def _on_behalf_of(event: Event) -> Caller:
    return Caller(event.account, event.region, service_principal("deployments"), new_request_id())
