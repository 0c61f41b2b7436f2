"""What the handlers of users, roles and policies have in common: the account, the lines in the audit trail, the events.

A change and its event are one transaction; the directory forgets at once here, and elsewhere when the event arrives.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import outbox
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import NotFound
from belvedere.v1 import identity_pb2_grpc
from services.identity import events, rules
from services.identity.audit import Trail
from services.identity.directory import Directory
from services.identity.policy.managed import DOCUMENTS
from services.identity.store import PolicyRow, RoleRow, UserRow


class Administration(identity_pb2_grpc.IdentityServiceServicer):
    """Base of the handlers."""

    def __init__(self, database: Database, directory: Directory, trail: Trail, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._directory = directory
        self._trail = trail
        self._clock = clock

    @asynccontextmanager
    async def _change(self, action: str, resource: str, event: str, subject: str) -> AsyncIterator[AsyncSession]:
        """A transaction that changes who may what: committed at the end, with its event and its line in the trail."""
        who = caller()
        async with self._database.session() as session, session.begin():
            yield session
            outbox.add(session, events.changed(event, subject, who))
        self._directory.forget()
        await self._note(action, resource)

    async def _note(self, action: str, resource: str) -> None:
        """A line for what came by the owner's socket; for all others `Authorize` has left it already."""
        who = caller()
        if who.source:
            return
        await self._trail.record(
            at=self._clock(),
            account=who.account,
            principal=who.principal,
            action=action,
            resource=resource,
            allowed=True,
            source_address="",
            request_id=who.request_id,
        )


async def found_user(session: AsyncSession, account: str, name: str) -> UserRow:
    """Raises NotFound."""
    row = await session.get(UserRow, (account, name))
    if row is None:
        raise NotFound("USER", name, f"There is no user {name!r} in this account.")
    return row


async def found_role(session: AsyncSession, account: str, name: str) -> RoleRow:
    """Raises NotFound."""
    row = await session.get(RoleRow, (account, name))
    if row is None:
        raise NotFound("ROLE", name, f"There is no role {name!r} in this account.")
    return row


async def found_policy(session: AsyncSession, account: str, arn: str) -> PolicyRow | None:
    """None for one that is always there. Raises NotFound, Invalid."""
    if arn in DOCUMENTS:
        return None
    row = await session.get(PolicyRow, (account, rules.parse_policy_arn(arn, account)))
    if row is None:
        raise NotFound("POLICY", arn, f"There is no policy {arn} in this account.")
    return row
