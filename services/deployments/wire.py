"""Rows to messages of the deployments API. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.ids import arn
from belvedere.v1 import deployments_pb2 as pb
from services.deployments import rules
from services.deployments.rules import Node, NodeKind, Status
from services.deployments.store import InstanceRow


def timestamp(moment: datetime) -> Timestamp:
    """A moment as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def instance_arn(row: InstanceRow) -> str:
    """`arn:aws:panorama:<region>:<account>:applicationInstance/<id>`."""
    return arn("panorama", row.region, row.account, f"applicationInstance/{row.instance_id}")


def status(row: InstanceRow) -> pb.ApplicationInstanceStatus.ValueType:
    """The row's status."""
    return pb.ApplicationInstanceStatus.Value(f"APPLICATION_INSTANCE_STATUS_{row.status}")


def health(row: InstanceRow) -> pb.ApplicationInstanceHealthStatus.ValueType:
    """The row's health."""
    return pb.ApplicationInstanceHealthStatus.Value(f"APPLICATION_INSTANCE_HEALTH_STATUS_{row.health}")


def contexts(row: InstanceRow) -> list[pb.ReportedRuntimeContextState]:
    """What the device said; nothing before it did."""
    if not row.device_state or row.reported is None:
        return []
    return [
        pb.ReportedRuntimeContextState(
            desired_state=pb.DesiredState.Value(f"DESIRED_STATE_{row.desired}"),
            device_reported_status=pb.DeviceReportedStatus.Value(f"DEVICE_REPORTED_STATUS_{row.device_state}"),
            device_reported_time=timestamp(row.reported),
            runtime_context_name=rules.CONTEXT_NAME,
        )
    ]


def item(row: InstanceRow) -> pb.ApplicationInstance:
    """An entry of ListApplicationInstances."""
    return pb.ApplicationInstance(
        application_instance_id=row.instance_id,
        arn=instance_arn(row),
        created_time=timestamp(row.created),
        default_runtime_context_device=row.device_id,
        default_runtime_context_device_name=row.device_name,
        description=row.description,
        health_status=health(row),
        name=row.name or None,
        runtime_context_states=contexts(row),
        status=status(row),
        status_description=row.status_description or None,
        tags=row.tags,
    )


def describe(row: InstanceRow) -> pb.DescribeApplicationInstanceResponse:
    """DescribeApplicationInstance's answer."""
    return pb.DescribeApplicationInstanceResponse(
        application_instance_id=row.instance_id,
        application_instance_id_to_replace=row.replaces or None,
        arn=instance_arn(row),
        created_time=timestamp(row.created),
        default_runtime_context_device=row.device_id,
        default_runtime_context_device_name=row.device_name,
        description=row.description,
        health_status=health(row),
        last_updated_time=timestamp(row.updated),
        name=row.name or None,
        runtime_context_states=contexts(row),
        runtime_role_arn=row.role_arn or None,
        status=status(row),
        status_description=row.status_description or None,
        tags=row.tags,
    )


def details(row: InstanceRow) -> pb.DescribeApplicationInstanceDetailsResponse:
    """DescribeApplicationInstanceDetails' answer."""
    return pb.DescribeApplicationInstanceDetailsResponse(
        application_instance_id=row.instance_id,
        application_instance_id_to_replace=row.replaces or None,
        created_time=timestamp(row.created),
        default_runtime_context_device=row.device_id,
        description=row.description,
        manifest_overrides_payload=pb.ManifestOverridesPayload(payload_data=row.overrides) if row.overrides else None,
        manifest_payload=pb.ManifestPayload(payload_data=row.manifest),
        name=row.name or None,
    )


def node_instance(row: InstanceRow, node: Node) -> pb.NodeInstance:
    """An entry of ListApplicationInstanceNodeInstances. The node's name in the graph is its instance id."""
    said = row.node_status.get(node.name, "NOT_AVAILABLE")
    if row.status == Status.REMOVAL_SUCCEEDED:
        said = "NOT_AVAILABLE"
    elif node.kind is NodeKind.CAMERA and node.name in row.paused:
        said = "PAUSED"
    return pb.NodeInstance(
        current_status=pb.NodeInstanceStatus.Value(f"NODE_INSTANCE_STATUS_{said}"),
        node_id=node.node_id,
        node_instance_id=node.name,
        node_name=node.name,
        package_name=node.package.name,
        package_patch_version=node.package.patch_version,
        package_version=node.package.version,
    )
