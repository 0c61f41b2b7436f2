"""Devices as the API sees them: real gRPC, real SQLite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belvedere.chassis.errors import Conflict, Invalid, NotFound
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry import rules
from services.registry.rules import Refused
from tests.support.cloud import ACCOUNT, REGION, RunningCloud
from tests.support.device import provision


async def test_a_provisioned_device_awaits_its_appliance(cloud: RunningCloud) -> None:
    networking = pb.NetworkPayload(
        ethernet0=pb.EthernetPayload(connection_type=pb.CONNECTION_TYPE_DHCP),
        ntp=pb.NtpPayload(ntp_servers=["0.pool.ntp.org"]),
    )
    device = await provision(
        cloud, "front-door", description="at the door", tags={"a": "b"}, networking_configuration=networking
    )
    found = await device.describe()
    assert device.device_id.startswith("device-") and len(device.device_id) == 33
    assert found.arn == f"arn:aws:panorama:{REGION}:{ACCOUNT}:device/{device.device_id}"
    assert found.device_aggregated_status == pb.DEVICE_AGGREGATED_STATUS_AWAITING_PROVISIONING
    assert found.device_connection_status == pb.DEVICE_CONNECTION_STATUS_AWAITING_CREDENTIALS
    assert found.provisioning_status == pb.DEVICE_STATUS_AWAITING_PROVISIONING
    assert (found.name, found.description, dict(found.tags)) == ("front-door", "at the door", {"a": "b"})
    assert found.networking_configuration == networking
    assert found.current_software == "NOT_AVAILABLE"
    assert not found.HasField("lease_expiration_time")


async def test_a_bundle_tells_the_appliance_where_to_go(cloud: RunningCloud) -> None:
    device = await provision(cloud, "one")
    assert set(device.bundle) == {"device_id", "device_name", "enrol_url", "token", "expires_at", "ca_pem"}
    assert device.bundle["enrol_url"] == f"https://127.0.0.1:{cloud.runtime.ports.devices}/enrol"
    assert device.ca_pem.startswith("-----BEGIN CERTIFICATE-----")


async def test_two_devices_of_one_account_and_region_have_different_names(
    cloud: RunningCloud, registry: RegistryServiceStub
) -> None:
    first = await provision(cloud, "same")
    with pytest.raises(Conflict, match=first.device_id):
        await provision(cloud, "same")
    for account, region in (("999999999999", REGION), (ACCOUNT, "eu-central-1")):
        with cloud.caller(account, region):
            await registry.ProvisionDevice(pb.ProvisionDeviceRequest(name="same"))


async def test_a_fixed_address_has_to_be_told_whole(registry: RegistryServiceStub) -> None:
    place, static = "NetworkingConfiguration.Ethernet{}.StaticIpConnectionInfo", pb.CONNECTION_TYPE_STATIC_IP
    whole = pb.StaticIpConnectionInfo(
        ip_address="10.0.0.7", mask="255.255.255.0", default_gateway="10.0.0.1", dns=["10.0.0.1"]
    )
    networking = pb.NetworkPayload(
        ethernet0=pb.EthernetPayload(connection_type=static),
        ethernet1=pb.EthernetPayload(
            connection_type=static, static_ip_connection_info=pb.StaticIpConnectionInfo(mask="255.0.0.0")
        ),
    )
    with pytest.raises(Invalid) as caught:
        await registry.ProvisionDevice(pb.ProvisionDeviceRequest(name="fixed", networking_configuration=networking))
    assert [path for path, _ in caught.value.fields] == [
        place.format(0),
        *(f"{place.format(1)}.{name}" for name in ("IpAddress", "DefaultGateway", "Dns")),
    ]
    for port in (networking.ethernet0, networking.ethernet1):
        port.static_ip_connection_info.CopyFrom(whole)
    await registry.ProvisionDevice(pb.ProvisionDeviceRequest(name="fixed", networking_configuration=networking))


@pytest.mark.parametrize(("name", "description"), [("", ""), ("a b", ""), ("x" * 256, ""), ("ok", "x" * 256)])
async def test_a_wrong_name_or_description_is_refused(
    registry: RegistryServiceStub, name: str, description: str
) -> None:
    with pytest.raises(Invalid):
        await registry.ProvisionDevice(pb.ProvisionDeviceRequest(name=name, description=description))


async def test_another_accounts_device_is_not_there(cloud: RunningCloud, registry: RegistryServiceStub) -> None:
    device = await provision(cloud, "mine")
    with cloud.caller("999999999999"):
        for call in (
            registry.DescribeDevice(pb.DescribeDeviceRequest(device_id=device.device_id)),
            registry.DeleteDevice(pb.DeleteDeviceRequest(device_id=device.device_id)),
            registry.TagDevice(pb.TagDeviceRequest(device_id=device.device_id, tags={"a": "b"})),
            registry.GetDeviceKeys(pb.GetDeviceKeysRequest(device_id=device.device_id)),
            registry.CreateViewerCredentials(pb.CreateViewerCredentialsRequest(device_id=device.device_id)),
        ):
            with pytest.raises(NotFound):
                await call
        assert not (await registry.ListDevices(pb.ListDevicesRequest())).devices


async def test_description_and_tags_change(cloud: RunningCloud, registry: RegistryServiceStub) -> None:
    device = await provision(cloud, "one", tags={"a": "1", "b": "2"})
    await registry.UpdateDeviceMetadata(pb.UpdateDeviceMetadataRequest(device_id=device.device_id, description="new"))
    await registry.TagDevice(pb.TagDeviceRequest(device_id=device.device_id, tags={"b": "3", "c": "4"}))
    await registry.UntagDevice(pb.UntagDeviceRequest(device_id=device.device_id, tag_keys=["a", "zzz"]))
    found = await device.describe()
    assert found.description == "new" and dict(found.tags) == {"b": "3", "c": "4"}
    with pytest.raises(Invalid):
        await registry.TagDevice(pb.TagDeviceRequest(device_id=device.device_id, tags={"aws:x": "1"}))


async def listed(registry: RegistryServiceStub, **request: object) -> list[str]:
    names: list[str] = []
    token = ""
    while True:
        page = await registry.ListDevices(pb.ListDevicesRequest(next_token=token, **request))  # type: ignore[arg-type]
        names += [device.name for device in page.devices]
        token = page.next_token
        if not token:
            return names


async def test_lists_come_in_pages_filtered_and_sorted(cloud: RunningCloud, registry: RegistryServiceStub) -> None:
    for name in ("b-1", "a-2", "b-3", "a-1", "b-2"):
        await provision(cloud, name)
    assert await listed(registry, max_results=2) == ["b-2", "a-1", "b-3", "a-2", "b-1"]
    by_name = pb.LIST_DEVICES_SORT_BY_NAME
    assert await listed(registry, max_results=2, sort_by=by_name) == ["a-1", "a-2", "b-1", "b-2", "b-3"]
    assert await listed(registry, sort_by=by_name, sort_order=pb.SORT_ORDER_DESCENDING, name_filter="b-") == [
        "b-3",
        "b-2",
        "b-1",
    ]
    assert await listed(registry, name_filter="%") == []
    online = pb.DEVICE_AGGREGATED_STATUS_ONLINE
    waiting = pb.DEVICE_AGGREGATED_STATUS_AWAITING_PROVISIONING
    assert await listed(registry, device_aggregated_status_filter=online) == []
    assert len(await listed(registry, device_aggregated_status_filter=waiting)) == 5
    first = await registry.ListDevices(pb.ListDevicesRequest(max_results=2))
    with pytest.raises(Invalid, match="NextToken"):
        await registry.ListDevices(pb.ListDevicesRequest(next_token=first.next_token, name_filter="a"))


async def test_keys_of_a_device_that_has_not_enrolled_are_not_there_yet(
    cloud: RunningCloud, registry: RegistryServiceStub
) -> None:
    device = await provision(cloud, "one")
    with pytest.raises(Conflict, match="not enrolled"):
        await registry.GetDeviceKeys(pb.GetDeviceKeysRequest(device_id=device.device_id))


async def test_a_device_that_never_came_is_deleted_and_its_name_is_free(
    cloud: RunningCloud, registry: RegistryServiceStub
) -> None:
    device = await provision(cloud, "one")
    await registry.DeleteDevice(pb.DeleteDeviceRequest(device_id=device.device_id))
    with pytest.raises(NotFound):
        await device.describe()
    await provision(cloud, "one")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=0-99", (0, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
    ],
)
def test_a_range_header_means_these_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert rules.byte_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=11-12", "bytes=5-4", "bytes=-0"])
def test_a_range_that_holds_nothing_is_refused(header: str) -> None:
    with pytest.raises(Refused):
        rules.byte_range(header, 10)


@given(st.text(max_size=80))
def test_no_authorization_header_crashes_its_reader(header: str) -> None:
    for text in (header, f"Belvedere-Device {header}"):
        try:
            rules.parse_authorization(text)
        except Refused:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
)


@given(json_values)
def test_no_enrolment_body_crashes_its_reader(body: object) -> None:
    try:
        rules.parse_enrol(body)
    except Refused as refused:
        assert refused.message
