"""Who calls, and for which account: set by the server for the length of one handler.

    from belvedere.chassis.context import caller
    async def DescribeDevice(self, request, context):
        who = caller()                      # Caller(account="123456789012", region="eu-central-1", …)

    # a background task that calls a peer says for whom:
    with acting_as(Caller(account, region, SERVICE_PRINCIPAL, new_request_id())):
        await stub.DescribeDevice(...)

Must not know who is allowed what: that is identity's. Handlers' own calls to peers carry the same caller by themselves.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from random import getrandbits
from typing import NamedTuple

from belvedere.chassis.errors import Denied

ACCOUNT = "x-belvedere-account"
REGION = "x-belvedere-region"
PRINCIPAL = "x-belvedere-principal"
REQUEST_ID = "x-belvedere-request-id"
SOURCE = "x-belvedere-source"


class Caller(NamedTuple):
    """For whom a request is done."""

    account: str
    """12 digits."""
    region: str
    """"eu-central-1"."""
    principal: str
    """ARN of the user, role session or service that calls."""
    request_id: str
    """One per request of a user, the same in all services that it passes."""
    source: str = ""
    """The address that a user's request came from, once policies have been asked about it; empty: the owner's socket, or a
    service by itself."""


def service_principal(service: str) -> str:
    """The principal of a service that acts by itself (a background task), never on behalf of a user."""
    return f"arn:aws:iam::aws:service/{service}"


_caller: ContextVar[Caller | None] = ContextVar("belvedere_caller", default=None)


def new_request_id() -> str:
    """A random request id in the form that AWS uses (UUID 4)."""
    # As str(uuid.uuid4()), at a fifth of the cost: it has to be unique, not secret.
    text = f"{getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def caller() -> Caller:
    """Who calls. Raises Denied outside a handler and in one that was called without metadata."""
    found = _caller.get()
    if found is None:
        raise Denied(f"The call names no caller: send the metadata {ACCOUNT}, {REGION}, {PRINCIPAL} and {REQUEST_ID}.")
    return found


def current() -> Caller | None:
    """Who calls, or None."""
    return _caller.get()


def acting_as(who: Caller) -> AbstractContextManager[Caller]:
    """Makes `who` the caller of everything inside the block: for background tasks and tests."""
    return _Acting(who)


class _Acting(AbstractContextManager[Caller]):
    """A class of its own: each request enters one, and a generator costs thrice as much."""

    __slots__ = ("_token", "_who")

    def __init__(self, who: Caller) -> None:
        self._who = who
        self._token: Token[Caller | None] | None = None

    def __enter__(self) -> Caller:
        self._token = _caller.set(self._who)
        return self._who

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _caller.reset(self._token)


def call_metadata(who: Caller) -> tuple[tuple[str, str], ...]:
    """gRPC metadata that carries `who` to a peer."""
    found = ((ACCOUNT, who.account), (REGION, who.region), (PRINCIPAL, who.principal), (REQUEST_ID, who.request_id))
    return (*found, (SOURCE, who.source)) if who.source else found


def from_metadata(metadata: Mapping[str, str]) -> Caller | None:
    """The caller that `call_metadata` wrote, or None where account or region are absent."""
    account, region = metadata.get(ACCOUNT, ""), metadata.get(REGION, "")
    if not account or not region:
        return None
    request_id = metadata.get(REQUEST_ID) or new_request_id()
    return Caller(account, region, metadata.get(PRINCIPAL, ""), request_id, metadata.get(SOURCE, ""))
