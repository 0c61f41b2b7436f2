"""Users with less than everything, through boto3: what policies see of a request, and how soon a change counts."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from belvedere.v1 import identity_pb2 as pb
from tests.services.gateway.persons import BUCKET, PANORAMA, Person, ask, refused, statement
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

AT_ONCE_S = 25.0
"""Far from both ends: told, it takes milliseconds on an idle machine; not told, 30 s (services/identity/directory.py)."""


def test_a_reader_reads_and_is_told_in_awss_words_what_he_may_not(door: Door) -> None:
    reader = Person(door, policy="arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly")
    panorama = reader.client("panorama")
    assert "Devices" in panorama.list_devices()
    reader.client("logs").describe_log_groups()
    reader.client("cloudwatch").list_metrics()
    assert refused(lambda: panorama.delete_device(DeviceId="device-a")) == (
        f"User: {reader.arn} is not authorized to perform: panorama:DeleteDevice on resource: {PANORAMA}:device/device-a "
        "because no identity-based policy allows the panorama:DeleteDevice action"
    )
    assert "no identity-based policy allows the s3:PutObject action" in refused(
        lambda: reader.client("s3").put_object(Bucket=BUCKET, Key="k", Body=b"")
    )


def test_an_explicit_deny_is_called_one(door: Door) -> None:
    person = Person(door, statement("*"), statement("panorama:Delete*", effect="Deny"))
    person.client("panorama").list_packages()
    message = refused(lambda: person.client("panorama").delete_package(PackageId="package-a"))
    assert message.endswith("with an explicit deny in an identity-based policy")


def test_tags_of_the_resource_decide(door: Door) -> None:
    admin = door.client("panorama")
    north = admin.provision_device(Name="tags-north", Tags={"Site": "north"})
    south = admin.provision_device(Name="tags-south", Tags={"Site": "south"})
    only_north = {"StringEquals": {"aws:ResourceTag/Site": "north"}}
    person = Person(door, statement("panorama:*", f"{PANORAMA}:device/*", Condition=only_north))
    client = person.client("panorama")
    assert client.describe_device(DeviceId=north["DeviceId"])["Name"] == "tags-north"
    client.list_tags_for_resource(ResourceArn=north["Arn"])
    refused(lambda: client.describe_device(DeviceId=south["DeviceId"]))
    refused(lambda: client.tag_resource(ResourceArn=south["Arn"], Tags={"Site": "north"}))
    refused(lambda: client.describe_device(DeviceId="device-" + "a" * 26))
    admin.tag_resource(ResourceArn=south["Arn"], Tags={"Site": "north"})
    assert client.describe_device(DeviceId=south["DeviceId"])["Name"] == "tags-south"


def test_tags_of_the_request_decide(door: Door) -> None:
    tagged = {"StringLike": {"aws:RequestTag/Team": "vision-*"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}
    client = Person(door, statement("panorama:CreatePackage", Condition=tagged)).client("panorama")
    client.create_package(PackageName="policies-tagged", Tags={"Team": "vision-1"})
    for tags in ({"Team": "other"}, {"Team": "vision-1", "More": ""}, {}):
        refused(lambda tags=tags: client.create_package(PackageName="policies-no", Tags=tags))


def test_where_a_request_comes_from_and_who_sent_it_decide(door: Door) -> None:
    here = Person(door, statement("panorama:List*", Condition={"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    here.client("panorama").list_devices()
    away = Person(door, statement("panorama:List*", Condition={"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    refused(lambda: away.client("panorama").list_devices())
    tls = Person(
        door, statement("*"), statement("*", effect="Deny", Condition={"Bool": {"aws:SecureTransport": "false"}})
    )
    assert "explicit deny" in refused(lambda: tls.client("panorama").list_devices())


def test_a_users_own_folder_and_prefix(door: Door) -> None:
    own = {"StringLike": {"s3:prefix": "home/${aws:username}/*"}}
    person = Person(
        door,
        statement("s3:*Object", f"arn:aws:s3:::{BUCKET}/home/${{aws:username}}/*"),
        statement("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", Condition=own),
        name="ada.lovelace",
    )
    s3 = person.client("s3")
    s3.put_object(Bucket=BUCKET, Key="home/ada.lovelace/x", Body=b"mine")
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="home/ada.lovelace/")["KeyCount"] == 1
    refused(lambda: s3.put_object(Bucket=BUCKET, Key="home/eve/x", Body=b""))
    refused(lambda: s3.list_objects_v2(Bucket=BUCKET))


def test_log_groups_alarms_and_metric_namespaces_have_their_arns_and_keys(door: Door) -> None:
    person = Person(
        door,
        statement("logs:*", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/mine*"),
        statement("cloudwatch:PutMetricData", Condition={"StringEquals": {"cloudwatch:namespace": "Mine"}}),
        statement("cloudwatch:*Alarm*", f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:mine-*"),
    )
    logs, cloudwatch = person.client("logs"), person.client("cloudwatch")
    logs.create_log_group(logGroupName="/mine/a")
    refused(lambda: logs.create_log_group(logGroupName="/other"))
    cloudwatch.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "m", "Value": 1}])
    refused(lambda: cloudwatch.put_metric_data(Namespace="Other", MetricData=[{"MetricName": "m", "Value": 1}]))
    refused(lambda: cloudwatch.set_alarm_state(AlarmName="other", StateValue="OK", StateReason="-"))


def test_a_package_is_the_same_to_policies_by_its_name_and_by_its_id(door: Door) -> None:
    admin = door.client("panorama")
    made = {name: admin.create_package(PackageName=name) for name in ("policies-one", "policies-two")}
    one, two = made["policies-one"]["Arn"], made["policies-two"]["Arn"]
    person = Person(
        door, statement("panorama:*"), statement(["panorama:DeletePackage", "panorama:TagResource"], one, "Deny")
    )
    client = person.client("panorama")
    by_name = f"{PANORAMA}:package/packageName/policies-one"
    for package_id in (made["policies-one"]["PackageId"], "packageName/policies-one"):
        text = refused(lambda package_id=package_id: client.delete_package(PackageId=package_id))
        assert f"panorama:DeletePackage on resource: {one} with an explicit deny" in text
    for arn in (one, by_name):
        refused(lambda arn=arn: client.tag_resource(ResourceArn=arn, Tags={"a": "b"}))
    only_two = Person(door, statement("panorama:*", two)).client("panorama")
    assert only_two.describe_package(PackageId="packageName/policies-two")["Arn"] == two
    refused(lambda: only_two.describe_package(PackageId="packageName/policies-one"))
    refused(lambda: only_two.describe_package(PackageId="packageName/policies-none"))
    client.delete_package(PackageId="packageName/policies-two")


def test_another_spelling_of_an_arn_is_no_way_around_a_deny(door: Door) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"
    denied = statement(["sts:AssumeRole", "iam:PassRole"], role, "Deny")
    person = Person(door, statement("*"), denied, statement("panorama:TagResource", f"{PANORAMA}:device/*", "Deny"))
    sts, panorama = person.client("sts"), person.client("panorama")
    for spelt in (role, role.replace("role/", "role/path/"), role.replace("role/", "role/a/b/")):
        text = refused(lambda spelt=spelt: sts.assume_role(RoleArn=spelt, RoleSessionName="ab"))
        assert f"sts:AssumeRole on resource: {role} with an explicit deny" in text
    manifest = {"PayloadData": "{}"}
    for spelt in (role, role.replace("role/", "role/path/"), role.replace("arn:aws:", "arn:aws-cn:")):
        asked = {"DefaultRuntimeContextDevice": "device-a", "ManifestPayload": manifest, "RuntimeRoleArn": spelt}
        assert "iam:PassRole" in refused(lambda asked=asked: panorama.create_application_instance(**asked))
    device = door.client("panorama").provision_device(Name="policies-spelt")["Arn"]
    refused(lambda: panorama.tag_resource(ResourceArn=device, Tags={"a": "b"}))
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        panorama.tag_resource(ResourceArn=device.replace("arn:aws:", "arn:aws-cn:"), Tags={"a": "b"})
    assert door.client("panorama").list_tags_for_resource(ResourceArn=device)["Tags"] == {}


def test_a_log_group_is_the_same_to_policies_by_its_name_and_by_its_arn(door: Door) -> None:
    admin, group = door.client("logs"), "/policies/secret"
    admin.create_log_group(logGroupName=group)
    admin.create_log_stream(logGroupName=group, logStreamName="s")
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}"
    logs = Person(door, statement("*"), statement("logs:*", f"{arn}:log-stream:s", "Deny")).client("logs")
    stream = {"logStreamName": "s"}
    for named in ({"logGroupName": group}, {"logGroupIdentifier": arn}, {"logGroupIdentifier": group}):
        refused(lambda named=named: logs.get_log_events(**named, **stream))
        assert admin.get_log_events(**named, **stream)["events"] == []
    for other in (arn.replace("arn:aws:", "arn:aws-cn:"), arn.replace(ACCOUNT, "999999999999")):
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            logs.get_log_events(logGroupIdentifier=other, **stream)


def test_a_job_needs_the_permission_for_every_device(door: Door) -> None:
    person = Person(door, statement("panorama:CreateJobForDevices", f"{PANORAMA}:device/device-a"))
    client = person.client("panorama")
    with pytest.raises(ClientError, match="device-a") as caught:
        client.create_job_for_devices(DeviceIds=["device-a"], JobType="REBOOT")
    assert caught.value.response["Error"]["Code"] != "AccessDeniedException"


def test_who_may_not_call_learns_nothing_of_what_is_wrong(door: Door) -> None:
    client = Person(door, statement("s3:GetObject")).client("panorama")
    refused(lambda: client.create_package(PackageName="x" * 200))


def until(probe: Callable[[], bool]) -> float:
    """Seconds until `probe` is true."""
    began = time.monotonic()
    while not probe():
        assert time.monotonic() - began < 40
    return time.monotonic() - began


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def test_a_disabled_or_deleted_key_and_a_changed_policy_count_within_a_second(door: Door) -> None:
    person = Person(door, statement("panorama:List*"))
    client = person.client("panorama")
    call = client.list_devices
    assert code_of(call) == ""
    key = person.keys[0]
    ask(door, "UpdateAccessKey", pb.UpdateAccessKeyRequest(access_key_id=key, active=False))
    assert until(lambda: code_of(call) == "UnrecognizedClientException") < AT_ONCE_S
    ask(door, "UpdateAccessKey", pb.UpdateAccessKeyRequest(access_key_id=key, active=True))
    assert until(lambda: code_of(call) == "") < AT_ONCE_S
    no = json.dumps({"Statement": statement("panorama:*", effect="Deny")})
    ask(door, "UpdatePolicy", pb.UpdatePolicyRequest(policy_arn=person.policy, policy_document=no))
    assert until(lambda: code_of(call) == "AccessDeniedException") < AT_ONCE_S
    ask(door, "DetachPolicy", pb.DetachPolicyRequest(policy_arn=person.policy, user_name=person.name))
    everything = "arn:aws:iam::aws:policy/AWSPanoramaFullAccess"
    ask(door, "AttachPolicy", pb.AttachPolicyRequest(policy_arn=everything, user_name=person.name))
    assert until(lambda: code_of(call) == "") < AT_ONCE_S
    ask(door, "DeleteAccessKey", pb.DeleteAccessKeyRequest(access_key_id=key))
    assert until(lambda: code_of(call) == "UnrecognizedClientException") < AT_ONCE_S


def test_a_role_is_assumed_by_whom_its_trust_policy_names_and_limits_him(door: Door) -> None:
    person, other = Person(door, statement("panorama:*")), Person(door, statement("panorama:*"))
    trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": person.arn}}]}
    request = pb.CreateRoleRequest(role_name="trusting", assume_role_policy_document=json.dumps(trust))
    role = ask(door, "CreateRole", request).role.arn
    reads = "arn:aws:iam::aws:policy/belvedere/BelvedereReadOnly"
    ask(door, "AttachPolicy", pb.AttachPolicyRequest(policy_arn=reads, role_name="trusting"))
    given = person.client("sts").assume_role(RoleArn=role, RoleSessionName="night-shift")["Credentials"]
    keys = (given["AccessKeyId"], given["SecretAccessKey"])
    client = door.client("panorama", keys=keys, token=given["SessionToken"])
    client.list_devices()
    assert "assumed-role/trusting/night-shift is not authorized" in refused(
        lambda: client.create_package(PackageName="no")
    )
    assert "no resource-based policy allows the sts:AssumeRole action" in refused(
        lambda: other.client("sts").assume_role(RoleArn=role, RoleSessionName="night-shift")
    )
    ask(door, "DeleteRole", pb.DeleteRoleRequest(role_name="trusting"))
    assert until(lambda: code_of(client.list_devices) == "UnrecognizedClientException") < AT_ONCE_S


def test_a_role_for_an_application_must_be_there_trust_panorama_and_be_the_callers_to_give(door: Door) -> None:
    trust = json.dumps({"Statement": {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ACCOUNT}}})
    people_only = ask(door, "CreateRole", pb.CreateRoleRequest(role_name="people", assume_role_policy_document=trust))
    application = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"

    def create(client: Any, role: str) -> Any:
        manifest = {"PayloadData": "{}"}
        return client.create_application_instance(
            DefaultRuntimeContextDevice="device-a", ManifestPayload=manifest, RuntimeRoleArn=role
        )

    admin = door.client("panorama")
    for role, text in [(people_only.role.arn, "does not let panorama"), (application + "x", "There is no role")]:
        with pytest.raises(ClientError, match=text) as caught:
            create(admin, role)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert caught.value.response["Fields"][0]["Name"] == "RuntimeRoleArn"
    person = Person(door, statement("panorama:*"))
    assert refused(lambda: create(person.client("panorama"), application)) == (
        f"User: {person.arn} is not authorized to perform: iam:PassRole on resource: {application} "
        "because no identity-based policy allows the iam:PassRole action"
    )
    passing = Person(
        door,
        statement("panorama:*"),
        statement("iam:PassRole", Condition={"StringEquals": {"iam:PassedToService": "panorama.amazonaws.com"}}),
    )
    with pytest.raises(ClientError) as caught:
        create(passing.client("panorama"), application)
    assert caught.value.response["Error"]["Code"] != "AccessDeniedException"


def test_every_call_leaves_a_line_in_the_audit_trail(door: Door) -> None:
    person = Person(door, statement("panorama:ListDevices"))
    client = person.client("panorama")
    person.client("sts").get_caller_identity()
    allowed = client.list_devices()["ResponseMetadata"]["RequestId"]
    refused(lambda: client.delete_device(DeviceId="device-b"))
    answer = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(user_name=person.name))
    lines = [(e.action, e.resource, e.allowed, e.source_address) for e in reversed(answer.entries)]
    assert lines == [
        ("sts:GetCallerIdentity", "*", True, "127.0.0.1"),
        ("panorama:ListDevices", "*", True, "127.0.0.1"),
        ("panorama:DeleteDevice", f"{PANORAMA}:device/device-b", False, "127.0.0.1"),
    ]
    assert answer.entries[1].request_id == allowed and answer.entries[0].principal == person.arn
    denied = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(user_name=person.name, denied_only=True))
    assert [entry.action for entry in denied.entries] == ["panorama:DeleteDevice"]
    assumed = person.client("sts")
    role = "arn:aws:iam::123456789012:role/BelvedereApplication"
    refused(lambda: assumed.assume_role(RoleArn=role, RoleSessionName="ab"))
    with pytest.raises(ClientError):
        person.client("sns").list_topics()
    lines = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(user_name=person.name)).entries
    assert [(e.action, e.resource, e.allowed, e.source_address) for e in reversed(lines)][3:] == [
        ("sts:AssumeRole", role, False, "127.0.0.1"),
        ("sns:ListTopics", "*", False, "127.0.0.1"),
    ]
    (key,) = ask(door, "ListAccessKeys", pb.ListAccessKeysRequest(user_name=person.name)).access_keys
    assert key.active and key.last_used_service in ("panorama", "sts", "sns") and key.HasField("last_used_time")


def test_who_takes_on_a_role_leaves_one_line_for_it(door: Door) -> None:
    person = Person(door, statement("sts:AssumeRole"))
    role = "arn:aws:iam::123456789012:role/BelvedereApplication"
    answer = person.client("sts").assume_role(RoleArn=role, RoleSessionName="ab")
    (line,) = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(user_name=person.name)).entries
    assert (line.action, line.allowed, line.source_address) == ("sts:AssumeRole", True, "127.0.0.1")
    assert line.request_id == answer["ResponseMetadata"]["RequestId"]


def test_who_proves_nothing_leaves_a_line_with_the_key_that_was_named(door: Door) -> None:
    key = "AKIANOBODYKNOWSIT000"
    for service, operation in (("panorama", "list_devices"), ("s3", "list_buckets"), ("logs", "describe_log_groups")):
        with pytest.raises(ClientError):
            getattr(door.client(service, keys=(key, "secret")), operation)()
    with pytest.raises(ClientError):
        door.client("panorama", keys=(door.access_key_id, "not his secret")).list_devices()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{door.url}/devices", timeout=20)
    lines = ask(door, "ListAuditEntries", pb.ListAuditEntriesRequest(denied_only=True, max_results=5)).entries
    assert [(e.principal, e.action, e.resource, e.source_address) for e in reversed(lines)] == [
        (f"unproven/{key}", "panorama:ListDevices", "*", "127.0.0.1"),
        (f"unproven/{key}", "s3:ListAllMyBuckets", "*", "127.0.0.1"),
        (f"unproven/{key}", "logs:DescribeLogGroups", "*", "127.0.0.1"),
        (f"unproven/{door.access_key_id}", "panorama:ListDevices", "*", "127.0.0.1"),
        ("unproven", "panorama:ListDevices", "*", "127.0.0.1"),
    ]
