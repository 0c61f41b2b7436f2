"""AWS's query protocol: a form in, XML out. Pure.

MetricData.member.1.Dimensions.member.1.Name=Camera  ↔  {"MetricData": [{"Dimensions": [{"Name": "Camera"}]}]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from belvedere.awsmodel import Shape
from services.gateway import xml
from services.gateway.errors import AwsError
from services.gateway.validation import Problems, scalar_from_text

FIELDS_MAX = 20_000
"""Of a form; CloudWatch's largest batch has 1,000 data with some ten fields each."""


def form(body: bytes, query: str) -> dict[str, str]:
    """The form's fields, from the body or (GET) the query. Raises AwsError(MalformedQueryString)."""
    try:
        text = body.decode() or query
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError as error:
        raise AwsError("MalformedQueryString", "The form is not valid.") from error


def nested(shape: Shape, fields: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    """The structure that a form spells, as JSON would have it."""
    tree: dict[str, Any] = {}
    for name, value in fields.items():
        place = tree
        *front, last = name.split(".")
        for part in front:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place.setdefault(last, value)
    found = _value(shape, tree, "", problems)
    return found if isinstance(found, dict) else {}


def _value(shape: Shape, node: Any, path: str, problems: Problems) -> Any:
    match shape.type:
        case "structure":
            if not isinstance(node, dict):
                return node
            return {
                name: _value(member.shape, node[member.wire_name], f"{path}.{name}" if path else name, problems)
                for name, member in shape.members.items()
                if member.wire_name in node
            }
        case "list":
            if not isinstance(node, dict):
                return [] if node == "" else node
            assert shape.element is not None
            entries = node.get("member", node)
            if not isinstance(entries, dict):
                return entries
            numbered = sorted((int(key), entry) for key, entry in entries.items() if re.fullmatch(r"[0-9]{1,6}", key))
            return [_value(shape.element, entry, f"{path}[{i}]", problems) for i, (_, entry) in enumerate(numbered)]
        case _:
            return scalar_from_text(shape, node, path, problems) if isinstance(node, str) else node


def answer(operation: str, namespace: str, shape: Shape | None, output: Mapping[str, Any], request_id: str) -> bytes:
    """The XML of a successful answer."""
    content: list[tuple[str, xml.Content]] = []
    if shape is not None:
        content.append((f"{operation}Result", _written(shape, output)))
    content.append(("ResponseMetadata", [("RequestId", request_id)]))
    return xml.document(f"{operation}Response", namespace, content)


def _written(shape: Shape, value: Any) -> xml.Content:
    match shape.type:
        case "structure":
            return [
                (member.wire_name, _written(member.shape, value[name]))
                for name, member in shape.members.items()
                if value.get(name) is not None
            ]
        case "list":
            assert shape.element is not None
            return [("member", _written(shape.element, entry)) for entry in value]
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            return str(value)


def failure(namespace: str, code: str, message: str, status: int, request_id: str) -> bytes:
    """The XML of an error."""
    who = "Sender" if status < 500 else "Receiver"
    error = [("Type", who), ("Code", code), ("Message", message)]
    return xml.document("ErrorResponse", namespace, [("Error", error), ("RequestId", request_id)])
