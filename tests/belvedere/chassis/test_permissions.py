"""Which permission a gRPC method needs: pure."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from google.protobuf.message import Message

from belvedere import awsmodel
from belvedere.chassis.gate import address
from belvedere.chassis.permissions import INTERNAL, PREFIXES, is_public, needs
from belvedere.v1 import (
    deployments_pb2,
    device_jobs_pb2,
    identity_pb2,
    logs_metrics_pb2,
    packages_pb2,
    registry_pb2,
    rollouts_pb2,
)

PROTOS = Path(__file__).parents[3] / "proto" / "belvedere" / "v1"
FILES = [importlib.import_module(f"belvedere.v1.{file.stem}_pb2") for file in sorted(PROTOS.glob("*.proto"))]
SERVICES = {service.name: service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()}
GATEWAY = Path(__file__).parents[3] / "services" / "gateway"
PANORAMA = "arn:aws:panorama:us-east-1:123456789012"
IAM = "arn:aws:iam::123456789012"


def asked(service: str, method: str, request: Message) -> list[tuple[str, str]]:
    return [(n.action, n.resource) for n in needs(service, method, request, "123456789012", "us-east-1")]


@pytest.mark.parametrize(
    ("service", "request_", "expected"),
    [
        ("RegistryService", registry_pb2.DescribeDeviceRequest(device_id="d"), ("panorama:DescribeDevice", f"{PANORAMA}:device/d")),
        ("RolloutService", rollouts_pb2.PauseRolloutRequest(rollout_id="r"), ("belvedere:PauseRollout", "arn:aws:belvedere:us-east-1:123456789012:rollout/r")),
        ("RegistryService", registry_pb2.ListDevicesRequest(name_filter="x"), ("panorama:ListDevices", "*")),
        ("RegistryService", registry_pb2.TagDeviceRequest(device_id="d"), ("panorama:TagResource", f"{PANORAMA}:device/d")),
        ("PackagesService", packages_pb2.DeletePackageRequest(package_id="p"), ("panorama:DeletePackage", f"{PANORAMA}:package/p")),
        (
            "DeploymentsService",
            deployments_pb2.CreateApplicationInstanceRequest(default_runtime_context_device="d"),
            ("panorama:CreateApplicationInstance", "*"),
        ),
        ("DeploymentsService", deployments_pb2.ListApplicationInstancesRequest(device_id="d"), ("panorama:ListApplicationInstances", "*")),
        ("DeviceJobsService", device_jobs_pb2.ListDevicesJobsRequest(device_id="d"), ("panorama:ListDevicesJobs", "*")),
        (
            "LogsService",
            logs_metrics_pb2.GetLogEventsRequest(group="/g", stream="s"),
            ("logs:GetLogEvents", "arn:aws:logs:us-east-1:123456789012:log-group:/g:log-stream:s"),
        ),
        ("MetricsService", logs_metrics_pb2.PutMetricDataRequest(namespace="N"), ("cloudwatch:PutMetricData", "*")),
        (
            "AlarmsService",
            logs_metrics_pb2.SetAlarmStateRequest(name="a"),
            ("cloudwatch:SetAlarmState", "arn:aws:cloudwatch:us-east-1:123456789012:alarm:a"),
        ),
        ("IdentityService", identity_pb2.DeleteUserRequest(user_name="u"), ("iam:DeleteUser", f"{IAM}:user/u")),
        (
            "IdentityService",
            identity_pb2.AttachPolicyRequest(policy_arn="arn:p", role_name="r"),
            ("iam:AttachRolePolicy", f"{IAM}:role/r"),
        ),
        ("IdentityService", identity_pb2.AssumeRoleRequest(role_arn="arn:r"), ("sts:AssumeRole", "arn:r")),
        ("IdentityService", identity_pb2.GetPolicyRequest(policy_arn="arn:p"), ("iam:GetPolicy", "arn:p")),
    ],
)  # fmt: skip
def test_a_method_needs_the_action_and_resource_of_the_aws_api(
    service: str, request_: Message, expected: tuple[str, str]
) -> None:
    method = request_.DESCRIPTOR.name.removesuffix("Request")
    assert asked(service, method, request_) == [expected]


def test_a_job_is_about_each_device_and_a_deletion_about_each_alarm() -> None:
    job = device_jobs_pb2.CreateJobForDevicesRequest(device_ids=["a", "b"])
    assert [r for _, r in asked("DeviceJobsService", "CreateJobForDevices", job)] == [
        f"{PANORAMA}:device/{x}" for x in "ab"
    ]
    alarms = logs_metrics_pb2.DeleteAlarmsRequest(names=["a", "b"])
    assert len(asked("AlarmsService", "DeleteAlarms", alarms)) == 2


def test_every_public_method_has_a_permission_even_for_an_empty_request() -> None:
    public = 0
    for service in SERVICES.values():
        for method in service.methods:
            if is_public(service.name, method.name):
                request = next(getattr(f, method.input_type.name) for f in FILES if hasattr(f, method.input_type.name))
                found = asked(service.name, method.name, request())
                assert found and all(action and resource for action, resource in found)
                public += 1
    assert public > 60


def test_the_tables_name_only_what_there_is() -> None:
    methods = {method.name for service in SERVICES.values() for method in service.methods}
    assert methods >= INTERNAL
    assert set(PREFIXES) == set(SERVICES) - {"StorageService"}


OWN = {
    "RegistryService": {"CreateViewerCredentials", "TagDevice", "UntagDevice"},
    "PackagesService": {"TagPackage", "UntagPackage"},
    "DeploymentsService": {"TagApplicationInstance", "UntagApplicationInstance"},
    "RolloutService": {
        "CreateRollout", "DescribeRollout", "ListRollouts", "PauseRollout", "ResumeRollout", "CancelRollout",
    },
    "DeviceJobsService": set(),
    "LogsService": set(),
    "MetricsService": set(),
    "AlarmsService": set(),
    # IAM has these by these names or nearly; no API that the front door serves has them.
    "IdentityService": {
        "CreateUser", "ListUsers", "DeleteUser",
        "CreateAccessKey", "ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey",
        "CreatePolicy", "UpdatePolicy", "GetPolicy", "ListPolicies", "DeletePolicy", "AttachPolicy", "DetachPolicy",
        "CreateRole", "UpdateAssumeRolePolicy", "ListRoles", "DeleteRole",
        "CreateLoginToken", "CreateBearerToken", "RevokeBearerTokens", "ListAuditEntries",
    },
}  # fmt: skip
"""Public methods that no AWS API of the front door has. A new method of a public service is public unless INTERNAL names it:
whoever adds one says here, or there, for whom it is."""


def test_whoever_adds_a_method_must_say_for_whom_it_is() -> None:
    models = [
        awsmodel.panorama(),
        *(awsmodel.load(GATEWAY / name / "model.json") for name in ("logs", "cloudwatch", "sts")),
    ]
    api = {operation for model in models for operation in model.operations}
    public = {
        name: {method.name for method in SERVICES[name].methods if is_public(name, method.name)} for name in PREFIXES
    }
    assert {name: methods - api for name, methods in public.items()} == OWN


def test_who_asks_for_keys_secrets_or_decisions_of_others_is_a_service() -> None:
    """By what comes back, whatever the method is called."""
    telling = {"signing_key", "seal_public_key", "sealed", "credentials", "principal", "allowed"}
    for service in SERVICES.values():
        for method in service.methods:
            told = {field.name for field in method.output_type.fields}
            if told & telling and (service.name, method.name) != ("IdentityService", "AssumeRole"):
                assert not is_public(service.name, method.name), (service.name, method.name, told & telling)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.1:4242", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4242", "::1"),
        ("ipv6:[fe80::1]:1", "fe80::1"),
        ("unix:", "unknown"),
    ],
)
def test_a_peers_address_is_read(peer: str, expected: str) -> None:
    assert address(peer) == expected


def test_a_rollout_deploys_for_its_caller() -> None:
    assert asked("RolloutService", "CreateRollout", rollouts_pb2.CreateRolloutRequest(name="a")) == [
        ("belvedere:CreateRollout", "*"),
        ("panorama:CreateApplicationInstance", "*"),
    ]
