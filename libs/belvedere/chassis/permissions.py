"""Which permission each gRPC method needs: an IAM action and the resources that it is about, as the AWS API has them.

The action is `<prefix of the service>:<method>`, the resource follows from the request's fields (`device_id` → the device's ARN);
what does not follow the rule stands in a table. A method that is in no table and in no service of PREFIXES is for the owner and
the services among themselves only. Pure: knows the messages of proto/, calls nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from belvedere.chassis.ids import arn

ANY = "*"

PREFIXES: Mapping[str, str] = {
    "RegistryService": "panorama",
    "PackagesService": "panorama",
    "DeploymentsService": "panorama",
    "DeviceJobsService": "panorama",
    "RolloutService": "belvedere",
    "LogsService": "logs",
    "MetricsService": "cloudwatch",
    "AlarmsService": "cloudwatch",
    "IdentityService": "iam",
}
"""What AWS Panorama has not (rollouts) is ours by name: `belvedere:CreateRollout`. StorageService is not among them: it keeps names of bytes that only the front door and the services put into the store."""

INTERNAL = frozenset(
    {
        "GetSigningKey", "VerifySignatureV2", "RecordRefusal", "Authorize", "PassRole", "GetBearer",
        "RedeemLoginToken", "GetSession",
        "GetDeviceKeys", "ResolvePackages", "SealCamera", "ListPackageUsers",
        "ListDeployedAssets",
    }
)  # fmt: skip
"""Methods by which services ask each other."""

_ACTIONS: Mapping[str, str] = {
    "TagDevice": "panorama:TagResource",
    "TagPackage": "panorama:TagResource",
    "TagApplicationInstance": "panorama:TagResource",
    "UntagDevice": "panorama:UntagResource",
    "UntagPackage": "panorama:UntagResource",
    "UntagApplicationInstance": "panorama:UntagResource",
    "AssumeRole": "sts:AssumeRole",
}

_ABOUT_ALL = frozenset({"ListDevicesJobs", "ListApplicationInstances", "ListAuditEntries", "ListMetrics"})
"""Lists that can be narrowed to one resource, and are about all of them nevertheless, as in the AWS API."""

_PANORAMA: Mapping[str, str] = {
    "device_id": "device",
    "package_id": "package",
    "application_instance_id": "applicationInstance",
}
_IAM: Mapping[str, str] = {"user_name": "user", "role_name": "role", "policy_name": "policy"}


@dataclass(frozen=True)
class Need:
    """One permission."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys of the operation."""
    request_tags: Mapping[str, str] = field(default_factory=dict)
    tag_keys: tuple[str, ...] = ()


def is_public(service: str, method: str) -> bool:
    """Whether a method of `service` ("RegistryService") is for callers from outside."""
    return service in PREFIXES and method not in INTERNAL


def needs(service: str, method: str, request: Message, account: str, region: str) -> list[Need]:
    """What a caller must be allowed for this request; at least one."""
    given = {descriptor.name: value for descriptor, value in request.ListFields()}
    action = _action(service, method, given)
    request_tags = dict(given.get("tags", {}))
    for job in given.get("job_tags", ()):
        request_tags.update(job.tags)
    context = {"cloudwatch:namespace": given["namespace"]} if given.get("namespace") else {}
    keys = tuple(given.get("tag_keys", ()))
    found = [Need(action, r, context, request_tags, keys) for r in _resources(service, method, given, account, region)]
    if method == "CreatePackageImportJob":
        # An import reads for its caller.
        place = request.input_config.package_version_input_config.s3_location  # type: ignore[attr-defined]
        found.append(Need("s3:GetObject", f"arn:aws:s3:::{place.bucket_name}/{place.object_key}"))
    if method == "CreateRollout":
        # It deploys for its caller.
        found.append(Need("panorama:CreateApplicationInstance", ANY, context, request_tags, keys))
    return found


def _action(service: str, method: str, given: Mapping[str, Any]) -> str:
    if method in ("AttachPolicy", "DetachPolicy"):
        kind = "Role" if "role_name" in given else "User"
        return f"iam:{method.removesuffix('Policy')}{kind}Policy"
    return _ACTIONS.get(method) or f"{PREFIXES[service]}:{method}"


def _resources(service: str, method: str, given: Mapping[str, Any], account: str, region: str) -> list[str]:
    if method in _ABOUT_ALL:
        return [ANY]
    match PREFIXES[service]:
        case "panorama":
            if method == "CreateJobForDevices":
                ids = given.get("device_ids", ())
                return [arn("panorama", region, account, f"device/{id}") for id in ids] or [ANY]
            found = next((f"{kind}/{given[name]}" for name, kind in _PANORAMA.items() if given.get(name)), None)
            return [arn("panorama", region, account, found)] if found else [ANY]
        case "belvedere":
            rollout = given.get("rollout_id")
            return [arn("belvedere", region, account, f"rollout/{rollout}")] if rollout else [ANY]
        case "logs":
            if not given.get("group"):
                return [ANY]
            stream = f":log-stream:{given['stream']}" if given.get("stream") else ""
            return [arn("logs", region, account, f"log-group:{given['group']}{stream}")]
        case "cloudwatch":
            return [arn("cloudwatch", region, account, f"alarm:{name}") for name in _alarms(method, given)] or [ANY]
        case _:
            if given.get("role_arn"):
                return [str(given["role_arn"])]
            found = next((f"{kind}/{given[name]}" for name, kind in _IAM.items() if given.get(name)), None)
            if found:
                return [f"arn:aws:iam::{account}:{found}"]
            return [str(given.get("policy_arn") or ANY)]


def _alarms(method: str, given: Mapping[str, Any]) -> list[str]:
    match method:
        case "PutMetricAlarm":
            return [given["definition"].name] if "definition" in given else []
        case "SetAlarmState":
            return [given["name"]] if given.get("name") else []
        case "DescribeAlarmHistory":
            return [given["alarm_name"]] if given.get("alarm_name") else []
        case "DeleteAlarms":
            return list(given.get("names", ()))
    return []
