"""What the console asks of other services, it asks as who is logged in, and only what that user's policies allow.

    channel = AskingChannel(runtime.channel(), Policies(…, "console"), keep_s=10.0, tell_s=300.0, entries=1024)
    with as_visitor(visitor):
        await RegistryServiceStub(channel).ListDevices(...)          # Denied, in AWS's words, where no policy allows it

The page asks the same things every other second: a decision is kept for `keep_s`, so that a changed policy counts here after
that time at most. The first one leaves its line in the audit trail, and further ones while the page stays open every `tell_s`:
who looked at what, from where and how long is there; each refusal is. Must not know what is asked.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from belvedere.chassis.context import acting_as
from belvedere.chassis.errors import Denied
from belvedere.chassis.gate import Policies, Visitor, needs_of
from belvedere.chassis.permissions import Need

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


@dataclass(frozen=True)
class _Decision:
    """What the policies said."""

    made: float
    told: float = float("-inf")
    """When the audit trail was last told that it is allowed. Monotonic seconds, both."""
    refusal: str | None = None


_NONE = _Decision(float("-inf"))


class AskingChannel:
    """What stubs of unary methods need of a channel: each call is made after the policies have allowed it."""

    def __init__(
        self, channel: grpc.aio.Channel, policies: Policies, *, keep_s: float, tell_s: float, entries: int
    ) -> None:
        self._channel, self._policies = channel, policies
        self._keep_s, self._tell_s, self._entries = keep_s, tell_s, entries
        self._known: OrderedDict[Sequence[Any], _Decision] = OrderedDict()

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
            visitor = _VISITOR.get()
            for need in needs_of(method, request, visitor.who):
                await self._ask(need, visitor)
            return await made(request, timeout=timeout)

        return call

    async def _ask(self, need: Need, visitor: Visitor) -> None:
        place = (
            visitor.principal.arn,
            visitor.who.region,
            visitor.who.source,
            visitor.agent,
            need.action,
            need.resource,
        )
        decision, now = self._known.get(place, _NONE), time.monotonic()
        if now - decision.made > self._keep_s:
            told_before = now - decision.told < self._tell_s
            try:
                await self._policies.ask(need, visitor, told_before=told_before)
                decision = _Decision(now, decision.told if told_before else now)
            except Denied as error:
                decision = _Decision(now, refusal=error.message)
            self._known[place] = decision
            self._known.move_to_end(place)
            while len(self._known) > self._entries:
                self._known.popitem(last=False)
        if decision.refusal is not None:
            raise Denied(decision.refusal)
