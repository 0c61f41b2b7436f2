"""What policies say: tables after AWS's documentation of the grammar ("IAM JSON policy elements", "Policy evaluation logic")."""

from __future__ import annotations

import time
from typing import Any

import pytest

from belvedere.chassis.errors import Invalid
from services.identity.policy import Decision, Request, decide, parse_policy, parse_text, parse_trust
from services.identity.policy.managed import DOCUMENTS, POLICIES

DEVICE = "arn:aws:panorama:us-east-1:123456789012:device/device-a"


def policy(*statements: dict[str, Any], version: str = "2012-10-17") -> dict[str, Any]:
    return {"Version": version, "Statement": list(statements)}


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {**allow(action, resource, **more), "Effect": "Deny"}


def says(documents: list[dict[str, Any]], action: str, resource: str = "*", **context: Any) -> Decision:
    known = {key.lower(): (value,) if isinstance(value, str) else tuple(value) for key, value in context.items()}
    return decide([parse_policy(document) for document in documents], Request(action, resource, known))


YES, NOTHING, NO = Decision.ALLOWED, Decision.NOTHING_ALLOWS, Decision.DENIED


@pytest.mark.parametrize(
    ("policies", "action", "resource", "expected"),
    [
        ([], "panorama:ListDevices", "*", NOTHING),
        ([policy(allow())], "panorama:ListDevices", "*", YES),
        ([policy(allow("panorama:list*"))], "panorama:ListDevices", "*", YES),
        ([policy(allow(["a:B", "panorama:ListDevice?"]))], "panorama:ListDevices", "*", YES),
        ([policy(allow("panorama:List"))], "panorama:ListDevices", "*", NOTHING),
        ([policy(allow("a:*", "arn:x/*"))], "a:B", "arn:x/y/z", YES),
        ([policy(allow("a:*", "arn:x/*"))], "a:B", "arn:X/y", NOTHING),
        ([policy(allow(), deny("a:Delete*"))], "a:DeleteThing", "*", NO),
        ([policy(deny("a:Delete*"), allow())], "a:DeleteThing", "*", NO),
        ([policy(allow()), policy(deny("a:*", "arn:x*"))], "a:B", "arn:xy", NO),
        ([policy(allow()), policy(deny("a:*", "arn:x*"))], "a:B", "arn:y", YES),
        ([{"Statement": allow("a:B")}], "a:B", "*", YES),
        ([policy(allow("a:[b]"))], "a:b", "*", NOTHING),
        ([policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})], "panorama:X", "*", YES),
        ([policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"})], "IAM:CreateUser", "*", NOTHING),
        ([policy({"Effect": "Deny", "NotAction": "panorama:*", "Resource": "*"}, allow())], "s3:GetObject", "*", NO),
        ([policy({"Effect": "Allow", "Action": "*", "NotResource": f"{DEVICE[:-1]}*"})], "a:B", DEVICE, NOTHING),
        ([policy({"Effect": "Allow", "Action": "*", "NotResource": f"{DEVICE[:-1]}*"})], "a:B", "arn:z", YES),
    ],
)
def test_a_deny_wins_then_an_allow_is_needed(
    policies: list[dict[str, Any]], action: str, resource: str, expected: Decision
) -> None:
    assert says(policies, action, resource) is expected


HOME = {"aws:SourceIp": "10.1.2.3"}


