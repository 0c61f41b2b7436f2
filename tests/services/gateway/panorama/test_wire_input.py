"""All 34 operations over the wire, with values generated from the API model: whatever comes, an answer of the declared shape,
and nothing half-made.

`FUZZ_EXAMPLES=500 .venv/bin/pytest …` tries more than the few of every run.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belvedere.awsmodel import Operation, Shape, panorama
from tests.services.gateway.panorama.test_input import call_for
from tests.services.gateway.panorama.values import operations, valid, wrong
from tests.services.gateway.wire import Answer, send
from tests.support import databases, graphs
from tests.support.front_door import Door, front_door

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
FUZZ = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
PASSING = {
    "audit",
    "audit_further",
    "outbox",
    "alembic_version",
    "login_token",
    "console_session",
    "sqlite_sequence",
    "access_key",
}
"""Tables of what passes by, whatever the answer."""
LATER = {"logs_metrics.device"}
"""Filled by events, some time after the answer."""
KNOWN: dict[str, list[str]] = {}
"""Shape → names of things that are there."""
TEXTS = [
    "",
    "a",
    "packageName/fuzz-code",
    "packageName/none",
    "1.0",
    "sha256:" + "0" * 64,
    "../..",
    "%2e",
    "*",
    "{}",
    "ä ö",
]
DOCUMENTS = [
    json.dumps(document)
    for document in (graphs.manifest(), graphs.overrides("fuzz-camera"), graphs.overrides(), {"nodeGraph": {}}, [], 5)
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A cloud of its own, with something of everything in it."""
    with front_door(tmp_path_factory.mktemp("fuzzed")) as door:
        client = door.client("panorama")
        device = client.provision_device(Name="fuzz-device")
        package = client.create_package(PackageName="fuzz-code")
        job = client.create_job_for_devices(DeviceIds=[device["DeviceId"]], JobType="REBOOT")["Jobs"][0]["JobId"]
        template = client.create_node_from_template_job(
            TemplateType="RTSP_CAMERA_STREAM",
            OutputPackageName="fuzz-camera",
            OutputPackageVersion="1.0",
            NodeName="fuzz-camera",
            TemplateParameters={"StreamUrl": "rtsp://192.0.2.1/stream"},
        )["JobId"]
        (node,) = client.list_nodes(PackageName="fuzz-camera")["Nodes"]
        KNOWN.update(
            DeviceId=[device["DeviceId"]],
            DefaultRuntimeContextDevice=[device["DeviceId"]],
            DeviceName=["fuzz-device"],
            NodePackageId=[package["PackageId"], node["PackageId"], "packageName/fuzz-code"],
            NodePackageName=["fuzz-code", "fuzz-camera"],
            NodePackageVersion=["1.0"],
            NodePackagePatchVersion=[node["PatchVersion"]],
            NodeId=[node["NodeId"]],
            JobId=[job, template],
            ResourceArn=[device["Arn"], package["Arn"]],
            ManifestPayloadData=DOCUMENTS,
            ManifestOverridesPayloadData=DOCUMENTS,
        )
        yield door


def near(shape: Shape) -> st.SearchStrategy[Any]:
    """Mostly what the operation takes, of things that are there where it names one; now and then anything else."""
    return st.integers(0, 9).flatmap(lambda n: wrong(shape) if n == 0 else fitting(shape))


def fitting(shape: Shape) -> st.SearchStrategy[Any]:
    match shape.type:
        case "structure":
            required = {m.name: near(m.shape) for m in shape.members.values() if m.required}
            optional = {m.name: near(m.shape) for m in shape.members.values() if not m.required}
            return st.fixed_dictionaries(required, optional=optional)
        case "list" if shape.element is not None:
            return st.lists(near(shape.element), max_size=3)
        case "string" if not shape.enum:
            known = KNOWN.get(shape.name, [])
            return st.sampled_from(known * 3 + TEXTS) if known else st.sampled_from(TEXTS) | valid(shape)
    return valid(shape)


