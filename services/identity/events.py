"""What identity publishes, and hears on the bus.

published   identity.key.changed       an access key, a user's bearer tokens, or the sessions of an application instance that is gone:
                                       subject is the key's id, the user's ARN or the instance's id
            identity.policy.changed    a policy, or who has it, or a user or role: subject is its ARN
heard       both, from other replicas: what was read is read again
            deployments.instance.removed   the instance's sessions are refused from then on
            up.<id>.credentials        appliances that ask for an application's role credentials

For credentials it believes the device's target document, which only the cloud side writes: credentials go to the device whose target
names the instance with that role, and to nobody else. The answer is `{"error": …}` for every refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from belvedere.bus import subjects
from belvedere.bus.connection import Bus, Message
from belvedere.bus.errors import BusError, InvalidDocument
from belvedere.bus.event import Event
from belvedere.bus.following import follow
from belvedere.bus.kv import KeyValue
from belvedere.chassis import outbox
from belvedere.chassis.context import Caller, new_request_id, service_principal
from belvedere.chassis.database import Database
from belvedere.chassis.errors import BelvedereError
from belvedere.chassis.logs import get_logger
from belvedere.fleet import DesiredState, DocumentError, Target
from belvedere.v1 import identity_pb2 as pb
from services.identity.store import EndedInstanceRow

log = get_logger(__name__)

SOURCE = "/belvedere/identity"
KEY_CHANGED, POLICY_CHANGED = "identity.key.changed", "identity.policy.changed"
INSTANCE_REMOVED = "deployments.instance.removed"
DURABLE = "identity-removed"
ENDED_KEPT_S = 86_400
"""How long an ended instance is remembered at least: longer than the sessions that were given under earlier settings."""


def changed(type: str, subject: str, who: Caller) -> Event:
    """One of the two."""
    return Event(type, SOURCE, subject, who.account, who.region, {"by": who.principal})


class Changes:
    """Hears of changes, this replica's own among them."""

    def __init__(self, bus: Bus, forget: Callable[[], None]) -> None:
        self._bus, self._forget = bus, forget

    async def run(self) -> None:
        """Until cancelled. No consumer: who was away has nothing that is older than his absence for long."""

        async def heard(message: Message) -> None:
            self._forget()

        subscription = await self._bus.subscribe(subjects.events("identity"), heard)
        try:
            await asyncio.Event().wait()
        finally:
            await subscription.stop()


class EndedInstances:
    """Notes instances that were removed, or went with their device, so that what they were given opens nothing any more."""

    def __init__(self, database: Database, bus: Bus, session_s: int, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._bus = bus
        self._keep = timedelta(seconds=max(session_s, ENDED_KEPT_S))
        self._clock = clock

    async def follow(self) -> None:
        """Until cancelled. Replicas share the work."""
        await follow(self._bus, DURABLE, subjects.event(INSTANCE_REMOVED), self._take)

    async def _take(self, event: Event) -> None:
        until = event.time + self._keep
        if until <= self._clock() or not event.data.get("roleArn", True):
            return  # what it was given has ended by itself, or it was never given any
        by = Caller(event.account, event.region, service_principal("identity"), new_request_id())
        async with self._database.session() as session, session.begin():
            if await session.get(EndedInstanceRow, event.subject) is None:
                session.add(EndedInstanceRow(instance_id=event.subject, until=until))
                outbox.add(session, changed(KEY_CHANGED, event.subject, by))
        log.info("sessions of an application instance are refused", instance_id=event.subject)


Assume = Callable[[str, str], Awaitable[pb.AssumeRoleResponse]]
"""(role ARN, instance id) → temporary credentials; raises BelvedereError."""


class CredentialsDesk:
    """Answers appliances."""

    def __init__(self, bus: Bus, assume: Assume) -> None:
        self._bus = bus
        self._targets = KeyValue(bus, subjects.TARGET_BUCKET)
        self._assume = assume

    async def give_credentials(self) -> None:
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
        credentials = await self._assume(application.role_arn, instance_id)
        return {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": credentials.expiration.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
