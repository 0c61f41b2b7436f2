"""The protocols of AWS's RPC services: awsJson, smithy-rpc-v2-cbor, query. Each reads a request, writes its answer, and
writes its errors, all from a service model.

Pure. Which one a request speaks is in its headers.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import cbor2

from belvedere import jsontext
from belvedere.awsmodel import Operation, ServiceModel, Shape
from services.gateway import naming, query
from services.gateway.errors import AuthError, AuthKind, AwsError, GatewayError
from services.gateway.message import API_BODY_MAX, Call, Reply
from services.gateway.validation import Problems

AUTH_CODES: Mapping[AuthKind, tuple[str, int]] = {
    AuthKind.MISSING: ("MissingAuthenticationTokenException", 403),
    AuthKind.INCOMPLETE: ("IncompleteSignatureException", 403),
    AuthKind.UNSUPPORTED: ("IncompleteSignatureException", 403),
    AuthKind.UNKNOWN_KEY: ("UnrecognizedClientException", 403),
    AuthKind.EXPIRED_TOKEN: ("ExpiredTokenException", 403),
    AuthKind.MISMATCH: ("InvalidSignatureException", 403),
    AuthKind.SKEWED: ("InvalidSignatureException", 403),
    AuthKind.EXPIRED_URL: ("InvalidSignatureException", 403),
    AuthKind.DENIED: ("AccessDeniedException", 403),
}
QUERY_AUTH_CODES: Mapping[AuthKind, tuple[str, int]] = {
    AuthKind.MISSING: ("MissingAuthenticationToken", 403),
    AuthKind.INCOMPLETE: ("IncompleteSignature", 400),
    AuthKind.UNSUPPORTED: ("IncompleteSignature", 400),
    AuthKind.UNKNOWN_KEY: ("InvalidClientTokenId", 403),
    AuthKind.EXPIRED_TOKEN: ("ExpiredToken", 403),
    AuthKind.MISMATCH: ("SignatureDoesNotMatch", 403),
    AuthKind.SKEWED: ("SignatureDoesNotMatch", 403),
    AuthKind.EXPIRED_URL: ("SignatureDoesNotMatch", 403),
    AuthKind.DENIED: ("AccessDenied", 403),
}
# The same error has another name in the query protocol; clients of both are told theirs.
QUERY_NAMES = {
    "InvalidParameterValueException": "InvalidParameterValue",
    "MissingRequiredParameterException": "MissingParameter",
    "UnknownOperationException": "InvalidAction",
    "InternalServerException": "InternalFailure",
    "InvalidParameterCombinationException": "InvalidParameterCombination",
    "InvalidFormatFault": "InvalidFormat",
    "LimitExceededFault": "LimitExceeded",
}
CBOR_DEPTH_MAX = 64


@dataclass(frozen=True)
class Request:
    """An operation's name, whether or not it is known, and its raw values."""

    operation: str
    values: Mapping[str, Any]
    problems: Problems


class Codec(Protocol):
    """One protocol."""

    def speaks(self, call: Call) -> bool:
        """Whether a request is in this protocol."""
        ...

    def operation(self, call: Call) -> str:
        """What it names as its operation, whatever its body is."""
        ...

    def read(self, call: Call, model: ServiceModel) -> Request:
        """Raises AwsError where the body cannot be parsed."""
        ...

    def write(self, call: Call, operation: Operation, output: Mapping[str, Any]) -> Reply: ...

    def failed(self, call: Call, error: GatewayError) -> Reply: ...


