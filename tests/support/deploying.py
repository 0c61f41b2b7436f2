"""Drives the deployments service, as the present caller: deploys, describes, waits, says what a device says."""

from __future__ import annotations

import json

from belvedere.fleet import DeviceReportedStatus, Health, NodeStatus, Reason, ReportedApplication, ReportedNode
from belvedere.v1 import deployments_pb2 as pb
from belvedere.v1 import deployments_pb2_grpc
from tests.support import graphs
from tests.support.cloud import RunningCloud
from tests.support.fleet import eventually

SERVICES = ["identity", "registry", "packages", "deployments"]
D = DeviceReportedStatus


def stub(cloud: RunningCloud) -> deployments_pb2_grpc.DeploymentsServiceAsyncStub:
    return deployments_pb2_grpc.DeploymentsServiceStub(cloud.channel)


async def deploy(cloud: RunningCloud, device_id: str, *cameras: str, replaces: str = "", name: str = "counter") -> str:
    request = pb.CreateApplicationInstanceRequest(
        name=name,
        default_runtime_context_device=device_id,
        manifest_payload=pb.ManifestPayload(payload_data=json.dumps(graphs.manifest())),
        manifest_overrides_payload=pb.ManifestOverridesPayload(
            payload_data=json.dumps(graphs.overrides(*(cameras or ("north",))))
        ),
        tags={"client": "test"},
    )
    if replaces:
        request.application_instance_id_to_replace = replaces
    return (await stub(cloud).CreateApplicationInstance(request)).application_instance_id


async def describe(cloud: RunningCloud, instance_id: str) -> pb.DescribeApplicationInstanceResponse:
    return await stub(cloud).DescribeApplicationInstance(
        pb.DescribeApplicationInstanceRequest(application_instance_id=instance_id)
    )


async def status(cloud: RunningCloud, instance_id: str) -> str:
    found = (await describe(cloud, instance_id)).status
    return pb.ApplicationInstanceStatus.Name(found).removeprefix("APPLICATION_INSTANCE_STATUS_")


async def until(cloud: RunningCloud, instance_id: str, wanted: str) -> pb.DescribeApplicationInstanceResponse:
    async def reached() -> bool:
        return await status(cloud, instance_id) == wanted

    await eventually(reached, f"{wanted} of {instance_id}")
    return await describe(cloud, instance_id)


async def nodes(cloud: RunningCloud, instance_id: str) -> dict[str, str]:
    answer = await stub(cloud).ListApplicationInstanceNodeInstances(
        pb.ListApplicationInstanceNodeInstancesRequest(application_instance_id=instance_id)
    )
    return {
        item.node_instance_id: pb.NodeInstanceStatus.Name(item.current_status).removeprefix("NODE_INSTANCE_STATUS_")
        for item in answer.node_instances
    }


async def remove(cloud: RunningCloud, instance_id: str) -> None:
    await stub(cloud).RemoveApplicationInstance(
        pb.RemoveApplicationInstanceRequest(application_instance_id=instance_id)
    )


def says(
    instance_id: str, state: DeviceReportedStatus, health: Health = Health.RUNNING, reason: Reason | None = None
) -> ReportedApplication:
    parts = (ReportedNode("code_node", NodeStatus.RUNNING), ReportedNode("north", NodeStatus.RUNNING))
    return ReportedApplication(instance_id, state, health, reason, parts if state is D.RUNNING else ())
