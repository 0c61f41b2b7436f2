"""Tables of the packages service and the queries on them. Knows no gRPC and no documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import JSON, BigInteger, Text, UniqueConstraint, func, tuple_
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel, col, delete, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis.database import Database, UtcDateTime

REGISTERED = "REGISTER_COMPLETED"
FAILED = "FAILED"
PENDING = "PENDING"
REGISTERING = "REGISTER_PENDING"


class Row(SQLModel, registry=registry()):
    """Base of this service's tables."""


AnyRow = TypeVar("AnyRow", bound=Row)


class PackageRow(Row, table=True):
    """A node package."""

    __tablename__ = "package"
    __table_args__ = (UniqueConstraint("account", "region", "name"),)
    package_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    name: str = Field(max_length=128)
    created: datetime = Field(sa_type=UtcDateTime)
    tags: dict[str, str] = Field(default_factory=dict, sa_type=JSON)


class VersionRow(Row, table=True):
    """One patch of a package version."""

    __tablename__ = "package_version"
    package_id: str = Field(primary_key=True, foreign_key="package.package_id", ondelete="CASCADE", max_length=64)
    version: str = Field(primary_key=True, max_length=255)
    patch: str = Field(primary_key=True, max_length=255)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    status: str = Field(max_length=32)
    status_description: str = Field(default="", max_length=255)
    registered: datetime = Field(sa_type=UtcDateTime)
    latest: bool = False
    make_latest: bool = False
    """Whether it becomes the latest patch once it is registered."""
    document: str = Field(default="", sa_type=Text)
    assets: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    """name, type, digest, size_bytes, descriptor (the document)."""


class TakenModelRow(Row, table=True):
    """What a model asset became: the same asset, descriptor and environments need not be converted again."""

    __tablename__ = "taken_model"
    key: str = Field(primary_key=True, max_length=64)
    """SHA-256 of what the answer follows from."""
    digest: str = Field(max_length=80)
    size_bytes: int = Field(sa_type=BigInteger)
    descriptor: str = Field(sa_type=Text)
    note: str = Field(default="", sa_type=Text)


class NodeRow(Row, table=True):
    """A node that a registered patch offers."""

    __tablename__ = "node"
    account: str = Field(primary_key=True, max_length=12)
    region: str = Field(primary_key=True, max_length=64)
    node_id: str = Field(primary_key=True, max_length=512)
    package_id: str = Field(foreign_key="package.package_id", ondelete="CASCADE", index=True, max_length=64)
    package_name: str = Field(max_length=128)
    version: str = Field(max_length=255)
    patch: str = Field(max_length=255)
    name: str = Field(max_length=128)
    category: str = Field(max_length=32)
    asset_name: str = Field(default="", max_length=255)
    description: str = Field(default="", max_length=255)
    inputs: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    outputs: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)


class CameraRow(Row, table=True):
    """Address and encrypted credentials of a camera."""

    __tablename__ = "camera"
    package_id: str = Field(primary_key=True, foreign_key="package.package_id", ondelete="CASCADE", max_length=64)
    version: str = Field(primary_key=True, max_length=255)
    patch: str = Field(primary_key=True, max_length=255)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    stream_url: str = Field(sa_type=Text)
    credentials: bytes = b""
    """As the vault gave them; empty where the camera asks for none."""


class TemplateJobRow(Row, table=True):
    """A camera's registration."""

    __tablename__ = "template_job"
    job_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12, index=True)
    region: str = Field(max_length=64)
    node_name: str = Field(max_length=128)
    node_description: str | None = Field(default=None, max_length=255)
    package_name: str = Field(max_length=128)
    package_version: str = Field(max_length=255)
    template_type: str = Field(max_length=64)
    parameters: dict[str, str] = Field(default_factory=dict, sa_type=JSON)
    """Masked."""
    job_tags: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSON)
    status: str = Field(max_length=32)
    status_message: str = Field(default="", sa_type=Text)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)


