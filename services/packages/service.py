"""The packages service: PackagesService and StorageService."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from belvedere.chassis import outbox
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict
from belvedere.chassis.ids import new_id
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.chassis.runtime import Runtime
from belvedere.chassis.service import Service
from belvedere.chassis.settings import SettingError
from belvedere.chassis.tags import add_tags, check_tags, remove_tags
from belvedere.v1 import packages_pb2 as pb
from belvedere.v1 import packages_pb2_grpc, storage_pb2_grpc
from services.packages import events, objects, rules, store, wire
from services.packages.collecting import GRACE_MIN, Collector
from services.packages.figures import Figures
from services.packages.imports import ImportHandlers
from services.packages.models.environments import Environments, root
from services.packages.models.importer import ModelImporter
from services.packages.naming import Look
from services.packages.settings import ENV, Settings
from services.packages.storage import StorageHandlers
from services.packages.store import PackageRow
from services.packages.sweeping import UploadSweeper
from services.packages.vault import Vault


class PackagesHandlers(ImportHandlers, packages_pb2_grpc.PackagesServiceServicer):
    """PackagesService: here packages and their tags; versions, nodes, cameras and imports in its bases."""

    async def CreatePackage(self, request: pb.CreatePackageRequest, context: Any) -> pb.CreatePackageResponse:
        who = caller()
        rules.check_names(name=request.package_name)
        row = PackageRow(
            package_id=new_id("package"),
            account=who.account,
            region=who.region,
            name=request.package_name,
            created=self.clock(),
            tags=check_tags(request.tags),
        )
        async with self.database.session() as session, session.begin():
            existing = await store.find_package(session, who.account, who.region, name=row.name)
            if existing is not None:
                raise Conflict(
                    "PACKAGE", existing.package_id, f"A package named {row.name} exists already: {existing.package_id}."
                )
            session.add(row)
            outbox.add(session, events.package_created(row))
        return pb.CreatePackageResponse(
            arn=wire.package_arn(row.package_id, who.account, who.region),
            package_id=row.package_id,
            storage_location=wire.storage_location(row),
        )

    async def DescribePackage(self, request: pb.DescribePackageRequest, context: Any) -> pb.DescribePackageResponse:
        async with self.database.session(read_only=True) as session:
            return wire.describe_package(await self.package(session, caller(), request.package_id))

    async def ListPackages(self, request: pb.ListPackagesRequest, context: Any) -> pb.ListPackagesResponse:
        who = caller()
        size = page_size(request.max_results)
        after = decode_token(request.next_token, "ListPackages")
        async with self.database.session(read_only=True) as session:
            found = await store.list_packages(session, who.account, who.region, after, size + 1)
        rows, more = cut(found, size)
        token = encode_token({"name": rows[-1].name}, "ListPackages") if more else None
        return pb.ListPackagesResponse(packages=[wire.package_item(row) for row in rows], next_token=token)

    async def DeletePackage(self, request: pb.DeletePackageRequest, context: Any) -> pb.DeletePackageResponse:
        who = caller()
        async with self.database.session(read_only=True) as session:
            package = await self.package(session, who, request.package_id)
            versions = await store.count_versions(session, package.package_id)
        if versions and not request.force_delete:
            raise Conflict(
                "PACKAGE",
                package.package_id,
                f"{package.name} has {versions} registered versions: deregister them, or set ForceDelete.",
            )
        if versions:
            await self.check_unused(package)
            await self._renew(package)
        async with self.database.session() as session, session.begin():
            bucket = rules.bucket_name(package.account, package.region)
            prefix = rules.package_prefix(who.account, package.name) + "/"
            await objects.delete_below(session, package.account, package.region, bucket, prefix)
            await store.delete_package(session, package)
        return pb.DeletePackageResponse()

    async def _renew(self, package: PackageRow) -> None:
        async with self.database.session(read_only=True) as session:
            assets = await store.assets_of(session, package.package_id)
        for of_version in assets:
            await self.reader.renew(of_version)

    async def TagPackage(self, request: pb.TagPackageRequest, context: Any) -> pb.TagPackageResponse:
        async with self.database.session() as session, session.begin():
            package = await self.package(session, caller(), request.package_id)
            package.tags = add_tags(package.tags, request.tags)
            session.add(package)
        return pb.TagPackageResponse()

    async def UntagPackage(self, request: pb.UntagPackageRequest, context: Any) -> pb.UntagPackageResponse:
        async with self.database.session() as session, session.begin():
            package = await self.package(session, caller(), request.package_id)
            package.tags = remove_tags(package.tags, request.tag_keys)
            session.add(package)
        return pb.UntagPackageResponse()


def create(runtime: Runtime) -> Service:
    """The service, made of what the runtime gives."""
    settings = runtime.settings(Settings, ENV)
    database = runtime.database("packages")
    vault = Vault(runtime.paths.secrets, settings.camera_key)
    environments = Environments(root(runtime.data, runtime.environ))
    models = ModelImporter(runtime.blobs, environments, settings.model_import_timeout_s)
    packages = PackagesHandlers(database, runtime.blobs, vault, settings, runtime.clock, runtime.channel, models)
    storage = StorageHandlers(database, runtime.blobs, runtime.clock)
    sweeper = UploadSweeper(database, runtime.blobs, runtime.clock, settings.upload_lifetime_s)
    tasks = [packages.registrations.run, packages.run_imports, sweeper.run]
    if settings.garbage_every_s > 0:
        tasks.append(_collector(runtime, settings, database).run)
    return Service(
        name="packages",
        servicers=[
            (packages_pb2_grpc.add_PackagesServiceServicer_to_server, packages, "belvedere.v1.PackagesService"),
            (storage_pb2_grpc.add_StorageServiceServicer_to_server, storage, "belvedere.v1.StorageService"),
        ],
        tasks=tasks,
        migrations=Path(__file__).parent / "migrations",
    )


def _collector(runtime: Runtime, settings: Settings, database: Database) -> Collector:
    grace = timedelta(seconds=settings.garbage_grace_s)
    if grace < GRACE_MIN:
        raise SettingError(
            f"{ENV}GARBAGE_GRACE_S", f"takes at least {GRACE_MIN.total_seconds():g} (a registration takes its time)"
        )
    look = Look(database, runtime.blobs, runtime.channel)
    figures = Figures(runtime.channel, runtime.cloud.account, runtime.cloud.region)
    return Collector(database, runtime.blobs, look, figures, runtime.clock, settings.garbage_every_s, grace)