@pytest.mark.parametrize(
    ("condition", "context", "expected"),
    [
        ({"StringEquals": {"aws:username": "ada"}}, {"aws:username": "ada"}, True),
        ({"StringEquals": {"AWS:UserName": ["bob", "ada"]}}, {"aws:username": "ada"}, True),
        ({"StringEquals": {"aws:username": "ada"}}, {"aws:username": "Ada"}, False),
        ({"StringEquals": {"aws:username": "ada"}}, {}, False),
        ({"StringEquals": {"aws:username": "a*"}}, {"aws:username": "ada"}, False),
        ({"StringNotEquals": {"aws:username": ["bob", "ada"]}}, {"aws:username": "ada"}, False),
        ({"StringNotEquals": {"aws:username": ["bob", "eve"]}}, {"aws:username": "ada"}, True),
        ({"StringNotEquals": {"aws:username": "ada"}}, {}, True),
        ({"StringEqualsIgnoreCase": {"aws:username": "ADA"}}, {"aws:username": "ada"}, True),
        ({"StringNotEqualsIgnoreCase": {"aws:username": "ADA"}}, {"aws:username": "ada"}, False),
        ({"StringLike": {"aws:username": "a?a*"}}, {"aws:username": "adam"}, True),
        ({"StringNotLike": {"aws:username": "a*"}}, {"aws:username": "ada"}, False),
        ({"StringLikeIfExists": {"aws:username": "b*"}}, {}, True),
        ({"StringLikeIfExists": {"aws:username": "b*"}}, {"aws:username": "ada"}, False),
        ({"StringEquals": {"aws:ResourceTag/Site": "north"}}, {"aws:ResourceTag/site": "north"}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:panorama:*:123456789012:*"}}, {"aws:SourceArn": DEVICE}, True),
        ({"ArnEquals": {"aws:SourceArn": "arn:aws:panorama:*:*:device/*"}}, {"aws:SourceArn": DEVICE}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:*:device/device-a"}}, {"aws:SourceArn": DEVICE}, None),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:panorama:*"}}, {"aws:SourceArn": DEVICE}, None),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:s3:::*"}}, {"aws:SourceArn": DEVICE}, True),
        ({"ArnNotEquals": {"aws:SourceArn": DEVICE}}, {"aws:SourceArn": DEVICE}, False),
        ({"ArnLike": {"aws:SourceArn": DEVICE}}, {"aws:SourceArn": "no arn"}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, {"aws:SecureTransport": "true"}, True),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": "false"}, False),
        ({"Bool": {"aws:SecureTransport": "false"}}, {}, False),
        ({"BoolIfExists": {"aws:SecureTransport": "true"}}, {}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, HOME, True),
        ({"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "10.1.2.3"]}}, HOME, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, HOME, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "::ffff:10.1.2.3"}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {"aws:SourceIp": "2001:db8::1"}, True),
        ({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}, {"aws:SourceIp": "elsewhere"}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, HOME, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "192.0.2.1"}, True),
        ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": "10"}, True),
        ({"NumericGreaterThan": {"s3:max-keys": 10}}, {"s3:max-keys": "10"}, False),
        ({"NumericNotEquals": {"s3:max-keys": "7"}}, {"s3:max-keys": "8"}, True),
        ({"NumericEquals": {"s3:max-keys": "7"}}, {"s3:max-keys": "seven"}, False),
        (
            {"DateLessThan": {"aws:CurrentTime": "2026-12-24T00:00:00Z"}},
            {"aws:CurrentTime": "2026-11-22T05:00:00Z"},
            True,
        ),
        ({"DateGreaterThan": {"aws:CurrentTime": "1999-12-31"}}, {"aws:CurrentTime": "2026-11-22T05:00:00Z"}, True),
        ({"DateEquals": {"aws:EpochTime": "0"}}, {"aws:EpochTime": "1970-01-01T00:00:00Z"}, True),
        ({"Null": {"aws:username": "true"}}, {}, True),
        ({"Null": {"aws:username": "false"}}, {"aws:username": "ada"}, True),
        ({"Null": {"aws:username": True}}, {"aws:username": "ada"}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ["a"]}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ["a", "c"]}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}}, {}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {"aws:TagKeys": ["x", "ab"]}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "a*"}}, {}, False),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": "a"}}, {}, False),
        ({"StringEquals": {"aws:username": "ada", "aws:PrincipalType": "User"}}, {"aws:username": "ada"}, False),
        ({"StringLike": {"aws:username": "a*"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, HOME, False),
        ({}, {}, True),
    ],
)
def test_a_condition_holds_as_aws_says(condition: Any, context: dict[str, Any], expected: bool | None) -> None:
    document = policy(allow(Condition=condition))
    if expected is None:
        with pytest.raises(Invalid, match="must be an ARN"):
            parse_policy(document)
        return
    assert says([document], "a:B", **context) is (YES if expected else NOTHING)


