"""Which gRPC method each operation of the Panorama API calls, and which resource it concerns.

Knows the services' stubs. An operation that is absent here is not served, and the front door says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from belvedere.chassis.local import at_hand
from belvedere.chassis.service import AtHand
from belvedere.v1 import deployments_pb2, device_jobs_pb2, packages_pb2, registry_pb2
from belvedere.v1.deployments_pb2_grpc import DeploymentsServiceStub
from belvedere.v1.device_jobs_pb2_grpc import DeviceJobsServiceStub
from belvedere.v1.packages_pb2_grpc import PackagesServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub

ANY = "*"


@dataclass(frozen=True)
class Target:
    """Where an operation goes."""

    service: str
    """registry, packages, deployments, device_jobs."""
    resource: str
    """The resource that policies are asked about: `device/{DeviceId}` of the path, or ANY."""


OPERATIONS: Mapping[str, Target] = {
    "ProvisionDevice": Target("registry", ANY),
    "DescribeDevice": Target("registry", "device/{DeviceId}"),
    "ListDevices": Target("registry", ANY),
    "UpdateDeviceMetadata": Target("registry", "device/{DeviceId}"),
    "DeleteDevice": Target("registry", "device/{DeviceId}"),
    "CreatePackage": Target("packages", ANY),
    "DescribePackage": Target("packages", "package/{PackageId}"),
    "ListPackages": Target("packages", ANY),
    "DeletePackage": Target("packages", "package/{PackageId}"),
    "RegisterPackageVersion": Target("packages", "package/{PackageId}"),
    "DescribePackageVersion": Target("packages", "package/{PackageId}"),
    "DeregisterPackageVersion": Target("packages", "package/{PackageId}"),
    "ListNodes": Target("packages", ANY),
    "DescribeNode": Target("packages", ANY),
    "CreateNodeFromTemplateJob": Target("packages", ANY),
    "DescribeNodeFromTemplateJob": Target("packages", ANY),
    "ListNodeFromTemplateJobs": Target("packages", ANY),
    "CreatePackageImportJob": Target("packages", ANY),
    "DescribePackageImportJob": Target("packages", ANY),
    "ListPackageImportJobs": Target("packages", ANY),
    "CreateApplicationInstance": Target("deployments", ANY),
    "DescribeApplicationInstance": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "DescribeApplicationInstanceDetails": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "ListApplicationInstances": Target("deployments", ANY),
    "ListApplicationInstanceDependencies": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "ListApplicationInstanceNodeInstances": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "RemoveApplicationInstance": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "SignalApplicationInstanceNodeInstances": Target("deployments", "applicationInstance/{ApplicationInstanceId}"),
    "CreateJobForDevices": Target("device_jobs", ANY),
    "DescribeDeviceJob": Target("device_jobs", ANY),
    "ListDevicesJobs": Target("device_jobs", ANY),
}


def also_needed(operation: str, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """(action, resource) that a caller must be allowed besides the operation itself: an import reads for its caller."""
    if operation != "CreatePackageImportJob":
        return None
    config = values["InputConfig"].get("PackageVersionInputConfig")
    if config is None:
        return None
    location = config["S3Location"]
    return "s3:GetObject", f"arn:aws:s3:::{location['BucketName']}/{location['ObjectKey']}"


MESSAGES: Mapping[str, Any] = {
    "registry": registry_pb2,
    "packages": packages_pb2,
    "deployments": deployments_pb2,
    "device_jobs": device_jobs_pb2,
}


class Peers:
    """The stubs of the services behind the API. `call` takes and gives messages as they travel: what is asked and answered
    again and again need not be taken apart."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calls: dict[str, Any] = {}
        self.at_hand: dict[str, AtHand] = {}
        """By operation: asks for an answer that is there already."""
        for operation, target in OPERATIONS.items():
            (service,) = MESSAGES[target.service].DESCRIPTOR.services_by_name.values()
            method = f"/{service.full_name}/{operation}"
            self._calls[operation] = channel.unary_unary(method, bytes, bytes)
            self.at_hand[operation] = at_hand(channel, method)
        self.registry = RegistryServiceStub(channel)
        self.packages = PackagesServiceStub(channel)
        self.deployments = DeploymentsServiceStub(channel)
        self.device_jobs = DeviceJobsServiceStub(channel)

    async def call(self, operation: str, request: bytes) -> bytes:
        """The answer of an operation in OPERATIONS. Raises BelvedereError."""
        answer: bytes = await self._calls[operation](request)
        return answer
