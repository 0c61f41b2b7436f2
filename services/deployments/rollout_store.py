"""Tables of rollouts and the queries on them. Knows no gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Text
from sqlalchemy.orm import defer
from sqlmodel import Field, col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.deployments.rollout_rules import (
    ENDED,
    TEXT_MAX,
    DeviceStatus,
    Gate,
    Phase,
    Plan,
    Progress,
    RolloutStatus,
    Statistic,
    shortened,
)
from services.deployments.store import Row


class RolloutRow(Row, table=True):
    """A rollout."""

    __tablename__ = "rollout"
    rollout_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12, index=True)
    region: str = Field(max_length=64)
    client_token: str = Field(default="", max_length=64)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=255)
    device_tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    manifest: str = Field(sa_type=Text)
    role_arn: str = Field(default="", max_length=255)
    phases: list[list[int]] = Field(default_factory=list, sa_type=JSON)
    """[devices, wait in seconds] of each."""
    gates: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    max_failures: int = 0
    deliver_timeout_s: int
    status: str = Field(max_length=32, index=True)
    status_description: str = Field(default="", max_length=TEXT_MAX)
    phase: int = 0
    phase_done: datetime | None = Field(default=None, sa_type=UtcDateTime)
    cancelled: bool = False
    revision: int = 0
    """Rises with each change: who has read an older one writes nothing."""
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)

    @property
    def plan(self) -> Plan:
        """What the rules work on, and does not change."""
        return Plan(
            tuple(Phase(upto, wait_s) for upto, wait_s in self.phases),
            max((gate.window_s for gate in self.gate_list), default=0),
            self.max_failures,
            self.deliver_timeout_s,
        )

    @property
    def gate_list(self) -> list[Gate]:
        """The gates."""
        return [Gate(**(gate | {"statistic": Statistic(gate["statistic"])})) for gate in self.gates]

    @property
    def progress(self) -> Progress:
        """Where it stands."""
        status = RolloutStatus(self.status)
        return Progress(status, self.status_description, self.phase, self.phase_done, self.cancelled)

    def take(self, progress: Progress, now: datetime) -> None:
        """Puts it into the row."""
        self.status, self.phase, self.phase_done = progress.status, progress.phase, progress.phase_done
        self.status_description, self.cancelled = shortened(progress.description), progress.cancelled
        self.revision += 1
        self.updated = now


class RolloutDeviceRow(Row, table=True):
    """A device of a rollout."""

    __tablename__ = "rollout_device"
    rollout_id: str = Field(primary_key=True, foreign_key="rollout.rollout_id", ondelete="CASCADE", max_length=64)
    position: int = Field(primary_key=True)
    device_id: str = Field(max_length=255, index=True)
    device_name: str = Field(max_length=255)
    phase: int
    overrides: str = Field(default="", sa_type=Text)
    status: str = Field(default=DeviceStatus.PENDING.value, max_length=32)
    description: str = Field(default="", max_length=TEXT_MAX)
    failed: bool = False
    instance_id: str = Field(default="", max_length=64)
    previous_id: str = Field(default="", max_length=64)
    """What ran before."""
    back_id: str = Field(default="", max_length=64)
    """Made to bring back what ran before."""
    begun: datetime | None = Field(default=None, sa_type=UtcDateTime)
    delivered: datetime | None = Field(default=None, sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)


async def find(session: AsyncSession, account: str, region: str, rollout_id: str) -> RolloutRow | None:
    """A rollout of the account."""
    row = await session.get(RolloutRow, rollout_id)
    return row if row is not None and (row.account, row.region) == (account, region) else None


async def by_token(session: AsyncSession, account: str, region: str, token: str) -> RolloutRow | None:
    """The rollout that was made with a client's token."""
    query = select(RolloutRow).where(RolloutRow.account == account, RolloutRow.region == region)
    return (await session.exec(query.where(RolloutRow.client_token == token))).first() if token else None


async def under_way(session: AsyncSession) -> Sequence[RolloutRow]:
    """Of all accounts, the oldest first."""
    query = select(RolloutRow).where(col(RolloutRow.status).not_in([status.value for status in ENDED]))
    return (await session.exec(query.order_by(col(RolloutRow.created)))).all()


async def devices(session: AsyncSession, rollout_id: str) -> Sequence[RolloutDeviceRow]:
    """In their order, without their overrides: ten thousand of those would be many."""
    query = select(RolloutDeviceRow).where(RolloutDeviceRow.rollout_id == rollout_id)
    query = query.options(defer(col(RolloutDeviceRow.overrides), raiseload=True))  # type: ignore[arg-type]
    return (await session.exec(query.order_by(col(RolloutDeviceRow.position)))).all()


async def counts(session: AsyncSession, rollout_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many devices of each rollout have which status."""
    query = (
        select(RolloutDeviceRow.rollout_id, RolloutDeviceRow.status, func.count())
        .where(col(RolloutDeviceRow.rollout_id).in_(rollout_ids))
        .group_by(col(RolloutDeviceRow.rollout_id), col(RolloutDeviceRow.status))
    )
    found: dict[str, dict[str, int]] = {rollout_id: {} for rollout_id in rollout_ids}
    for rollout_id, status, count in (await session.exec(query)).all():
        found[rollout_id][status] = count
    return found


async def busy_devices(session: AsyncSession, device_ids: Sequence[str], name: str) -> Sequence[tuple[str, str]]:
    """(device name, rollout id) of those devices that a rollout of the same application has in hand."""
    query = (
        select(RolloutDeviceRow.device_name, RolloutDeviceRow.rollout_id)
        .join(RolloutRow, col(RolloutRow.rollout_id) == col(RolloutDeviceRow.rollout_id))
        .where(RolloutRow.name == name, col(RolloutRow.status).not_in([status.value for status in ENDED]))
        .where(col(RolloutDeviceRow.device_id).in_(device_ids))
    )
    return (await session.exec(query)).all()


async def list_rollouts(
    session: AsyncSession, account: str, region: str, after: dict[str, Any] | None, limit: int
) -> Sequence[RolloutRow]:
    """The newest first."""
    query = select(RolloutRow).where(RolloutRow.account == account, RolloutRow.region == region)
    if after:
        created = datetime.fromisoformat(after["created"])
        query = query.where(
            or_(
                col(RolloutRow.created) < created,
                (col(RolloutRow.created) == created) & (col(RolloutRow.rollout_id) > after["rollout_id"]),
            )
        )
    query = query.order_by(col(RolloutRow.created).desc(), col(RolloutRow.rollout_id)).limit(limit)
    return (await session.exec(query)).all()
