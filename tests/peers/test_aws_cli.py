"""The shell steps of AWS's developer guide and of its util-scripts, with today's AWS CLI and our model of the API."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import Aws
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.clients import INSTALL_TIMEOUT_S, Clients
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

pytestmark = [pytest.mark.peers, pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)]

BUCKET = f"panorama-{ACCOUNT}-{REGION}"


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex[:8]


def test_who_is_calling_is_told_as_scripts_read_it(aws: Aws) -> None:
    assert str(aws("sts", "get-caller-identity", "--query", "Account", "--output", "text")) == ACCOUNT
    assert aws("sts", "get-caller-identity")["Arn"].startswith(f"arn:aws:iam::{ACCOUNT}:")


def test_the_command_line_is_the_one_that_users_start(door: Door, installed_tools: Clients, tmp_path: Path) -> None:
    asked = ["aws", "sts", "get-caller-identity", "--query", "Account", "--output", "text"]
    assert installed_tools.run(door, asked, cwd=tmp_path).stdout.strip() == ACCOUNT
    refused = installed_tools.run(door, ["aws", "s3", "ls", "s3://no-such-bucket-here"], cwd=tmp_path, check=False)
    assert refused.returncode != 0 and "(NoSuchBucket)" in refused.stderr


def test_files_are_copied_listed_and_removed(aws: Aws, tmp_path: Path, mark: str) -> None:
    bucket = f"b-{mark}"
    aws("s3", "mb", f"s3://{bucket}")
    small, large = tmp_path / "model.tar.gz", tmp_path / "large.bin"
    small.write_bytes(b"weights")
    large.write_bytes(bytes(range(256)) * (9 << 12))
    aws("s3", "cp", str(small), f"s3://{bucket}/in/model.tar.gz")
    aws("s3", "cp", str(large), f"s3://{bucket}/in/large.bin")
    assert aws("s3api", "head-object", "--bucket", bucket, "--key", "in/large.bin")["ETag"].endswith('-2"')
    aws("s3", "cp", f"s3://{bucket}/in/large.bin", f"s3://{bucket}/out/copy.bin")
    aws("s3", "sync", f"s3://{bucket}/", str(tmp_path / "back"))
    assert (tmp_path / "back" / "out" / "copy.bin").read_bytes() == large.read_bytes()
    assert (tmp_path / "back" / "in" / "model.tar.gz").read_bytes() == b"weights"
    aws("s3", "rm", f"s3://{bucket}/", "--recursive")
    assert aws("s3", "ls", f"s3://{bucket}/", "--recursive", check=False) == ""
    aws("s3", "rb", f"s3://{bucket}")
    assert bucket not in str(aws("s3", "ls"))


def test_objects_are_put_asked_for_and_listed_as_panorama_cli_does(
    aws: Aws, door: Door, tools: Clients, tmp_path: Path, mark: str
) -> None:
    (tmp_path / "package.json").write_text("{}")
    place = ["--bucket", BUCKET, "--key", f"{mark}/manifests/1.0/{'0' * 64}.json"]
    missing = tools.run(door, ["aws", "s3api", "head-object", *place], cwd=tmp_path, check=False)
    assert missing.returncode != 0 and "404" in missing.stderr
    aws("s3api", "put-object", *place, "--body", "package.json", "--acl", "bucket-owner-full-control")
    assert aws("s3api", "head-object", *place)["ContentLength"] == 2
    # cleanup-patches.sh
    listed = aws(
        "s3api", "list-objects", "--bucket", BUCKET, "--prefix", f"{mark}/manifests",
        "--query", "sort_by(Contents, &LastModified)[*].[Key]", "--output", "text",
    )  # fmt: skip
    assert listed == place[3]
    aws("s3api", "delete-object", *place)
    assert aws("s3api", "list-objects", "--bucket", BUCKET, "--prefix", mark, "--query", "Contents") is None


def test_a_device_is_provisioned_and_found_as_the_scripts_do(aws: Aws, tmp_path: Path, mark: str) -> None:
    # provision-device.sh
    made = aws("panorama", "provision-device", "--name", f"d-{mark}", "--tags", "site=north")
    bundle = zipfile.ZipFile(io.BytesIO(base64.b64decode(made["Certificates"])))
    assert "config.json" in bundle.namelist()
    device = made["DeviceId"]
    # check-updates.sh
    query = f"sort_by(Devices, &LastUpdatedTime)[?Name=='d-{mark}'].[DeviceId, CurrentSoftware, ProvisioningStatus]"
    ((listed, software, status),) = aws("panorama", "list-devices", "--name-filter", f"d-{mark}", "--query", query)
    assert (listed, status) == (device, "AWAITING_PROVISIONING") and software
    described = aws("panorama", "describe-device", "--device-id", device)
    assert (described["Tags"], described["CurrentSoftware"]) == ({"site": "north"}, software)
    # reboot-device.sh
    job = aws("panorama", "create-job-for-devices", "--device-ids", device, "--job-type", "REBOOT")["Jobs"][0]
    assert aws("panorama", "describe-device-job", "--job-id", job["JobId"])["Status"] == "PENDING"
    tagged = ["--resource-arn", made["Arn"]]
    aws("panorama", "tag-resource", *tagged, "--tags", json.dumps({"a b": "c/d"}))
    aws("panorama", "untag-resource", *tagged, "--tag-keys", "site")
    assert aws("panorama", "list-tags-for-resource", *tagged) == {"Tags": {"a b": "c/d"}}
    assert aws("panorama", "delete-device", "--device-id", device) == {"DeviceId": device}


def test_a_camera_is_registered_and_deregistered_as_the_scripts_do(aws: Aws, mark: str) -> None:
    name = f"camera-{mark}"
    # register-camera.sh
    parameters = {"Username": "user", "Password": "secret-canary", "StreamUrl": "rtsp://192.0.2.1/stream"}
    job = aws(
        "panorama", "create-node-from-template-job", "--template-type", "RTSP_CAMERA_STREAM",
        "--output-package-name", name, "--output-package-version", "1.0", "--node-name", name,
        "--template-parameters", json.dumps(parameters), "--query", "JobId", "--output", "text",
    )  # fmt: skip
    described = aws("panorama", "describe-node-from-template-job", "--job-id", job)
    assert described["Status"] == "SUCCEEDED" and "canary" not in json.dumps(described)
    # deregister-camera.sh
    query = f"Nodes[?Name=='{name}'].[PackageId, PatchVersion]"
    ((package, patch),) = aws("panorama", "list-nodes", "--category", "MEDIA_SOURCE", "--query", query)
    version = ["--package-id", package, "--package-version", "1.0", "--patch-version", patch]
    aws("panorama", "deregister-package-version", *version)
    assert aws("panorama", "list-nodes", "--category", "MEDIA_SOURCE", "--query", query) == []
    aws("panorama", "delete-package", "--package-id", f"packageName/{name}", "--force-delete")


def test_lists_page_by_hand_until_the_token_is_null(aws: Aws, door: Door, mark: str) -> None:
    panorama = door.client("panorama")
    for letter in "ab":
        panorama.create_package(PackageName=f"p-{mark}-{letter}")
    # cleanup-patches.sh: the CLI never pages by itself here, the script reads NextToken until jq says null
    names: list[str] = []
    token: list[str] = []
    while True:
        query = "[Packages[*].PackageName, NextToken]"
        page, following = aws("panorama", "list-packages", "--max-results", "1", *token, "--query", query)
        names += page
        if following is None:
            break
        token = ["--next-token", following]
        if f"p-{mark}-b" in names:
            break
    assert [name for name in names if mark in name] == [f"p-{mark}-a", f"p-{mark}-b"]
    assert aws("panorama", "list-packages", "--query", "NextToken", "--output", "json") is None


def test_what_is_not_there_is_told_in_the_words_that_scripts_look_for(
    door: Door, tools: Clients, tmp_path: Path
) -> None:
    for command in (
        ["describe-package", "--package-id", "packageName/none"],
        ["describe-package-version", "--package-id", "packageName/none", "--package-version", "1.0"],
        ["deregister-package-version", "--package-id", "p", "--package-version", "1.0", "--patch-version", "a1"],
    ):
        done = tools.run(door, ["aws", "panorama", *command], cwd=tmp_path, check=False)
        assert done.returncode != 0
        assert "An error occurred (ResourceNotFoundException) when calling the " in done.stderr


def test_an_application_is_deployed_paused_and_removed_as_the_guide_prints_it(
    aws: Aws, door: Door, tmp_path: Path, mark: str
) -> None:
    device = door.client("panorama").provision_device(Name=f"d-{mark}")["DeviceId"]
    camera = f"camera-{mark}"
    door.client("panorama").create_node_from_template_job(
        TemplateType="RTSP_CAMERA_STREAM",
        OutputPackageName=camera,
        OutputPackageVersion="1.0",
        NodeName=camera,
        TemplateParameters={"StreamUrl": "rtsp://192.0.2.1/stream"},
    )
    # Only the camera, as the camera validation tool deploys it.
    nodes = [node for node in graphs.manifest()["nodeGraph"]["nodes"] if node["name"] == "front_door"]
    packages = [{"name": "panorama::abstract_rtsp_media_source", "version": "1.0"}]
    graph = {"nodeGraph": {"envelopeVersion": graphs.ENVELOPE, "packages": packages, "nodes": nodes, "edges": []}}
    for name, document in (("graph.json", graph), ("override.json", graphs.overrides(camera))):
        (tmp_path / name).write_text(json.dumps({"PayloadData": json.dumps(document)}))
    # 5-deploy.sh
    instance = aws(
        "panorama", "create-application-instance", "--name", f"app-{mark}", "--default-runtime-context-device", device,
        "--manifest-payload", "file://graph.json", "--manifest-overrides-payload", "file://override.json",
        "--tags", "client=sample", "--output", "text",
    )  # fmt: skip
    # 6: the loop over its status
    query = f"ApplicationInstances[?ApplicationInstanceId=='{instance}'].[Status, HealthStatus]"
    ((status, health),) = aws("panorama", "list-application-instances", "--device-id", device, "--query", query)
    assert status.startswith("DEPLOYMENT_") and health in ("NOT_AVAILABLE", "RUNNING")
    identified = ["--application-instance-id", instance]
    # pause-camera.sh: the node instance is named like the package
    found = aws("panorama", "list-application-instance-node-instances", *identified)["NodeInstances"]
    node = next(node["NodeInstanceId"] for node in found if node["PackageName"] == camera)
    signals = json.dumps([{"NodeInstanceId": node, "Signal": "PAUSE"}])
    aws("panorama", "signal-application-instance-node-instances", *identified, "--node-signals", signals)
    details = aws("panorama", "describe-application-instance-details", *identified)
    assert json.loads(details["ManifestPayload"]["PayloadData"]) == graph
    aws("panorama", "remove-application-instance", *identified)
    ((status, _),) = aws("panorama", "list-application-instances", "--query", query)
    assert status.startswith("REMOVAL_")


def test_a_package_is_imported_from_a_bucket(aws: Aws, tmp_path: Path, mark: str) -> None:
    document = graphs.code_package()
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        archive.writestr("package.json", json.dumps(document))
        archive.writestr("a" * 64 + ".tar.gz", tar_gz({"panorama/app.py": b"print()"}))
        archive.writestr("b" * 64 + ".json", json.dumps(graphs.RUNTIME_DESCRIPTOR))
    aws("s3", "cp", "package.zip", f"s3://{BUCKET}/{mark}/package.zip")
    location = {"BucketName": BUCKET, "ObjectKey": f"{mark}/package.zip"}
    job = aws(
        "panorama", "create-package-import-job", "--client-token", mark, "--job-type", "NODE_PACKAGE_VERSION",
        "--input-config", json.dumps({"PackageVersionInputConfig": {"S3Location": location}}),
        "--output-config", f"PackageVersionOutputConfig={{PackageName=code-{mark},PackageVersion=1.0,MarkLatest=true}}",
    )["JobId"]  # fmt: skip
    until = time.monotonic() + 90
    while (described := aws("panorama", "describe-package-import-job", "--job-id", job))["Status"] == "PENDING":
        assert time.monotonic() < until, described
    assert described["Status"] == "SUCCEEDED", described["StatusMessage"]
    patch = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    assert described["Output"]["PatchVersion"] == patch
    where = described["Output"]["OutputS3Location"]
    aws("s3api", "head-object", "--bucket", where["BucketName"], "--key", where["ObjectKey"])


def test_logs_are_read_as_view_logs_does(aws: Aws, mark: str) -> None:
    group = f"/aws/panorama/devices/device-{mark}/applications/app"
    stream = ["--log-group-name", group, "--log-stream-name", "code_node"]
    aws("logs", "create-log-group", "--log-group-name", group)
    aws("logs", "create-log-stream", *stream)
    event = {"timestamp": time.time_ns() // 1_000_000, "message": "Counted 3 people"}
    aws("logs", "put-log-events", *stream, "--log-events", json.dumps([event]))
    found = aws("logs", "get-log-events", *stream, "--limit", "150")
    assert [entry["message"] for entry in found["events"]] == ["Counted 3 people"]
    again = aws("logs", "get-log-events", *stream, "--next-token", found["nextForwardToken"])
    assert (again["events"], again["nextForwardToken"]) == ([], found["nextForwardToken"])
    described = aws("logs", "describe-log-groups", "--log-group-name-prefix", group)["logGroups"]
    assert [entry["logGroupName"] for entry in described] == [group]


def test_metrics_are_put_and_asked_for(aws: Aws, mark: str) -> None:
    now = int(time.time())
    metric = ["--namespace", f"Shop/{mark}", "--metric-name", "People"]
    aws("cloudwatch", "put-metric-data", *metric, "--value", "3", "--unit", "Count", "--dimensions", "Door=north")
    listed: Any = aws("cloudwatch", "list-metrics", "--namespace", f"Shop/{mark}")["Metrics"]
    assert [entry["MetricName"] for entry in listed] == ["People"]
    statistics = aws(
        "cloudwatch", "get-metric-statistics", *metric, "--dimensions", "Name=Door,Value=north",
        "--start-time", str(now - 600), "--end-time", str(now + 600), "--period", "60", "--statistics", "Sum",
    )  # fmt: skip
    assert [point["Sum"] for point in statistics["Datapoints"]] == [3.0]


def test_logs_are_filtered_kept_and_removed(aws: Aws, mark: str) -> None:
    group = ["--log-group-name", f"/shop/{mark}"]
    aws("logs", "create-log-group", *group)
    now = time.time_ns() // 1_000_000
    for stream, texts in (("one", ["ERROR a door", "all is well"]), ("two", ['{"level": "ERROR", "door": 3}'])):
        aws("logs", "create-log-stream", *group, "--log-stream-name", stream)
        events = json.dumps([{"timestamp": now + n, "message": text} for n, text in enumerate(texts)])
        aws("logs", "put-log-events", *group, "--log-stream-name", stream, "--log-events", events)
    found = aws("logs", "filter-log-events", *group, "--filter-pattern", "ERROR")["events"]
    assert {(event["logStreamName"], event["message"]) for event in found} == {
        ("one", "ERROR a door"),
        ("two", '{"level": "ERROR", "door": 3}'),
    }
    query = ["--filter-pattern", "{ $.door = 3 }", "--query", "events[].logStreamName", "--output", "text"]
    assert aws("logs", "filter-log-events", *group, *query) == "two"
    aws("logs", "put-retention-policy", *group, "--retention-in-days", "30")
    (described,) = aws("logs", "describe-log-groups", "--log-group-name-prefix", f"/shop/{mark}")["logGroups"]
    assert described["retentionInDays"] == 30
    aws("logs", "delete-retention-policy", *group)
    streams = aws("logs", "describe-log-streams", *group, "--order-by", "LastEventTime", "--descending")["logStreams"]
    assert [stream["logStreamName"] for stream in streams] == ["one", "two"]
    aws("logs", "delete-log-stream", *group, "--log-stream-name", "one")
    aws("logs", "delete-log-group", *group)
    assert aws("logs", "describe-log-groups", "--log-group-name-prefix", f"/shop/{mark}")["logGroups"] == []


def test_an_alarm_is_put_described_set_and_deleted(aws: Aws, mark: str) -> None:
    # alarm-device.yml's, as a command
    name = f"device-{mark}"
    aws(
        "cloudwatch", "put-metric-alarm", "--alarm-name", name, "--namespace", "PanoramaDeviceMetrics",
        "--metric-name", "DeviceActive", "--dimensions", "Name=DeviceName,Value=shop", f"Name=DeviceId,Value={mark}",
        "--statistic", "Sum", "--period", "60", "--evaluation-periods", "5", "--datapoints-to-alarm", "5",
        "--threshold", "1", "--comparison-operator", "LessThanThreshold", "--treat-missing-data", "breaching",
        "--alarm-actions", f"arn:aws:sns:{REGION}:{ACCOUNT}:ops",
    )  # fmt: skip
    (alarm,) = aws("cloudwatch", "describe-alarms", "--alarm-names", name)["MetricAlarms"]
    assert alarm["AlarmArn"] == f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"
    assert (alarm["StateValue"], alarm["TreatMissingData"], alarm["Threshold"]) == (
        "INSUFFICIENT_DATA",
        "breaching",
        1.0,
    )
    aws("cloudwatch", "set-alarm-state", "--alarm-name", name, "--state-value", "ALARM", "--state-reason", "trying it")
    state = aws("cloudwatch", "describe-alarms", "--alarm-name-prefix", name, "--query", "MetricAlarms[0].StateValue")
    assert state == "ALARM"
    history = aws("cloudwatch", "describe-alarm-history", "--alarm-name", name, "--history-item-type", "StateUpdate")
    assert "to ALARM" in history["AlarmHistoryItems"][0]["HistorySummary"]
    aws("cloudwatch", "delete-alarms", "--alarm-names", name)
    assert aws("cloudwatch", "describe-alarms", "--alarm-names", name)["MetricAlarms"] == []


def test_metric_data_is_asked_for_with_queries(aws: Aws, mark: str) -> None:
    now = int(time.time())
    values = {"SampleCount": 4, "Sum": 10, "Minimum": 1, "Maximum": 4}
    data = [{"MetricName": "Wait", "Timestamp": now - 60, "Unit": "Seconds", "StatisticValues": values}]
    aws("cloudwatch", "put-metric-data", "--namespace", f"Shop/{mark}", "--metric-data", json.dumps(data))
    metric = {"Namespace": f"Shop/{mark}", "MetricName": "Wait"}
    queries = [
        {"Id": stat.lower(), "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}
        for stat in ("Average", "Maximum", "SampleCount")
    ]
    window = ["--start-time", str(now - 600), "--end-time", str(now + 60)]
    found = aws("cloudwatch", "get-metric-data", "--metric-data-queries", json.dumps(queries), *window)
    assert {r["Id"]: r["Values"] for r in found["MetricDataResults"]} == {
        "average": [2.5],
        "maximum": [4.0],
        "samplecount": [4.0],
    }


def test_what_is_not_served_says_so_with_the_operations_name(door: Door, tools: Clients, tmp_path: Path) -> None:
    for command, operation in (
        (["sns", "list-topics"], "ListTopics"),
        (["logs", "start-query", "--start-time", "0", "--end-time", "1", "--query-string", "x"], "StartQuery"),
        (["cloudwatch", "list-dashboards"], "ListDashboards"),
        (["s3api", "get-bucket-lifecycle-configuration", "--bucket", BUCKET], "GetBucketLifecycleConfiguration"),
        (["cloudformation", "list-exports"], "ListExports"),
    ):
        done = tools.run(door, ["aws", *command], cwd=tmp_path, check=False)
        assert done.returncode != 0
        assert f"when calling the {operation} operation" in done.stderr, done.stderr
        told = done.stderr.partition(" operation: ")[2]
        assert operation in told or "lifecycle" in told.lower(), done.stderr


SAMPLES_ROLE = """
AWSTemplateFormatVersion: 2010-09-09
Resources:
  runtimeRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - Effect: Allow
            Principal: {Service: [panorama.amazonaws.com]}
            Action: sts:AssumeRole
