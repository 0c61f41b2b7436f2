"""Where stacks are kept: a JSON document each, below the gateway's own keys of the account's package bucket.

Knows no templates and no resources. Of two who change a stack at once, one is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc

from belvedere.blobs import BlobStore
from belvedere.v1 import storage_pb2
from services.gateway.cloudformation.resources import Made
from services.gateway.errors import AwsError
from services.gateway.message import Call
from services.gateway.s3.index import Index
from services.gateway.s3.names import RESERVED

FOLDER = f"{RESERVED}stacks/"
EVENTS_MAX = 200
STACKS_MAX = 1000
DELETED = "DELETE_COMPLETE"
REVIEW = "REVIEW_IN_PROGRESS"


@dataclass
class ChangeSet:
    """What is to be made of a stack."""

    name: str
    id: str
    kind: str
    template: str
    parameters: dict[str, str]
    capabilities: list[str]
    tags: list[dict[str, str]]
    created: float
    status: str = "CREATE_COMPLETE"
    reason: str = ""
    execution: str = "AVAILABLE"
    description: str = ""


@dataclass
class Stack:
    """A stack, whole. Times are epoch seconds."""

    name: str
    id: str
    status: str
    created: float
    reason: str = ""
    updated: float | None = None
    description: str = ""
    template: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    resources: dict[str, Made] = field(default_factory=dict)
    outputs: list[dict[str, str]] = field(default_factory=list)
    change_sets: dict[str, ChangeSet] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    """The newest first."""
    etag: str = ""
    """Of what was read."""


class Stacks:
    """The stacks of the caller's account and region."""

    def __init__(self, channel: grpc.aio.Channel, blobs: BlobStore) -> None:
        self._index, self._blobs = Index(channel), blobs

    async def find(self, call: Call, name_or_id: str) -> Stack | None:
        """By name or ARN."""
        name = name_or_id.split("/")[1] if name_or_id.startswith("arn:") else name_or_id
        stored = await self._index.find(_bucket(call), FOLDER + name)
        stack = None if stored is None else await self._read(stored)
        return None if stack is None or (name != name_or_id and stack.id != name_or_id) else stack

    async def all(self, call: Call) -> list[Stack]:
        """By name; STACKS_MAX at most."""
        page, _ = await self._index.page(_bucket(call), FOLDER, "", STACKS_MAX)
        return [await self._read(stored) for stored in page]

    async def put(self, call: Call, stack: Stack) -> None:
        """Raises AwsError where somebody else has changed it since it was read."""
        del stack.events[EVENTS_MAX:]
        content = {key: value for key, value in asdict(stack).items() if key != "etag"}
        data = json.dumps(content).encode()
        blob = await self._blobs.put_bytes(data)
        stored = storage_pb2.StoredObject(
            bucket=_bucket(call),
            key=FOLDER + stack.name,
            digest=blob.digest,
            size_bytes=len(data),
            etag=hashlib.sha256(data).hexdigest(),
            content_type="application/json",
        )
        try:
            await self._index.put(stored, if_absent=not stack.etag, if_etag=stack.etag)
        except AwsError as error:
            text = f"Stack:{stack.id} is in another state than it was: somebody else is changing it."
            raise AwsError("ValidationError", text) from error
        stack.etag = stored.etag

    async def remove(self, call: Call, stack: Stack) -> None:
        """Forgets it."""
        await self._index.delete(_bucket(call), [FOLDER + stack.name])

    async def _read(self, stored: storage_pb2.StoredObject) -> Stack:
        data = b"".join([chunk async for chunk in self._blobs.open(stored.digest)])
        content = json.loads(data)
        content["resources"] = {name: Made(**made) for name, made in content["resources"].items()}
        content["change_sets"] = {name: ChangeSet(**made) for name, made in content["change_sets"].items()}
        return Stack(**content, etag=stored.etag)


def _bucket(call: Call) -> str:
    return f"panorama-{call.who.account}-{call.who.region}"
