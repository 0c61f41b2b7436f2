"""TagResource, UntagResource and ListTagsForResource: each goes to the service that owns the resource, by its ARN.

Knows the owners' gRPC; decides nothing about tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from belvedere.chassis.context import Caller
from belvedere.chassis.errors import Invalid, NotFound
from belvedere.chassis.ids import arn as make_arn
from belvedere.chassis.ids import parse_arn
from belvedere.v1 import deployments_pb2, packages_pb2, registry_pb2
from services.gateway.panorama.operations import Peers

OPERATIONS = frozenset({"TagResource", "UntagResource", "ListTagsForResource"})
TAGGABLE = ("device", "package", "applicationInstance")


class Tags:
    """The three tag operations."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def call(self, operation: str, values: Mapping[str, Any], who: Caller) -> dict[str, Any]:
        """The operation's output. Raises NotFound for an ARN of elsewhere, Invalid for a malformed one."""
        kind, resource_id = _resource(values["ResourceArn"], who)
        if operation == "TagResource":
            await self._tag(kind, resource_id, values["Tags"])
            return {}
        if operation == "UntagResource":
            await self._untag(kind, resource_id, values["TagKeys"])
            return {}
        return {"Tags": await self._list(kind, resource_id)}

    async def of(self, resource_arn: str, who: Caller) -> dict[str, str]:
        """The tags that a resource has, for policies; none where there is no such resource."""
        try:
            return await self._list(*_resource(resource_arn, who))
        except (Invalid, NotFound):
            return {}

    async def _tag(self, kind: str, resource_id: str, tags: Mapping[str, str]) -> None:
        if kind == "device":
            await self._peers.registry.TagDevice(registry_pb2.TagDeviceRequest(device_id=resource_id, tags=tags))
        elif kind == "package":
            await self._peers.packages.TagPackage(packages_pb2.TagPackageRequest(package_id=resource_id, tags=tags))
        else:
            await self._peers.deployments.TagApplicationInstance(
                deployments_pb2.TagApplicationInstanceRequest(application_instance_id=resource_id, tags=tags)
            )

    async def _untag(self, kind: str, resource_id: str, keys: list[str]) -> None:
        if kind == "device":
            await self._peers.registry.UntagDevice(
                registry_pb2.UntagDeviceRequest(device_id=resource_id, tag_keys=keys)
            )
        elif kind == "package":
            await self._peers.packages.UntagPackage(
                packages_pb2.UntagPackageRequest(package_id=resource_id, tag_keys=keys)
            )
        else:
            await self._peers.deployments.UntagApplicationInstance(
                deployments_pb2.UntagApplicationInstanceRequest(application_instance_id=resource_id, tag_keys=keys)
            )

    async def _list(self, kind: str, resource_id: str) -> dict[str, str]:
        if kind == "device":
            device = await self._peers.registry.DescribeDevice(
                registry_pb2.DescribeDeviceRequest(device_id=resource_id)
            )
            return dict(device.tags)
        if kind == "package":
            package = await self._peers.packages.DescribePackage(
                packages_pb2.DescribePackageRequest(package_id=resource_id)
            )
            return dict(package.tags)
        instance = await self._peers.deployments.DescribeApplicationInstance(
            deployments_pb2.DescribeApplicationInstanceRequest(application_instance_id=resource_id)
        )
        return dict(instance.tags)


def _resource(text: str, who: Caller) -> tuple[str, str]:
    try:
        arn = parse_arn(text)
    except Invalid as error:
        raise Invalid(error.message, fields=[("ResourceArn", "must be the ARN of a Panorama resource")]) from error
    kind = arn.resource_type
    if arn.service != "panorama" or kind not in TAGGABLE or not arn.resource_id:
        raise Invalid(
            f"{text!r} is no resource that has tags.",
            fields=[("ResourceArn", f"must be the ARN of one of {', '.join(TAGGABLE)}")],
        )
    # Policies were asked about the text: another spelling of the same resource is none.
    own = make_arn("panorama", who.region, who.account, f"{kind}/{arn.resource_id}")
    if text != own:
        raise NotFound(kind, arn.resource_id)
    return kind, arn.resource_id
