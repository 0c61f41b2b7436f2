"""Every operation that the front door serves, with what policies are asked about it, and the lines that calls leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from botocore import UNSIGNED
from botocore.exceptions import ClientError

from belvedere.v1 import identity_pb2 as pb
from tests.services.gateway.persons import BUCKET, PANORAMA, Person, ask, statement
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

PAGE = 500
STRANGER = "AKIANOBODYKNOWSIT000"
DEVICE, OTHER_DEVICE = "device-" + "a" * 26, "device-" + "b" * 26
PACKAGE = "package-" + "a" * 26
INSTANCE = "applicationInstance-" + "a" * 26
ROLE = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"
GROUP = "/trail/group"
GROUP_ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"
STREAM_ARN = f"{GROUP_ARN}:log-stream:s"
ALARM_ARN = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:trail-alarm"
STACK_ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/trail/*"
OBJECT, OBJECT_ARN = {"Bucket": BUCKET, "Key": "trail/key"}, f"arn:aws:s3:::{BUCKET}/trail/key"
PARTS = {**OBJECT, "UploadId": "none"}
BUCKET_ARN = f"arn:aws:s3:::{BUCKET}"
TIMES = {"StartTime": 1_700_000_000, "EndTime": 1_700_000_600}
METRIC = {"Namespace": "Trail", "MetricName": "m"}
MANIFEST = {"PayloadData": "{}"}


class Operation(NamedTuple):
    """One operation, called once."""

    service: str
    method: str
    """boto3's."""
    action: str
    resource: str
    given: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.service}.{self.method}"

    def call(self, client: Any) -> Any:
        return getattr(client, self.method)(**self.given)


def panorama(method: str, resource: str = "*", **given: Any) -> Operation:
    name = "".join(word.capitalize() for word in method.split("_"))
    return Operation("panorama", method, f"panorama:{name}", resource, given)


def device(method: str, **given: Any) -> Operation:
    return panorama(method, f"{PANORAMA}:device/{DEVICE}", DeviceId=DEVICE, **given)


def package(method: str, **given: Any) -> Operation:
    return panorama(method, f"{PANORAMA}:package/{PACKAGE}", PackageId=PACKAGE, **given)


def instance(method: str, **given: Any) -> Operation:
    return panorama(method, f"{PANORAMA}:applicationInstance/{INSTANCE}", ApplicationInstanceId=INSTANCE, **given)


def tags(method: str, **given: Any) -> Operation:
    return panorama(method, f"{PANORAMA}:device/{DEVICE}", ResourceArn=f"{PANORAMA}:device/{DEVICE}", **given)


def s3(method: str, action: str, resource: str, **given: Any) -> Operation:
    return Operation("s3", method, f"s3:{action}", resource, given)


def named(service: str, prefix: str, method: str, resource: str, **given: Any) -> Operation:
    name = "".join(word.capitalize() for word in method.split("_"))
    return Operation(service, method, f"{prefix}:{name}", resource, given)


