"""JSON of the API model ↔ proto messages, by rule.

    DeviceId ↔ device_id · SUCCEEDED ↔ DEVICE_STATUS_SUCCEEDED · Timestamp ↔ epoch seconds with milliseconds ·
    blob ↔ base64 · unset optional ↔ absent · lists and maps are there even when empty, as AWS gives them

Pure. Everything is looked up once, when a Translator is made: a member without its field is found at start.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from belvedere.awsmodel import Shape

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class TranslationError(Exception):
    """The model and the messages do not fit, or a service gave a message that the API cannot say."""


def field_name(member: str) -> str:
    """OTAJobConfig → ota_job_config, Ethernet0Status → ethernet0_status."""
    return _WORDS.sub("_", member).lower()


class Translator:
    """Between one structure and one message, both ways."""

    def __init__(self, shape: Shape, descriptor: Descriptor | None) -> None:
        if descriptor is None:
            raise TranslationError(f"{shape.name} must be a message, as in the API")
        self._members = [
            _MemberTranslator(name, member.shape, member.required, _field(descriptor, name))
            for name, member in shape.members.items()
        ]

    def fill(self, message: Message, values: Mapping[str, Any]) -> None:
        """Puts checked values into a message."""
        for member in self._members:
            value = values.get(member.name)
            if value is not None:
                member.fill(message, value)

    def read(self, message: Message) -> dict[str, Any]:
        """The JSON object for a message. Raises TranslationError where a required enum is unset."""
        result: dict[str, Any] = {}
        for member in self._members:
            value = member.read(message)
            if value is not None:
                result[member.name] = value
        return result


def _field(descriptor: Descriptor, member: str) -> FieldDescriptor:
    field = descriptor.fields_by_name.get(field_name(member))
    if field is None:
        raise TranslationError(f"{descriptor.full_name} has no field {field_name(member)} for the API's {member}")
    return field


class _MemberTranslator:
    """One member and its field."""

    def __init__(self, name: str, shape: Shape, required: bool, field: FieldDescriptor) -> None:
        self.name = name
        self._required, self._field, self._attribute = required, field, field.name
        self._kind = shape.type
        inner = shape.element if shape.type == "list" else shape
        assert inner is not None
        self._structure = Translator(inner, field.message_type) if inner.type == "structure" else None
        self._enum = _EnumNames(field) if inner.enum else None

    def fill(self, message: Message, value: Any) -> None:
        if self._kind == "structure" and self._structure:
            part = getattr(message, self._attribute)
            part.SetInParent()
            self._structure.fill(part, value)
        elif self._kind == "list":
            entries = getattr(message, self._attribute)
            if self._structure:
                for entry in value:
                    self._structure.fill(entries.add(), entry)
            else:
                entries.extend(self._enum.number(entry) if self._enum else entry for entry in value)
        elif self._kind == "map":
            getattr(message, self._attribute).update(value)
        else:
            setattr(message, self._attribute, self._enum.number(value) if self._enum else value)

    def read(self, message: Message) -> Any:
        value = getattr(message, self._attribute)
        if self._kind == "list":
            if self._structure:
                return [self._structure.read(entry) for entry in value]
            return [self._enum.name(entry) for entry in value] if self._enum else list(value)
        if self._kind == "map":
            return dict(value)
        if self._field.has_presence and not message.HasField(self._attribute) and not self._required:
            return None
        if self._structure:
            return self._structure.read(value)
        if self._kind == "timestamp":
            return round(value.seconds + value.nanos / 1e9, 3)
        if self._enum:
            name = self._enum.name(value)
            if name is None and self._required:
                raise TranslationError(f"{self._field.full_name} is unset, and the API requires {self.name}")
            return name
        # A blob whose field is a text holds base64 already.
        return base64.b64encode(value).decode() if isinstance(value, bytes) else value


class _EnumNames:
    """SUCCEEDED ↔ DEVICE_STATUS_SUCCEEDED."""

    def __init__(self, field: FieldDescriptor) -> None:
        if field.enum_type is None:
            raise TranslationError(f"{field.full_name} must be an enum, as in the API")
        values = field.enum_type.values_by_number
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        self._names = {number: value.name.removeprefix(prefix) for number, value in values.items() if number}
        self._numbers = {name: number for number, name in self._names.items()}

    def number(self, name: str) -> int:
        return self._numbers[name]

    def name(self, number: int) -> str | None:
        return self._names.get(number)
