"""Stacks through boto3: roles and alarms from templates as AWS's sample applications bring them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.cloudformation.template import PSEUDO, Scope, TemplateError, evaluate, parse
from tests.services.gateway.persons import Person, statement
from tests.support.cloud import ACCOUNT, REGION
from tests.support.front_door import Door

APPLICATION = """
AWSTemplateFormatVersion: 2010-09-09
Description: Resources for an application.
Parameters:
  Team: {Type: String, Default: vision}
Resources:
  runtimeRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: 2012-10-17
        Statement:
          - Effect: Allow
            Principal:
              Service:
                - panorama.amazonaws.com
            Action:
              - sts:AssumeRole
      Policies:
        - PolicyName: cloudwatch-putmetrics
          PolicyDocument:
            Version: 2012-10-17
            Statement:
              - Effect: Allow
                Action: 'cloudwatch:PutMetricData'
                Resource: '*'
      ManagedPolicyArns: [arn:aws:iam::aws:policy/belvedere/BelvedereApplicationAccess]
      Path: /service-role/
Outputs:
  roleArn:
    Description: The role
    Value: !GetAtt runtimeRole.Arn
  place:
    Value: !Sub '${AWS::StackName}/${AWS::Region}/${Team}/${!kept}/${runtimeRole.Arn}'
"""
ALARM = """
Parameters: {Device: {Type: String}}
Resources:
  active:
    Type: AWS::CloudWatch::Alarm
    Properties:
      AlarmDescription: !Join [' ', [no sign of, !Ref Device]]
      Namespace: PanoramaDeviceMetrics
      MetricName: DeviceActive
      Dimensions: [{Name: DeviceId, Value: !Ref Device}]
      Statistic: Sum
      Period: 60
      EvaluationPeriods: 5
      DatapointsToAlarm: 5
      Threshold: %s
      ComparisonOperator: LessThanThreshold
      TreatMissingData: breaching
