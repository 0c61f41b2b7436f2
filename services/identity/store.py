"""Tables of the identity service and the queries on them. Knows no gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import JSON, LargeBinary, func, or_
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.identity.rules import UNPROVEN


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


class AccountRow(Row, table=True):
    """An account."""

    __tablename__ = "account"
    account: str = Field(primary_key=True, max_length=12)
    created: datetime = Field(sa_type=UtcDateTime)


class UserRow(Row, table=True):
    """A user of an account."""

    __tablename__ = "user_account"
    account: str = Field(primary_key=True, foreign_key="account.account", ondelete="CASCADE", max_length=12)
    name: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(unique=True, max_length=32)
    created: datetime = Field(sa_type=UtcDateTime)
    tokens_from: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Bearer tokens made before are refused."""


class RoleRow(Row, table=True):
    """A role of an account."""

    __tablename__ = "role"
    account: str = Field(primary_key=True, foreign_key="account.account", ondelete="CASCADE", max_length=12)
    name: str = Field(primary_key=True, max_length=64)
    role_id: str = Field(unique=True, max_length=32)
    trust: dict[str, Any] = Field(sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)


class PolicyRow(Row, table=True):
    """A policy of an account's own."""

    __tablename__ = "policy"
    account: str = Field(primary_key=True, foreign_key="account.account", ondelete="CASCADE", max_length=12)
    name: str = Field(primary_key=True, max_length=128)
    document: dict[str, Any] = Field(sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)


class AttachmentRow(Row, table=True):
    """A policy that a user or a role has."""

    __tablename__ = "attachment"
    account: str = Field(primary_key=True, foreign_key="account.account", ondelete="CASCADE", max_length=12)
    kind: str = Field(primary_key=True, max_length=4)
    """"user" or "role"."""
    name: str = Field(primary_key=True, max_length=64)
    policy_arn: str = Field(primary_key=True, max_length=256, index=True)
    position: int = 0
    """In the order of attaching."""


class AccessKeyRow(Row, table=True):
    """A user's access key; its secret sealed."""

    __tablename__ = "access_key"
    access_key_id: str = Field(primary_key=True, max_length=32)
    account: str = Field(max_length=12, index=True)
    user_name: str = Field(max_length=64)
    sealed_secret: bytes = Field(sa_type=LargeBinary)
    created: datetime = Field(sa_type=UtcDateTime)
    active: bool = True
    last_used: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_service: str = Field(default="", max_length=64)
    last_used_region: str = Field(default="", max_length=32)


class LoginTokenRow(Row, table=True):
    """A login link that was not used yet."""

    __tablename__ = "login_token"
    token_hash: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12)
    user_name: str = Field(max_length=64)
    expires: datetime = Field(sa_type=UtcDateTime, index=True)


class ConsoleSessionRow(Row, table=True):
    """A console session."""

    __tablename__ = "console_session"
    session_hash: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12)
    user_name: str = Field(max_length=64)
    expires: datetime = Field(sa_type=UtcDateTime, index=True)


class EndedInstanceRow(Row, table=True):
    """An application instance that was removed, or whose device was deleted: its sessions are refused."""

    __tablename__ = "ended_instance"
    instance_id: str = Field(primary_key=True, max_length=64)
    until: datetime = Field(sa_type=UtcDateTime, index=True)
    """By then every session that it was given has ended by itself."""


class AuditRow(Row, table=True):
    """One call, with the decision about it."""

    __tablename__ = "audit"
    __table_args__ = {"sqlite_autoincrement": True}
    position: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    account: str = Field(max_length=12)
    principal: str = Field(max_length=512, index=True)
    action: str = Field(max_length=128)
    resource: str = Field(max_length=2048)
    allowed: bool
    source_address: str = Field(default="", max_length=64)
    request_id: str = Field(default="", max_length=64)


class FurtherRow(Row, table=True):
    """A further decision of a call that has its row in `audit`, by the same request id: a part of its line."""

    __tablename__ = "audit_further"
    __table_args__ = {"sqlite_autoincrement": True}
    position: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    account: str = Field(max_length=12)
    request_id: str = Field(max_length=64, index=True)
    action: str = Field(max_length=128)
    resource: str = Field(max_length=2048)
    allowed: bool


R = TypeVar("R", UserRow, RoleRow, PolicyRow)


async def access_keys(session: AsyncSession, account: str, user_name: str) -> Sequence[AccessKeyRow]:
    """All keys of a user."""
    query = select(AccessKeyRow).where(AccessKeyRow.account == account, AccessKeyRow.user_name == user_name)
    return (await session.exec(query)).all()


async def take_login_token(session: AsyncSession, token_hash: str) -> LoginTokenRow | None:
    """The row of a login token, deleted: only one caller gets it, however many try at once."""
    query = delete(LoginTokenRow).where(col(LoginTokenRow.token_hash) == token_hash).returning(LoginTokenRow)
    return (await session.exec(query)).scalars().first()


async def attached(session: AsyncSession, account: str, kind: str, name: str) -> list[str]:
    """ARNs of the policies that a user or role has, in the order of attaching."""
    query = (
        select(AttachmentRow.policy_arn)
        .where(AttachmentRow.account == account, AttachmentRow.kind == kind, AttachmentRow.name == name)
        .order_by(col(AttachmentRow.position), col(AttachmentRow.policy_arn))
    )
    return list((await session.exec(query)).all())


async def attachments(session: AsyncSession, account: str) -> dict[tuple[str, str], list[str]]:
    """ARNs of policies by ("user" or "role", name), of the whole account."""
    query = select(AttachmentRow).where(AttachmentRow.account == account).order_by(col(AttachmentRow.position))
    found: dict[tuple[str, str], list[str]] = {}
    for row in (await session.exec(query)).all():
        found.setdefault((row.kind, row.name), []).append(row.policy_arn)
    return found