PANORAMA_OPERATIONS = (
    panorama("provision_device", Name="trail-device"),
    device("describe_device"),
    panorama("list_devices"),
    device("update_device_metadata", Description="d"),
    device("delete_device"),
    panorama("create_package", PackageName="trail-package"),
    package("describe_package"),
    panorama("list_packages"),
    package("delete_package"),
    package("register_package_version", PackageVersion="1.0", PatchVersion="a" * 64),
    package("describe_package_version", PackageVersion="1.0"),
    package("deregister_package_version", PackageVersion="1.0", PatchVersion="a" * 64),
    panorama("list_nodes"),
    panorama("describe_node", NodeId="none"),
    panorama(
        "create_node_from_template_job", TemplateType="RTSP_CAMERA_STREAM", OutputPackageName="trail-camera",
        OutputPackageVersion="1.0", NodeName="camera",
        TemplateParameters={"StreamUrl": "rtsp://127.0.0.1/x", "Username": "u", "Password": "p"},
    ),
    panorama("describe_node_from_template_job", JobId="none"),
    panorama("list_node_from_template_jobs"),
    panorama(
        "create_package_import_job", JobType="MARKETPLACE_NODE_PACKAGE_VERSION", ClientToken="trail", InputConfig={},
        OutputConfig={},
    ),
    panorama("describe_package_import_job", JobId="none"),
    panorama("list_package_import_jobs"),
    panorama("create_application_instance", DefaultRuntimeContextDevice=DEVICE, ManifestPayload=MANIFEST),
    instance("describe_application_instance"),
    instance("describe_application_instance_details"),
    panorama("list_application_instances"),
    instance("list_application_instance_dependencies"),
    instance("list_application_instance_node_instances"),
    instance("remove_application_instance"),
    instance(
        "signal_application_instance_node_instances", NodeSignals=[{"NodeInstanceId": "camera", "Signal": "PAUSE"}]
    ),
    panorama("create_job_for_devices", f"{PANORAMA}:device/{DEVICE}", DeviceIds=[DEVICE], JobType="REBOOT"),
    panorama("describe_device_job", JobId="none"),
    panorama("list_devices_jobs"),
    tags("list_tags_for_resource"),
    tags("tag_resource", Tags={"a": "b"}),
    tags("untag_resource", TagKeys=["a"]),
)  # fmt: skip

S3_OPERATIONS = (
    s3("list_buckets", "ListAllMyBuckets", "*"),
    s3("create_bucket", "CreateBucket", "arn:aws:s3:::trail-bucket", Bucket="trail-bucket"),
    s3("head_bucket", "ListBucket", BUCKET_ARN, Bucket=BUCKET),
    s3("get_bucket_location", "GetBucketLocation", BUCKET_ARN, Bucket=BUCKET),
    s3("list_objects", "ListBucket", BUCKET_ARN, Bucket=BUCKET),
    s3("list_objects_v2", "ListBucket", BUCKET_ARN, Bucket=BUCKET),
    s3("list_multipart_uploads", "ListBucketMultipartUploads", BUCKET_ARN, Bucket=BUCKET),
    s3("put_object", "PutObject", OBJECT_ARN, **OBJECT, Body=b"content"),
    s3("get_object", "GetObject", OBJECT_ARN, **OBJECT),
    s3("head_object", "GetObject", OBJECT_ARN, **OBJECT),
    s3("create_multipart_upload", "PutObject", OBJECT_ARN, **OBJECT),
    s3("upload_part", "PutObject", OBJECT_ARN, **PARTS, PartNumber=1, Body=b"part"),
    s3("list_parts", "ListMultipartUploadParts", OBJECT_ARN, **PARTS),
    s3("complete_multipart_upload", "PutObject", OBJECT_ARN, **PARTS, MultipartUpload={"Parts": []}),
    s3("abort_multipart_upload", "AbortMultipartUpload", OBJECT_ARN, **PARTS),
    s3("delete_object", "DeleteObject", OBJECT_ARN, **OBJECT),
    s3("delete_bucket", "DeleteBucket", "arn:aws:s3:::trail-none", Bucket="trail-none"),
)