Outputs: {alarm: {Value: !Ref active}}
"""


@pytest.fixture
def stacks(door: Door) -> Any:
    return door.client("cloudformation")


@pytest.fixture
def name() -> str:
    return f"stack-{uuid.uuid4().hex[:8]}"


def deploy(stacks: Any, name: str, template: str, kind: str, **parameters: str) -> None:
    """What `aws cloudformation deploy` does, with its waits."""
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    change = stacks.create_change_set(
        StackName=name, ChangeSetName="deploy", ChangeSetType=kind, TemplateBody=template, Parameters=given,
        Capabilities=["CAPABILITY_IAM"],
    )  # fmt: skip
    waited = {"ChangeSetName": change["Id"], "StackName": name, "WaiterConfig": {"MaxAttempts": 1, "Delay": 1}}
    stacks.get_waiter("change_set_create_complete").wait(**waited)
    stacks.execute_change_set(ChangeSetName=change["Id"], StackName=name)
    waiter = stacks.get_waiter(f"stack_{kind.lower()}_complete")
    waiter.wait(StackName=name, WaiterConfig={"MaxAttempts": 1, "Delay": 1})


def outputs(stacks: Any, name: str) -> dict[str, str]:
    (stack,) = stacks.describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def test_a_samples_role_is_made_changed_used_and_deleted(door: Door, stacks: Any, name: str) -> None:
    with pytest.raises(ClientError, match=f"Stack with id {name} does not exist"):
        stacks.describe_stacks(StackName=name)
    deploy(stacks, name, APPLICATION, "CREATE")
    found = outputs(stacks, name)
    role = found["roleArn"]
    assert role.startswith(f"arn:aws:iam::{ACCOUNT}:role/{name}-runtimeRole-")
    assert found["place"] == f"{name}/{REGION}/vision/${{kept}}/{role}"
    given = door.client("sts")
    with pytest.raises(ClientError, match="AccessDenied"):
        given.assume_role(RoleArn=role, RoleSessionName="session")
    with pytest.raises(ClientError) as caught:
        door.client("panorama").create_application_instance(
            DefaultRuntimeContextDevice="device-a", ManifestPayload={"PayloadData": "{}"}, RuntimeRoleArn=role
        )
    assert "RuntimeRoleArn" not in json.dumps(caught.value.response["Fields"])
    for_people = APPLICATION.replace("- panorama.amazonaws.com", "- panorama.amazonaws.com\n              AWS: '*'")
    deploy(stacks, name, for_people.replace("vision", "retail"), "UPDATE")
    assert outputs(stacks, name)["place"].split("/")[2] == "retail"
    session = given.assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    keys = (session["AccessKeyId"], session["SecretAccessKey"])
    metrics = door.client("cloudwatch", keys=keys, token=session["SessionToken"])
    metrics.put_metric_data(Namespace="N", MetricData=[{"MetricName": "m", "Value": 1}])
    change = stacks.create_change_set(
        StackName=name, ChangeSetName="same", UsePreviousTemplate=True, Capabilities=["CAPABILITY_IAM"]
    )
    same = stacks.describe_change_set(ChangeSetName=change["Id"])
    assert (same["Status"], same["Changes"]) == ("FAILED", []) and "didn't contain changes" in same["StatusReason"]
    stacks.delete_stack(StackName=name)
    with pytest.raises(ClientError, match=r"AccessDenied|no role"):
        given.assume_role(RoleArn=role, RoleSessionName="session")


def test_an_alarm_of_a_template_is_one_of_cloudwatch(door: Door, stacks: Any, name: str) -> None:
    deploy(stacks, name, ALARM % "1", "CREATE", Device="device-a")
    alarm = outputs(stacks, name)["alarm"]
    cloudwatch = door.client("cloudwatch")
    (found,) = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    assert (found["Threshold"], found["AlarmDescription"]) == (1.0, "no sign of device-a")
    deploy(stacks, name, ALARM % "2", "UPDATE", Device="device-a")
    (found,) = cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
    assert (found["Threshold"], found["AlarmName"]) == (2.0, alarm)
    stacks.delete_stack(StackName=name)
    assert cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"] == []


def test_what_cannot_be_made_is_taken_back_with_the_reason(door: Door, stacks: Any, name: str) -> None:
    broken = APPLICATION.replace("BelvedereApplicationAccess", "NoSuchPolicy")
    stacks.create_stack(StackName=name, TemplateBody=broken, Capabilities=["CAPABILITY_IAM"])
    (stack,) = stacks.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE" and "NoSuchPolicy" in stack["StackStatusReason"]
    events = stacks.describe_stack_events(StackName=name)["StackEvents"]
    assert events[-1]["LogicalResourceId"] == "runtimeRole" and events[-1]["ResourceStatus"] == "CREATE_FAILED"
    stacks.delete_stack(StackName=name)


def test_who_may_make_no_roles_makes_none_with_a_template(door: Door, name: str) -> None:
    client = Person(door, statement("cloudformation:*")).client("cloudformation")
    client.create_stack(StackName=name, TemplateBody=APPLICATION, Capabilities=["CAPABILITY_IAM"])
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "not authorized to perform: iam:CreateRole" in stack["StackStatusReason"]
    with pytest.raises(ClientError, match="AccessDenied"):
        Person(door, statement("iam:*")).client("cloudformation").describe_stacks(StackName=name)


def test_a_template_with_what_is_not_served_makes_nothing(stacks: Any, name: str) -> None:
    topic = "Resources: {topic: {Type: AWS::SNS::Topic}}"
    with pytest.raises(ClientError, match="not served here: AWS::SNS::Topic") as caught:
        stacks.create_stack(StackName=name, TemplateBody=topic)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="CAPABILITY_IAM"):
        stacks.create_stack(StackName=name, TemplateBody=APPLICATION)
    assert name not in {stack["StackName"] for stack in stacks.describe_stacks()["Stacks"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unsupported structure"),
        ("{", "not well-formed"),
        ("Resources: {}", "At least one"),
        ("a: &x [1]\nResources: *x", "aliases"),
        ("Resources: {a: {Type: T, Properties: {x: !Ref b}}}", r"\[b\] in Resources/a"),
        (
            "Resources: {a: {Type: T, Properties: {x: !Ref b}}, b: {Type: T, Properties: {x: !GetAtt a.Arn}}}",
            "Circular",
        ),
        ("Resources: {a: {Type: T, Properties: {x: {Fn::Select: [0, [1]]}}}}", "Fn::Select"),
        ("Resources: {a: {Type: T, Properties: {x: !If [a, b, c]}}}", "!If"),
        ("Resources: {a: {Type: T, Properties: {x: !GetAtt b}}}", "wrong argument"),
        ("Resources: {a: {Type: T, Condition: c}}", "Condition is not served"),
        ("Resources: {a: {Properties: {}}}", "Type"),
        ("Resources: {a: 5}", "must be an object"),
        ("Transform: x\nResources: {a: {Type: T}}", "Transform"),
        ("Resources: " + "[" * 5000, "nested too deeply|not well-formed"),
        ("Resources: {a: {Type: T}}\nOutputs: {o: {Value: !Sub '${c}'}}", "Outputs/o"),
    ],
)
def test_a_template_that_is_none_says_why(text: str, reason: str) -> None:
    with pytest.raises(TemplateError, match=reason):
        parse(text)


LEAVES = st.sampled_from(
    ["a", "b", "AWS::Region", "${a}", "${a.b}", "${!a}", "${", "Ref", "Fn::Sub", "", "AWS::IAM::Role", "a.Arn"]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Ref", "Fn::GetAtt", "Fn::Sub", "Fn::Join", "a", "Type", "Properties", "Value"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)
TEMPLATES = st.fixed_dictionaries(
    {},
    optional={
        "Resources": st.dictionaries(
            st.sampled_from(["a", "b"]), st.fixed_dictionaries({"Type": LEAVES}, optional={"Properties": TREES}) | TREES
        ),
        "Outputs": st.dictionaries(st.sampled_from(["a", "b"]), TREES),
        "Parameters": st.dictionaries(st.sampled_from(["a", "p"]), TREES),
        "Description": TREES,
    },
)


@settings(max_examples=100)
@given(TEMPLATES.map(json.dumps) | st.text(max_size=60))
def test_a_template_is_good_to_the_end_or_refused(text: str) -> None:
    try:
        template = parse(text)
        scope = Scope({**dict.fromkeys(PSEUDO, "x"), **template.values(dict.fromkeys(template.parameters, "v"))})
        for name in template.order:
            evaluate(template.resources[name].properties, scope)
            scope.refs[name] = name
            scope.attributes[name, "Arn"] = name
        for output in template.outputs.values():
            evaluate(output["Value"], scope)
    except TemplateError as error:
        assert str(error)
