"""Table of the device_jobs service and the queries on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.device_jobs.rules import DONE


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


class JobRow(Row, table=True):
    """One job of one device."""

    __tablename__ = "job"
    job_id: str = Field(primary_key=True, max_length=300)
    account: str = Field(max_length=12, index=True)
    region: str = Field(max_length=64)
    device_id: str = Field(max_length=255, index=True)
    number: int
    device_name: str = Field(max_length=255)
    device_type: int = 0
    kind: str = Field(max_length=16)
    image_version: str = Field(default="", max_length=255)
    status: str = Field(max_length=32)
    status_description: str = Field(default="", max_length=255)
    in_target: bool = False
    """Whether the device's target holds it."""
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in {status.value for status in DONE}


async def find(session: AsyncSession, account: str, region: str, job_id: str) -> JobRow | None:
    """A job of the account."""
    row = await session.get(JobRow, job_id)
    return row if row is not None and (row.account, row.region) == (account, region) else None


async def next_number(session: AsyncSession, device_id: str) -> int:
    """The number of a device's next job, from 0."""
    last = (await session.exec(select(func.max(JobRow.number)).where(JobRow.device_id == device_id))).one()
    return 0 if last is None else last + 1


async def unfinished(session: AsyncSession, device_id: str) -> Sequence[JobRow]:
    """A device's jobs that have not ended."""
    done = [status.value for status in DONE]
    query = select(JobRow).where(JobRow.device_id == device_id, col(JobRow.status).not_in(done))
    return (await session.exec(query.order_by(col(JobRow.number)))).all()


async def unsettled(session: AsyncSession) -> Sequence[JobRow]:
    """Jobs that are to stand in their device's target and do not, or do and need not any more."""
    done = col(JobRow.status).in_([status.value for status in DONE])
    query = select(JobRow).where(done == col(JobRow.in_target))
    return (await session.exec(query.order_by(col(JobRow.created)))).all()


async def list_jobs(
    session: AsyncSession, account: str, region: str, device_id: str, after: dict[str, Any] | None, limit: int
) -> Sequence[JobRow]:
    """Jobs, the newest first."""
    query = select(JobRow).where(JobRow.account == account, JobRow.region == region)
    if device_id:
        query = query.where(JobRow.device_id == device_id)
    if after:
        created = datetime.fromisoformat(after["created"])
        query = query.where(
            or_(
                col(JobRow.created) < created,
                (col(JobRow.created) == created) & (col(JobRow.job_id) > after["job_id"]),
            )
        )
    return (await session.exec(query.order_by(col(JobRow.created).desc(), col(JobRow.job_id)).limit(limit))).all()
