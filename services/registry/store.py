"""Tables of the registry service and the queries on them. Knows no gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, UniqueConstraint, event, func
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import UtcDateTime
from services.registry import rules
from services.registry.rules import DeviceState, Provisioning


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


class DeviceRow(Row, table=True):
    """One device."""

    __tablename__ = "device"
    __table_args__ = (
        UniqueConstraint("account", "region", "name"),
        # One for each order of ListDevices, and each with a status: services.registry.listing walks them.
        Index("device_by_created", "account", "region", "created", "device_id"),
        Index("device_by_id", "account", "region", "device_id"),
        Index("device_by_standing_created", "account", "region", "standing", "created", "device_id"),
        Index("device_by_standing_id", "account", "region", "standing", "device_id"),
        Index("device_by_standing_name", "account", "region", "standing", "name"),
    )
    device_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=255)
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    networking_configuration: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)
    standing: str = Field(default="", max_length=32)
    """`rules.standing` of this row, set whenever it is written."""
    provisioning: str = Field(default=Provisioning.AWAITING_PROVISIONING.value, max_length=32)
    token_hash: str = Field(max_length=64)
    token_expires: datetime = Field(sa_type=UtcDateTime)
    account_public_key: str = Field(unique=True, max_length=64)
    """The device's own NATS account; its private half was thrown away when it was made."""
    nats_public_key: str = Field(default="", max_length=64)
    """Empty until the device enrols."""
    seal_public_key: bytes = Field(default=b"", sa_type=LargeBinary)
    serial_number: str = Field(default="", max_length=20)
    software_version: str = Field(default="", max_length=255)
    lease_expires: datetime | None = Field(default=None, sa_type=UtcDateTime)
    connected: bool = False
    connection_changed: datetime | None = Field(default=None, sa_type=UtcDateTime)
    networking: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    """`fleet.ReportedNetworking`, as JSON."""
    networking_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    latest_job: dict[str, str] | None = Field(default=None, sa_type=JSON)
    """What device_jobs last said of the newest job: jobId, jobType, imageVersion, status."""
    video: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    """`fleet.ReportedVideo`, as JSON."""

    @property
    def enrolled(self) -> bool:
        """Whether an appliance has taken this device's identity."""
        return bool(self.nats_public_key)

    @property
    def state(self) -> DeviceState:
        """What its status follows from."""
        rebooting = self.latest_job is not None and self.latest_job.get("status") == rules.REBOOTING
        return DeviceState(Provisioning(self.provisioning), self.connected, self.lease_expires, rebooting)


class DeletedDeviceRow(Row, table=True):
    """A device that was deleted, so that its appliance can be told so, and nobody else."""

    __tablename__ = "deleted_device"
    device_id: str = Field(primary_key=True, max_length=64)
    nats_public_key: str = Field(max_length=64)
    """What its appliance signs with."""
    deleted: datetime = Field(sa_type=UtcDateTime)


def _note_standing(_: Any, __: Any, row: DeviceRow) -> None:
    row.standing = rules.standing(row.state)


for _moment in ("before_insert", "before_update"):
    event.listen(DeviceRow, _moment, _note_standing)


async def count(session: AsyncSession, account: str, region: str) -> int:
    """How many devices an account and region have."""
    query = select(func.count()).select_from(DeviceRow)
    return (await session.exec(query.where(DeviceRow.account == account, DeviceRow.region == region))).one()


async def by_name(session: AsyncSession, account: str, region: str, name: str) -> DeviceRow | None:
    """The device of this name."""
    query = select(DeviceRow).where(DeviceRow.account == account, DeviceRow.region == region, DeviceRow.name == name)
    return (await session.exec(query)).first()


async def disconnected(session: AsyncSession) -> Sequence[str]:
    """Ids of the devices that have an identity and are not connected, of all accounts."""
    query = select(DeviceRow.device_id).where(DeviceRow.nats_public_key != "", col(DeviceRow.connected).is_(False))
    return (await session.exec(query)).all()


async def enrolled(session: AsyncSession) -> Sequence[DeviceRow]:
    """Every device that has an identity, of all accounts."""
    return (await session.exec(select(DeviceRow).where(DeviceRow.nats_public_key != ""))).all()
