"""A tour of all 34 operations of the Panorama API. Runs as a script, in any Python with boto3; starts from an empty account.

Prints a JSON list of [operation, HTTP status, answer or error]. Endpoint, keys and region come from the environment.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
import time
import zipfile
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
ENVELOPE = "2021-01-01"
WAIT_S = 60

panorama = boto3.client("panorama", config=Config(retries={"total_max_attempts": 1}))
s3 = boto3.client("s3")
told: list[list[Any]] = []


def call(operation: str, **arguments: Any) -> dict[str, Any]:
    """Calls, and notes the answer; the answer to an error is the error."""
    try:
        answer: dict[str, Any] = getattr(panorama, operation)(**arguments)
    except ClientError as error:
        answer = error.response
    status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
    told.append([operation, status, answer])
    return answer


def settled(operation: str, status: str, **arguments: Any) -> None:
    """Waits until the Status is this one, as scripts do."""
    until = time.monotonic() + WAIT_S
    while getattr(panorama, operation)(**arguments)["Status"] != status:
        if time.monotonic() > until:
            raise TimeoutError(f"{operation} did not say {status} within {WAIT_S} s")
        time.sleep(0.1)


def listed(operation: str, key: str, **arguments: Any) -> None:
    """All pages, of one entry each."""
    token: dict[str, str] = {}
    while True:
        page = call(operation, MaxResults=1, **arguments, **token)
        if not page.get("NextToken"):
            return
        token = {"NextToken": page["NextToken"]}
        assert len(page[key]) == 1


def code(description: str) -> bytes:
    interface = {
        "name": "code_interface",
        "category": "business_logic",
        "asset": "code",
        "inputs": [{"name": "video_in", "type": "media"}, {"name": "threshold", "type": "float32", "default": 0.25}],
        "outputs": [{"name": "video_out", "type": "media"}],
    }
    items = [{"type": "container", "assetUri": "code.tar.gz", "descriptorUri": "code.json"}]
    document = {
        "envelopeVersion": ENVELOPE,
        "name": "code",
        "version": "1.0",
        "description": description,
        "assets": [{"name": "code", "implementations": items}],
        "interfaces": [interface],
    }
    return json.dumps({"nodePackage": document}).encode()


def filesystem() -> bytes:
    """A container's archive: a folder of Python."""
    packed = io.BytesIO()
    text = b"print('counting')\n"
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("panorama/app.py")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return packed.getvalue()


ENTRY = {"path": "python3", "name": "/panorama/app.py"}
DESCRIPTOR = json.dumps({"runtimeDescriptor": {"envelopeVersion": ENVELOPE, "entry": ENTRY}}).encode()
GRAPH = {
    "nodeGraph": {
        "envelopeVersion": ENVELOPE,
        "packages": [
            {"name": f"{ACCOUNT}::code", "version": "1.0"},
            {"name": "panorama::abstract_rtsp_media_source", "version": "1.0"},
            {"name": "panorama::hdmi_data_sink", "version": "1.0"},
        ],
        "nodes": [
            {
                "name": "camera",
                "interface": "panorama::abstract_rtsp_media_source.rtsp_v1_interface",
                "overridable": True,
                "launch": "onAppStart",
                "decorator": {"title": "Camera", "description": "Any camera"},
            },
            {"name": "code_node", "interface": f"{ACCOUNT}::code.code_interface"},
            {"name": "threshold", "interface": "float32", "value": 0.5, "overridable": True},
            {"name": "output", "interface": "panorama::hdmi_data_sink.hdmi0"},
        ],
        "edges": [
            {"producer": "camera.video_out", "consumer": "code_node.video_in"},
            {"producer": "threshold", "consumer": "code_node.threshold"},
            {"producer": "code_node.video_out", "consumer": "output.video_in"},
        ],
    }
}
OVERRIDES = {
    "nodeGraphOverrides": {
        "envelopeVersion": ENVELOPE,
        "packages": [{"name": f"{ACCOUNT}::door-camera", "version": "1.0"}],
        "nodes": [{"name": "door", "interface": f"{ACCOUNT}::door-camera.door-camera"}],
        "nodeOverrides": [{"replace": "camera", "with": [{"name": "door"}]}],
    }
}