class ImportJobRow(Row, table=True):
    """The import of a package version from an archive."""

    __tablename__ = "import_job"
    __table_args__ = (UniqueConstraint("account", "region", "client_token"),)
    job_id: str = Field(primary_key=True, max_length=64)
    account: str = Field(max_length=12)
    region: str = Field(max_length=64)
    client_token: str = Field(max_length=64)
    request: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    """CreatePackageImportJob's input in the proto's JSON form: the same token with another one is a conflict."""
    status: str = Field(max_length=32)
    status_message: str = Field(default="", sa_type=Text)
    package_id: str = Field(default="", max_length=64)
    patch: str = Field(default="", max_length=255)
    created: datetime = Field(sa_type=UtcDateTime)
    updated: datetime = Field(sa_type=UtcDateTime)


J = TypeVar("J", TemplateJobRow, ImportJobRow)


async def find_package(
    session: AsyncSession, account: str, region: str, *, package_id: str = "", name: str = ""
) -> PackageRow | None:
    """A package by id or by name."""
    query = select(PackageRow).where(PackageRow.account == account, PackageRow.region == region)
    query = query.where(PackageRow.package_id == package_id) if package_id else query.where(PackageRow.name == name)
    return (await session.exec(query)).first()


async def list_packages(
    session: AsyncSession, account: str, region: str, after: dict[str, Any] | None, limit: int
) -> Sequence[PackageRow]:
    """Packages by name."""
    query = select(PackageRow).where(PackageRow.account == account, PackageRow.region == region)
    if after:
        query = query.where(col(PackageRow.name) > after["name"])
    return (await session.exec(query.order_by(col(PackageRow.name)).limit(limit))).all()


async def delete_package(session: AsyncSession, package: PackageRow) -> None:
    """Deletes a package with its versions, nodes and cameras."""
    for table in (CameraRow, NodeRow, VersionRow):
        await session.exec(delete(table).where(col(table.package_id) == package.package_id))
    await session.exec(delete(PackageRow).where(col(PackageRow.package_id) == package.package_id))


async def count_versions(session: AsyncSession, package_id: str) -> int:
    """How many patches of all versions are registered."""
    query = select(func.count()).select_from(VersionRow)
    query = query.where(VersionRow.package_id == package_id, VersionRow.status == REGISTERED)
    return (await session.exec(query)).one()


async def assets_of(session: AsyncSession, package_id: str) -> Sequence[Sequence[dict[str, Any]]]:
    """Of all registered patches of a package."""
    query = select(VersionRow.assets).where(VersionRow.package_id == package_id, VersionRow.status == REGISTERED)
    return (await session.exec(query)).all()


async def find_version(session: AsyncSession, package_id: str, version: str, patch: str) -> VersionRow | None:
    """One patch; with an empty `patch` the latest registered one."""
    query = select(VersionRow).where(VersionRow.package_id == package_id, VersionRow.version == version)
    query = query.where(VersionRow.patch == patch) if patch else query.where(col(VersionRow.latest).is_(True))
    return (await session.exec(query)).first()


async def newest_version(session: AsyncSession, package_id: str, version: str) -> VersionRow | None:
    """The registered patch that was registered last."""
    query = select(VersionRow).where(VersionRow.package_id == package_id, VersionRow.version == version)
    query = query.where(VersionRow.status == REGISTERED)
    return (await session.exec(query.order_by(col(VersionRow.registered).desc()).limit(1))).first()


async def mark_latest(session: AsyncSession, package_id: str, version: str, patch: str) -> None:
    """Makes a patch the latest of its version, and no other."""
    of_version = (col(VersionRow.package_id) == package_id, col(VersionRow.version) == version)
    await session.exec(update(VersionRow).where(*of_version).values(latest=False))
    await session.exec(update(VersionRow).where(*of_version, col(VersionRow.patch) == patch).values(latest=True))


async def delete_version(session: AsyncSession, package_id: str, version: str, patch: str) -> None:
    """Deletes a patch with its nodes and its camera."""
    for table in (CameraRow, NodeRow, VersionRow):
        of_patch = (
            col(table.package_id) == package_id, col(table.version) == version, col(table.patch) == patch
        )  # fmt: skip
        await session.exec(delete(table).where(*of_patch))


