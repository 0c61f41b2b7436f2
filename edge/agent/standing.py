"""Whether this device still exists in the cloud: asked over HTTPS while the link is away.

A link that is away says nothing: the cloud side may be off for days, and the appliance works on. Only one answer ends it:
the registry's own DEVICE_DELETED, from a server that the bundle's CA vouches for, to a request that this device's key
signed. A registry that has lost its rows, another server at that address, or silence is not that answer.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from belvedere.chassis.logs import get_logger
from edge.agent.device import CA, DeviceConfig, DeviceKeys, write_private

log = get_logger(__name__)

DELETED = "deleted.json"
PATH = "/device"
DELETED_CODE, DELETED_STATUS = "DEVICE_DELETED", 410
HTTPS_TIMEOUT_S = 20.0
ANSWER_MAX_BYTES = 16 * 1024


class Standing:
    """What the cloud side says of this device's existence. Deleted is for ever: an id is never given again."""

    def __init__(self, config: DeviceConfig, keys: DeviceKeys, folder: Path, *, check_s: float) -> None:
        self._config = config
        self._keys = keys
        self._folder = folder
        self._check_s = check_s
        self.deleted = (folder / DELETED).exists()

    async def watch(self, link_up: asyncio.Event, on_deleted: Callable[[], None]) -> None:
        """Asks every `check_s` while the link is away; returns once the device was deleted."""
        while not self.deleted:
            await asyncio.sleep(self._check_s)
            if not link_up.is_set() and await self.ask():
                log.error(
                    "this device was deleted in the cloud: its applications are stopped, the data folder stays as it is",
                    device_id=self._config.device_id,
                )
                on_deleted()

    async def ask(self) -> bool:
        """Whether the device was deleted; kept in the folder, so that the next start knows it without asking."""
        try:
            tls = ssl.create_default_context(cafile=str(self._folder / CA))
            headers = {"Authorization": self._keys.authorization(self._config.device_id, "GET", PATH)}
            url = self._config.device_url.rstrip("/") + PATH
            async with (
                asyncio.timeout(HTTPS_TIMEOUT_S),
                aiohttp.ClientSession() as session,
                session.get(url, headers=headers, ssl=tls, allow_redirects=False) as response,
            ):
                status, answer = response.status, json.loads(await response.content.read(ANSWER_MAX_BYTES))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("nobody says whether this device still exists", reason=str(error))
            return False
        refusal = answer.get("error") if isinstance(answer, dict) else None
        code = refusal.get("code") if isinstance(refusal, dict) else None
        if (status, code) != (DELETED_STATUS, DELETED_CODE):
            return False
        self.deleted = True
        write_private(self._folder / DELETED, json.dumps({"noticed": datetime.now(UTC).isoformat()}).encode())
        return True