async def holders(session: AsyncSession, account: str, policy_arn: str) -> Sequence[AttachmentRow]:
    """Who has a policy."""
    query = select(AttachmentRow).where(AttachmentRow.account == account, AttachmentRow.policy_arn == policy_arn)
    return (await session.exec(query.order_by(col(AttachmentRow.kind), col(AttachmentRow.name)))).all()


async def all_of(session: AsyncSession, row: type[R], account: str) -> Sequence[R]:
    """Every user, role or policy of an account, by name."""
    query = select(row).where(row.account == account).order_by(col(row.name))
    return (await session.exec(query)).all()


async def count_of(session: AsyncSession, row: type[R], account: str) -> int:
    """How many users, roles or policies an account has."""
    return (await session.exec(select(func.count()).select_from(row).where(row.account == account))).one()


async def key_counts(session: AsyncSession, account: str) -> dict[str, int]:
    """How many access keys each user has."""
    query = (
        select(AccessKeyRow.user_name, func.count())
        .where(AccessKeyRow.account == account)
        .group_by(col(AccessKeyRow.user_name))
    )
    return dict((await session.exec(query)).all())


async def delete_holder(session: AsyncSession, account: str, kind: str, name: str) -> None:
    """What goes with a user or role: attachments, and a user's keys, links and sessions."""
    await session.exec(
        delete(AttachmentRow).where(
            col(AttachmentRow.account) == account, col(AttachmentRow.kind) == kind, col(AttachmentRow.name) == name
        )
    )
    if kind == "user":
        for row in (AccessKeyRow, LoginTokenRow, ConsoleSessionRow):
            await session.exec(delete(row).where(col(row.account) == account, col(row.user_name) == name))


async def audit_page(
    session: AsyncSession,
    account: str,
    *,
    since: datetime | None,
    principal: str | None,
    denied_only: bool,
    before: int | None,
    limit: int,
) -> Sequence[AuditRow]:
    """Calls, newest first. `principal`: of this ARN; `denied_only`: those of which some decision was no; `before`: with a smaller
    position."""
    query = select(AuditRow).where(AuditRow.account == account)
    if since is not None:
        query = query.where(AuditRow.at >= since)
    if principal is not None:
        query = query.where(AuditRow.principal == principal)
    if denied_only:
        refused = select(FurtherRow.position).where(
            FurtherRow.request_id == AuditRow.request_id,
            FurtherRow.account == account,
            col(FurtherRow.allowed).is_(False),
        )
        query = query.where(or_(col(AuditRow.allowed).is_(False), refused.exists()))
    if before is not None:
        query = query.where(col(AuditRow.position) < before)
    return (await session.exec(query.order_by(col(AuditRow.position).desc()).limit(limit))).all()


async def further(session: AsyncSession, account: str, request_ids: Sequence[str]) -> dict[str, list[FurtherRow]]:
    """The further decisions of some calls, by request id, as they came."""
    query = select(FurtherRow).where(FurtherRow.account == account, col(FurtherRow.request_id).in_(request_ids))
    found: dict[str, list[FurtherRow]] = {}
    for row in (await session.exec(query.order_by(col(FurtherRow.position)))).all():
        found.setdefault(row.request_id, []).append(row)
    return found


async def purge(
    session: AsyncSession, *, now: datetime, audit_before: datetime, audit_rows: int, unproven_rows: int
) -> int:
    """Removes what has expired, calls older than `audit_before`, lines of unproven callers but for the newest `unproven_rows`,
    and the oldest of all above `audit_rows`; a line and its further decisions together. How many lines were removed before
    their time."""
    await session.exec(delete(LoginTokenRow).where(col(LoginTokenRow.expires) < now))
    await session.exec(delete(ConsoleSessionRow).where(col(ConsoleSessionRow.expires) < now))
    await session.exec(delete(EndedInstanceRow).where(col(EndedInstanceRow.until) < now))
    for row in (AuditRow, FurtherRow):
        await session.exec(delete(row).where(col(row.at) < audit_before))
    early = 0
    # Ahead of the others, and by counting rows, not positions: what strangers write costs nobody else's lines.
    unproven = col(AuditRow.principal).between(UNPROVEN, f"{UNPROVEN}/\x7f")
    newest = select(AuditRow.position).where(unproven).order_by(col(AuditRow.position).desc())
    last = (await session.exec(newest.offset(unproven_rows).limit(1))).first()
    if last is not None:
        early += (await session.exec(delete(AuditRow).where(unproven, col(AuditRow.position) <= last))).rowcount
    for row in (AuditRow, FurtherRow):
        excess = (await session.exec(select(func.count()).select_from(row))).one() - audit_rows
        if excess <= 0:
            continue
        nth = col(row.position)
        oldest = select(row.at, row.position).order_by(nth).offset(excess - 1).limit(1)
        cut_at, cut = (await session.exec(oldest)).one()
        if row is AuditRow:
            early += (await session.exec(delete(AuditRow).where(nth <= (cut or 0)))).rowcount
        else:
            # A line that can't be told whole is not told: it goes with its decisions.
            early += (await session.exec(delete(AuditRow).where(col(AuditRow.at) <= cut_at))).rowcount
            await session.exec(delete(FurtherRow).where(nth <= (cut or 0)))
    first = (await session.exec(select(func.min(AuditRow.at)))).one()
    if first is not None:
        # Of lines that are gone. None comes before its line.
        await session.exec(delete(FurtherRow).where(col(FurtherRow.at) < first))
    return early