def devices() -> str:
    network = {"Ethernet0": {"ConnectionType": "DHCP"}, "Ntp": {"NtpServers": ["192.0.2.1"]}}
    made = call("provision_device", Name="north", Description="gate", Tags={"a": "b"}, NetworkingConfiguration=network)
    call("provision_device", Name="south")
    call("provision_device", Name="south")
    device = str(made["DeviceId"])
    call("update_device_metadata", DeviceId=device, Description="the gate")
    call("describe_device", DeviceId=device)
    listed("list_devices", "Devices", SortBy="NAME", SortOrder="DESCENDING")
    call("list_devices", NameFilter="north", DeviceAggregatedStatusFilter="AWAITING_PROVISIONING")
    call("tag_resource", ResourceArn=made["Arn"], Tags={"site": "1 ä"})
    call("untag_resource", ResourceArn=made["Arn"], TagKeys=["a", "none"])
    call("list_tags_for_resource", ResourceArn=made["Arn"])
    return device


def packages() -> str:
    made = call("create_package", PackageName="code", Tags={"k": "v"})
    call("create_package", PackageName="code")
    package, place = str(made["PackageId"]), made["StorageLocation"]
    binaries, manifests = place["BinaryPrefixLocation"], place["ManifestPrefixLocation"]
    s3.put_object(Bucket=place["Bucket"], Key=f"{binaries}/code.tar.gz", Body=filesystem())
    s3.put_object(Bucket=place["Bucket"], Key=f"{binaries}/code.json", Body=DESCRIPTOR)
    for text, latest in ((code("first"), True), (code("second"), False), (b"{}", False)):
        patch = hashlib.sha256(text).hexdigest()
        s3.put_object(Bucket=place["Bucket"], Key=f"{manifests}/1.0/{patch}.json", Body=text)
        version = {"PackageId": package, "PackageVersion": "1.0", "PatchVersion": patch}
        call("register_package_version", **version, MarkLatest=latest)
        call("describe_package_version", **version)
    call("describe_package_version", PackageId="packageName/code", PackageVersion="1.0")
    call("describe_package_version", PackageId="packageName/code", PackageVersion="2.0")
    call("describe_package", PackageId="packageName/code")
    call("describe_package", PackageId="packageName/none")
    return package


def cameras() -> None:
    job = {"TemplateType": "RTSP_CAMERA_STREAM", "OutputPackageName": "door-camera", "OutputPackageVersion": "1.0"}
    parameters = {"Username": "u", "Password": "p", "StreamUrl": "rtsp://192.0.2.2/door"}
    tags = [{"ResourceType": "PACKAGE", "Tags": {"kind": "camera"}}]
    made = call(
        "create_node_from_template_job", NodeName="door-camera", **job, TemplateParameters=parameters, JobTags=tags
    )
    call("create_node_from_template_job", NodeName="door-camera", **job, TemplateParameters={"StreamUrl": "file:///x"})
    call("describe_node_from_template_job", JobId=made["JobId"])
    call("describe_node_from_template_job", JobId="none")
    listed("list_node_from_template_jobs", "NodeFromTemplateJobs")


