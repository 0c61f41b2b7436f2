"""A request on its way through the front door, and its reply.

Knows HTTP's parts but no server and no AWS protocol: each service reads a Call and gives a Reply.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from belvedere.chassis.context import Caller
from belvedere.v1 import identity_pb2
from services.gateway.errors import AwsError, GatewayError
from services.gateway.sigv4 import HttpRequest, Signature, Signer, query_pairs

if TYPE_CHECKING:
    from services.gateway.forms import Form

API_BODY_MAX = 7 << 20
"""Bytes of any request but an upload. Panorama's documents end at 51,200 characters; a batch of logs holds 1 MiB of
messages, of which JSON may write every byte as six (\\u0001), and what stands around 10,000 of them."""

BODY_NAMED_MAX = 64 << 10
"""Bytes at the beginning of a body from which a call is named that is refused unread."""

ChunkSource = Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    length: int | None = None
    """Of a streamed body, or of the body that a HEAD does not carry."""


@dataclass(frozen=True)
class Proof:
    """Who signed, verified."""

    signature: Signature
    signer: Signer
    """With the key that has signed it."""
    principal: identity_pb2.Principal


@dataclass(frozen=True)
class Facts:
    """What policies may look at besides action, resource and caller."""

    context: Mapping[str, str] = field(default_factory=dict)
    """Condition keys of this operation: `s3:prefix`, `cloudwatch:namespace`."""
    request_tags: Mapping[str, str] = field(default_factory=dict)
    """`aws:RequestTag/<key>`: the tags that the request gives."""
    tag_keys: Sequence[str] = ()
    """`aws:TagKeys`, where the request names keys without values; those of `request_tags` are added."""
    resource_tags: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    """Reads the tags that the resource has; asked only where a policy of the caller looks at them."""


NO_FACTS = Facts()

Authorize = Callable[["Call", str, str, Facts], Awaitable[None]]


@dataclass
class Call:
    """One request."""

    http: HttpRequest
    request_id: str
    source_address: str
    chunks: ChunkSource
    """Opens the body for reading, once; sends `100 Continue` where the client waits for it."""
    content_length: int | None
    """None where the body is chunked or absent."""
    authorizer: Authorize
    operation: str = ""
    """For the log line."""
    proof: Proof | None = None
    caller: Caller | None = None
    body: bytes = b""
    """The whole verified body, for every service that takes no uploads."""
    form: Form | None = None
    """Of an upload by a form, once its fields are read."""
    decided: bool = False
    """Whether policies were asked: the call has its line in the audit trail."""
    has_body: bool = True
    """False where it is known that none comes."""
    opened: bool = False
    """Whether somebody began to read the body."""

    @property
    def method(self) -> str:
        return self.http.method

    @property
    def path(self) -> str:
        """As it came: `/packages/metadata/packageName%2Fcode1`."""
        return self.http.path

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        return query_pairs(self.http.query)

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)

    def header(self, name: str) -> str:
        return self.http.header(name) or ""

    @property
    def who(self) -> Caller:
        """The verified caller."""
        if self.caller is None:
            raise AssertionError("the call was not verified")
        return self.caller

    async def authorize(self, action: str, resource: str, facts: Facts = NO_FACTS) -> None:
        """Raises AuthError(DENIED) unless the caller may."""
        await self.authorizer(self, action, resource, facts)


class Ready(NamedTuple):
    """An answer that needs no waiting; to be sent if policies allow `action` on `resource`."""

    operation: str
    action: str
    resource: str
    has_tags: bool
    """Whether the resource can have tags, at which policies might look."""
    reply: Reply


class Named(NamedTuple):
    """What a call is, as policies and the audit trail name it."""

    action: str
    """"panorama:DescribeDevice"."""
    resource: str


class AwsService(Protocol):
    """One AWS service behind the front door."""

    prefix: str
    """Of its actions: "panorama", "cloudwatch"."""
    streams: bool
    """Whether it reads bodies itself, piece by piece."""
    skew_s: int
    """How far a client's clock may be off, in seconds."""

    async def handle(self, call: Call) -> Reply:
        """Answers a verified call. Raises GatewayError and BelvedereError."""
        ...

    def failed(self, call: Call, error: GatewayError) -> Reply:
        """The error in this service's protocol."""
        ...

    def named(self, call: Call) -> Named | None:
        """What policies would be asked about it; None where it leads to no operation. Its body may be cut off or none, nobody need
        have proven it: `who` is then the account of this front door."""
        ...


@runtime_checkable
class TakesV2(Protocol):
    """An AWS service whose URLs may be presigned by Signature Version 2."""

    def signed_path(self, call: Call) -> str:
        """What such a signature means by the resource."""
        ...


@runtime_checkable
class TakesForms(Protocol):
    """An AWS service to which a form may be sent, signed in its fields."""

    async def read_form(self, call: Call) -> Form | None:
        """The form, which is then the call's too; None where the request is none. Raises AwsError."""
        ...


@runtime_checkable
class AnswersBroken(Protocol):
    """An AWS service with words of its own for what is no valid HTTP."""

    def broken(self, method: str, path: str, request_id: str, *, too_large: bool) -> Reply:
        """`too_large`: the request's head is."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An AWS service that may have an answer ready."""

    skew_s: int

    def ready(self, who: Caller, request: HttpRequest) -> Ready | None:
        """For a verified request without a body. None: `handle` is to be called; nothing has been done."""
        ...


async def read_all(call: Call, limit: int = API_BODY_MAX) -> bytes:
    """The whole body. Raises AwsError(RequestEntityTooLarge, 413) above `limit` bytes."""
    too_large = AwsError("RequestEntityTooLargeException", f"The request body is larger than {limit} bytes.", 413)
    if call.content_length is not None and call.content_length > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    call.opened = True
    async for chunk in call.chunks():
        size += len(chunk)
        if size > limit:
            # For the line in the trail: what was asked for stands at the beginning.
            call.body = b"".join(parts)[:BODY_NAMED_MAX]
            raise too_large
        parts.append(chunk)
    return b"".join(parts)
