"""The agent's side of the link to the cloud: the target comes down, reports, heartbeats go up.

Everything goes through the leaf; whether that is up shows in whether the target can be read. Must not know what the
target says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from belvedere.bus import subjects
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError
from belvedere.bus.kv import get_target, put_reported
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DocumentError, Reported, Target

log = get_logger(__name__)

LINK_TIMEOUT_S = 3.0
CREDENTIALS_TIMEOUT_S = 5.0

OnTarget = Callable[[Target], Awaitable[None]]


class Link:
    """What the agent says to the cloud side and hears from it."""

    def __init__(self, bus: Bus, device_id: str, *, check_s: float) -> None:
        self.up = asyncio.Event()
        """Set while the cloud side can be reached."""
        self.device_id = device_id
        self._bus = bus
        self._check_s = check_s
        self._changed = asyncio.Event()
        self._seen = 0

    async def run(self, on_target: OnTarget) -> None:
        """Reads the target at start, at every change, after every reconnect, and each `check_s` in between."""
        await self._bus.subscribe(subjects.dev_target(self.device_id), self._announced)
        while True:
            self._changed.clear()
            await self._check(on_target)
            try:
                async with asyncio.timeout(self._check_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _announced(self, _: Message) -> None:
        self._changed.set()

    async def _check(self, on_target: OnTarget) -> None:
        try:
            await self._bus.publish(subjects.up_heartbeat(self.device_id))
            found = await get_target(self._bus, timeout_s=LINK_TIMEOUT_S)
        except BusError as error:
            if self.up.is_set():
                log.warning("the cloud is out of reach; everything here goes on", reason=str(error))
            self.up.clear()
            return
        if not self.up.is_set():
            log.info("linked to the cloud")
            self.up.set()
        if found is None:
            return
        data, revision = found
        if revision == self._seen:
            return
        try:
            target = Target.from_json(data)
        except DocumentError as error:
            log.error("the target cannot be read; the last good one stays", reason=str(error))
            return
        self._seen = revision
        await on_target(target)

    async def report(self, reported: Reported) -> None:
        """Stores what the appliance says it is. Raises BusError."""
        await put_reported(self._bus, reported.to_json().encode(), timeout_s=LINK_TIMEOUT_S)

    async def credentials(self, instance_id: str) -> dict[str, object]:
        """Role credentials for an application. Raises BusError; an answer with `error` is the cloud side's refusal."""
        subject = subjects.up_credentials(self.device_id)
        answer = await self._bus.request(subject, {"instance_id": instance_id}, timeout_s=CREDENTIALS_TIMEOUT_S)
        body: dict[str, object] = answer.json()
        return body


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
