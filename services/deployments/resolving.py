"""The documents of a deployment to its resolved graph, with the packages that the packages service knows.

Must not know instances or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc

from belvedere.chassis.errors import Internal
from belvedere.graph import (
    DocumentInvalid,
    GraphInvalid,
    PackageQuery,
    PackageRef,
    RegisteredAsset,
    Release,
    ResolvedGraph,
    package_queries,
    parse_descriptor,
    parse_package,
    read_application,
    resolve_draft,
)
from belvedere.v1 import packages_pb2 as pb
from belvedere.v1 import packages_pb2_grpc
from services.deployments import rules


class Resolver:
    """Resolves graphs."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel]) -> None:
        """`channel` leads to the packages service."""
        self._channel = channel

    async def resolve(
        self, manifest: str, overrides: str, account: str, taken: Mapping[int, str] | None = None
    ) -> ResolvedGraph:
        """The graph. `taken`: the device's ports that other applications have, and which. Raises Invalid with every
        problem of the documents."""
        try:
            draft = read_application(manifest, overrides or None)
            releases = await self._releases(package_queries(draft.manifest, draft.overrides))
            return resolve_draft(draft, releases, account, taken)
        except (DocumentInvalid, GraphInvalid) as error:
            raise rules.invalid_documents(error.problems) from error

    async def _releases(self, queries: tuple[PackageQuery, ...]) -> dict[PackageQuery, Release]:
        references = [
            pb.PackageReference(
                owner=item.owner, name=item.name, version=item.version, patch_version=item.patch_version
            )
            for item in queries
        ]
        stub = packages_pb2_grpc.PackagesServiceStub(self._channel())
        answer = await stub.ResolvePackages(pb.ResolvePackagesRequest(references=references))
        return dict(_release(package) for package in answer.packages)


def _release(package: pb.ResolvedPackage) -> tuple[PackageQuery, Release]:
    reference = package.reference
    query = PackageQuery(reference.owner, reference.name, reference.version, reference.patch_version)
    ref = PackageRef(reference.owner, reference.name, reference.version, package.patch_version)
    try:
        document = parse_package(package.package_document)
        assets = tuple(
            RegisteredAsset(
                asset.name,
                asset.type,
                asset.digest,
                asset.size_bytes,
                parse_descriptor(asset.descriptor_document) if asset.descriptor_document else None,
            )
            for asset in package.assets
        )
    except DocumentInvalid as error:
        # Registration has read the same documents with the same reader.
        raise Internal(f"registered package {ref.name} {ref.version} can't be read: {error}") from error
    return query, Release(ref, document, assets)
