"""What a user does with the AWS tools, against Belvedere: boto3 with the endpoint set, nothing else of ours.

Blocking, as boto3 is; the session calls it from a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3

from belvedere import awsmodel
from belvedere.appdir import AppFolder
from belvedere.cli.cloud import CloudAccess
from belvedere.cli.errors import CliError

POLL_S = 0.2
APPLICATION_ROLE = "BelvedereApplication"
"""The built-in role: metrics, logs, and reading the Panorama API."""
ONLINE_TIMEOUT_S = 60.0
REGISTER_TIMEOUT_S = 60.0
DEPLOY_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Deployment:
    """One CreateApplicationInstance."""

    instance_id: str
    created_at_ms: int
    """Unix time just before the call."""


class Account:
    """The administrator of a cloud side, with boto3."""

    def __init__(self, access: CloudAccess, models: Path) -> None:
        awsmodel.install(models)
        session = boto3.Session(
            aws_access_key_id=access.access_key_id,
            aws_secret_access_key=access.secret_access_key,
            region_name=access.region,
        )
        session._loader.search_paths.append(str(models))
        self._client: Callable[[str], Any] = lambda name: session.client(name, endpoint_url=access.endpoint_url)
        self.account_id = access.account_id
        self.panorama = self._client("panorama")
        self.s3 = self._client("s3")
        self.logs = self._client("logs")
        self.cloudwatch = self._client("cloudwatch")

    def provision(self, name: str, bundle: Path) -> str:
        """ProvisionDevice; the ZIP lands at `bundle`. Returns the device id."""
        answer = self.panorama.provision_device(Name=name, Description="The demo's virtual appliance")
        bundle.write_bytes(answer["Certificates"])
        bundle.chmod(0o600)
        return str(answer["DeviceId"])

    def wait_online(self, device_id: str) -> None:
        for device in _polls(ONLINE_TIMEOUT_S, lambda: self.panorama.describe_device(DeviceId=device_id)):
            if device.get("DeviceConnectionStatus") == "ONLINE":
                return
        raise CliError(
            f"the appliance did not come online within {ONLINE_TIMEOUT_S:.0f} s (logs in the appliance folder)"
        )

    def register_camera(self, name: str, url: str, username: str, password: str) -> None:
        parameters = {"StreamUrl": url}
        if username:
            parameters |= {"Username": username, "Password": password}
        job = self.panorama.create_node_from_template_job(
            NodeName=name,
            OutputPackageName=name,
            OutputPackageVersion="1.0",
            TemplateType="RTSP_CAMERA_STREAM",
            TemplateParameters=parameters,
        )
        for answer in _polls(
            REGISTER_TIMEOUT_S, lambda: self.panorama.describe_node_from_template_job(JobId=job["JobId"])
        ):
            if answer["Status"] == "SUCCEEDED":
                return
            if answer["Status"] == "FAILED":
                raise CliError(f"the camera was not registered: {answer['StatusMessage']}")
        raise CliError("the camera was not registered in time")

    def register_packages(self, app: AppFolder) -> None:
        """What `panorama-cli package-application` does: storage, assets, manifest, registration."""
        for package in app.packages():
            answer = self._package(package.name)
            bucket, location = answer["StorageLocation"]["Bucket"], answer["StorageLocation"]
            for file in package.files(app.assets):
                key = f"{location['BinaryPrefixLocation']}/{file.uri}"
                if not self._exists(bucket, key):
                    self.s3.upload_file(str(file.path), bucket, key)
            self.s3.put_object(
                Bucket=bucket,
                Key=f"{location['ManifestPrefixLocation']}/{package.version}/{package.patch_version}.json",
                Body=package.document_path.read_bytes(),
            )
            self.panorama.register_package_version(
                PackageId=answer["PackageId"],
                PackageVersion=package.version,
                PatchVersion=package.patch_version,
                MarkLatest=True,
            )
            self._wait_registered(answer["PackageId"], package.name, package.version, package.patch_version)

    def _package(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.panorama.describe_package(PackageId=f"packageName/{name}")
        except self.panorama.exceptions.ResourceNotFoundException:
            found = self.panorama.create_package(PackageName=name)
        return found

    def _exists(self, bucket: str, key: str) -> bool:
        try:
            self.s3.head_object(Bucket=bucket, Key=key)
        except self.s3.exceptions.ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return False
            raise
        return True

    def _wait_registered(self, package_id: str, name: str, version: str, patch: str) -> None:
        for answer in _polls(
            REGISTER_TIMEOUT_S,
            lambda: self.panorama.describe_package_version(
                PackageId=package_id, PackageVersion=version, PatchVersion=patch
            ),
        ):
            if answer["Status"] == "REGISTER_COMPLETED":
                return
            if answer["Status"] == "FAILED":
                raise CliError(f"package {name} was not registered: {answer.get('StatusDescription')}")
        raise CliError(f"package {name} was not registered in time")

    def deploy(
        self, name: str, device_id: str, app: AppFolder, overrides: dict[str, Any], replaces: str | None = None
    ) -> Deployment:
        arguments: dict[str, Any] = {
            "Name": name,
            "DefaultRuntimeContextDevice": device_id,
            "ManifestPayload": {"PayloadData": app.graph_path.read_text()},
            "ManifestOverridesPayload": {"PayloadData": json.dumps(overrides)},
            "RuntimeRoleArn": f"arn:aws:iam::{self.account_id}:role/{APPLICATION_ROLE}",
        }
        if replaces:
            arguments["ApplicationInstanceIdToReplace"] = replaces
        created_at_ms = time.time_ns() // 1_000_000
        answer = self.panorama.create_application_instance(**arguments)
        return Deployment(answer["ApplicationInstanceId"], created_at_ms)

    def wait_running(self, instance_id: str, say: Callable[[str], None]) -> None:
        """Waits for DEPLOYMENT_SUCCEEDED and RUNNING; tells each state and each reason once."""
        last = ""
        for answer in _polls(
            DEPLOY_TIMEOUT_S, lambda: self.panorama.describe_application_instance(ApplicationInstanceId=instance_id)
        ):
            status = (
                f"{answer['Status']} {answer.get('HealthStatus', '')} {answer.get('StatusDescription', '')}".strip()
            )
            if status != last:
                last = status
                say(status)
            if answer["Status"] == "DEPLOYMENT_SUCCEEDED" and answer.get("HealthStatus") == "RUNNING":
                return
            if answer["Status"] == "DEPLOYMENT_FAILED":
                raise CliError(f"the deployment failed: {answer.get('StatusDescription')}")
        raise CliError(f"the application did not run within {DEPLOY_TIMEOUT_S:.0f} s; its last state: {last}")

    def mean_of_metric(self, namespace: str, name: str, since: datetime) -> float | None:
        """Mean over every metric of that name (whatever its dimensions), weighted by samples; None without data."""
        total = samples = 0.0
        for metric in self.cloudwatch.list_metrics(Namespace=namespace, MetricName=name)["Metrics"]:
            answer = self.cloudwatch.get_metric_statistics(
                Namespace=namespace,
                MetricName=name,
                Dimensions=metric["Dimensions"],
                StartTime=since,
                EndTime=datetime.now(UTC) + timedelta(minutes=1),
                Period=60,
                Statistics=["Sum", "SampleCount"],
            )
            total += sum(point["Sum"] for point in answer["Datapoints"])
            samples += sum(point["SampleCount"] for point in answer["Datapoints"])
        return total / samples if samples else None

    def log_lines(self, group: str, stream: str, limit: int = 5) -> list[str]:
        try:
            answer = self.logs.get_log_events(logGroupName=group, logStreamName=stream, limit=limit)
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in answer["events"]]


def _polls(timeout_s: float, ask: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers, one every POLL_S, until the time is up: the API has no way to wait for a change."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield ask()
        time.sleep(POLL_S)
