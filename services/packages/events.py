"""What the packages service publishes: `belvedere.events.packages.…`. It consumes nothing.

packages.package.created     a package is there                 data: packageId packageName
packages.version.registered  a patch can be deployed            data: packageId packageName packageVersion patchVersion latest
packages.version.failed      a patch can not be deployed        data: … statusDescription
packages.camera.created      a camera is registered, or its     data: packageId packageName packageVersion patchVersion nodeName
                             credentials have changed
"""

from __future__ import annotations

from belvedere.bus.event import Event
from services.packages.store import PackageRow, VersionRow

SOURCE = "/belvedere/packages"


def _event(type: str, package: PackageRow, data: dict[str, object]) -> Event:
    about = {"packageId": package.package_id, "packageName": package.name}
    return Event(type, SOURCE, package.package_id, package.account, package.region, about | data)


def package_created(package: PackageRow) -> Event:
    """A package is there."""
    return _event("packages.package.created", package, {})


def version_registered(package: PackageRow, version: VersionRow) -> Event:
    """A patch can be deployed."""
    data: dict[str, object] = {
        "packageVersion": version.version, "patchVersion": version.patch, "latest": version.latest
    }  # fmt: skip
    return _event("packages.version.registered", package, data)


def version_failed(package: PackageRow, version: VersionRow) -> Event:
    """A patch can not be deployed."""
    data: dict[str, object] = {
        "packageVersion": version.version,
        "patchVersion": version.patch,
        "statusDescription": version.status_description,
    }
    return _event("packages.version.failed", package, data)


def camera_created(package: PackageRow, version: VersionRow, node_name: str) -> Event:
    """A camera is registered, or its credentials have changed."""
    data: dict[str, object] = {
        "packageVersion": version.version, "patchVersion": version.patch, "nodeName": node_name
    }  # fmt: skip
    return _event("packages.camera.created", package, data)
