"""What identity hears on the bus: appliances that ask for an application's role credentials (`up.<id>.credentials`).

It believes the device's target document, which only the cloud side writes: credentials go to the device whose target
names the instance with that role, and to nobody else. The answer is `{"error": …}` for every refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError, InvalidDocument
from belvedere.bus.kv import KeyValue
from belvedere.chassis.errors import BelvedereError
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DesiredState, DocumentError, Target
from belvedere.v1 import identity_pb2 as pb

log = get_logger(__name__)

Assume = Callable[[str, str], Awaitable[pb.AssumeRoleResponse]]
"""(role ARN, session name) → temporary credentials; raises BelvedereError."""


class CredentialsDesk:
    """Answers appliances."""

    def __init__(self, bus: Bus, assume: Assume) -> None:
        self._bus = bus
        self._targets = KeyValue(bus, subjects.TARGET_BUCKET)
        self._assume = assume

    async def run(self) -> None:
        """Until cancelled. Replicas share the work."""
        subscription = await self._bus.subscribe(subjects.UP_CREDENTIALS_ALL, self._asked, queue="identity")
        try:
            await asyncio.Event().wait()
        finally:
            await subscription.stop()

    async def _asked(self, message: Message) -> None:
        device_id = subjects.device_of(message.subject)
        try:
            body = message.json()
            instance_id = str(body.get("instance_id", "")) if isinstance(body, dict) else ""
            answer = await self._answer(device_id, instance_id)
        except InvalidDocument:
            answer = {"error": 'the request is not JSON: {"instance_id": …} is expected'}
        except BelvedereError as error:
            answer = {"error": error.message}
        except (BusError, DocumentError) as error:
            log.warning("no credentials", device_id=device_id, reason=str(error))
            answer = {"error": "the device's target cannot be read at the moment: ask again"}
        if "error" in answer:
            log.info("credentials refused", device_id=device_id, reason=answer["error"])
        await message.respond(answer)

    async def _answer(self, device_id: str, instance_id: str) -> dict[str, Any]:
        entry = await self._targets.get(device_id)
        target = Target.from_json(entry.value) if entry is not None and entry.value is not None else None
        application = target.application(instance_id) if target is not None else None
        if application is None or application.desired is not DesiredState.RUNNING:
            return {"error": f"no application instance {instance_id!r} is to run on {device_id}"}
        if not application.role_arn:
            return {"error": f"{instance_id} has no role: give RuntimeRoleArn when it is created"}
        credentials = await self._assume(application.role_arn, instance_id[:64])
        return {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": credentials.expiration.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
