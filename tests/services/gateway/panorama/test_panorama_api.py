"""The Panorama API through boto3 with our model, against the real services."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from belvedere import awsmodel
from services.gateway.panorama import tags
from services.gateway.panorama.operations import OPERATIONS, also_needed
from tests.services.gateway.wire import send
from tests.support.front_door import Door


@pytest.fixture
def panorama(door: Door) -> Any:
    return door.client("panorama")


@pytest.fixture
def name() -> str:
    return f"n-{uuid.uuid4().hex[:12]}"


def refused(call: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    return dict(caught.value.response)


def test_a_device_is_provisioned_described_listed_changed_and_deleted(panorama: Any, name: str) -> None:
    made = panorama.provision_device(Name=name, Description="by the door", Tags={"site": "north"})
    device = made["DeviceId"]
    assert made["Status"] in ("AWAITING_PROVISIONING", "PENDING")
    assert "config.json" in zipfile.ZipFile(io.BytesIO(made["Certificates"])).namelist()
    described = panorama.describe_device(DeviceId=device)
    assert (described["Name"], described["Arn"], described["Tags"]) == (name, made["Arn"], {"site": "north"})
    assert abs((datetime.now(UTC) - described["CreatedTime"]).total_seconds()) < 60
    panorama.update_device_metadata(DeviceId=device, Description="by the gate")
    (listed,) = panorama.list_devices(NameFilter=name)["Devices"]
    assert (listed["DeviceId"], listed["Description"]) == (device, "by the gate")
    conflict = refused(lambda: panorama.provision_device(Name=name))
    assert conflict["Error"]["Code"] == "ConflictException" and conflict["ResourceType"]
    assert panorama.delete_device(DeviceId=device)["DeviceId"] == device


def test_tags_go_to_the_service_that_owns_the_resource(panorama: Any, name: str) -> None:
    device = panorama.provision_device(Name=name)["Arn"]
    package = panorama.create_package(PackageName=name)["Arn"]
    for arn in (device, package):
        panorama.tag_resource(ResourceArn=arn, Tags={"a": "1", "b c/ä": "2"})
        assert panorama.list_tags_for_resource(ResourceArn=arn)["Tags"] == {"a": "1", "b c/ä": "2"}
        panorama.untag_resource(ResourceArn=arn, TagKeys=["a", "none"])
        assert panorama.list_tags_for_resource(ResourceArn=arn)["Tags"] == {"b c/ä": "2"}


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        ("arn:aws:panorama:us-east-1:123456789012:device/device-none", "ResourceNotFoundException"),
        ("arn:aws:panorama:eu-west-1:123456789012:device/device-none", "ResourceNotFoundException"),
        ("arn:aws:panorama:us-east-1:210987654321:device/device-none", "ResourceNotFoundException"),
        ("arn:aws:panorama:us-east-1:123456789012:model/x", "ValidationException"),
        ("arn:aws:s3:::bucket", "ValidationException"),
        ("no arn", "ValidationException"),
    ],
)
def test_an_arn_of_nothing_is_told_apart_from_no_arn(panorama: Any, arn: str, code: str) -> None:
    assert refused(lambda: panorama.list_tags_for_resource(ResourceArn=arn))["Error"]["Code"] == code


def test_a_package_is_found_by_its_alias_with_a_slash(panorama: Any, name: str) -> None:
    made = panorama.create_package(PackageName=name, Tags={"k": "v"})
    found = panorama.describe_package(PackageId=f"packageName/{name}")
    assert (found["PackageId"], found["StorageLocation"]) == (made["PackageId"], made["StorageLocation"])
    missing = refused(lambda: panorama.describe_package(PackageId="packageName/none"))
    assert (missing["Error"]["Code"], missing["ResourceId"]) == ("ResourceNotFoundException", "packageName/none")
    panorama.delete_package(PackageId=made["PackageId"], ForceDelete=True)


def test_everything_wrong_with_a_request_is_told_at_once(door: Door) -> None:
    panorama = door.client("panorama", parameter_validation=False)
    answer = refused(lambda: panorama.provision_device(Name="bad name", Description="x" * 256, Tags={"": "v"}))
    assert answer["Error"]["Code"] == "ValidationException"
    assert answer["Reason"] == "FIELD_VALIDATION_FAILED"
    assert [field["Name"] for field in answer["Fields"]] == ["Description", "Name", "Tags. (key)"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == "ValidationException"
    assert refused(lambda: panorama.list_devices(MaxResults=26))["Fields"][0]["Name"] == "MaxResults"


def test_a_bad_manifest_is_refused_in_the_declared_shape(panorama: Any) -> None:
    manifest = {"PayloadData": json.dumps({"nodeGraph": {}})}
    answer = refused(
        lambda: panorama.create_application_instance(DefaultRuntimeContextDevice="device-x", ManifestPayload=manifest)
    )
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationException", 400)


def test_all_34_operations_of_the_model_are_served() -> None:
    served = OPERATIONS.keys() | tags.OPERATIONS
    assert len(served) == 34
    assert served == set(awsmodel.panorama().operations)


def test_an_import_needs_leave_to_read_the_archive() -> None:
    location = {"BucketName": "b", "ObjectKey": "in/a.zip"}
    values = {"InputConfig": {"PackageVersionInputConfig": {"S3Location": location}}}
    assert also_needed("CreatePackageImportJob", values) == ("s3:GetObject", "arn:aws:s3:::b/in/a.zip")
    assert also_needed("CreatePackageImportJob", {"InputConfig": {}}) is None
    assert also_needed("CreatePackage", {}) is None


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("PATCH", "/devices"), ("DELETE", "/devices"), ("POST", "/")]
)
def test_wrong_methods_and_paths_get_the_declared_shape(door: Door, method: str, path: str) -> None:
    answer = send(door, method, path)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert answer.json["Reason"] == "UNKNOWN_OPERATION"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"Name": null}', b""])
def test_broken_bodies_get_the_declared_shape(door: Door, body: bytes) -> None:
    answer = send(door, "POST", "/devices", body=body, headers={"Content-Type": "application/json"})
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert answer.json["Reason"] in ("CANNOT_PARSE", "FIELD_VALIDATION_FAILED")


def test_a_fixed_address_that_is_not_told_and_jobs_of_no_device_are_refused(panorama: Any) -> None:
    static = {"Ethernet0": {"ConnectionType": "STATIC_IP"}}
    answer = refused(lambda: panorama.provision_device(Name="api-static", NetworkingConfiguration=static))
    assert (answer["Error"]["Code"], answer["Reason"]) == ("ValidationException", "FIELD_VALIDATION_FAILED")
    (field,) = answer["Fields"]
    assert field["Name"] == "NetworkingConfiguration.Ethernet0.StaticIpConnectionInfo"
    answer = refused(lambda: panorama.list_devices_jobs(DeviceId="device-none"))
    assert answer["Error"]["Code"] == "ResourceNotFoundException"
    assert (answer["ResourceId"], answer["ResourceType"]) == ("device-none", "DEVICE")


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("list_application_instance_dependencies", {"ApplicationInstanceId": "none"}),
        ("list_application_instance_node_instances", {"ApplicationInstanceId": "none"}),
        (
            "signal_application_instance_node_instances",
            {"ApplicationInstanceId": "none", "NodeSignals": [{"NodeInstanceId": "c", "Signal": "PAUSE"}]},
        ),
        ("describe_node_from_template_job", {"JobId": "none"}),
        ("describe_package_import_job", {"JobId": "none"}),
        ("register_package_version", {"PackageId": "none", "PackageVersion": "1.0", "PatchVersion": "a1"}),
    ],
)
def test_what_is_not_there_is_a_validation_error_where_the_operation_declares_no_other(
    panorama: Any, method: str, given: dict[str, Any]
) -> None:
    declared = panorama.meta.service_model.operation_model(panorama.meta.method_to_api_mapping[method]).error_shapes
    assert "ResourceNotFoundException" not in {shape.name for shape in declared}
    answer = refused(lambda: getattr(panorama, method)(**given))
    assert (answer["Error"]["Code"], answer["Reason"], answer["Fields"]) == ("ValidationException", "OTHER", [])
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400 and "none" in answer["Error"]["Message"]


def test_every_list_and_describe_answers(panorama: Any) -> None:
    assert panorama.list_devices()["Devices"] is not None
    assert panorama.list_application_instances()["ApplicationInstances"] is not None
    assert panorama.list_packages()["Packages"] is not None
    assert panorama.list_nodes()["Nodes"] is not None
    assert panorama.list_node_from_template_jobs()["NodeFromTemplateJobs"] is not None
    assert panorama.list_devices_jobs()["DeviceJobs"] is not None
    assert panorama.list_package_import_jobs()["PackageImportJobs"] is not None
    for call in (
        lambda: panorama.describe_device(DeviceId="device-none"),
        lambda: panorama.describe_application_instance(ApplicationInstanceId="none"),
        lambda: panorama.describe_application_instance_details(ApplicationInstanceId="none"),
        lambda: panorama.describe_package_version(PackageId="package-none", PackageVersion="1.0"),
        lambda: panorama.describe_node(NodeId="none"),
        lambda: panorama.describe_device_job(JobId="none"),
        lambda: panorama.describe_package_import_job(JobId="none"),
        lambda: panorama.remove_application_instance(ApplicationInstanceId="none"),
        lambda: panorama.delete_device(DeviceId="device-none"),
        lambda: panorama.deregister_package_version(PackageId="package-none", PackageVersion="1.0", PatchVersion="a1"),
    ):
        answer = refused(call)
        assert answer["Error"]["Code"] in ("ResourceNotFoundException", "ValidationException"), answer
        assert answer["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)