RPC_OPERATIONS = (
    named("sts", "sts", "assume_role", ROLE, RoleArn=ROLE, RoleSessionName="trail"),
    named("logs", "logs", "create_log_group", GROUP_ARN, logGroupName=GROUP),
    named("logs", "logs", "create_log_stream", STREAM_ARN, logGroupName=GROUP, logStreamName="s"),
    named("logs", "logs", "put_log_events", STREAM_ARN, logGroupName=GROUP, logStreamName="s",
          logEvents=[{"timestamp": 1, "message": "m"}]),
    named("logs", "logs", "describe_log_groups", "*"),
    named("logs", "logs", "describe_log_streams", GROUP_ARN, logGroupName=GROUP),
    named("logs", "logs", "get_log_events", STREAM_ARN, logGroupName=GROUP, logStreamName="s"),
    named("logs", "logs", "filter_log_events", GROUP_ARN, logGroupName=GROUP),
    named("logs", "logs", "put_retention_policy", GROUP_ARN, logGroupName=GROUP, retentionInDays=1),
    named("logs", "logs", "delete_retention_policy", GROUP_ARN, logGroupName=GROUP),
    named("logs", "logs", "delete_log_stream", STREAM_ARN, logGroupName=GROUP, logStreamName="s"),
    named("logs", "logs", "delete_log_group", GROUP_ARN, logGroupName=GROUP),
    named("cloudwatch", "cloudwatch", "put_metric_data", "*", Namespace="Trail",
          MetricData=[{"MetricName": "m", "Value": 1}]),
    named("cloudwatch", "cloudwatch", "list_metrics", "*"),
    named("cloudwatch", "cloudwatch", "get_metric_statistics", "*", **METRIC, **TIMES, Period=60, Statistics=["Sum"]),
    named("cloudwatch", "cloudwatch", "get_metric_data", "*", **TIMES, MetricDataQueries=[
        {"Id": "a", "MetricStat": {"Metric": METRIC, "Period": 60, "Stat": "Sum"}}]),
    named("cloudwatch", "cloudwatch", "put_metric_alarm", ALARM_ARN, AlarmName="trail-alarm", **METRIC, Period=60,
          Statistic="Sum", EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold"),
    named("cloudwatch", "cloudwatch", "describe_alarms", "*"),
    named("cloudwatch", "cloudwatch", "describe_alarm_history", ALARM_ARN, AlarmName="trail-alarm"),
    named("cloudwatch", "cloudwatch", "set_alarm_state", ALARM_ARN, AlarmName="trail-alarm", StateValue="OK", StateReason="r"),
    named("cloudwatch", "cloudwatch", "delete_alarms", ALARM_ARN, AlarmNames=["trail-alarm"]),
    named("cloudformation", "cloudformation", "describe_stacks", STACK_ARN, StackName="trail"),
)  # fmt: skip

ALWAYS_ALLOWED = named("sts", "sts", "get_caller_identity", "*")


def lines(door: Door, count: int = PAGE) -> list[pb.AuditEntry]:
    """The newest first."""
    return list(ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(max_results=count)).entries)


@contextmanager
def new_lines(door: Door) -> Iterator[list[pb.AuditEntry]]:
    """What the block leaves in the trail, oldest first, once it has ended."""
    before = lines(door, 1)
    found: list[pb.AuditEntry] = []
    yield found
    for line in lines(door, 50):
        if before and line == before[0]:
            break
        found.insert(0, line)
    else:
        assert not before or len(found) < 50


def told(line: pb.AuditEntry) -> tuple[str, str, bool]:
    """(action, resource, allowed) of a line."""
    return line.action, line.resource, line.allowed


def decisions(line: pb.AuditEntry) -> list[tuple[str, str, bool]]:
    """The same of all that the call needed, where that was more than one permission."""
    return [(one.action, one.resource, one.allowed) for one in line.decisions]


class Callers:
    """boto3's clients of callers of each kind, made once."""

    def __init__(self, door: Door) -> None:
        self.nobody = Person(door, statement("none:None"))
        self._door = door
        self._made: dict[tuple[str, str], Any] = {}

    def client(self, kind: str, service: str) -> Any:
        keys = {
            "denied": self.nobody.keys,
            "wrong": (self._door.access_key_id, "wrong"),
            "unknown": (STRANGER, "secret"),
        }
        if (kind, service) not in self._made:
            config = {"signature_version": UNSIGNED} if kind == "unsigned" else {}
            self._made[kind, service] = self._door.client(service, keys=keys.get(kind), **config)
        return self._made[kind, service]


def request_id(call: Callable[[], Any]) -> str:
    """Of a call that may be refused."""
    try:
        answer = call()
    except ClientError as error:
        answer = error.response
    return str(answer["ResponseMetadata"]["RequestId"])


def one_line(door: Door, call: Callable[[], Any]) -> Any:
    """The line of a call, which may be refused."""
    with new_lines(door) as found:
        request_id(call)
    (line,) = found
    return line
