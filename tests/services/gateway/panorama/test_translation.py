"""JSON ↔ proto, for every operation that is served, there and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belvedere.awsmodel import panorama
from belvedere.v1 import registry_pb2
from services.gateway.panorama.operations import MESSAGES, OPERATIONS
from services.gateway.panorama.translation import TranslationError, Translator, field_name
from tests.services.gateway.panorama.values import valid


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ("DeviceId", "device_id"),
        ("OTAJobConfig", "ota_job_config"),
        ("Ethernet0Status", "ethernet0_status"),
        ("StaticIpConnectionInfo", "static_ip_connection_info"),
        ("IotThingName", "iot_thing_name"),
    ],
)
def test_members_become_fields(member: str, field: str) -> None:
    assert field_name(member) == field


@settings(max_examples=15)
@given(st.data())
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_input_comes_back_from_its_message(name: str, data: st.DataObject) -> None:
    shape = panorama().operations[name].input
    assert shape is not None
    message = getattr(MESSAGES[OPERATIONS[name].service], f"{name}Request")()
    translator = Translator(shape, message.DESCRIPTOR)
    values = data.draw(valid(shape))
    translator.fill(message, values)
    assert without_empty(translator.read(message)) == without_empty(values)
    assert type(message).FromString(message.SerializeToString()) == message


def without_empty(value: object) -> object:
    """Proto does not tell an absent list or map from an empty one."""
    if isinstance(value, dict):
        return {k: without_empty(v) for k, v in value.items() if v not in ([], {})}
    return [without_empty(v) for v in value] if isinstance(value, list) else value


def test_a_device_reads_as_the_api_says_it() -> None:
    operation = panorama().operations["DescribeDevice"]
    assert operation.output is not None
    message = registry_pb2.DescribeDeviceResponse(
        device_id="device-a",
        provisioning_status=registry_pb2.DEVICE_STATUS_SUCCEEDED,
        device_aggregated_status=registry_pb2.DEVICE_AGGREGATED_STATUS_ONLINE,
        current_networking_status=registry_pb2.NetworkStatus(),
    )
    message.created_time.FromMilliseconds(1_700_000_000_123)
    output = Translator(operation.output, message.DESCRIPTOR).read(message)
    assert output == {
        "AlternateSoftwares": [],
        "CreatedTime": 1_700_000_000.123,
        "CurrentNetworkingStatus": {},
        "DeviceAggregatedStatus": "ONLINE",
        "DeviceId": "device-a",
        "ProvisioningStatus": "SUCCEEDED",
        "Tags": {},
    }
    assert '"CreatedTime": 1700000000.123' in json.dumps(output)


def test_required_members_are_there_even_when_empty() -> None:
    operation = panorama().operations["ListDevices"]
    assert operation.output is not None
    message = registry_pb2.ListDevicesResponse()
    assert Translator(operation.output, message.DESCRIPTOR).read(message) == {"Devices": []}


def test_a_required_enum_that_a_service_left_unset_is_found() -> None:
    operation = panorama().operations["ProvisionDevice"]
    assert operation.output is not None
    message = registry_pb2.ProvisionDeviceResponse(arn="a")
    with pytest.raises(TranslationError, match="Status"):
        Translator(operation.output, message.DESCRIPTOR).read(message)


def test_a_member_without_a_field_is_found_when_the_translator_is_made() -> None:
    operation = panorama().operations["ListDevices"]
    assert operation.output is not None
    with pytest.raises(TranslationError, match="devices"):
        Translator(operation.output, registry_pb2.DescribeDeviceResponse.DESCRIPTOR)
