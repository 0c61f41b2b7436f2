"""How what the services say is shown: JSON of devices, applications, logs and metrics. Pure.

Enum values lose their prefix (`DEVICE_STATUS_SUCCEEDED` → `SUCCEEDED`), times are unix milliseconds, absent is null.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.v1 import deployments_pb2, logs_metrics_pb2, registry_pb2

Json = dict[str, Any]

GONE = {"REMOVAL_SUCCEEDED"}
"""Applications in these states are no longer shown."""


def name_of(enum: Any, prefix: str, value: int) -> str | None:
    """The enum value without its prefix; None for UNSPECIFIED and for a value that this version does not know."""
    if value == 0 or value not in enum.values():
        return None
    return str(enum.Name(value)).removeprefix(prefix)


def milliseconds(moment: Timestamp) -> int | None:
    """Unix milliseconds; None where it is not set."""
    return moment.ToMilliseconds() if moment.seconds or moment.nanos else None


def device_line(device: registry_pb2.Device) -> Json:
    """A device in the list."""
    return {
        "id": device.device_id,
        "name": device.name or device.device_id,
        "status": name_of(
            registry_pb2.DeviceAggregatedStatus, "DEVICE_AGGREGATED_STATUS_", device.device_aggregated_status
        ),
        "provisioning": name_of(registry_pb2.DeviceStatus, "DEVICE_STATUS_", device.provisioning_status),
        "software": device.current_software or None,
        "updated_ms": milliseconds(device.last_updated_time),
    }


def device_detail(device: registry_pb2.DescribeDeviceResponse) -> Json:
    """One device."""
    status = device.current_networking_status
    address = status.ethernet0_status.ip_address or status.ethernet1_status.ip_address
    return {
        "id": device.device_id,
        "arn": device.arn,
        "name": device.name or device.device_id,
        "description": device.description or None,
        "status": name_of(
            registry_pb2.DeviceAggregatedStatus, "DEVICE_AGGREGATED_STATUS_", device.device_aggregated_status
        ),
        "connection": name_of(
            registry_pb2.DeviceConnectionStatus, "DEVICE_CONNECTION_STATUS_", device.device_connection_status
        ),
        "software": device.current_software or None,
        "serial_number": device.serial_number or None,
        "address": address or None,
        "lease_expires_ms": milliseconds(device.lease_expiration_time),
        "created_ms": milliseconds(device.created_time),
    }


def application_line(instance: deployments_pb2.ApplicationInstance) -> Json:
    """An application in the list."""
    return {
        "id": instance.application_instance_id,
        "name": instance.name or instance.application_instance_id,
        "description": instance.description or None,
        "device_id": instance.default_runtime_context_device,
        "device_name": instance.default_runtime_context_device_name or None,
        "status": name_of(deployments_pb2.ApplicationInstanceStatus, "APPLICATION_INSTANCE_STATUS_", instance.status),
        "health": name_of(
            deployments_pb2.ApplicationInstanceHealthStatus,
            "APPLICATION_INSTANCE_HEALTH_STATUS_",
            instance.health_status,
        ),
        "reason": instance.status_description or None,
        "created_ms": milliseconds(instance.created_time),
    }


def application_detail(instance: deployments_pb2.DescribeApplicationInstanceResponse) -> Json:
    """One application."""
    line = deployments_pb2.ApplicationInstance(
        application_instance_id=instance.application_instance_id,
        name=instance.name,
        description=instance.description,
        default_runtime_context_device=instance.default_runtime_context_device,
        default_runtime_context_device_name=instance.default_runtime_context_device_name,
        status=instance.status,
        health_status=instance.health_status,
        status_description=instance.status_description,
        created_time=instance.created_time,
    )
    return application_line(line) | {
        "arn": instance.arn,
        "replaces": instance.application_instance_id_to_replace or None,
        "updated_ms": milliseconds(instance.last_updated_time),
    }


def node_line(node: deployments_pb2.NodeInstance) -> Json:
    """A node of an application."""
    return {
        "id": node.node_instance_id,
        "name": node.node_name or node.node_instance_id,
        "package": node.package_name or None,
        "version": node.package_version or None,
        "status": name_of(deployments_pb2.NodeInstanceStatus, "NODE_INSTANCE_STATUS_", node.current_status),
    }


def video(output: registry_pb2.VideoOutput, token: str) -> Json:
    """Where a video plays; the address opens it as it is."""
    url = output.websocket_url
    if token and "token=" not in url:
        url += ("&" if "?" in url else "?") + f"token={token}"
    return {
        "application_id": output.application_instance_id,
        "name": output.name or None,
        "websocket_url": url,
        "rtsp_url": output.rtsp_url or None,
    }


def log_event(event: logs_metrics_pb2.LogEvent) -> Json:
    """A log line."""
    return {"timestamp_ms": event.timestamp_ms, "message": event.message}


def metric_line(metric: logs_metrics_pb2.Metric) -> Json:
    """A metric in the picker."""
    return {"namespace": metric.namespace, "name": metric.name, "dimensions": dict(metric.dimensions)}


def points(datapoints: Iterable[logs_metrics_pb2.Datapoint]) -> list[Json]:
    """The points of a graph, oldest first."""
    return [
        {
            "timestamp_ms": point.timestamp.ToMilliseconds(),
            "average": point.sum / point.sample_count if point.sample_count else None,
            "minimum": point.minimum,
            "maximum": point.maximum,
            "sum": point.sum,
            "sample_count": point.sample_count,
            "unit": point.unit,
        }
        for point in sorted(datapoints, key=lambda p: p.timestamp.seconds)
    ]
