"""The Panorama API behind the front door: route, ask whether it is allowed, check, call, answer.

Knows the API model and the gRPC of the services; keeps nothing but what it has read and written before.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc

from belvedere import jsontext
from belvedere.awsmodel import Operation, ServiceModel
from belvedere.chassis.context import Caller
from belvedere.chassis.errors import BelvedereError, Invalid, NotFound
from belvedere.chassis.ids import arn
from belvedere.v1 import packages_pb2
from services.gateway.errors import GatewayError
from services.gateway.message import NO_FACTS, Call, Facts, Named, Ready, Reply
from services.gateway.panorama import failures, tags
from services.gateway.panorama.operations import ANY, MESSAGES, OPERATIONS, Peers, also_needed
from services.gateway.panorama.router import Match, Router
from services.gateway.panorama.translation import Translator
from services.gateway.sigv4 import HttpRequest
from services.gateway.validation import Problems, from_text, read_members

JSON: Mapping[str, str] = {"Content-Type": "application/json"}
PACKAGE_BY_NAME = ":package/packageName/"
"""In the ARN of a package that a request names by its name, not by its id."""
REMEMBERED = ("Describe", "List")
"""Operations whose requests without a body, and whose answers, are read and written once: what clients that wait or show a
page ask again and again. Both are pure functions of what came, so nothing can be stale."""
REPLIES_REMEMBERED = 512
BODY_REMEMBERED_MAX = 32 << 10
"""Bytes: a page of 25. With REPLIES_REMEMBERED of them, 16 MiB at most, and as much again for the messages."""
READINGS_REMEMBERED = 1024
TARGET_REMEMBERED_MAX = 2 << 10
"""Characters of path and query."""


@dataclass(frozen=True)
class Reading:
    """What a request says. Nobody changes it: it may be that of the next request too."""

    operation: Operation
    resources: tuple[str, ...]
    """What the operation is about: ARNs, or `*` for lists and for what is still to be made."""
    values: Mapping[str, Any]
    packet: bytes
    """The message for the service; empty for the tags' operations and where something is wrong."""
    wrong: GatewayError | None = None

    @cached_property
    def action(self) -> str:
        """As policies name it."""
        return f"panorama:{self.operation.name}"


