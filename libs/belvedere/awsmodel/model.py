"""A typed reader of service models in botocore's format (service-2.json).

For whoever needs operations and shapes: the front door's router, input checks, translation and errors. Knows nothing
of HTTP servers, gRPC or botocore itself; reads only what the format states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from belvedere.awsmodel.errors import ModelInvalid

API_VERSION = "2019-07-24"
SERVICE = "panorama"


@dataclass(frozen=True, eq=False)
class Member:
    """One member of a structure."""

    name: str
    shape: Shape
    required: bool
    location: str
    """Where it travels: "body", "uri", "querystring", "header"."""
    wire_name: str
    """Its name there: `maxResults` for MaxResults in some lists."""
    idempotency_token: bool


@dataclass(eq=False)
class Shape:
    """One shape. Shapes refer to each other, so they are filled after they are made and then left alone."""

    name: str
    type: str
    """structure, list, map, string, integer, long, float, double, boolean, timestamp, blob."""
    members: dict[str, Member] = field(default_factory=dict)
    element: Shape | None = None
    """Of a list."""
    key: Shape | None = None
    """Of a map."""
    value: Shape | None = None
    """Of a map."""
    minimum: int | None = None
    """Characters of a string, entries of a list or map, the value of a number."""
    maximum: int | None = None
    pattern: re.Pattern[str] | None = None
    """For fullmatch: `.` spans lines, since documents in JSON do, and `$` is the very end."""
    enum: tuple[str, ...] = ()
    sensitive: bool = False
    union: bool = False
    """A structure of which exactly one member is set."""
    http_status: int | None = None
    """Of an exception."""
    documentation: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.members.values() if m.required)


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a service."""

    name: str
    method: str
    uri: str
    """Template: `/devices/{DeviceId}`."""
    success_status: int
    input: Shape | None
    output: Shape | None
    errors: tuple[Shape, ...]
    documentation: str

    @property
    def segments(self) -> tuple[str, ...]:
        """`/devices/{DeviceId}` → ("devices", "{DeviceId}")."""
        return tuple(part for part in self.uri.split("/") if part)

    def declares(self, error: str) -> bool:
        return any(shape.name == error for shape in self.errors)


@dataclass(frozen=True, eq=False)
class ServiceModel:
    """A whole service."""

    metadata: Mapping[str, Any]
    operations: Mapping[str, Operation]
    shapes: Mapping[str, Shape]

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> ServiceModel:
        """Raises ModelInvalid, naming the place."""
        try:
            return _read(document)
        except KeyError as error:
            raise ModelInvalid(
                f"the service model has no {error.args[0]!r}: it is damaged, reinstall Belvedere"
            ) from error
        except (TypeError, AttributeError, re.error) as error:
            raise ModelInvalid(f"the service model is damaged ({error}): reinstall Belvedere") from error


@lru_cache(maxsize=1)
def panorama() -> ServiceModel:
    """The Panorama API."""
    return load(model_folder() / SERVICE / API_VERSION / "service-2.json")


def load(path: Path) -> ServiceModel:
    """Raises ModelInvalid where the file is missing or is no model."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"cannot read the service model {path}: {error}") from error
    return ServiceModel.from_json(document)


def model_folder() -> Path:
    """The folder that AWS_DATA_PATH may point at: it holds panorama/<version>/service-2.json."""
    return Path(__file__).parent


def _read(document: Mapping[str, Any]) -> ServiceModel:
    raw_shapes: Mapping[str, Mapping[str, Any]] = document["shapes"]
    shapes = {name: _shape(name, raw) for name, raw in raw_shapes.items()}
    for name, raw in raw_shapes.items():
        shape = shapes[name]
        required = set(raw.get("required", ()))
        for member, reference in raw.get("members", {}).items():
            shape.members[member] = Member(
                name=member,
                shape=shapes[reference["shape"]],
                required=member in required,
                location=reference.get("location", "body"),
                wire_name=reference.get("locationName", member),
                idempotency_token=bool(reference.get("idempotencyToken")),
            )
        if shape.type == "list":
            shape.element = shapes[raw["member"]["shape"]]
        if shape.type == "map":
            shape.key, shape.value = shapes[raw["key"]["shape"]], shapes[raw["value"]["shape"]]
    operations = {name: _operation(name, raw, shapes) for name, raw in document["operations"].items()}
    return ServiceModel(document["metadata"], operations, shapes)


def _shape(name: str, raw: Mapping[str, Any]) -> Shape:
    error = raw.get("error", {})
    pattern = raw.get("pattern")
    return Shape(
        name=name,
        type=raw["type"],
        minimum=raw.get("min"),
        maximum=raw.get("max"),
        pattern=re.compile(pattern, re.DOTALL) if pattern else None,
        enum=tuple(raw.get("enum", ())),
        sensitive=bool(raw.get("sensitive")),
        union=bool(raw.get("union")),
        http_status=(error.get("httpStatusCode") or 400) if raw.get("exception") else None,
        documentation=raw.get("documentation", ""),
    )


def _operation(name: str, raw: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Operation:
    http = raw["http"]
    return Operation(
        name=name,
        method=http["method"],
        uri=http["requestUri"],
        success_status=http.get("responseCode", 200),
        input=shapes[raw["input"]["shape"]] if "input" in raw else None,
        output=shapes[raw["output"]["shape"]] if "output" in raw else None,
        errors=tuple(shapes[e["shape"]] for e in raw.get("errors", ())),
        documentation=raw.get("documentation", ""),
    )
