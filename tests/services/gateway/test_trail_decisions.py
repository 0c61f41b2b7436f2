"""What a call needed besides its own permission stands in its line of the audit trail. Through boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.services.gateway import s3_forms
from tests.services.gateway.persons import BUCKET, Person, statement
from tests.services.gateway.trail import (
    ALARM_ARN,
    BUCKET_ARN,
    DEVICE,
    MANIFEST,
    OBJECT,
    OBJECT_ARN,
    ROLE,
    STRANGER,
    Callers,
    decisions,
    new_lines,
    one_line,
    told,
)
from tests.services.gateway.wire import send
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door


@pytest.fixture(scope="module")
def callers(door: Door) -> Iterator[Callers]:
    yield Callers(door)


@pytest.mark.parametrize("passes", [True, False])
def test_passing_a_role_stands_in_the_line_of_the_call(door: Door, passes: bool) -> None:
    person = Person(door, statement("panorama:*"), *([statement("iam:PassRole")] if passes else []))
    given = {"DefaultRuntimeContextDevice": DEVICE, "ManifestPayload": MANIFEST, "RuntimeRoleArn": ROLE}
    line = one_line(door, lambda: person.client("panorama").create_application_instance(**given))
    assert (line.principal, *told(line)) == (person.arn, "panorama:CreateApplicationInstance", "*", passes)
    assert decisions(line) == [
        ("panorama:CreateApplicationInstance", "*", True),
        ("iam:PassRole", ROLE, passes),
    ]


@pytest.mark.parametrize("reads", [True, False])
def test_what_an_import_is_to_read_stands_in_the_line_of_the_call_and_the_reading_leaves_none(
    door: Door, reads: bool
) -> None:
    person = Person(door, statement("panorama:*"), *([statement("s3:GetObject")] if reads else []))
    client = person.client("panorama")
    place = {"BucketName": BUCKET, "ObjectKey": "trail/none.tar.gz", "Region": REGION}
    job = {
        "JobType": "NODE_PACKAGE_VERSION",
        "ClientToken": f"trail-{reads}",
        "InputConfig": {"PackageVersionInputConfig": {"S3Location": place}},
        "OutputConfig": {"PackageVersionOutputConfig": {"PackageName": "trail-import", "PackageVersion": "1.0"}},
    }
    with new_lines(door) as found:
        try:
            job_id = client.create_package_import_job(**job)["JobId"]
            asked = 1
            while client.describe_package_import_job(JobId=job_id)["Status"] == "PENDING":
                asked += 1
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDeniedException" and not reads
            asked = 0
    line, *others = found
    assert told(line) == ("panorama:CreatePackageImportJob", "*", reads)
    assert decisions(line) == [
        ("panorama:CreatePackageImportJob", "*", True),
        ("s3:GetObject", f"{BUCKET_ARN}/trail/none.tar.gz", reads),
    ]
    assert [other.action for other in others] == ["panorama:DescribePackageImportJob"] * asked


def test_the_keys_of_one_deletion_stand_in_one_line(door: Door) -> None:
    person = Person(door, statement("s3:DeleteObject", f"{BUCKET_ARN}/trail/mine/*"))
    keys = ["trail/mine/a", "trail/other", "trail/mine/b"]
    deleted: dict[str, Any] = {}
    wanted = {"Objects": [{"Key": key} for key in keys]}
    with new_lines(door) as found:
        deleted.update(person.client("s3").delete_objects(Bucket=BUCKET, Delete=wanted))
    (line,) = found
    assert told(line) == ("s3:DeleteObject", f"{BUCKET_ARN}/{keys[0]}", False)
    assert decisions(line) == [("s3:DeleteObject", f"{BUCKET_ARN}/{key}", "mine" in key) for key in keys]
    assert [error["Key"] for error in deleted["Errors"]] == ["trail/other"]
    everything = one_line(door, lambda: door.client("s3").delete_objects(Bucket=BUCKET, Delete=wanted))
    assert everything.allowed and len(everything.decisions) == 3


def test_the_source_of_a_copy_stands_in_the_line_of_the_copy(door: Door) -> None:
    door.client("s3").put_object(**OBJECT, Body=b"content")
    person = Person(door, statement("s3:PutObject"))
    source = f"{BUCKET}/trail/key"
    for client, reads in ((door.client("s3"), True), (person.client("s3"), False)):
        copy = {"Bucket": BUCKET, "Key": "trail/copy", "CopySource": source}
        line = one_line(door, partial(client.copy_object, **copy))
        assert told(line) == ("s3:PutObject", f"{BUCKET_ARN}/trail/copy", reads)
        assert decisions(line)[1:] == [("s3:GetObject", OBJECT_ARN, reads)]


def test_both_permissions_to_read_attributes_stand_in_one_line(door: Door) -> None:
    client = door.client("s3")
    line = one_line(door, lambda: client.get_object_attributes(**OBJECT, ObjectAttributes=["ETag"]))
    assert told(line) == ("s3:GetObjectAttributes", OBJECT_ARN, True)
    assert decisions(line) == [(action, OBJECT_ARN, True) for action in ("s3:GetObjectAttributes", "s3:GetObject")]


def test_uploads_by_a_form_leave_one_line_with_their_object(door: Door, callers: Callers) -> None:
    key, object_arn = "trail/form-${filename}", f"{BUCKET_ARN}/trail/form-a.bin"
    unknown = callers.client("unknown", "s3")
    expected = [
        (door.client("s3"), f"arn:aws:iam::{ACCOUNT}:user/admin", True),
        (callers.client("denied", "s3"), callers.nobody.arn, False),
        (callers.client("wrong", "s3"), f"unproven/{door.access_key_id}", False),
        (unknown, f"unproven/{STRANGER}", False),
    ]
    for client, who, allowed in expected:
        made = client.generate_presigned_post(BUCKET, key)
        with new_lines(door) as found:
            form = s3_forms.encoded(made["fields"], b"content")
            send(door, "POST", f"/{BUCKET}", headers={"Content-Type": s3_forms.FORM}, body=form, service=None)
        assert [(line.principal, *told(line)) for line in found] == [(who, "s3:PutObject", object_arn, allowed)]


def test_several_alarms_stand_in_one_line(door: Door) -> None:
    alarms = ["trail-alarm", "trail-beta"]
    line = one_line(door, lambda: door.client("cloudwatch").delete_alarms(AlarmNames=alarms))
    assert told(line) == ("cloudwatch:DeleteAlarms", ALARM_ARN, True)
    assert [one[1].rpartition(":")[2] for one in decisions(line)] == alarms


def test_what_a_stack_makes_stands_in_the_line_of_the_call_that_makes_it(door: Door) -> None:
    template = {
        "Resources": {
            "alarm": {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "AlarmName": "trail-stack", "Namespace": "Trail", "MetricName": "m", "Period": 60, "Statistic": "Sum",
                    "EvaluationPeriods": 1, "Threshold": 1, "ComparisonOperator": "GreaterThanThreshold",
                },
            }
        }
    }  # fmt: skip
    client = door.client("cloudformation")
    asked = {"StackName": "trail-stack", "TemplateBody": json.dumps(template)}
    line = one_line(door, lambda: client.create_stack(**asked))
    assert (line.action, line.allowed) == ("cloudformation:CreateStack", True)
    assert [one[0] for one in decisions(line)] == ["cloudformation:CreateStack", "cloudwatch:PutMetricAlarm"]
    line = one_line(door, lambda: client.delete_stack(StackName="trail-stack"))
    assert [one[0] for one in decisions(line)] == ["cloudformation:DeleteStack", "cloudwatch:DeleteAlarms"]