class JsonCodec:
    """awsJson1.0 and 1.1: X-Amz-Target names the operation."""

    def __init__(self, target_prefix: str, version: str) -> None:
        self._prefix = f"{target_prefix}."
        self._content_type = f"application/x-amz-json-{version}"

    def speaks(self, call: Call) -> bool:
        return bool(call.header("x-amz-target"))

    def operation(self, call: Call) -> str:
        target = call.header("x-amz-target")
        return target.removeprefix(self._prefix) if target.startswith(self._prefix) else ""

    def read(self, call: Call, model: ServiceModel) -> Request:
        target = call.header("x-amz-target")
        if not target.startswith(self._prefix):
            return Request(target, {}, Problems())
        try:
            values = jsontext.loads(decompressed(call) or b"{}", parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise AwsError("SerializationException", "The request body is not valid JSON.") from error
        if not isinstance(values, dict):
            raise AwsError("SerializationException", "The request body must be a JSON object.")
        return Request(target.removeprefix(self._prefix), values, Problems())

    def write(self, call: Call, operation: Operation, output: Mapping[str, Any]) -> Reply:
        body = json.dumps(output, ensure_ascii=False).encode() if operation.output else b""
        return Reply(200, {"Content-Type": self._content_type}, body)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        code, status = _code(error, AUTH_CODES)
        headers = {"Content-Type": self._content_type, "x-amzn-ErrorType": code, **_query_error(call, error)}
        return Reply(status, headers, json.dumps({"__type": code, "message": error.message}).encode())


class CborCodec:
    """smithy-rpc-v2-cbor: the path names the operation."""

    def __init__(self, service: str) -> None:
        self._front = f"/service/{service}/operation/"

    def speaks(self, call: Call) -> bool:
        return call.header("smithy-protocol") == "rpc-v2-cbor"

    def operation(self, call: Call) -> str:
        return call.path.removeprefix(self._front) if call.path.startswith(self._front) else ""

    def read(self, call: Call, model: ServiceModel) -> Request:
        if not call.path.startswith(self._front):
            return Request(call.path, {}, Problems())
        operation = call.path.removeprefix(self._front)
        body = decompressed(call)
        try:
            values = cbor2.loads(body, max_depth=CBOR_DEPTH_MAX) if body else {}
        except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, TypeError, MemoryError) as error:
            raise AwsError("SerializationException", "The request body is not valid CBOR.") from error
        if not isinstance(values, dict):
            raise AwsError("SerializationException", "The request body must be a CBOR map.")
        return Request(operation, values, Problems())

    def write(self, call: Call, operation: Operation, output: Mapping[str, Any]) -> Reply:
        values = _with_times(operation.output, output) if operation.output else {}
        return self._reply(200, values, {})

    def failed(self, call: Call, error: GatewayError) -> Reply:
        code, status = _code(error, AUTH_CODES)
        return self._reply(status, {"__type": code, "message": error.message}, _query_error(call, error))

    @staticmethod
    def _reply(status: int, values: Any, headers: Mapping[str, str]) -> Reply:
        body = cbor2.dumps(values, datetime_as_timestamp=True, timezone=UTC)
        return Reply(status, {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor", **headers}, body)


class QueryCodec:
    """The query protocol: a form with Action in, XML out."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def speaks(self, call: Call) -> bool:
        return True

    def operation(self, call: Call) -> str:
        try:
            return naming.action_of(decompressed(call), call.http.query) if naming.is_form(call) else ""
        except AwsError:
            return ""

    def read(self, call: Call, model: ServiceModel) -> Request:
        fields = query.form(decompressed(call), call.http.query)
        name = fields.get("Action", "")
        operation = model.operations.get(name)
        problems = Problems()
        values = query.nested(operation.input, fields, problems) if operation and operation.input else {}
        return Request(name, values, problems)

    def write(self, call: Call, operation: Operation, output: Mapping[str, Any]) -> Reply:
        body = query.answer(operation.name, self._namespace, operation.output, output, call.request_id)
        return Reply(200, {"Content-Type": "text/xml"}, body)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        code, status = _code(error, QUERY_AUTH_CODES)
        body = query.failure(self._namespace, QUERY_NAMES.get(code, code), error.message, status, call.request_id)
        return Reply(status, {"Content-Type": "text/xml"}, body)


def decompressed(call: Call) -> bytes:
    """The body without gzip (botocore compresses large PutMetricData). Raises AwsError above API_BODY_MAX bytes."""
    if call.header("content-encoding").lower() != "gzip":
        return call.body
    machine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = machine.decompress(call.body, API_BODY_MAX + 1)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise AwsError("SerializationException", "The request body is not valid gzip.") from error
    if len(plain) > API_BODY_MAX:
        raise AwsError("RequestEntityTooLargeException", f"The request body unpacks to over {API_BODY_MAX} bytes.", 413)
    return plain


def _code(error: GatewayError, auth_codes: Mapping[AuthKind, tuple[str, int]]) -> tuple[str, int]:
    if isinstance(error, AuthError):
        return auth_codes[error.kind]
    assert isinstance(error, AwsError)
    return error.code, error.status


def _query_error(call: Call, error: GatewayError) -> dict[str, str]:
    """For clients that were made for the query protocol and changed over."""
    if call.header("x-amzn-query-mode") != "true":
        return {}
    code, status = _code(error, QUERY_AUTH_CODES)
    who = "Sender" if status < 500 else "Receiver"
    return {"x-amzn-query-error": f"{QUERY_NAMES.get(code, code)};{who}"}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _with_times(shape: Shape, value: Any) -> Any:
    """CBOR has a type for times: epoch seconds become datetimes where the shape says so."""
    match shape.type:
        case "structure":
            return {n: _with_times(shape.members[n].shape, v) for n, v in value.items() if v is not None}
        case "list":
            assert shape.element is not None
            return [_with_times(shape.element, entry) for entry in value]
        case "timestamp":
            return datetime.fromtimestamp(value, UTC)
        case _:
            return value