@pytest.mark.parametrize(
    ("resource", "context", "asked", "expected"),
    [
        ("arn:aws:s3:::b/${aws:username}/*", {"aws:username": "ada"}, "arn:aws:s3:::b/ada/x", YES),
        ("arn:aws:s3:::b/${aws:username}/*", {"aws:username": "ada"}, "arn:aws:s3:::b/eve/x", NOTHING),
        ("arn:aws:s3:::b/${aws:username}/*", {"aws:username": "*"}, "arn:aws:s3:::b/eve/x", NOTHING),
        ("arn:aws:s3:::b/${aws:username}/*", {"aws:username": "*"}, "arn:aws:s3:::b/*/x", YES),
        ("arn:aws:s3:::b/${aws:username}/*", {}, "arn:aws:s3:::b//x", NOTHING),
        ("arn:aws:s3:::b/${aws:username, 'all'}/*", {}, "arn:aws:s3:::b/all/x", YES),
        ("arn:aws:s3:::b/${*}", {}, "arn:aws:s3:::b/*", YES),
        ("arn:aws:s3:::b/${*}", {}, "arn:aws:s3:::b/x", NOTHING),
        ("arn:aws:s3:::b/${$}{x}", {}, "arn:aws:s3:::b/${x}", YES),
        ("arn:aws:s3:::b/?${?}", {}, "arn:aws:s3:::b/a?", YES),
    ],
)
def test_variables_stand_for_what_the_request_has(resource: str, context: Any, asked: str, expected: Decision) -> None:
    assert says([policy(allow(resource=resource))], "s3:GetObject", asked, **context) is expected


def test_variables_in_conditions_and_none_in_the_older_language() -> None:
    statement = allow(Condition={"StringEquals": {"aws:ResourceTag/Owner": "${aws:username}"}})
    both = {"aws:username": "ada", "aws:ResourceTag/Owner": "ada"}
    assert says([policy(statement)], "a:B", **both) is YES
    assert says([policy(statement)], "a:B", **both | {"aws:username": "eve"}) is NOTHING
    assert says([policy(statement, version="2008-10-17")], "a:B", **both) is NOTHING
    arn = allow(Condition={"ArnLike": {"aws:SourceArn": "arn:aws:iam::1:user/${aws:username}"}})
    assert says([policy(arn)], "a:B", **{"aws:username": "ada", "aws:SourceArn": "arn:aws:iam::1:user/ada"}) is YES