class PanoramaService:
    """The operations of the model that OPERATIONS or tags.OPERATIONS name."""

    prefix = "panorama"
    streams = False
    skew_s = 300

    def __init__(self, model: ServiceModel, channel: grpc.aio.Channel) -> None:
        self._model = model
        self._router = Router(model.operations.values())
        self._peers = Peers(channel)
        self._tags = tags.Tags(self._peers)
        self._inputs: dict[str, tuple[Any, Translator]] = {}
        self._outputs: dict[str, tuple[Any, Translator]] = {}
        self._readings: OrderedDict[tuple[str, ...], Reading] = OrderedDict()
        self._replies: OrderedDict[tuple[str, bytes], Reply] = OrderedDict()
        for name, target in OPERATIONS.items():
            operation, messages = model.operations[name], MESSAGES[target.service]
            request, response = getattr(messages, f"{name}Request"), getattr(messages, f"{name}Response")
            assert operation.input is not None and operation.output is not None
            self._inputs[name] = (request, Translator(operation.input, request.DESCRIPTOR))
            self._outputs[name] = (response, Translator(operation.output, response.DESCRIPTOR))

    async def handle(self, call: Call) -> Reply:
        """Raises GatewayError with the model's exceptions."""
        reading = self._reading(call)
        operation, values = reading.operation, reading.values
        call.operation = operation.name
        # Asked before the caller is told what is wrong: who may not call learns nothing.
        for named in reading.resources:
            resource = await self._known_as(named, call.who)
            await call.authorize(reading.action, resource, self._facts(call, resource, values))
        if reading.wrong is not None:
            raise reading.wrong
        if needed := also_needed(operation.name, values):
            await call.authorize(*needed)
        try:
            if operation.name in tags.OPERATIONS:
                return Reply(
                    operation.success_status, JSON, _json(await self._tags.call(operation.name, values, call.who))
                )
            return self._written(operation, await self._peers.call(operation.name, reading.packet))
        except BelvedereError as error:
            raise failures.from_service(error, self._model, operation) from error

    async def _known_as(self, resource: str, who: Caller) -> str:
        """The ARN by which policies know what a request names. A package may be named two ways, and there is one decision."""
        front, alias, name = resource.partition(PACKAGE_BY_NAME)
        if not alias or front != arn("panorama", who.region, who.account, "").removesuffix(":"):
            return resource
        try:
            request = packages_pb2.DescribePackageRequest(package_id=f"packageName/{name}")
            return str((await self._peers.packages.DescribePackage(request)).arn)
        except (NotFound, Invalid):
            return resource
        except BelvedereError as error:
            raise failures.from_service(error, self._model, None) from error

    def ready(self, who: Caller, request: HttpRequest) -> Ready | None:
        """What was asked and answered before, where its service says at once that the answer still holds."""
        place = (who.account, who.region, request.method, request.path, request.query)
        reading = self._readings.get(place)
        if reading is None or len(reading.resources) != 1:
            return None
        name = reading.operation.name
        answer = self._peers.at_hand[name](who, reading.packet)
        if answer is None:
            return None
        key = (name, answer)
        reply = self._replies.get(key)
        if reply is None:
            return None
        self._readings.move_to_end(place)
        self._replies.move_to_end(key)
        (resource,) = reading.resources
        return Ready(name, reading.action, resource, resource != ANY, reply)

    def _reading(self, call: Call) -> Reading:
        """Raises AwsError for what is no operation."""
        place = (call.who.account, call.who.region, call.method, call.path, call.http.query)
        known = None if call.body else self._readings.get(place)
        if known is not None:
            self._readings.move_to_end(place)
            return known
        reading = self._read(call)
        name = reading.operation.name
        if call.body or reading.wrong is not None or name not in OPERATIONS or not name.startswith(REMEMBERED):
            return reading
        if len(call.path) + len(call.http.query) <= TARGET_REMEMBERED_MAX:
            self._readings[place] = reading
            if len(self._readings) > READINGS_REMEMBERED:
                self._readings.popitem(last=False)
        return reading

    def _read(self, call: Call) -> Reading:
        match = self._router.match(call.method, call.path)
        if match is None:
            raise failures.unknown_operation(f"{call.method} {call.path[:200]} is no operation of this API.")
        operation = match.operation
        call.operation = operation.name
        if operation.name not in OPERATIONS and operation.name not in tags.OPERATIONS:
            raise failures.unknown_operation(f"{operation.name} is not served here.")
        try:
            values = parse_input(operation, call, match.path_values)
        except GatewayError as error:
            return Reading(operation, self._resources(call, match, {}), {}, b"", error)
        packet = b""
        if operation.name in OPERATIONS:
            request_type, translator = self._inputs[operation.name]
            request = request_type()
            translator.fill(request, values)
            packet = request.SerializeToString()
        return Reading(operation, self._resources(call, match, values), values, packet)

    def _written(self, operation: Operation, answer: bytes) -> Reply:
        """The reply of an answer. The same message is the same reply."""
        name = operation.name
        key = (name, answer)
        reply = self._replies.get(key)
        if reply is not None:
            self._replies.move_to_end(key)
            return reply
        response_type, translator = self._outputs[name]
        body = _json(translator.read(response_type.FromString(answer)))
        reply = Reply(operation.success_status, JSON, body)
        if name.startswith(REMEMBERED) and len(body) <= BODY_REMEMBERED_MAX:
            self._replies[key] = reply
            if len(self._replies) > REPLIES_REMEMBERED:
                self._replies.popitem(last=False)
        return reply

    def _resources(self, call: Call, match: Match, values: Mapping[str, Any]) -> tuple[str, ...]:
        if "ResourceArn" in match.path_values:
            return (_text(match.path_values["ResourceArn"]),)
        region, account = call.who.region, call.who.account
        if match.operation.name == "CreateJobForDevices" and values:
            return tuple(arn("panorama", region, account, f"device/{id}") for id in values["DeviceIds"])
        template = OPERATIONS[match.operation.name].resource
        if template == ANY:
            return (ANY,)
        kind, _, member = template.partition("/")
        value = _text(match.path_values[member.strip("{}")])
        return (arn("panorama", region, account, f"{kind}/{value}"),)

    def _facts(self, call: Call, resource: str, values: Mapping[str, Any]) -> Facts:
        if not values and resource == ANY:
            return NO_FACTS
        tags = dict(values.get("Tags") or {})
        for item in values.get("JobTags") or ():
            tags.update(item["Tags"])
        return Facts(
            request_tags=tags,
            tag_keys=values.get("TagKeys") or (),
            resource_tags=None if resource == ANY else lambda: self._tags.of(resource, call.who),
        )

    def named(self, call: Call) -> Named | None:
        match = self._router.match(call.method, call.path)
        if match is None:
            return None
        try:
            values = parse_input(match.operation, call, match.path_values)
        except GatewayError:
            values = {}
        found = self._resources(call, match, values)
        return Named(f"{self.prefix}:{match.operation.name}", found[0] if len(found) == 1 else ANY)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        return failures.reply(error)


def parse_input(operation: Operation, call: Call, path_values: Mapping[str, str]) -> dict[str, Any]:
    """The operation's checked input from path, query and body.

    Raises AwsError(ValidationException): CANNOT_PARSE, or FIELD_VALIDATION_FAILED with everything that is wrong.
    """
    shape = operation.input
    if shape is None:
        return {}
    problems = Problems()
    # Checked at once here and against the shapes below, so what is no number is told once.
    unreadable = Problems()
    raw: dict[str, Any] = {}
    in_body = [member for member in shape.members.values() if member.location == "body"]
    document = _document(call.body) if in_body else {}
    for member in shape.members.values():
        if member.location == "body":
            raw[member.name] = document.get(member.wire_name)
        elif member.location == "uri":
            raw[member.name] = path_values[member.wire_name]
        elif texts := [value for key, value in call.query if key == member.wire_name]:
            raw[member.name] = from_text(member, texts, member.name, unreadable)
    values = read_members(shape, raw, "", problems)
    for path, text in unreadable.found:
        problems.add(path, text)
    if problems:
        raise failures.invalid(problems)
    return values


def _document(body: bytes) -> Mapping[str, Any]:
    if not body.strip():
        return {}
    try:
        document = jsontext.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise failures.cannot_parse("The request body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise failures.cannot_parse("The request body must be a JSON object.")
    return document


_encode = json.JSONEncoder(ensure_ascii=False).encode
"""Made once: `json.dumps` makes an encoder a call."""


def _json(document: Mapping[str, Any]) -> bytes:
    return _encode(document).encode()


def _text(value: str) -> str:
    """What may hold halves of characters, as a text that can be sent."""
    return value.encode("utf-8", "replace").decode()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
