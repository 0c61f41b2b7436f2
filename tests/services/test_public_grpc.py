"""The services' gRPC over TCP and TLS, as somebody with a token and any gRPC client meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from belvedere.chassis.permissions import PREFIXES
from belvedere.v1 import (
    deployments_pb2,
    device_jobs_pb2,
    identity_pb2,
    logs_metrics_pb2,
    packages_pb2,
    registry_pb2,
    rollouts_pb2,
)
from belvedere.v1.deployments_pb2_grpc import DeploymentsServiceStub
from belvedere.v1.device_jobs_pb2_grpc import DeviceJobsServiceStub
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.logs_metrics_pb2_grpc import AlarmsServiceStub, LogsServiceStub, MetricsServiceStub
from belvedere.v1.packages_pb2_grpc import PackagesServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from belvedere.v1.rollouts_pb2_grpc import RolloutServiceStub
from tests.support.cloud import ACCOUNT, REGION, RunningCloud, running_cloud
from tests.support.public_grpc import channel, cloud, refusal, token, user

__all__ = ["channel", "cloud"]

NOT_FOUND = grpc.StatusCode.NOT_FOUND
READ_ONLY = "arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly"


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_token_opens_what_its_users_policies_allow(cloud: RunningCloud, channel: grpc.aio.Channel) -> None:
    registry, who = RegistryServiceStub(channel), await token(cloud)
    made = await registry.ProvisionDevice(registry_pb2.ProvisionDeviceRequest(name="over-tcp"), metadata=who)
    assert made.arn == f"arn:aws:panorama:{REGION}:{ACCOUNT}:device/{made.device_id}"
    await user(cloud, "reader", READ_ONLY)
    reads = await token(cloud, "reader")
    listed = await registry.ListDevices(registry_pb2.ListDevicesRequest(), metadata=reads)
    assert "over-tcp" in [device.name for device in listed.devices]
    code, text, details = await refusal(
        registry.DeleteDevice(registry_pb2.DeleteDeviceRequest(device_id=made.device_id), metadata=reads)
    )
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert text == (
        f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: panorama:DeleteDevice on resource: "
        f"{made.arn} because no identity-based policy allows the panorama:DeleteDevice action"
    )
    info = error_details_pb2.ErrorInfo()
    assert details[0].Unpack(info) and (info.reason, info.domain) == ("Denied", "belvedere")


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Bearer"),),
        (("authorization", "Basic YWRtaW46YWRtaW4="),),
        (("authorization", "Bearer bvd_forged"),),
        (("authorization", "Bearer bvd_" + "A" * 200),),
        (("authorization", "Bearer " + "A" * 5000),),
        (
            ("x-belvedere-account", ACCOUNT),
            ("x-belvedere-region", REGION),
            ("x-belvedere-principal", f"arn:aws:iam::{ACCOUNT}:user/admin"),
        ),
    ],
)
async def test_without_a_good_token_nobody_gets_in(channel: grpc.aio.Channel, metadata: Any) -> None:
    call = RegistryServiceStub(channel).ListDevices(registry_pb2.ListDevicesRequest(), metadata=metadata)
    code, _, details = await refusal(call)
    info = error_details_pb2.ErrorInfo()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert details[0].Unpack(info) and info.reason == "Unauthenticated"


async def test_who_brings_no_good_token_leaves_a_line_in_the_audit_trail(
    cloud: RunningCloud, channel: grpc.aio.Channel
) -> None:
    metadata = (("authorization", "Bearer bvd_forged"),)
    await refusal(RegistryServiceStub(channel).DeleteDevice(registry_pb2.DeleteDeviceRequest(), metadata=metadata))
    with cloud.caller():
        asked = identity_pb2.ListAuditEntriesRequest(denied_only=True, max_results=1)
        (line,) = (await IdentityServiceStub(cloud.channel).ListAuditEntries(asked)).entries
    assert (line.principal, line.action, line.resource) == ("unproven", "panorama:DeleteDevice", "*")
    assert line.source_address == "127.0.0.1" and line.request_id


async def test_a_caller_cannot_say_that_he_is_somebody_else(cloud: RunningCloud, channel: grpc.aio.Channel) -> None:
    await user(cloud, "nobody")
    claims = (
        *await token(cloud, "nobody"),
        ("x-belvedere-account", "999999999999"),
        ("x-belvedere-principal", f"arn:aws:iam::{ACCOUNT}:user/admin"),
        ("x-belvedere-source", "10.0.0.1"),
    )
    request = registry_pb2.ListDevicesRequest()
    code, text, _ = await refusal(RegistryServiceStub(channel).ListDevices(request, metadata=claims))
    assert code is grpc.StatusCode.PERMISSION_DENIED and "user/nobody is not authorized" in text
    admin = (*await token(cloud), *claims[1:])
    made = await PackagesServiceStub(channel).CreatePackage(
        packages_pb2.CreatePackageRequest(package_name="claimed"), metadata=admin
    )
    assert f":{ACCOUNT}:" in made.arn
    with cloud.caller():
        trail = await IdentityServiceStub(cloud.channel).ListAuditEntries(identity_pb2.ListAuditEntriesRequest())
    lines = [(e.principal.rpartition("/")[2], e.action, e.allowed, e.source_address) for e in trail.entries]
    assert ("nobody", "panorama:ListDevices", False, "127.0.0.1") in lines
    assert ("admin", "panorama:CreatePackage", True, "127.0.0.1") in lines


async def test_a_token_ends_with_its_user_its_time_or_its_revocation(
    cloud: RunningCloud, channel: grpc.aio.Channel
) -> None:
    await user(cloud, "leaver", READ_ONLY)
    registry, request = RegistryServiceStub(channel), registry_pb2.ListDevicesRequest()
    first = await token(cloud, "leaver")
    await registry.ListDevices(request, metadata=first)
    with cloud.caller():
        identity = IdentityServiceStub(cloud.channel)
        await identity.RevokeBearerTokens(identity_pb2.RevokeBearerTokensRequest(user_name="leaver"))
    assert "revoked" in (await refusal(registry.ListDevices(request, metadata=first)))[1]
    second = await token(cloud, "leaver")
    await registry.ListDevices(request, metadata=second)
    with cloud.caller():
        await identity.DeleteUser(identity_pb2.DeleteUserRequest(user_name="leaver"))
    await user(cloud, "leaver", READ_ONLY)
    assert (await refusal(registry.ListDevices(request, metadata=second)))[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("IdentityService", "GetSigningKey"),
        ("IdentityService", "Authorize"),
        ("IdentityService", "GetBearer"),
        ("RegistryService", "GetDeviceKeys"),
        ("PackagesService", "SealCamera"),
        ("StorageService", "PutObject"),
        ("NoService", "Nothing"),
    ],
)
async def test_what_services_ask_each_other_is_not_there_for_others(
    cloud: RunningCloud, channel: grpc.aio.Channel, service: str, method: str
) -> None:
    call = channel.unary_unary(f"/belvedere.v1.{service}/{method}")(b"", metadata=await token(cloud))
    code, _, _ = await refusal(call)
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_package_is_the_same_to_policies_by_its_name_and_by_its_id(
    cloud: RunningCloud, channel: grpc.aio.Channel
) -> None:
    with cloud.caller():
        made = await PackagesServiceStub(cloud.channel).CreatePackage(
            packages_pb2.CreatePackageRequest(package_name="one")
        )
        document = {"Effect": "Deny", "Action": "panorama:DescribePackage", "Resource": made.arn}
        allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [allowed, document]})
        request = identity_pb2.CreatePolicyRequest(policy_name="not-one", policy_document=text)
        policy = (await IdentityServiceStub(cloud.channel).CreatePolicy(request)).policy.arn
    await user(cloud, "named", policy)
    metadata = await token(cloud, "named")
    for package_id in (made.package_id, "packageName/one"):
        asked = packages_pb2.DescribePackageRequest(package_id=package_id)
        code, _, _ = await refusal(PackagesServiceStub(channel).DescribePackage(asked, metadata=metadata))
        assert code is grpc.StatusCode.PERMISSION_DENIED
    asked = packages_pb2.DescribePackageRequest(package_id="packageName/none")
    code, _, _ = await refusal(PackagesServiceStub(channel).DescribePackage(asked, metadata=metadata))
    assert code is NOT_FOUND


async def test_tags_and_the_hand_that_reads_for_an_import_are_asked_about(
    cloud: RunningCloud, channel: grpc.aio.Channel
) -> None:
    document = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "panorama:*", "Resource": "*", '
        '"Condition": {"StringEqualsIfExists": {"aws:ResourceTag/Site": "north"}}}]}'
    )
    with cloud.caller():
        identity = IdentityServiceStub(cloud.channel)
        policy = await identity.CreatePolicy(
            identity_pb2.CreatePolicyRequest(policy_name="north", policy_document=document)
        )
    await user(cloud, "northerner", policy.policy.arn)
    who, registry = await token(cloud, "northerner"), RegistryServiceStub(channel)
    ids = {}
    for site in ("north", "south"):
        made = await registry.ProvisionDevice(
            registry_pb2.ProvisionDeviceRequest(name=f"site-{site}", tags={"Site": site}), metadata=await token(cloud)
        )
        ids[site] = made.device_id
    await registry.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=ids["north"]), metadata=who)
    south = registry.DescribeDevice(registry_pb2.DescribeDeviceRequest(device_id=ids["south"]), metadata=who)
    assert (await refusal(south))[0] is grpc.StatusCode.PERMISSION_DENIED
    request = packages_pb2.CreatePackageImportJobRequest(client_token="t")
    request.input_config.package_version_input_config.s3_location.bucket_name = "b"
    request.input_config.package_version_input_config.s3_location.object_key = "k"
    text = (await refusal(PackagesServiceStub(channel).CreatePackageImportJob(request, metadata=who)))[1]
    assert "s3:GetObject on resource: arn:aws:s3:::b/k" in text


READS: dict[type[Any], tuple[str, Any]] = {
    IdentityServiceStub: ("ListUsers", identity_pb2.ListUsersRequest()),
    RegistryServiceStub: ("ListDevices", registry_pb2.ListDevicesRequest()),
    PackagesServiceStub: ("ListPackages", packages_pb2.ListPackagesRequest()),
    DeploymentsServiceStub: ("ListApplicationInstances", deployments_pb2.ListApplicationInstancesRequest()),
    RolloutServiceStub: ("ListRollouts", rollouts_pb2.ListRolloutsRequest()),
    DeviceJobsServiceStub: ("ListDevicesJobs", device_jobs_pb2.ListDevicesJobsRequest()),
    LogsServiceStub: ("DescribeLogGroups", logs_metrics_pb2.DescribeLogGroupsRequest()),
    MetricsServiceStub: ("ListMetrics", logs_metrics_pb2.ListMetricsRequest()),
    AlarmsServiceStub: ("DescribeAlarms", logs_metrics_pb2.DescribeAlarmsRequest()),
}
WRONG: dict[type[Any], tuple[str, Any, grpc.StatusCode, str]] = {
    IdentityServiceStub: ("DeleteUser", identity_pb2.DeleteUserRequest(user_name="none"), NOT_FOUND, "NotFound"),
    RegistryServiceStub: ("DescribeDevice", registry_pb2.DescribeDeviceRequest(device_id="none"), NOT_FOUND, "NotFound"),
    PackagesServiceStub: ("DescribePackage", packages_pb2.DescribePackageRequest(package_id="none"), NOT_FOUND, "NotFound"),
    DeploymentsServiceStub: (
        "DescribeApplicationInstance",
        deployments_pb2.DescribeApplicationInstanceRequest(application_instance_id="none"),
        NOT_FOUND,
        "NotFound",
    ),
    RolloutServiceStub: ("DescribeRollout", rollouts_pb2.DescribeRolloutRequest(rollout_id="none"), NOT_FOUND, "NotFound"),
    DeviceJobsServiceStub: ("DescribeDeviceJob", device_jobs_pb2.DescribeDeviceJobRequest(job_id="none"), NOT_FOUND, "NotFound"),
    LogsServiceStub: ("GetLogEvents", logs_metrics_pb2.GetLogEventsRequest(group="g", stream="s"), NOT_FOUND, "NotFound"),
    MetricsServiceStub: (
        "PutMetricData", logs_metrics_pb2.PutMetricDataRequest(namespace="AWS/Mine"), grpc.StatusCode.INVALID_ARGUMENT, "Invalid",
    ),
    AlarmsServiceStub: (
        "SetAlarmState",
        logs_metrics_pb2.SetAlarmStateRequest(name="none", state=logs_metrics_pb2.ALARM_STATE_OK, reason="r"),
        NOT_FOUND,
        "NotFound",
    ),
}  # fmt: skip


def name_of(stub: type[Any]) -> str:
    return stub.__name__.removesuffix("Stub")


async def test_the_tables_of_these_tests_name_every_public_service() -> None:
    assert {name_of(stub) for stub in READS} == {name_of(stub) for stub in WRONG} == set(PREFIXES)


@pytest.mark.parametrize("stub", READS, ids=name_of)
async def test_every_service_answers_who_may_and_nobody_else(
    cloud: RunningCloud, channel: grpc.aio.Channel, stub: type[Any]
) -> None:
    method, request = READS[stub]
    call = getattr(stub(channel), method)
    await call(request, metadata=await token(cloud))
    name = f"no-{name_of(stub)}"
    await user(cloud, name)
    for metadata, expected, reason in (
        (await token(cloud, name), grpc.StatusCode.PERMISSION_DENIED, "Denied"),
        ((), grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated"),
    ):
        code, text, details = await refusal(call(request, metadata=metadata))
        info = error_details_pb2.ErrorInfo()
        assert code is expected and text
        assert details[0].Unpack(info) and (info.reason, info.domain) == (reason, "belvedere")


@pytest.mark.parametrize("stub", WRONG, ids=name_of)
async def test_every_service_says_what_is_wrong_with_details(
    cloud: RunningCloud, channel: grpc.aio.Channel, stub: type[Any]
) -> None:
    method, request, expected, reason = WRONG[stub]
    code, text, details = await refusal(getattr(stub(channel), method)(request, metadata=await token(cloud)))
    info = error_details_pb2.ErrorInfo()
    assert code is expected and text
    assert details[0].Unpack(info) and (info.reason, info.domain) == (reason, "belvedere")


async def test_errors_say_which_field_is_wrong(cloud: RunningCloud, channel: grpc.aio.Channel) -> None:
    tags = {"k" * 200: "v"}
    call = RegistryServiceStub(channel).ProvisionDevice(
        registry_pb2.ProvisionDeviceRequest(name="x", tags=tags), metadata=await token(cloud)
    )
    code, _, details = await refusal(call)
    bad = error_details_pb2.BadRequest()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert any(detail.Unpack(bad) for detail in details) and bad.field_violations[0].field.startswith("Tags.")


async def test_health_and_reflection_are_open_and_show_what_is_served(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    every = {f"belvedere.v1.{service}" for service in PREFIXES}
    for name in ("", *every):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="belvedere.v1.RegistryService"),
    ]
    answers = [answer async for answer in reflection.ServerReflectionInfo(iter(questions))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {*every, "grpc.health.v1.Health"} <= names
    assert "belvedere.v1.StorageService" not in names
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answers[1].file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for service in file.service for m in service.method}
    assert "DescribeDevice" in methods


async def test_without_tls_there_is_no_connection(cloud: RunningCloud) -> None:
    assert cloud.cloud.public is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{cloud.cloud.public.port}") as plain:
        call = RegistryServiceStub(plain).ListDevices(
            registry_pb2.ListDevicesRequest(), metadata=await token(cloud), timeout=5
        )
        assert (await refusal(call))[0] is grpc.StatusCode.UNAVAILABLE


async def test_the_port_is_there_only_where_it_is_set(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as plain:
        assert plain.cloud.public is None