@pytest.mark.parametrize(
    ("document", "places"),
    [
        (
            {"Statement": [allow("a:B", Condition={"StringSimilar": {"x": "y"}})]},
            ["Statement[0].Condition.StringSimilar"],
        ),
        ({"Statement": [allow("a:B", Condition={"StringEquals": "x"})]}, ["Statement[0].Condition.StringEquals"]),
        ({"Statement": [allow("a:B", Condition=[])]}, ["Statement[0].Condition"]),
        (
            {"Statement": [allow(Condition={"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "x"]}})]},
            ["Statement[0].Condition.IpAddress.aws:SourceIp"],
        ),
        ({"Statement": [allow(Condition={"Bool": {"k": "maybe"}})]}, ["Statement[0].Condition.Bool.k"]),
        ({"Statement": [allow(Condition={"NumericEquals": {"k": "x"}})]}, ["Statement[0].Condition.NumericEquals.k"]),
        ({"Statement": [allow(Condition={"DateEquals": {"k": "soon"}})]}, ["Statement[0].Condition.DateEquals.k"]),
        ({"Statement": [allow(Condition={"StringEquals": {"k": {}}})]}, ["Statement[0].Condition.StringEquals.k"]),
        ({"Statement": [allow(), {"Effect": "Maybe", "Action": "*", "Resource": "*"}]}, ["Statement[1].Effect"]),
        ({"Statement": [allow(7)]}, ["Statement[0].Action"]),
        ({"Statement": [allow("Describe*")]}, ["Statement[0].Action"]),
        ({"Statement": [{"Effect": "Allow", "Action": "*"}]}, ["Statement[0].Resource"]),
        ({"Statement": [allow(resource="device/x")]}, ["Statement[0].Resource"]),
        ({"Statement": [allow(NotAction="a:B")]}, ["Statement[0].Action"]),
        ({"Statement": [allow(Principal="*")]}, ["Statement[0].Principal"]),
        ({"Statement": [allow(Sid="a"), allow(Sid="a")]}, ["Statement[1].Sid"]),
        ({"Version": "2030-01-01", "Statement": []}, ["Version", "Statement"]),
        ({"Statement": "x", "Comment": ""}, ["Comment", "Statement"]),
        (
            {"Statement": ["x", {}]},
            ["Statement[0]", "Statement[1].Effect", "Statement[1].Action", "Statement[1].Resource"],
        ),
    ],
)
def test_everything_wrong_with_a_policy_is_told_at_once_with_its_place(document: Any, places: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse_policy(document)
    assert [place for place, _ in caught.value.fields] == places


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 9_000, " " * 20_000, '{"a": NaN', "1" * 5000]
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_text(text)


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}}, "Statement[0].Principal.AWS"),
        ({"Principal": {"Federated": "x"}}, "Statement[0].Principal.Federated"),
        ({"Principal": "panorama.amazonaws.com"}, "Statement[0].Principal"),
        ({}, "Statement[0].Principal"),
        ({"Principal": "*", "Resource": "*"}, "Statement[0].Resource"),
        ({"NotPrincipal": "*"}, "Statement[0].NotPrincipal"),
    ],
)
def test_a_trust_policy_must_say_whom_it_trusts(item: dict[str, Any], place: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_trust({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", **item}]})
    assert caught.value.fields[0][0] == place


def test_the_policies_that_are_there_from_the_start_allow_what_their_names_say() -> None:
    def allowed(name: str, action: str, resource: str = "*", **context: str) -> bool:
        arn = next(arn for arn in POLICIES if arn.endswith(f"/{name}"))
        return decide([POLICIES[arn]], Request(action, resource, {k: (v,) for k, v in context.items()})) is YES

    assert set(POLICIES) == set(DOCUMENTS)
    assert allowed("AdministratorAccess", "iam:DeleteUser")
    assert allowed("AWSPanoramaFullAccess", "panorama:DeleteDevice", DEVICE)
    assert allowed(
        "AWSPanoramaFullAccess", "iam:PassRole", "arn:x", **{"iam:passedtoservice": "panorama.amazonaws.com"}
    )
    assert not allowed("AWSPanoramaFullAccess", "iam:PassRole", "arn:x")
    assert allowed("AWSPanoramaFullAccess", "s3:PutObject", "arn:aws:s3:::panorama-123456789012-us-east-1/k")
    assert not allowed("AWSPanoramaFullAccess", "s3:PutObject", "arn:aws:s3:::other/k")
    assert allowed("BelvedereReadOnly", "panorama:DescribeDevice", DEVICE)
    assert not allowed("BelvedereReadOnly", "panorama:ProvisionDevice")
    assert not allowed("BelvedereReadOnly", "logs:PutLogEvents")
    assert allowed("BelvedereApplicationAccess", "cloudwatch:PutMetricData")
    assert not allowed("BelvedereApplicationAccess", "sts:AssumeRole")


def test_a_policy_full_of_wildcards_is_decided_at_once() -> None:
    document = policy(allow("a:*", "arn:aws:s3:::" + "*a" * 40 + "b"))
    began = time.process_time()
    assert says([document], "a:B", "arn:aws:s3:::" + "a" * 2_000) is NOTHING
    assert time.process_time() - began < 2
