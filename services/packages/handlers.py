"""What the handlers of the packages service share: database, blobs, and how a package is found.

Must not know single operations.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import grpc
from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.blobs import BlobStore
from belvedere.chassis.context import Caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, NotFound
from belvedere.v1 import deployments_pb2, deployments_pb2_grpc
from services.packages import rules, store
from services.packages.models.importer import ModelImporter
from services.packages.registering import Reader
from services.packages.settings import Settings
from services.packages.store import PackageRow, VersionRow
from services.packages.vault import Vault


class Handlers:
    """Base of the groups of handlers."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        vault: Vault,
        settings: Settings,
        clock: Callable[[], datetime],
        channel: Callable[[], grpc.aio.Channel],
        models: ModelImporter,
    ) -> None:
        """`channel` leads to the deployments service, which knows who uses a package."""
        self.database = database
        self.vault = vault
        self.clock = clock
        self.reader = Reader(database, blobs, settings.document_limit_bytes, models)
        self._channel = channel

    async def package(self, session: AsyncSession, who: Caller, package_id: str) -> PackageRow:
        """The caller's package by id or alias. Raises NotFound."""
        name = rules.package_alias(package_id)
        row = await store.find_package(
            session, who.account, who.region, package_id="" if name is not None else package_id, name=name or ""
        )
        if row is None:
            raise NotFound("PACKAGE", package_id)
        return row

    async def version(self, session: AsyncSession, package: PackageRow, version: str, patch: str) -> VersionRow:
        """A patch; the latest where `patch` is empty. Raises NotFound."""
        row = await store.find_version(session, package.package_id, version, patch)
        if row is None:
            which = f"{package.name} {version}" + (f" {patch}" if patch else "")
            raise NotFound("PACKAGE_VERSION", which, f"Package version {which} is not registered.")
        return row

    async def check_unused(self, package: PackageRow, version: str = "", patch: str = "") -> None:
        """Raises Conflict where a live application uses the package. Not to be called inside a transaction."""
        stub = deployments_pb2_grpc.DeploymentsServiceStub(self._channel())
        users = await stub.ListPackageUsers(
            deployments_pb2.ListPackageUsersRequest(
                package_name=package.name, package_version=version, patch_version=patch
            )
        )
        ids = list(users.application_instance_ids)
        if ids:
            shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
            raise Conflict(
                "PACKAGE",
                package.package_id,
                f"{package.name} is used by {shown}. Remove the application first, or deploy it with another version.",
            )
