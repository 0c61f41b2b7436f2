"""Checks of inputs, for every operation, with values generated from the API model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from belvedere.awsmodel import Operation, panorama
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.panorama.router import Router
from services.gateway.panorama.service import parse_input
from services.gateway.sigv4 import HttpRequest
from tests.services.gateway.panorama.values import operations, valid, wrong

ROUTER = Router(panorama().operations.values())
QUICK = settings(max_examples=20)


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def escaped(value: Any) -> str:
    return quote(text_of(value).encode("utf-8", "surrogatepass"), safe="")


def call_for(operation: Operation, values: dict[str, Any], body: bytes | None = None) -> Call:
    """The request that botocore's serializer would make of these values."""
    assert operation.input is not None
    path, query, document = operation.uri, [], {}
    for member in operation.input.members.values():
        value = values.get(member.name)
        if member.location == "uri":
            path = path.replace(f"{{{member.wire_name}}}", escaped(value))
        elif value is None:
            continue
        elif member.location == "querystring":
            query += [f"{member.wire_name}={escaped(v)}" for v in (value if isinstance(value, list) else [value])]
        else:
            document[member.wire_name] = value
    return raw_call(operation.method, path, "&".join(query), json.dumps(document).encode() if body is None else body)


def raw_call(method: str, path: str, query: str = "", body: bytes = b"") -> Call:
    async def chunks() -> AsyncIterator[bytes]:
        yield body

    async def authorize(call: Call, action: str, resource: str) -> None:
        return

    call = Call(HttpRequest(method, path, query, []), "id", "127.0.0.1", chunks, len(body), authorize)
    call.body = body
    return call


def parsed(call: Call) -> dict[str, Any]:
    match = ROUTER.match(call.method, call.path)
    assert match is not None
    return parse_input(match.operation, call, match.path_values)


def refused(call: Call) -> AwsError:
    with pytest.raises(AwsError) as caught:
        parsed(call)
    assert (caught.value.code, caught.value.status) == ("ValidationException", 400)
    return caught.value


@QUICK
@given(st.data())
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_every_valid_input_is_routed_and_comes_out_as_it_went_in(operation: Operation, data: st.DataObject) -> None:
    assert operation.input is not None
    values = data.draw(valid(operation.input))
    call = call_for(operation, values)
    match = ROUTER.match(call.method, call.path)
    assert match is not None and match.operation is operation
    assert parse_input(operation, call, match.path_values) == values


@QUICK
@given(st.data())
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_every_wrong_member_is_refused_by_name_and_all_at_once(operation: Operation, data: st.DataObject) -> None:
    assert operation.input is not None
    members = [m for m in operation.input.members.values() if m.location == "body"]
    values = data.draw(valid(operation.input))
    spoilt = data.draw(st.lists(st.sampled_from(members), unique_by=lambda m: m.name)) if members else []
    missing = {m.name for m in spoilt if m.required and data.draw(st.booleans())}
    for member in spoilt:
        values[member.name] = None if member.name in missing else data.draw(wrong(member.shape))
    call = call_for(operation, values)
    if not spoilt:
        assert parsed(call) == values
        return
    error = refused(call)
    named = {field["Name"].split(".")[0].split("[")[0] for field in error.members["Fields"]}
    assert error.members["Reason"] == "FIELD_VALIDATION_FAILED"
    assert {member.name for member in spoilt} <= named
    for member in spoilt:
        assert not member.shape.sensitive or text_of(values[member.name]) not in error.message


@QUICK
@given(st.data())
@pytest.mark.parametrize(
    "operation",
    [o for o in operations() if o.input and any(m.location != "body" for m in o.input.members.values())],
    ids=lambda operation: operation.name,
)
def test_every_wrong_path_and_query_value_is_refused_by_name(operation: Operation, data: st.DataObject) -> None:
    assert operation.input is not None
    elsewhere = [m for m in operation.input.members.values() if m.location != "body" and m.shape.type == "string"]
    if not elsewhere:
        return
    member = data.draw(st.sampled_from(elsewhere))
    values = data.draw(valid(operation.input))
    # In a path everything is text, and an empty segment is another path.
    value = data.draw(wrong(member.shape).filter(lambda v: isinstance(v, str) and v))
    error = refused(call_for(operation, values | {member.name: value}))
    assert member.name in [field["Name"] for field in error.members["Fields"]]


@settings(max_examples=150)
@given(
    st.sampled_from(operations()),
    st.binary(max_size=80)
    | st.text(max_size=80).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)
def test_no_body_breaks_the_reader(operation: Operation, body: bytes) -> None:
    assert operation.input is not None
    values = {m.name: "x" for m in operation.input.members.values() if m.location == "uri"}
    try:
        parsed(call_for(operation, values, body))
    except AwsError as error:
        assert error.code == "ValidationException"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"5", b"NaN", b'{"Name": NaN}', b"\xff", b"[" * 100_000, b"1" * 5000, b'"\\ud800"']
)
def test_a_body_that_is_no_json_object_cannot_be_parsed(body: bytes) -> None:
    assert refused(raw_call("POST", "/devices", body=body)).members["Reason"] == "CANNOT_PARSE"


def test_everything_wrong_is_told_in_one_message_with_its_place() -> None:
    body = {
        "Name": "bad name",
        "NetworkingConfiguration": {"Ethernet0": {"ConnectionType": "WIFI"}, "Ntp": {"NtpServers": ["-"] * 2}},
        "Tags": {"": "x", "k": None},
        "Unknown": 1,
    }
    error = refused(raw_call("POST", "/devices", body=json.dumps(body).encode()))
    assert [field["Name"] for field in error.members["Fields"]] == [
        "Name",
        "NetworkingConfiguration.Ethernet0.ConnectionType",
        "NetworkingConfiguration.Ntp.NtpServers[0]",
        "NetworkingConfiguration.Ntp.NtpServers[1]",
        "Tags. (key)",
        "Tags.k",
    ]
    assert "must be one of STATIC_IP, DHCP" in error.message


def test_a_union_takes_exactly_one_member() -> None:
    base = {"DefaultRuntimeContextDevice": "device-a"}
    for payload in ({}, {"PayloadData": None}):
        error = refused(
            raw_call("POST", "/application-instances", body=json.dumps(base | {"ManifestPayload": payload}).encode())
        )
        assert "exactly one of PayloadData" in error.message


def test_a_document_of_51200_characters_is_taken_and_one_more_is_not() -> None:
    for length, good in ((51_200, True), (51_201, False)):
        body = {"DefaultRuntimeContextDevice": "d", "ManifestPayload": {"PayloadData": "ä" * length}}
        call = raw_call("POST", "/application-instances", body=json.dumps(body).encode())
        if good:
            parsed(call)
        else:
            assert "51200 characters" in refused(call).message


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("PATCH", "/devices"),
        ("GET", "/devices/a/b"),
        ("GET", "/devices//"),
        ("GET", "*"),
        ("DELETE", "/devices"),
    ],
)
def test_what_is_no_operation_is_not_matched(method: str, path: str) -> None:
    match = ROUTER.match(method, path)
    assert match is None or match.path_values == {"DeviceId": ""}


def test_a_slash_inside_an_id_does_not_end_it() -> None:
    match = ROUTER.match("GET", "/packages/metadata/packageName%2Fcode1")
    assert match is not None and match.operation.name == "DescribePackage"
    assert match.path_values == {"PackageId": "packageName/code1"}
