"""What single permissions are good for, from one end to the other: a user's whole errand with just what it needs."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.services.gateway.persons import BUCKET, PANORAMA, Person, refused, statement
from tests.support import graphs
from tests.support.archives import tar_gz
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

FULL_ACCESS = "arn:aws:iam::aws:policy/AWSPanoramaFullAccess"
WAIT_S = 40.0


def archive() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("package.json", json.dumps(graphs.code_package()))
        made.writestr("a" * 64 + ".tar.gz", tar_gz({"panorama/app.py": b"print()"}))
        made.writestr("b" * 64 + ".json", json.dumps(graphs.RUNTIME_DESCRIPTOR))
    return packed.getvalue()


def import_job(client: Any, key: str, name: str) -> str:
    place = {"S3Location": {"BucketName": BUCKET, "ObjectKey": key}}
    job = client.create_package_import_job(
        ClientToken=name,
        JobType="NODE_PACKAGE_VERSION",
        InputConfig={"PackageVersionInputConfig": place},
        OutputConfig={"PackageVersionOutputConfig": {"PackageName": name, "PackageVersion": "1.0"}},
    )
    return str(job["JobId"])


def finished(client: Any, job: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while (found := client.describe_package_import_job(JobId=job))["Status"] == "PENDING":
        assert time.monotonic() < until
        time.sleep(0.05)
    return dict(found)


def test_an_import_reads_only_what_its_caller_may_read(door: Door) -> None:
    s3 = door.client("s3")
    for key in ("shared/code.zip", "secret/code.zip"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=archive())
    person = Person(
        door,
        statement(["panorama:CreatePackageImportJob", "panorama:DescribePackageImportJob"]),
        statement("s3:GetObject", f"arn:aws:s3:::{BUCKET}/shared/*"),
    )
    client = person.client("panorama")
    found = finished(client, import_job(client, "shared/code.zip", "imported-by-leave"))
    assert found["Status"] == "SUCCEEDED", found["StatusMessage"]
    assert refused(lambda: import_job(client, "secret/code.zip", "imported-in-secret")) == (
        f"User: {person.arn} is not authorized to perform: s3:GetObject on resource: "
        f"arn:aws:s3:::{BUCKET}/secret/code.zip because no identity-based policy allows the s3:GetObject action"
    )
    assert door.client("panorama").list_packages()["Packages"] != []
    with pytest.raises(ClientError, match="imported-in-secret"):
        door.client("panorama").describe_package(PackageId="packageName/imported-in-secret")
    reader = Person(door, statement("s3:*"))
    assert "panorama:CreatePackageImportJob on resource: *" in refused(
        lambda: import_job(reader.client("panorama"), "shared/code.zip", "imported-without-leave")
    )


def test_full_access_to_panorama_is_enough_for_every_errand_and_for_nothing_else(door: Door) -> None:
    person = Person(door, policy=FULL_ACCESS)
    panorama, s3 = person.client("panorama"), person.client("s3")
    device = panorama.provision_device(Name="full-access")["DeviceId"]
    panorama.create_job_for_devices(DeviceIds=[device], JobType="REBOOT")
    panorama.create_node_from_template_job(
        TemplateType="RTSP_CAMERA_STREAM",
        OutputPackageName="full-access-camera",
        OutputPackageVersion="1.0",
        NodeName="full-access-camera",
        TemplateParameters={"StreamUrl": "rtsp://192.0.2.1/stream"},
    )
    package = panorama.create_package(PackageName="full-access")
    place, document = package["StorageLocation"], json.dumps(graphs.code_package()).encode()
    patch = hashlib.sha256(document).hexdigest()
    for key, body in (
        (f"{place['BinaryPrefixLocation']}/{'a' * 64}.tar.gz", tar_gz({"panorama/app.py": b"print()"})),
        (f"{place['BinaryPrefixLocation']}/{'b' * 64}.json", json.dumps(graphs.RUNTIME_DESCRIPTOR).encode()),
        (f"{place['ManifestPrefixLocation']}/1.0/{patch}.json", document),
    ):
        s3.put_object(Bucket=place["Bucket"], Key=key, Body=body)
    version = {"PackageId": package["PackageId"], "PackageVersion": "1.0", "PatchVersion": patch}
    panorama.register_package_version(**version, MarkLatest=True)
    assert panorama.describe_package_version(**version)["PackageName"] == "full-access"
    s3.put_object(Bucket=BUCKET, Key="in/full-access.zip", Body=archive())
    finished(panorama, import_job(panorama, "in/full-access.zip", "full-access-import"))
    role = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"
    with pytest.raises(ClientError) as caught:
        panorama.create_application_instance(
            DefaultRuntimeContextDevice=device, ManifestPayload={"PayloadData": "{}"}, RuntimeRoleArn=role
        )
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    person.client("logs").describe_log_groups()
    person.client("cloudwatch").list_metrics()
    for call in (
        lambda: s3.create_bucket(Bucket="own-bucket"),
        lambda: s3.put_object(Bucket="elsewhere", Key="k", Body=b""),
        lambda: person.client("logs").create_log_group(logGroupName="/mine"),
        lambda: person.client("cloudwatch").put_metric_data(Namespace="N", MetricData=[{"MetricName": "m"}]),
        lambda: person.client("sts").assume_role(RoleArn=role, RoleSessionName="session"),
    ):
        refused(call)


def test_the_language_of_policies_holds_on_the_wire(door: Door) -> None:
    """NotAction, NotResource, ArnLike, wildcards in the middle, and a deny that wins over each of them."""
    here = {"Condition": {"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:user/rules-*"}}}
    person = Person(
        door,
        {"Effect": "Allow", "NotAction": ["panorama:Delete*", "s3:*"], "Resource": "*", **here},
        {"Effect": "Allow", "Action": "s3:Put?bject", "NotResource": f"arn:aws:s3:::{BUCKET}/private/*"},
        statement("panorama:Describe*", f"{PANORAMA}:device/device-z*", effect="Deny"),
        name="rules-one",
    )
    client, s3 = person.client("panorama"), person.client("s3")
    client.list_packages()
    refused(lambda: client.delete_package(PackageId="package-a"))
    with pytest.raises(ClientError, match="ResourceNotFound"):
        client.describe_device(DeviceId="device-a")
    assert "explicit deny" in refused(lambda: client.describe_device(DeviceId="device-zz"))
    s3.put_object(Bucket=BUCKET, Key="public/x", Body=b"")
    refused(lambda: s3.put_object(Bucket=BUCKET, Key="private/x", Body=b""))
    refused(lambda: s3.get_object(Bucket=BUCKET, Key="public/x"))
    other = Person(door, {"Effect": "Allow", "NotAction": "s3:*", "Resource": "*", **here}, name="other-one")
    refused(lambda: other.client("panorama").list_packages())


def test_every_services_refusal_is_of_its_own_form_and_names_who_what_and_on_what(door: Door) -> None:
    person = Person(door, statement("sts:GetCallerIdentity"))
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/g"
    alarm = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:a"
    role = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"
    calls: list[tuple[str, str, dict[str, Any], str, str]] = [
        ("panorama", "describe_device", {"DeviceId": "d"}, "panorama:DescribeDevice", f"{PANORAMA}:device/d"),
        ("s3", "get_object", {"Bucket": BUCKET, "Key": "k"}, "s3:GetObject", f"arn:aws:s3:::{BUCKET}/k"),
        ("logs", "filter_log_events", {"logGroupName": "/g"}, "logs:FilterLogEvents", group),
        ("cloudwatch", "delete_alarms", {"AlarmNames": ["a"]}, "cloudwatch:DeleteAlarms", alarm),
        ("sts", "assume_role", {"RoleArn": role, "RoleSessionName": "session"}, "sts:AssumeRole", role),
    ]
    for service, operation, arguments, action, resource in calls:
        client = person.client(service)
        message = refused(lambda client=client, op=operation, args=arguments: getattr(client, op)(**args))
        assert message.startswith(
            f"User: {person.arn} is not authorized to perform: {action} on resource: {resource} because no "
        )
        assert message.endswith(f"allows the {action} action")
