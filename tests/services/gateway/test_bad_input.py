"""Logs and CloudWatch under requests made from their models, right and wrong, in every protocol: an answer or a 4xx of
the protocol's own shape, never a 500."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from belvedere import awsmodel
from belvedere.awsmodel import Operation, Shape
from services.gateway.cloudwatch import service as cloudwatch
from services.gateway.logs import service as logs
from tests.services.gateway.wire import Answer, send
from tests.support.front_door import Door

LOGS = awsmodel.load(Path(logs.__file__).parent / "model.json")
METRICS = awsmodel.load(Path(cloudwatch.__file__).parent / "model.json")
FUZZ = settings(max_examples=40, suppress_health_check=list(HealthCheck))
NOW = int(time.time())
# Names that are there, names that are not, and what no name can be.
TEXTS = ["/fuzz", "s", "none", "a", "", "x" * 2000, "ä ö\n", "\0", "%", "{ $.a = 1 }", "Zm9v", "f/1/2/3", "arn:aws:x"]
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(TEXTS),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["a", "Name", "Value"]), st.integers(), max_size=2),
)


def near(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that the shape takes most of the time."""
    return st.integers(0, 11).flatmap(lambda n: junk if n == 0 else fitting(shape))


def fitting(shape: Shape) -> st.SearchStrategy[Any]:
    """Values of the shape's own type."""
    match shape.type:
        case "structure":
            required = {m.wire_name: near(m.shape) for m in shape.members.values() if m.required}
            optional = {m.wire_name: near(m.shape) for m in shape.members.values() if not m.required}
            return st.fixed_dictionaries(required, optional=optional)
        case "list":
            assert shape.element is not None
            return st.lists(near(shape.element), min_size=min(shape.minimum or 0, 1), max_size=3)
        case "string":
            return st.sampled_from(shape.enum) if shape.enum else st.sampled_from(TEXTS)
        case "integer" | "long":
            return st.sampled_from([0, 1, 5, 60, 7, 10_000, NOW * 1000, NOW * 1000 + 1, -1, 2**31, 2**62])
        case "double":
            return st.sampled_from([0.0, 1.5, -3.0, 1e300, -1e300, 1e-300])
        case "timestamp":
            return st.sampled_from([NOW, NOW - 3600, NOW - 60, 0, 253_402_300_799, -1, 10**15])
        case "boolean":
            return st.booleans()
    raise AssertionError(f"inputs hold no {shape.type}")


def request_of(model: Any) -> st.SearchStrategy[tuple[Operation, Any]]:
    def with_input(operation: Operation) -> st.SearchStrategy[tuple[Operation, Any]]:
        assert operation.input is not None
        return st.tuples(st.just(operation), near(operation.input))

    return st.sampled_from(list(model.operations.values())).flatmap(with_input)


@pytest.fixture(scope="module", autouse=True)
def something_there(door: Door) -> None:
    client = door.client("logs")
    client.create_log_group(logGroupName="/fuzz")
    client.create_log_stream(logGroupName="/fuzz", logStreamName="s")
    event = {"timestamp": NOW * 1000, "message": '{"a": 1}'}
    client.put_log_events(logGroupName="/fuzz", logStreamName="s", logEvents=[event])


def check(answer: Answer, code: Any) -> None:
    assert answer.status == 200 or 400 <= answer.status < 500, answer.body
    if answer.status != 200:
        assert code() and answer.headers["x-amzn-requestid"]


def call_json(door: Door, service: str, prefix: str, operation: str, body: bytes) -> Answer:
    headers = {"X-Amz-Target": f"{prefix}.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    return send(door, "POST", "/", body=body, headers=headers, service=service)


def text_of(values: Any) -> bytes:
    """JSON, with NaN and lone surrogates as they come."""
    return json.dumps(values).encode()


@FUZZ
@given(asked=request_of(LOGS))
def test_logs_answer_any_json(door: Door, asked: tuple[Operation, Any]) -> None:
    answer = call_json(door, "logs", "Logs_20140328", asked[0].name, text_of(asked[1]))
    check(answer, lambda: answer.json["__type"])


@FUZZ
@given(asked=request_of(METRICS))
def test_cloudwatch_answers_any_json(door: Door, asked: tuple[Operation, Any]) -> None:
    answer = call_json(door, "monitoring", "GraniteServiceVersion20100801", asked[0].name, text_of(asked[1]))
    check(answer, lambda: answer.json["__type"])


def with_times(values: Any) -> Any:
    """Some of the numbers as CBOR's times."""
    if isinstance(values, dict):
        return {key: with_times(value) for key, value in values.items()}
    if isinstance(values, list):
        return [with_times(value) for value in values]
    return datetime.fromtimestamp(values, UTC) if values in (NOW, NOW - 60) else values


@FUZZ
@given(asked=request_of(METRICS))
def test_cloudwatch_answers_any_cbor(door: Door, asked: tuple[Operation, Any]) -> None:
    path = f"/service/GraniteServiceVersion20100801/operation/{asked[0].name}"
    headers = {"smithy-protocol": "rpc-v2-cbor", "Content-Type": "application/cbor"}
    answer = send(door, "POST", path, body=cbor2.dumps(with_times(asked[1])), headers=headers, service="monitoring")
    check(answer, lambda: cbor2.loads(answer.body)["__type"])


def form_of(values: Any, path: str = "") -> dict[str, str]:
    """The values as the query protocol spells them."""
    if isinstance(values, dict):
        return {k: v for name, inner in values.items() for k, v in form_of(inner, f"{path}.{name}".strip(".")).items()}
    if isinstance(values, list):
        return {k: v for n, inner in enumerate(values, 1) for k, v in form_of(inner, f"{path}.member.{n}").items()}
    if isinstance(values, bool):
        return {path: str(values).lower()}
    return {} if values is None else {path: str(values)}


@FUZZ
@given(asked=request_of(METRICS))
def test_cloudwatch_answers_any_form(door: Door, asked: tuple[Operation, Any]) -> None:
    body = urlencode({"Action": asked[0].name, **form_of(asked[1])}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = send(door, "POST", "/", body=body, headers=headers, service="monitoring")
    ElementTree.fromstring(answer.body)
    check(answer, lambda: answer.xml["Code"])


@FUZZ
@given(body=st.binary(max_size=60), kind=st.sampled_from(["json", "cbor", "form"]))
def test_no_bytes_break_a_reader(door: Door, body: bytes, kind: str) -> None:
    path, headers = {
        "json": ("/", {"X-Amz-Target": "GraniteServiceVersion20100801.PutMetricAlarm"}),
        "cbor": ("/service/GraniteServiceVersion20100801/operation/PutMetricData", {"smithy-protocol": "rpc-v2-cbor"}),
        "form": ("/", {"Content-Type": "application/x-www-form-urlencoded"}),
    }[kind]
    answer = send(door, "POST", path, body=body, headers=headers, service="monitoring")
    assert 400 <= answer.status < 500, answer.body
