"""Tables of the identity service and the queries on them. Knows no gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, LargeBinary
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime


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
    policies: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)


class RoleRow(Row, table=True):
    """A role of an account."""

    __tablename__ = "role"
    account: str = Field(primary_key=True, foreign_key="account.account", ondelete="CASCADE", max_length=12)
    name: str = Field(primary_key=True, max_length=64)
    role_id: str = Field(unique=True, max_length=32)
    policies: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)


class AccessKeyRow(Row, table=True):
    """A user's access key; its secret sealed."""

    __tablename__ = "access_key"
    access_key_id: str = Field(primary_key=True, max_length=32)
    account: str = Field(max_length=12, index=True)
    user_name: str = Field(max_length=64)
    sealed_secret: bytes = Field(sa_type=LargeBinary)
    created: datetime = Field(sa_type=UtcDateTime)


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


class AuditRow(Row, table=True):
    """One decision."""

    __tablename__ = "audit"
    __table_args__ = {"sqlite_autoincrement": True}
    position: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    account: str = Field(max_length=12)
    principal: str = Field(max_length=512)
    action: str = Field(max_length=128)
    resource: str = Field(max_length=2048)
    allowed: bool
    source_address: str = Field(default="", max_length=64)
    request_id: str = Field(default="", max_length=64)


async def access_keys(session: AsyncSession, account: str, user_name: str) -> Sequence[AccessKeyRow]:
    """All keys of a user."""
    query = select(AccessKeyRow).where(AccessKeyRow.account == account, AccessKeyRow.user_name == user_name)
    return (await session.exec(query)).all()


async def take_login_token(session: AsyncSession, token_hash: str) -> LoginTokenRow | None:
    """The row of a login token, deleted: only one caller gets it, however many try at once."""
    query = delete(LoginTokenRow).where(col(LoginTokenRow.token_hash) == token_hash).returning(LoginTokenRow)
    return (await session.exec(query)).scalars().first()


async def purge(session: AsyncSession, *, now: datetime, audit_before: datetime) -> None:
    """Removes what has expired, and decisions older than `audit_before`."""
    await session.exec(delete(LoginTokenRow).where(col(LoginTokenRow.expires) < now))
    await session.exec(delete(ConsoleSessionRow).where(col(ConsoleSessionRow.expires) < now))
    await session.exec(delete(AuditRow).where(col(AuditRow.at) < audit_before))
