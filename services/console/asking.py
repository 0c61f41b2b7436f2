"""What the console asks of other services, it asks as who is logged in, and only what that user's policies allow.

    channel = AskingChannel(runtime.channel(), Policies(…, "console"))
    with as_visitor(visitor):
        await RegistryServiceStub(channel).ListDevices(...)          # Denied, in AWS's words, where no policy allows it

Every question is a call like any other: it is decided anew and leaves its line in the audit trail. Must not know what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import grpc

from belvedere.chassis.context import acting_as, new_request_id
from belvedere.chassis.gate import Policies, Visitor, needs_of

_VISITOR: ContextVar[Visitor] = ContextVar("belvedere_console_visitor")


@contextmanager
def as_visitor(visitor: Visitor) -> Iterator[None]:
    """Calls inside the block are this visitor's."""
    before = _VISITOR.set(visitor)
    try:
        with acting_as(visitor.who):
            yield
    finally:
        _VISITOR.reset(before)


class AskingChannel:
    """What stubs of unary methods need of a channel: each call is made after the policies have allowed it."""

    def __init__(self, channel: grpc.aio.Channel, policies: Policies) -> None:
        self._channel, self._policies = channel, policies

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """As grpc.aio.Channel has it."""
        made = self._channel.unary_unary(method, request_serializer, response_deserializer)

        async def call(request: Any, *, timeout: float | None = None) -> Any:
            page = _VISITOR.get()
            # A page's request asks for several things: each is a call, and its own line.
            visitor = replace(page, who=page.who._replace(request_id=new_request_id()))
            with acting_as(visitor.who):
                await self._policies.ask(needs_of(method, request, visitor.who), visitor)
                return await made(request, timeout=timeout)

        return call