async def list_nodes(
    session: AsyncSession,
    account: str,
    region: str,
    *,
    category: str = "",
    package_name: str = "",
    version: str = "",
    patch: str = "",
    after: dict[str, Any] | None,
    limit: int,
) -> Sequence[NodeRow]:
    """Nodes by id; of the latest patches, where no patch is named."""
    query = select(NodeRow).where(NodeRow.account == account, NodeRow.region == region)
    if category:
        query = query.where(NodeRow.category == category)
    if package_name:
        query = query.where(NodeRow.package_name == package_name)
    if version:
        query = query.where(NodeRow.version == version)
    if patch:
        query = query.where(NodeRow.patch == patch)
    else:
        query = query.join(
            VersionRow,
            (col(VersionRow.package_id) == col(NodeRow.package_id))
            & (col(VersionRow.version) == col(NodeRow.version))
            & (col(VersionRow.patch) == col(NodeRow.patch)),
        ).where(col(VersionRow.latest).is_(True))
    if after:
        query = query.where(col(NodeRow.node_id) > after["node_id"])
    return (await session.exec(query.order_by(col(NodeRow.node_id)).limit(limit))).all()


async def list_template_jobs(
    session: AsyncSession, account: str, region: str, after: dict[str, Any] | None, limit: int
) -> Sequence[TemplateJobRow]:
    """Registrations of cameras, the newest first."""
    return await _newest_jobs(session, TemplateJobRow, account, region, after, limit)


async def find_import_job(session: AsyncSession, account: str, region: str, client_token: str) -> ImportJobRow | None:
    """The job of a client token."""
    query = select(ImportJobRow).where(ImportJobRow.account == account, ImportJobRow.region == region)
    return (await session.exec(query.where(ImportJobRow.client_token == client_token))).first()


async def list_import_jobs(
    session: AsyncSession, account: str, region: str, after: dict[str, Any] | None, limit: int
) -> Sequence[ImportJobRow]:
    """Imports, the newest first."""
    return await _newest_jobs(session, ImportJobRow, account, region, after, limit)


async def _newest_jobs(
    session: AsyncSession, table: type[J], account: str, region: str, after: dict[str, Any] | None, limit: int
) -> Sequence[J]:
    query = select(table).where(table.account == account, table.region == region)
    if after:
        created = datetime.fromisoformat(after["created"])
        later_id = (col(table.created) == created) & (col(table.job_id) > after["job_id"])
        query = query.where(or_(col(table.created) < created, later_id))
    return (await session.exec(query.order_by(col(table.created).desc(), col(table.job_id)).limit(limit))).all()


async def pending_import_jobs(session: AsyncSession) -> Sequence[ImportJobRow]:
    """Of all accounts, the oldest first."""
    query = select(ImportJobRow).where(ImportJobRow.status == PENDING)
    return (await session.exec(query.order_by(col(ImportJobRow.created)))).all()


async def pending_versions(session: AsyncSession, before: datetime) -> Sequence[VersionRow]:
    """Those of all accounts whose registration was asked for before then and has not ended."""
    query = select(VersionRow).where(VersionRow.status == REGISTERING, col(VersionRow.registered) <= before)
    return (await session.exec(query.order_by(col(VersionRow.registered)))).all()


async def all_versions(session: AsyncSession, after: VersionRow | None, limit: int) -> Sequence[VersionRow]:
    """Of all accounts, by key."""
    key = (col(VersionRow.package_id), col(VersionRow.version), col(VersionRow.patch))
    query = select(VersionRow)
    if after is not None:
        query = query.where(tuple_(*key) > (after.package_id, after.version, after.patch))
    return (await session.exec(query.order_by(*key).limit(limit))).all()


async def taken_models(session: AsyncSession, after: TakenModelRow | None, limit: int) -> Sequence[TakenModelRow]:
    """Of all accounts, by key."""
    query = select(TakenModelRow)
    if after is not None:
        query = query.where(col(TakenModelRow.key) > after.key)
    return (await session.exec(query.order_by(col(TakenModelRow.key)).limit(limit))).all()


async def pages(
    database: Database, read: Callable[[AsyncSession, AnyRow | None, int], Awaitable[Sequence[AnyRow]]], at_once: int
) -> AsyncIterator[Sequence[AnyRow]]:
    """All that `read` gives (what comes after a row, so many at most), in a session a page: nothing is held meanwhile."""
    after = None
    while True:
        async with database.session(read_only=True) as session:
            rows = await read(session, after, at_once)
        if not rows:
            return
        yield rows
        after = rows[-1]


async def forget_models(session: AsyncSession, keys: Sequence[str]) -> None:
    """What they became is no longer known."""
    await session.exec(delete(TakenModelRow).where(col(TakenModelRow.key).in_(keys)))
