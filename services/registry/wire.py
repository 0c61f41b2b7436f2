"""Rows to messages of the registry API. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from belvedere.chassis.ids import arn
from belvedere.fleet import ReportedInterface, ReportedNetworking
from belvedere.v1 import common_pb2
from belvedere.v1 import registry_pb2 as pb
from services.registry import rules
from services.registry.store import DeviceRow


def timestamp(moment: datetime) -> Timestamp:
    """A moment as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def device_arn(row: DeviceRow) -> str:
    """`arn:aws:panorama:<region>:<account>:device/<id>`."""
    return arn("panorama", row.region, row.account, f"device/{row.device_id}")


def aggregated(row: DeviceRow, now: datetime) -> pb.DeviceAggregatedStatus.ValueType:
    """The row's status."""
    return pb.DeviceAggregatedStatus.Value(f"DEVICE_AGGREGATED_STATUS_{rules.aggregated_status(row.state, now)}")


def status_name(number: pb.DeviceAggregatedStatus.ValueType) -> str:
    """The status of a filter, without its prefix; empty where none is named."""
    return pb.DeviceAggregatedStatus.Name(number).removeprefix("DEVICE_AGGREGATED_STATUS_") if number else ""


def provisioning(row: DeviceRow) -> pb.DeviceStatus.ValueType:
    """How far it is set up."""
    return pb.DeviceStatus.Value(f"DEVICE_STATUS_{row.provisioning}")


def describe(row: DeviceRow, now: datetime) -> pb.DescribeDeviceResponse:
    """DescribeDevice's answer."""
    connection = pb.DeviceConnectionStatus.Value(f"DEVICE_CONNECTION_STATUS_{rules.connection_status(row.state)}")
    answer = pb.DescribeDeviceResponse(
        arn=device_arn(row),
        brand=pb.DEVICE_BRAND_AWS_PANORAMA,
        created_time=timestamp(row.created),
        current_software=row.software_version or rules.NOT_AVAILABLE,
        description=row.description,
        device_aggregated_status=aggregated(row, now),
        device_connection_status=connection,
        device_id=row.device_id,
        name=row.name,
        provisioning_status=provisioning(row),
        tags=row.tags,
        type=common_pb2.DEVICE_TYPE_PANORAMA_APPLIANCE,
    )
    if row.lease_expires is not None:
        answer.lease_expiration_time.CopyFrom(timestamp(row.lease_expires))
    if row.latest_job is not None:
        answer.latest_device_job.CopyFrom(_job(row.latest_job))
    if row.serial_number:
        answer.serial_number = row.serial_number
    if row.networking_configuration is not None:
        ParseDict(row.networking_configuration, answer.networking_configuration)
    if row.networking is not None and row.networking_at is not None:
        reported = ReportedNetworking.from_plain(row.networking)
        answer.current_networking_status.CopyFrom(_networking(reported, row.networking_at))
    return answer


def item(row: DeviceRow, now: datetime) -> pb.Device:
    """A line of ListDevices."""
    device = pb.Device(
        brand=pb.DEVICE_BRAND_AWS_PANORAMA,
        created_time=timestamp(row.created),
        current_software=row.software_version or rules.NOT_AVAILABLE,
        description=row.description,
        device_aggregated_status=aggregated(row, now),
        device_id=row.device_id,
        last_updated_time=timestamp(row.updated),
        name=row.name,
        provisioning_status=provisioning(row),
        tags=row.tags,
        type=common_pb2.DEVICE_TYPE_PANORAMA_APPLIANCE,
    )
    if row.lease_expires is not None:
        device.lease_expiration_time.CopyFrom(timestamp(row.lease_expires))
    if row.latest_job is not None:
        device.latest_device_job.CopyFrom(_job(row.latest_job))
    return device


def _job(job: Mapping[str, str]) -> pb.LatestDeviceJob:
    latest = pb.LatestDeviceJob()
    if kind := job.get("jobType"):
        latest.job_type = common_pb2.JobType.Value(f"JOB_TYPE_{kind}")
    if status := job.get("status"):
        latest.status = common_pb2.UpdateProgress.Value(f"UPDATE_PROGRESS_{status}")
    if version := job.get("imageVersion"):
        latest.image_version = version
    return latest


def _networking(reported: ReportedNetworking, at: datetime) -> pb.NetworkStatus:
    status = pb.NetworkStatus(last_updated_time=timestamp(at))
    for found, into in (
        (reported.ethernet0, status.ethernet0_status),
        (reported.ethernet1, status.ethernet1_status),
    ):
        if found is not None:
            into.CopyFrom(_interface(found))
    if reported.ntp is not None:
        ntp = reported.ntp
        status.ntp_status.connection_status = _connection(ntp.connection_status)
        if ntp.ip_address:
            status.ntp_status.ip_address = ntp.ip_address
        if ntp.ntp_server_name:
            status.ntp_status.ntp_server_name = ntp.ntp_server_name
    return status


def _interface(found: ReportedInterface) -> pb.EthernetStatus:
    status = pb.EthernetStatus(connection_status=_connection(found.connection_status))
    if found.ip_address:
        status.ip_address = found.ip_address
    if found.hw_address:
        status.hw_address = found.hw_address
    return status


def _connection(name: str) -> pb.NetworkConnectionStatus.ValueType:
    return pb.NetworkConnectionStatus.Value(f"NETWORK_CONNECTION_STATUS_{name}")