def rows(door: Door) -> dict[str, int]:
    """How many there are in each table of each service."""
    found: dict[str, int] = {}
    for file in sorted(door.cloud.runtime.paths.db.glob("*.sqlite3")):
        with sqlite3.connect(file) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in names:
                if name not in PASSING and f"{file.stem}.{name}" not in LATER:
                    counted = connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()
                    found[f"{file.stem}.{name}"] = counted[0]
        connection.close()
    return found


def declared(operation: Operation, answer: Answer) -> None:
    """The answer is one that the model has for the operation."""
    assert answer.status < 500, answer.body
    if answer.status == 200:
        return
    code = answer.headers["x-amzn-errortype"]
    shape = panorama().shapes[code]
    # AWS's common errors name this one for every action; some declare nothing for what is wrong.
    assert operation.declares(code) or code == "ValidationException", (operation.name, code)
    assert answer.status == shape.http_status
    body = answer.json
    assert {member.wire_name for member in shape.members.values() if member.required} <= set(body)
    assert "Traceback" not in answer.body.decode() and "sqlalchemy" not in answer.body.decode()


@FUZZ
@given(st.data())
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_whatever_comes_is_answered_and_what_is_refused_leaves_nothing(
    fuzzed: Door, operation: Operation, data: st.DataObject
) -> None:
    assert operation.input is not None
    values = data.draw(fitting(operation.input))
    call = call_for(operation, values)
    before = rows(fuzzed)
    path = f"{call.path}?{call.http.query}" if call.http.query else call.path
    answer = send(fuzzed, operation.method, path, body=call.body, headers={"Content-Type": "application/json"})
    declared(operation, answer)
    if answer.status != 200 and databases.server is None:
        assert rows(fuzzed) == before


BODIES = {
    "broken": b'{"Name": "a"',
    "a list": b"[]",
    "a null": b"null",
    "deep": b"[" * 50_000,
    "not UTF-8": b'{"Name": "\xff"}',
    "ten megabytes": b'{"Name": "' + b"x" * (10 << 20) + b'"}',
}


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_bodies_that_are_no_input_are_refused_by_every_operation_that_reads_one(
    fuzzed: Door, operation: Operation
) -> None:
    assert operation.input is not None
    path = call_for(operation, {m.name: "a" for m in operation.input.members.values() if m.location == "uri"}).path
    reads = any(member.location == "body" for member in operation.input.members.values())
    for name, body in BODIES.items():
        if len(body) > 1 << 20 and not reads and operation.name != "ListDevices":
            # Who reads no body refuses it in one place for all of them.
            continue
        answer = send(fuzzed, operation.method, path, body=body, headers={"Content-Type": "application/json"})
        declared(operation, answer)
        if reads:
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException"), name


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_another_method_or_path_is_another_operation_or_none(fuzzed: Door, operation: Operation) -> None:
    assert operation.input is not None
    path = call_for(operation, {m.name: "a" for m in operation.input.members.values() if m.location == "uri"}).path
    for method, where in (("PATCH", path), ("OPTIONS", path), (operation.method, f"{path}/x/y"), ("TRACE", path)):
        answer = send(fuzzed, method, where)
        assert answer.status == 400, (method, where, answer.body)
        assert answer.json.get("Reason") == "UNKNOWN_OPERATION", (method, where, answer.body)


@pytest.mark.parametrize("part", ["package-dependencies", "node-instances"])
def test_lists_that_declare_nothing_for_it_say_what_is_wrong_as_every_action_may(fuzzed: Door, part: str) -> None:
    path = f"/application-instances/applicationInstance-{'a' * 26}/{part}"
    for query in ("", "?maxResults=26", "?nextToken=none"):
        answer = send(fuzzed, "GET", path + query)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "ValidationException"), query
        assert answer.json["Reason"] in ("OTHER", "FIELD_VALIDATION_FAILED") and answer.json["Message"]