def imports(bucket: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("package.json", code("third"))
        archive.writestr("assets/code.tar.gz", filesystem())
        archive.writestr("assets/code.json", DESCRIPTOR)
    s3.put_object(Bucket=bucket, Key="in/code.zip", Body=packed.getvalue())
    job = {
        "JobType": "NODE_PACKAGE_VERSION",
        "InputConfig": {
            "PackageVersionInputConfig": {"S3Location": {"BucketName": bucket, "ObjectKey": "in/code.zip"}}
        },
        "OutputConfig": {"PackageVersionOutputConfig": {"PackageName": "imported", "PackageVersion": "1.0"}},
        "JobTags": [{"ResourceType": "PACKAGE", "Tags": {"from": "archive"}}],
    }
    made = call("create_package_import_job", ClientToken="token", **job)
    again = call("create_package_import_job", ClientToken="token", **job)
    assert again == made
    call("create_package_import_job", ClientToken="token", **{**job, "JobTags": []})
    call("create_package_import_job", ClientToken="other", **{**job, "JobType": "MARKETPLACE_NODE_PACKAGE_VERSION"})
    settled("describe_package_import_job", "SUCCEEDED", JobId=made["JobId"])
    call("describe_package_import_job", JobId=made["JobId"])
    call("describe_package_import_job", JobId="none")
    listed("list_package_import_jobs", "PackageImportJobs")


def nodes() -> None:
    listed("list_packages", "Packages")
    listed("list_nodes", "Nodes")
    found = call(
        "list_nodes", Category="BUSINESS_LOGIC", PackageName="code", PackageVersion="1.0", OwnerAccount=ACCOUNT
    )
    call("describe_node", NodeId=found["Nodes"][0]["NodeId"])
    call("describe_node", NodeId="none")


def applications(device: str) -> None:
    payloads = {
        "ManifestPayload": {"PayloadData": json.dumps(GRAPH)},
        "ManifestOverridesPayload": {"PayloadData": json.dumps(OVERRIDES)},
    }
    where = {"DefaultRuntimeContextDevice": device}
    made = call(
        "create_application_instance", Name="counter", Description="people", Tags={"client": "s"}, **where, **payloads
    )
    instance = {"ApplicationInstanceId": made["ApplicationInstanceId"]}
    call("create_application_instance", Name="broken", **where, ManifestPayload={"PayloadData": '{"nodeGraph": {}}'})
    call("create_application_instance", DefaultRuntimeContextDevice="device-none", **payloads)
    call("describe_application_instance", **instance)
    call("describe_application_instance_details", **instance)
    listed("list_application_instance_dependencies", "PackageObjects", **instance)
    listed("list_application_instance_node_instances", "NodeInstances", **instance)
    for name in ("door", "none"):
        signal = {"NodeInstanceId": name, "Signal": "PAUSE"}
        call("signal_application_instance_node_instances", **instance, NodeSignals=[signal])
    call("list_application_instances", DeviceId=device, StatusFilter="PROCESSING_DEPLOYMENT")
    version = {"PackageId": "packageName/code", "PackageVersion": "1.0"}
    patch = hashlib.sha256(code("first")).hexdigest()
    call("deregister_package_version", **version, PatchVersion=patch)
    call("delete_package", PackageId="packageName/code", ForceDelete=True)
    call("remove_application_instance", **instance)
    settled("describe_application_instance", "REMOVAL_SUCCEEDED", **instance)
    call("list_application_instances", DeviceId=device)
    call("remove_application_instance", ApplicationInstanceId="none")


def jobs(device: str) -> None:
    made = call("create_job_for_devices", DeviceIds=[device], JobType="REBOOT")
    config = {"OTAJobConfig": {"ImageVersion": "9.9.9", "AllowMajorVersionUpdate": True}}
    call("create_job_for_devices", DeviceIds=[device], JobType="OTA", DeviceJobConfig=config)
    call("describe_device_job", JobId=made["Jobs"][0]["JobId"])
    call("describe_device_job", JobId="none")
    listed("list_devices_jobs", "DeviceJobs", DeviceId=device)


def the_end(device: str, package: str) -> None:
    patch = hashlib.sha256(code("second")).hexdigest()
    call("deregister_package_version", PackageId=package, PackageVersion="1.0", PatchVersion=patch)
    call("delete_package", PackageId=package)
    call("delete_package", PackageId=package, ForceDelete=True)
    call("delete_package", PackageId="packageName/imported", ForceDelete=True)
    call("delete_device", DeviceId=device)
    call("delete_device", DeviceId="device-none")


def plain(value: Any) -> str:
    """What JSON has no form for, by its kind."""
    assert isinstance(value, datetime.datetime | bytes), type(value)
    return "a time with a zone" if isinstance(value, datetime.datetime) and value.tzinfo else type(value).__name__


def main() -> None:
    device, package = devices(), packages()
    bucket = panorama.describe_package(PackageId=package)["StorageLocation"]["Bucket"]
    cameras()
    imports(bucket)
    nodes()
    applications(device)
    jobs(device)
    the_end(device, package)
    print(json.dumps(told, default=plain))


if __name__ == "__main__":
    main()
