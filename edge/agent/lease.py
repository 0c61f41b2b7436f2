"""Keeps the lease: the appliance's credentials for its link are good for a week, and renewed by itself well before.

Over the link while that stands. An appliance that was off for longer than its lease has no link any more: it asks over
HTTPS, with a signature of the key that it enrolled with.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from belvedere.bus import subjects
from belvedere.bus.connection import Bus
from belvedere.bus.errors import BusError
from belvedere.chassis.logs import get_logger
from edge.agent.device import CA, DeviceConfig, DeviceKeys, write_private
from edge.agent.enrol import credentials_file
from edge.agent.errors import LeaseRefused

log = get_logger(__name__)

RETRY_S = 30.0
HTTPS_TIMEOUT_S = 20.0
PATH = "/lease"

OnRenewed = Callable[[Path], Awaitable[None]]


class Lease:
    """One device's lease. `config` is the newest."""

    def __init__(self, bus: Bus, config: DeviceConfig, keys: DeviceKeys, folder: Path) -> None:
        self.config = config
        self._bus = bus
        self._keys = keys
        self._folder = folder

    @property
    def left_s(self) -> float:
        """Seconds until it ends; negative afterwards."""
        return (datetime.fromisoformat(self.config.lease_expires) - datetime.now(UTC)).total_seconds()

    async def keep(self, fraction: float, link_up: asyncio.Event, on_renewed: OnRenewed) -> None:
        """Renews after `fraction` of what is left, for ever; `on_renewed` gets the new credentials file."""
        while True:
            await asyncio.sleep(max(self.left_s * fraction, 0.0))
            if self.left_s > 0:
                await link_up.wait()
            try:
                await on_renewed(await self.renew())
            except (BusError, LeaseRefused) as error:
                log.warning("the lease is not renewed yet", reason=str(error), left_s=round(self.left_s))
                await asyncio.sleep(RETRY_S)

    async def renew(self) -> Path:
        """Gets a new lease and returns its credentials file. Raises BusError or LeaseRefused."""
        answer = await (self._ask_over_link() if self.left_s > 0 else self._ask_over_https())
        if "error" in answer:
            raise LeaseRefused(f"the cloud side does not renew the lease: {answer['error']}")
        generation = self.config.creds_generation + 1
        file = self._folder / f"device.{generation}.creds"
        write_private(file, credentials_file(str(answer["user_jwt"]), self._keys))
        before = self._folder / f"device.{generation - 2}.creds"
        self.config = replace(
            self.config,
            lease_expires=str(answer["lease_expires"]),
            creds_generation=generation,
            # The gateway's port may have moved since; relays read it from the file at each connection.
            gateway_url=str(answer.get("gateway_url") or self.config.gateway_url),
        )
        self.config.save(self._folder)
        before.unlink(missing_ok=True)  # the one before the last: the running leaf may still name the last
        log.info("lease renewed", lease_expires=self.config.lease_expires)
        return file

    async def _ask_over_link(self) -> dict[str, Any]:
        answer = await self._bus.request(subjects.up_lease(self.config.device_id), {})
        return dict(answer.json())

    async def _ask_over_https(self) -> dict[str, Any]:
        tls = ssl.create_default_context(cafile=str(self._folder / CA))
        headers = {"Authorization": self._keys.authorization(self.config.device_id, "POST", PATH)}
        try:
            async with (
                asyncio.timeout(HTTPS_TIMEOUT_S),
                aiohttp.ClientSession() as session,
                session.post(self.config.device_url.rstrip("/") + PATH, headers=headers, ssl=tls) as response,
            ):
                answer: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise LeaseRefused(f"the lease has ended and {self.config.device_url} does not answer: {error}") from error
        return answer
