"""Tables of the deployments service and the queries on them. Knows no gRPC and no documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Text, func
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from belvedere.fleet import DesiredState, DeviceReportedStatus, Health
from services.deployments.rules import GONE, State, Status

BRIEFS_AT_ONCE = 500


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


class InstanceRow(Row, table=True):
    """An application instance. Removed ones stay."""

    __tablename__ = "instance"
    instance_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12, index=True)
    region: str = Field(max_length=64)
    device_id: str = Field(max_length=255, index=True)
    device_name: str = Field(max_length=255)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=255)
    role_arn: str = Field(default="", max_length=255)
    replaces: str = Field(default="", max_length=64)
    manifest: str = Field(sa_type=Text)
    overrides: str = Field(default="", sa_type=Text)
    graph: str = Field(sa_type=Text)
    """The resolved graph, canonical JSON."""
    graph_digest: str = Field(max_length=80)
    paused: list[str] = Field(default_factory=list, sa_type=JSON)
    desired: str = Field(max_length=16)
    status: str = Field(max_length=32, index=True)
    status_description: str = Field(default="", max_length=255)
    health: str = Field(default=Health.NOT_AVAILABLE.value, max_length=16)
    device_state: str = Field(default="", max_length=32)
    target_version: int | None = Field(default=None, sa_type=BigInteger)
    reported: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """When the device last said something about it."""
    node_status: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)

    @property
    def state(self) -> State:
        """What the rules work on."""
        return State(
            DesiredState(self.desired),
            Status(self.status),
            self.status_description,
            Health(self.health),
            DeviceReportedStatus(self.device_state) if self.device_state else None,
            self.target_version,
        )

    def take(self, state: State, now: datetime) -> None:
        """Puts a state into the row."""
        self.desired, self.status, self.status_description = state.desired, state.status, state.description
        self.health, self.device_state = state.health, state.device_state or ""
        self.target_version, self.updated = state.target_version, now


@dataclass(frozen=True)
class Brief:
    """What of an instance changes, without its documents."""

    instance_id: str
    status: Status
    description: str
    health: Health


class PackageUseRow(Row, table=True):
    """A package patch that an instance uses."""

    __tablename__ = "package_use"
    instance_id: str = Field(primary_key=True, foreign_key="instance.instance_id", ondelete="CASCADE", max_length=64)
    position: int = Field(primary_key=True)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    package_name: str = Field(max_length=128, index=True)
    version: str = Field(max_length=255)
    patch: str = Field(max_length=255)


async def find(session: AsyncSession, account: str, region: str, instance_id: str) -> InstanceRow | None:
    """An instance of the account."""
    row = await session.get(InstanceRow, instance_id)
    return row if row is not None and (row.account, row.region) == (account, region) else None


async def list_instances(
    session: AsyncSession,
    account: str,
    region: str,
    *,
    device_id: str,
    statuses: Iterable[str],
    after: dict[str, Any] | None,
    limit: int,
) -> Sequence[InstanceRow]:
    """Instances, the newest first."""
    query = select(InstanceRow).where(InstanceRow.account == account, InstanceRow.region == region)
    if device_id:
        query = query.where(InstanceRow.device_id == device_id)
    if wanted := list(statuses):
        query = query.where(col(InstanceRow.status).in_(wanted))
    if after:
        created = datetime.fromisoformat(after["created"])
        query = query.where(
            or_(
                col(InstanceRow.created) < created,
                (col(InstanceRow.created) == created) & (col(InstanceRow.instance_id) > after["instance_id"]),
            )
        )
    query = query.order_by(col(InstanceRow.created).desc(), col(InstanceRow.instance_id)).limit(limit)
    return (await session.exec(query)).all()


async def live_on_device(session: AsyncSession, device_id: str) -> Sequence[InstanceRow]:
    """Instances of a device that are not wholly removed, the oldest first."""
    query = select(InstanceRow).where(
        InstanceRow.device_id == device_id, col(InstanceRow.status).not_in([status.value for status in GONE])
    )
    return (await session.exec(query.order_by(col(InstanceRow.created)))).all()


async def running(session: AsyncSession, device_id: str, name: str) -> InstanceRow | None:
    """The newest instance of a name that is to run on a device."""
    query = select(InstanceRow).where(
        InstanceRow.device_id == device_id,
        InstanceRow.name == name,
        InstanceRow.desired == DesiredState.RUNNING.value,
        InstanceRow.status != Status.DEPLOYMENT_FAILED.value,
    )
    return (await session.exec(query.order_by(col(InstanceRow.created).desc()).limit(1))).first()


async def briefs(session: AsyncSession, instance_ids: Sequence[str]) -> dict[str, Brief]:
    """Of many instances, by id."""
    found: dict[str, Brief] = {}
    for at in range(0, len(instance_ids), BRIEFS_AT_ONCE):
        query = select(
            InstanceRow.instance_id, InstanceRow.status, InstanceRow.status_description, InstanceRow.health
        ).where(col(InstanceRow.instance_id).in_(instance_ids[at : at + BRIEFS_AT_ONCE]))
        for instance_id, status, description, health in (await session.exec(query)).all():
            found[instance_id] = Brief(instance_id, Status(status), description, Health(health))
    return found


async def waiting(session: AsyncSession, device_id: str = "") -> Sequence[InstanceRow]:
    """Instances whose wish is not in their device's target yet, the oldest first."""
    query = select(InstanceRow).where(
        col(InstanceRow.status).in_([Status.DEPLOYMENT_PENDING.value, Status.REMOVAL_PENDING.value])
    )
    if device_id:
        query = query.where(InstanceRow.device_id == device_id)
    return (await session.exec(query.order_by(col(InstanceRow.created)))).all()


async def package_uses(session: AsyncSession, instance_id: str, after: int, limit: int) -> Sequence[PackageUseRow]:
    """What an instance uses, from a position on."""
    query = select(PackageUseRow).where(PackageUseRow.instance_id == instance_id, col(PackageUseRow.position) > after)
    return (await session.exec(query.order_by(col(PackageUseRow.position)).limit(limit))).all()


async def package_users(
    session: AsyncSession, account: str, region: str, name: str, version: str, patch: str
) -> Sequence[InstanceRow]:
    """Instances, not wholly removed, that use a package; empty `version` and `patch` mean any."""
    uses = select(PackageUseRow.instance_id).where(
        PackageUseRow.account == account, PackageUseRow.region == region, PackageUseRow.package_name == name
    )
    if version:
        uses = uses.where(PackageUseRow.version == version)
    if patch:
        uses = uses.where(PackageUseRow.patch == patch)
    query = select(InstanceRow).where(
        col(InstanceRow.instance_id).in_(uses),
        col(InstanceRow.status).not_in([status.value for status in GONE]),
    )
    return (await session.exec(query.order_by(col(InstanceRow.created)))).all()


async def live_graphs(session: AsyncSession, after: str, limit: int) -> Sequence[tuple[str, str]]:
    """(digest, text) of the graphs of all instances that are not wholly removed, each once, by digest."""
    query = (
        select(InstanceRow.graph_digest, func.min(InstanceRow.graph))
        .where(col(InstanceRow.status).not_in([status.value for status in GONE]))
        .where(col(InstanceRow.graph_digest) > after)
        .group_by(col(InstanceRow.graph_digest))
        .order_by(col(InstanceRow.graph_digest))
    )
    return (await session.exec(query.limit(limit))).all()