Outputs:
  roleArn: {Value: !GetAtt runtimeRole.Arn}
"""


def test_a_sample_applications_role_is_deployed_and_found_as_its_scripts_do(
    aws: Aws, door: Door, tools: Clients, tmp_path: Path, mark: str
) -> None:
    stack = ["--stack-name", f"panorama-{mark}"]
    missing = tools.run(door, ["aws", "cloudformation", "describe-stacks", *stack], cwd=tmp_path, check=False)
    assert f"(ValidationError) when calling the DescribeStacks operation: Stack with id {stack[1]} does not exist" in (
        missing.stderr
    )
    (tmp_path / "template.yml").write_text(SAMPLES_ROLE)
    deploy = ["cloudformation", "deploy", *stack, "--template-file", "template.yml", "--capabilities", "CAPABILITY_IAM"]
    assert "Successfully created/updated stack" in str(aws(*deploy))
    query = ["--query", "Stacks[0].Outputs[?OutputKey==`roleArn`].OutputValue", "--output", "text"]
    role = str(aws("cloudformation", "describe-stacks", *stack, *query))
    assert role.startswith(f"arn:aws:iam::{ACCOUNT}:role/panorama-{mark}-runtimeRole-")
    assert "No changes to deploy" in str(aws(*deploy, "--no-fail-on-empty-changeset"))
    aws("cloudformation", "delete-stack", *stack)
