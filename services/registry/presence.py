"""Which devices are there: heartbeats, links coming and going, what devices report, leases over the bus.

A device is ONLINE when its agent is heard, OFFLINE when it was silent for too long or its link is gone. Rows and events
change only when a device's state does, not with every heartbeat.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.accounts import Connections
from belvedere.bus.connection import Bus, Message
from belvedere.bus.kv import Entry, KeyValue
from belvedere.chassis import outbox
from belvedere.chassis.database import Database
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DocumentError, Reported
from services.registry import events, rules, store
from services.registry.enrolment import Enrolment
from services.registry.issuing import Issuer
from services.registry.rules import Provisioning, Refused
from services.registry.settings import Settings
from services.registry.store import DeviceRow

CHECK_EVERY_S = 0.5

log = get_logger(__name__)


class Presence:
    """Follows all devices."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        issuer: Issuer,
        enrolment: Enrolment,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._bus = bus
        self._issuer = issuer
        self._enrolment = enrolment
        self._settings = settings
        self._clock = clock
        self._heard: dict[str, float] = {}
        """Connected devices: when each was last heard, monotonic seconds."""
        self._devices: dict[str, str] = {}
        """Account → device."""
        self._cut: dict[str, float] = {}
        """Devices whose link went and is not back: since when, monotonic seconds."""

    async def prepare(self) -> None:
        """Puts every enrolled device's account in place. Who was connected gets one silence's time to be heard again."""
        async with self._database.session(read_only=True) as session:
            rows = await store.enrolled(session)
        for row in rows:
            self.know(row)
            if row.connected:
                self._heard[row.device_id] = time.monotonic()
        await self._issuer.open([(row.device_id, row.account_public_key) for row in rows], self._links_changed)

    def know(self, row: DeviceRow) -> None:
        """The account of a device from now on."""
        self._devices[row.account_public_key] = row.device_id

    def forget(self, row: DeviceRow) -> None:
        """A deleted device."""
        self._devices.pop(row.account_public_key, None)
        self._heard.pop(row.device_id, None)
        self._cut.pop(row.device_id, None)

    async def listen(self) -> None:
        """Heartbeats and leases, until cancelled."""
        heartbeats = await self._bus.subscribe(subjects.UP_HEARTBEAT_ALL, self._heartbeat)
        leases = await self._bus.subscribe(subjects.UP_LEASE_ALL, self._lease, queue="registry")
        try:
            await asyncio.Event().wait()
        finally:
            await heartbeats.stop()
            await leases.stop()

    async def watch_silence(self) -> None:
        """Until cancelled: who is silent for too long, or cut off, is OFFLINE."""
        compared = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            now = time.monotonic()
            if now - compared >= self._settings.heartbeat_silence_s:
                compared = now
                await self._correct()
            silent = [d for d, at in self._heard.items() if now - at > self._settings.heartbeat_silence_s]
            cut = [d for d, at in self._cut.items() if now - at >= self._settings.link_gone_s]
            for device_id in {*silent, *cut}:
                self._cut.pop(device_id, None)
                if self._heard.pop(device_id, None) is not None:
                    await self._set_connected(device_id, False)

    async def _correct(self) -> None:
        """A replica that lost the bus for a while heard nobody, and said so of all: who is heard here is ONLINE."""
        async with self._database.session(read_only=True) as session:
            said_offline = await store.disconnected(session)
        for device_id in said_offline:
            if device_id in self._heard and device_id not in self._cut:
                await self._set_connected(device_id, True)

    async def watch_reports(self) -> None:
        """What devices report of themselves, until cancelled."""
        async for entry in KeyValue(self._bus, subjects.REPORTED_BUCKET).watch():
            await self._reported(entry)

    async def _heartbeat(self, message: Message) -> None:
        device_id = subjects.device_of(message.subject)
        self._cut.pop(device_id, None)
        known = device_id in self._heard
        self._heard[device_id] = time.monotonic()
        if not known and not await self._set_connected(device_id, True):
            self._heard.pop(device_id, None)  # deleted a moment ago

    async def _lease(self, message: Message) -> None:
        try:
            await message.respond(await self._enrolment.renew(subjects.device_of(message.subject)))
        except Refused as refused:
            await message.respond({"error": refused.message})

    async def _links_changed(self, found: Connections) -> None:
        device_id = self._devices.get(found.account)
        if device_id is None:
            return
        if found.leafs:
            self._cut.pop(device_id, None)
        else:
            self._cut.setdefault(device_id, time.monotonic())

    async def _set_connected(self, device_id: str, connected: bool) -> bool:
        """Returns whether there is such a device."""
        async with self._database.session() as session, session.begin():
            row = await session.get(DeviceRow, device_id)
            if row is None or not row.enrolled:
                return False
            if row.connected != connected:
                row.connected, row.connection_changed = connected, self._clock()
                if connected:
                    row.provisioning = Provisioning.SUCCEEDED.value
                session.add(row)
                outbox.add(session, events.device("online" if connected else "offline", row))
                log.info("device is online" if connected else "device is offline", device_id=device_id)
        self.know(row)
        return True

    async def _reported(self, entry: Entry) -> None:
        if entry.value is None:
            return
        try:
            reported = Reported.from_json(entry.value)
        except DocumentError as error:
            log.warning("a device's report cannot be read", device_id=entry.key, reason=str(error))
            return
        # The key is what the hub let the device write; what the document calls itself does not matter.
        told: dict[str, Any] = {
            "software_version": reported.software_version[: rules.SOFTWARE_MAX],
            "networking": reported.networking.to_plain(),
            "video": [video.to_plain() for video in reported.video],
        }
        async with self._database.session(read_only=True) as session:
            row = await session.get(DeviceRow, entry.key)
        if row is None or all(getattr(row, name) == value for name, value in told.items()):
            return
        async with self._database.session() as session, session.begin():
            row = await session.get(DeviceRow, entry.key)
            if row is None:
                return
            for name, value in told.items():
                setattr(row, name, value)
            row.networking_at = datetime.fromtimestamp(reported.reported_at_ms / 1000, UTC)
            session.add(row)
