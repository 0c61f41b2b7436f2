"""What a user does with the AWS tools, with boto3 and nothing of ours but the API model: packages, deployments, logs.

Works against any endpoint that speaks the Panorama API. Blocking, as boto3 is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from belvedere import awsmodel
from belvedere.appdir import AppFolder, CameraNode, Package
from belvedere.cli.errors import CliError
from belvedere.cli.sending import Sender

POLL_S = 0.2
APPLICATION_ROLE = "BelvedereApplication"
"""The built-in role: metrics, logs, and reading the Panorama API."""
CAMERA_TIMEOUT_S = 120.0
REGISTER_TIMEOUT_S = 1800.0
"""For a package version: its models may be converted, its archive of any size is cut."""
DEPLOY_TIMEOUT_S = 180.0
LIVE_STATES = ("DEPLOYMENT_PENDING", "DEPLOYMENT_REQUESTED", "DEPLOYMENT_IN_PROGRESS", "DEPLOYMENT_SUCCEEDED")
"""Of an application instance that can be replaced; so can one in error."""

_HELP = 'with a cloud side of your own: eval "$(belvedere env --data FOLDER)", where FOLDER is that of `belvedere up`'


@dataclass(frozen=True)
class Deployment:
    """One CreateApplicationInstance."""

    instance_id: str
    created_at_ms: int
    """Unix time just before the call."""


@dataclass(frozen=True)
class Published:
    """What became of a package."""

    package: Package
    uploaded: int
    """Files that were not there yet."""
    registered: bool
    """False: this very version was registered before."""


class Account:
    """Somebody who may use an account, at an endpoint."""

    def __init__(self, session: boto3.Session, endpoint_url: str | None) -> None:
        session._loader.search_paths.append(str(awsmodel.model_folder()))
        self._client: Callable[[str], Any] = lambda name: session.client(name, endpoint_url=endpoint_url)
        self.panorama = self._client("panorama")
        self.s3 = self._client("s3")
        self.logs = self._client("logs")
        self._account_id = ""

    @classmethod
    def from_environment(cls) -> Account:
        """As the standard AWS variables, profiles and files say. Raises CliError naming what is missing."""
        try:
            session = boto3.Session()
            missing = []
            if session.get_credentials() is None:
                missing.append("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
            if session.region_name is None:
                missing.append("AWS_DEFAULT_REGION")
            if not _endpoint_named(session):
                missing.append("AWS_ENDPOINT_URL")
            if missing:
                raise CliError(f"the environment lacks {', '.join(missing)}: {_HELP}")
            return cls(session, None)
        except BotoCoreError as error:
            raise CliError(f"the AWS settings can't be used: {error}") from error

    @property
    def account_id(self) -> str:
        """12 digits."""
        if not self._account_id:
            self._account_id = str(self._client("sts").get_caller_identity()["Account"])
        return self._account_id

    # -- packages ---------------------------------------------------------------------------------------------------

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
        for answer in polls(
            CAMERA_TIMEOUT_S, lambda: self.panorama.describe_node_from_template_job(JobId=job["JobId"])
        ):
            if answer["Status"] == "SUCCEEDED":
                return
            if answer["Status"] == "FAILED":
                raise CliError(f"the camera was not registered: {answer['StatusMessage']}")
        raise CliError("the camera was not registered in time")

    def register_packages(self, app: AppFolder) -> tuple[Published, ...]:
        """What `panorama-cli package-application` does: storage, assets, manifest, registration; only what is missing.

        A version that was registered before stays registered: what runs with it can start again.
        """
        return tuple(self.publish(app, package) for package in app.packages())

    def publish(self, app: AppFolder, package: Package) -> Published:
        """One package of the folder."""
        files = package.files(app.assets)
        answer = self._package(package.name)
        version, patch = package.version, package.patch_version
        if self._registered(answer["PackageId"], version, patch):
            return Published(package, 0, False)
        location = answer["StorageLocation"]
        bucket = location["Bucket"]
        uploaded = 0
        archives = {
            item.get("assetUri")
            for asset in package.document().get("assets", [])
            for item in asset.get("implementations", [])
            if item.get("type") == "container"
        }
        sender = Sender(self.s3, app.assets, f"{bucket}@{self.s3.meta.endpoint_url}")
        for file in files:
            key = f"{location['BinaryPrefixLocation']}/{file.uri}"
            uploaded += sender.send(bucket, key, file.path, archive=file.uri in archives)
        self.s3.put_object(
            Bucket=bucket,
            Key=f"{location['ManifestPrefixLocation']}/{version}/{patch}.json",
            Body=package.document_path.read_bytes(),
        )
        try:
            self._register(answer["PackageId"], package.name, version, patch)
        except CliError:
            if not sender.send_whole():
                raise
            # The endpoint knows no parcels, or has not all that they leave out.
            self._register(answer["PackageId"], package.name, version, patch)
        sender.remember()
        return Published(package, uploaded, True)

    def camera(self, package: str) -> CameraNode:
        """The newest node of a registered camera. Raises CliError naming the cameras there are."""
        nodes = self._all("list_nodes", "Nodes", Category="MEDIA_SOURCE")
        found = [node for node in nodes if node["PackageName"] == package]
        if not found:
            names = sorted({node["PackageName"] for node in nodes if node.get("OwnerAccount") != "panorama"})
            raise CliError(
                f'no camera "{package}" is registered; there are: {", ".join(names) or "none yet"}. '
                "`aws panorama create-node-from-template-job` registers one"
            )
        node = max(found, key=lambda node: [int(part) for part in node["PackageVersion"].split(".")])
        return CameraNode(
            owner=node.get("OwnerAccount") or self.account_id,
            package=package,
            version=node["PackageVersion"],
            interface=node["Name"],
        )

    def _package(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.panorama.describe_package(PackageId=f"packageName/{name}")
        except self.panorama.exceptions.ResourceNotFoundException:
            found = self.panorama.create_package(PackageName=name)
        return found

    def _registered(self, package_id: str, version: str, patch: str) -> bool:
        """Whether this is the latest registered patch already: then there is nothing to do."""
        try:
            answer = self.panorama.describe_package_version(PackageId=package_id, PackageVersion=version)
        except self.panorama.exceptions.ResourceNotFoundException:
            return False
        return bool(answer["PatchVersion"] == patch and answer["Status"] == "REGISTER_COMPLETED")

    def _register(self, package_id: str, name: str, version: str, patch: str) -> None:
        self.panorama.register_package_version(
            PackageId=package_id, PackageVersion=version, PatchVersion=patch, MarkLatest=True
        )
        self._wait_registered(package_id, name, version, patch)

    def _wait_registered(self, package_id: str, name: str, version: str, patch: str) -> None:
        for answer in polls(
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

    # -- deployments ------------------------------------------------------------------------------------------------

    def device_id(self, named: str | None) -> str:
        """A device by id or name; without one, the only one there is. Raises CliError."""
        devices = self._all("list_devices", "Devices")
        known = ", ".join(f"{device['Name']} ({device['DeviceId']})" for device in devices) or "none yet"
        if named is None:
            if len(devices) != 1:
                raise CliError(f"say which device with --device; there are: {known}")
            return str(devices[0]["DeviceId"])
        found = [device["DeviceId"] for device in devices if named in (device["DeviceId"], device["Name"])]
        if len(found) != 1:
            problem = "several devices are" if found else "no device is"
            raise CliError(f'{problem} named "{named}"; there are: {known}')
        return str(found[0])

    def instance(self, named: str, device_id: str | None = None, live: bool = False) -> dict[str, Any] | None:
        """The newest application instance of this id or name; with `live`, of those that run or are about to."""
        arguments = {"DeviceId": device_id} if device_id else {}
        instances = self._all("list_application_instances", "ApplicationInstances", **arguments)
        found = [
            instance
            for instance in instances
            if named in (instance["ApplicationInstanceId"], instance.get("Name"))
            and (not live or instance["Status"] in (*LIVE_STATES, "DEPLOYMENT_ERROR"))
        ]
        return max(found, key=lambda instance: instance["CreatedTime"], default=None)

    def deploy(
        self,
        name: str,
        device_id: str,
        app: AppFolder,
        overrides: dict[str, Any] | None,
        replaces: str | None = None,
        role: str | None = APPLICATION_ROLE,
    ) -> Deployment:
        """CreateApplicationInstance. `role`: a role's name in this account, or its ARN; None for an application that
        calls nothing."""
        arguments: dict[str, Any] = {
            "Name": name,
            "DefaultRuntimeContextDevice": device_id,
            "ManifestPayload": {"PayloadData": json.dumps(app.graph())},
        }
        if overrides is not None:
            arguments["ManifestOverridesPayload"] = {"PayloadData": json.dumps(overrides)}
        if role:
            arn = role if role.startswith("arn:") else f"arn:aws:iam::{self.account_id}:role/{role}"
            arguments["RuntimeRoleArn"] = arn
        if replaces:
            arguments["ApplicationInstanceIdToReplace"] = replaces
        created_at_ms = time.time_ns() // 1_000_000
        answer = self.panorama.create_application_instance(**arguments)
        return Deployment(answer["ApplicationInstanceId"], created_at_ms)

    def wait_running(self, instance_id: str, say: Callable[[str], None], timeout_s: float = DEPLOY_TIMEOUT_S) -> None:
        """Waits for DEPLOYMENT_SUCCEEDED and RUNNING; tells each state and each reason once."""
        last = ""
        for answer in polls(
            timeout_s, lambda: self.panorama.describe_application_instance(ApplicationInstanceId=instance_id)
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
        raise CliError(f"the application did not run within {timeout_s:.0f} s; its last state: {last}")

    def _all(self, operation: str, member: str, **arguments: Any) -> list[dict[str, Any]]:
        """Every page. The model has no paginators."""
        found: list[dict[str, Any]] = []
        while True:
            answer = getattr(self.panorama, operation)(**arguments)
            found += answer[member]
            if not answer.get("NextToken"):
                return found
            arguments["NextToken"] = answer["NextToken"]


def said(error: ClientError) -> str:
    """A refused call, as one line: its text, and the places in the document where the service names them."""
    fields = error.response.get("fields") or error.response.get("Fields") or ()
    places = [
        f"{field.get('name') or field.get('Name')}: {field.get('message') or field.get('Message')}" for field in fields
    ]
    return "\n    ".join([str(error), *places])


def polls(timeout_s: float, ask: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Answers, one every POLL_S, until the time is up: the API has no way to wait for a change."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        yield ask()
        time.sleep(POLL_S)


def _endpoint_named(session: boto3.Session) -> bool:
    """Whether the environment or the profile says where the service is: AWS's own address has none any more."""
    if os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_PANORAMA"):
        return True
    profile = session._session.get_scoped_config()
    return bool(profile.get("endpoint_url") or profile.get("services"))
