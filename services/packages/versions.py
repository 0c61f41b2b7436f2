"""Package versions and their nodes: register, describe, withdraw, resolve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from belvedere.chassis import logs, outbox
from belvedere.chassis.context import Caller, caller
from belvedere.chassis.errors import Invalid, NotFound
from belvedere.chassis.page import cut, decode_token, encode_token, page_size
from belvedere.graph import PackageDocument
from belvedere.v1 import packages_pb2 as pb
from services.packages import events, rules, store, wire
from services.packages.handlers import Handlers
from services.packages.nodes import BUILT_IN_OWNER, built_in_nodes, node_rows
from services.packages.registering import Registration
from services.packages.registrations import Key, Registrations
from services.packages.rules import CameraAddress
from services.packages.store import FAILED, REGISTERED, REGISTERING, CameraRow, NodeRow, PackageRow, VersionRow

log = logs.get_logger(__name__)


class VersionHandlers(Handlers):
    """RegisterPackageVersion, DescribePackageVersion, DeregisterPackageVersion, ListNodes, DescribeNode,
    ResolvePackages."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.registrations = Registrations(self.database, self.clock, self._finish)

    async def RegisterPackageVersion(
        self, request: pb.RegisterPackageVersionRequest, context: Any
    ) -> pb.RegisterPackageVersionResponse:
        who = caller()
        version, patch = request.package_version, request.patch_version
        rules.check_names(version=version, patch=patch)
        if request.owner_account not in ("", who.account):
            text = f"is another account: packages can be registered in your own, {who.account}"
            raise Invalid(f"OwnerAccount {text}.", fields=[("OwnerAccount", text)])
        async with self.database.session(read_only=True) as session:
            package = await self.package(session, who, request.package_id)
            existing = await store.find_version(session, package.package_id, version, patch)
        if existing is not None and existing.status == REGISTERED:
            if request.mark_latest:
                async with self.database.session() as session, session.begin():
                    await store.mark_latest(session, package.package_id, version, patch)
            return pb.RegisterPackageVersionResponse()
        row = VersionRow(
            package_id=package.package_id,
            version=version,
            patch=patch,
            account=who.account,
            region=who.region,
            status=REGISTERING,
            registered=self.clock(),
            make_latest=request.mark_latest,
        )
        async with self.database.session() as session, session.begin():
            await self.package(session, who, package.package_id)
            await store.delete_version(session, package.package_id, version, patch)
            session.add(row)
        await self.registrations.wait((package.package_id, version, patch))
        return pb.RegisterPackageVersionResponse()

    async def _finish(self, key: Key) -> None:
        """Ends a pending registration, one way or the other."""
        async with self.database.session(read_only=True) as session:
            asked, package = await session.get(VersionRow, key), await session.get(PackageRow, key[0])
        if asked is None or package is None or asked.status != REGISTERING:
            return
        try:
            found = await self.reader.read(asked.account, asked.region, package.name, asked.version, asked.patch)
        except Exception:
            # A registration that can not end would be taken up for ever.
            log.exception("registration failed", package=package.name, version=asked.version, patch=asked.patch)
            found = Registration(problems=("an internal error; the log of the packages service says more",))
        failed = bool(found.problems) or found.document is None
        async with self.database.session() as session, session.begin():
            row = await session.get(VersionRow, key)
            if row is None or row.status != REGISTERING:
                return
            row.status = FAILED if failed else REGISTERED
            row.status_description = rules.status_text(found.problems or found.notes)
            if failed or found.document is None:
                session.add(row)
                outbox.add(session, events.version_failed(package, row))
                return
            registered = VersionRow(
                **row.model_dump(exclude={"document", "assets"}), document=found.document_text, assets=found.assets
            )
            session.expunge(row)
            await self.add_version(session, package, registered, found.document, found.camera, row.make_latest)

    async def add_version(
        self,
        session: AsyncSession,
        package: PackageRow,
        row: VersionRow,
        document: PackageDocument,
        camera: CameraAddress | None,
        make_latest: bool,
    ) -> None:
        """Puts a registered patch, its nodes and its camera in the place of what stood there."""
        await store.delete_version(session, row.package_id, row.version, row.patch)
        before = await store.find_version(session, row.package_id, row.version, "")
        session.add(row)
        await session.flush()
        if make_latest or before is None:
            await store.mark_latest(session, row.package_id, row.version, row.patch)
            row.latest = True
        session.add_all(node_rows(package, row, document))
        if camera is not None:
            blob = self.vault.lock(camera.username, camera.password) if camera.has_credentials else b""
            session.add(
                CameraRow(
                    package_id=row.package_id, version=row.version, patch=row.patch, account=row.account,
                    region=row.region, stream_url=camera.stream_url, credentials=blob,
                )
            )  # fmt: skip
            names = [item.name for item in document.interfaces if item.category == "media_source"]
            outbox.add(session, events.camera_created(package, row, names[0]))
        outbox.add(session, events.version_registered(package, row))

    async def DescribePackageVersion(
        self, request: pb.DescribePackageVersionRequest, context: Any
    ) -> pb.DescribePackageVersionResponse:
        who = caller()
        async with self.database.session(read_only=True) as session:
            package = await self._owned(session, who, request.package_id, request.owner_account)
            row = await self.version(session, package, request.package_version, request.patch_version)
        return wire.describe_version(package, row)

    async def DeregisterPackageVersion(
        self, request: pb.DeregisterPackageVersionRequest, context: Any
    ) -> pb.DeregisterPackageVersionResponse:
        who = caller()
        version, patch, next_latest = (
            request.package_version, request.patch_version, request.updated_latest_patch_version
        )  # fmt: skip
        if next_latest == patch:
            text = "is the patch that is to be withdrawn"
            raise Invalid(f"UpdatedLatestPatchVersion {text}.", fields=[("UpdatedLatestPatchVersion", text)])
        async with self.database.session(read_only=True) as session:
            package = await self._owned(session, who, request.package_id, request.owner_account)
            going = await self.version(session, package, version, patch)
        await self.check_unused(package, version, patch)
        await self.reader.renew(going.assets)
        async with self.database.session() as session, session.begin():
            row = await self.version(session, package, version, patch)
            if next_latest:
                successor = await self.version(session, package, version, next_latest)
                if successor.status != REGISTERED:
                    text = f"is {successor.status}: only a registered patch can be the latest"
                    raise Invalid(f"The patch {next_latest} {text}.", fields=[("UpdatedLatestPatchVersion", text)])
            was_latest = row.latest
            await store.delete_version(session, package.package_id, version, patch)
            if next_latest:
                await store.mark_latest(session, package.package_id, version, next_latest)
            elif was_latest:
                newest = await store.newest_version(session, package.package_id, version)
                if newest is not None:
                    await store.mark_latest(session, package.package_id, version, newest.patch)
        return pb.DeregisterPackageVersionResponse()

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        who = caller()
        size = page_size(request.max_results)
        filters = [
            request.category, request.owner_account, request.package_name, request.package_version, request.patch_version
        ]  # fmt: skip
        after = decode_token(request.next_token, "ListNodes", filters)
        category = wire.CATEGORY_OF.get(request.category, "")
        found: Sequence[NodeRow] = ()
        if request.owner_account == BUILT_IN_OWNER:
            found = [
                row
                for row in built_in_nodes(who.region).values()
                if category in ("", row.category)
                and request.package_name in ("", row.package_name)
                and request.package_version in ("", row.version)
                and request.patch_version in ("", row.patch)
                and row.node_id > (after or {}).get("node_id", "")
            ]
        elif request.owner_account in ("", who.account):
            async with self.database.session(read_only=True) as session:
                found = await store.list_nodes(
                    session,
                    who.account,
                    who.region,
                    category=category,
                    package_name=request.package_name,
                    version=request.package_version,
                    patch=request.patch_version,
                    after=after,
                    limit=size + 1,
                )
        rows, more = cut(found, size)
        token = encode_token({"node_id": rows[-1].node_id}, "ListNodes", filters) if more else None
        return pb.ListNodesResponse(nodes=[wire.node_item(row) for row in rows], next_token=token)

    async def DescribeNode(self, request: pb.DescribeNodeRequest, context: Any) -> pb.DescribeNodeResponse:
        who, row = caller(), None
        if request.owner_account in ("", who.account):
            async with self.database.session(read_only=True) as session:
                row = await session.get(NodeRow, (who.account, who.region, request.node_id))
        if row is None and request.owner_account in ("", BUILT_IN_OWNER):
            row = built_in_nodes(who.region).get(request.node_id)
        if row is None:
            raise NotFound("NODE", request.node_id)
        return wire.describe_node(row)

    async def ResolvePackages(self, request: pb.ResolvePackagesRequest, context: Any) -> pb.ResolvePackagesResponse:
        who = caller()
        answer = pb.ResolvePackagesResponse()
        async with self.database.session(read_only=True) as session:
            for reference in request.references:
                found = await self._registered(session, who.account, who.region, reference)
                if found is None:
                    answer.missing.append(reference)
                    continue
                package, row = found
                answer.packages.add(
                    reference=reference,
                    package_id=package.package_id,
                    patch_version=row.patch,
                    package_document=row.document,
                    assets=[
                        pb.ResolvedAsset(
                            name=asset["name"],
                            type=asset["type"],
                            digest=asset["digest"],
                            size_bytes=asset["size_bytes"],
                            descriptor_document=asset["descriptor"],
                        )
                        for asset in row.assets
                    ],
                )
        return answer

    async def _owned(self, session: AsyncSession, who: Caller, package_id: str, owner: str) -> PackageRow:
        """The package; raises NotFound where another account is named as its owner."""
        if owner not in ("", who.account):
            raise NotFound("PACKAGE", package_id)
        return await self.package(session, who, package_id)

    async def _registered(
        self, session: AsyncSession, account: str, region: str, reference: pb.PackageReference
    ) -> tuple[PackageRow, VersionRow] | None:
        """The registered patch behind a reference of this account."""
        if reference.owner != account:
            return None
        package = await store.find_package(session, account, region, name=reference.name)
        if package is None:
            return None
        row = await store.find_version(session, package.package_id, reference.version, reference.patch_version)
        return None if row is None or row.status != REGISTERED else (package, row)
