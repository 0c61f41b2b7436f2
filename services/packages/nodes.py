"""Nodes: what the interfaces of a package version are to the API; and those of the packages that every appliance has.

Pure. The built-in ones belong to the account `panorama` and stand in no table: they are listed where that owner is asked for, and
described by the ids that application instances tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from belvedere.graph import BUILT_IN, PackageDocument, PackageRef
from services.packages import rules
from services.packages.store import NodeRow, PackageRow, VersionRow

BUILT_IN_OWNER = "panorama"
BUILT_IN_SINCE = datetime(2021, 1, 1, tzinfo=UTC)
"""The schema's date: when they were made, and when they last changed."""


def node_rows(package: PackageRow, version: VersionRow, document: PackageDocument) -> list[NodeRow]:
    """A row for each interface of a package version."""
    rows: list[NodeRow] = []
    for interface in document.interfaces:
        inputs, outputs = rules.port_rows(interface)
        rows.append(
            NodeRow(
                account=version.account,
                region=version.region,
                node_id=rules.node_id(package.name, version.version, version.patch, interface.name),
                package_id=version.package_id,
                package_name=package.name,
                version=version.version,
                patch=version.patch,
                name=interface.name,
                category=interface.category,
                asset_name=interface.asset,
                description=interface.description or document.description,
                inputs=inputs,
                outputs=outputs,
                created=version.registered,
                updated=version.registered,
            )
        )
    return rows


def _rows(ref: PackageRef, document: PackageDocument, region: str) -> list[NodeRow]:
    package_id = f"package-{ref.name}"
    package = PackageRow(
        package_id=package_id, account=BUILT_IN_OWNER, region=region, name=ref.name, created=BUILT_IN_SINCE
    )
    version = VersionRow(
        package_id=package_id,
        version=ref.version,
        patch=ref.patch_version,
        account=BUILT_IN_OWNER,
        region=region,
        status="",
        registered=BUILT_IN_SINCE,
    )
    return node_rows(package, version, document)


def built_in_nodes(region: str) -> Mapping[str, NodeRow]:
    """The built-in nodes by id, in the order of ids."""
    rows = [row for release in BUILT_IN.values() for row in _rows(release.ref, release.document, region)]
    return {row.node_id: row for row in sorted(rows, key=lambda row: row.node_id)}
