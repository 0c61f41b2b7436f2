"""Calls between services of one process, without a socket: the same stubs, the same handlers, the same errors.

    methods = collect(services)                              # {"/belvedere.v1.RegistryService/DescribeDevice": handler}
    channel = LocalChannel(methods, open_channel(address))   # Runtime.channel() gives it to the services
    listed = at_hand(channel, "/belvedere.v1.RegistryService/ListDevices")
    listed(who, packet)                                      # the answer's bytes if they are there already, else None

Must not know any service. A method that this process does not serve goes over the channel behind. What a peer gets is
what it would get over the wire: a message of its own (written and read again), the caller, the time limit, typed errors;
only the hop is gone. Measured on a busy machine: 0.8 to 1.1 ms a call over gRPC's unix socket on asyncio, 0.013 ms here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from typing import Any

import grpc

from belvedere.chassis import context, rpc
from belvedere.chassis.errors import BelvedereError, Internal, Unavailable
from belvedere.chassis.service import AtHand, Service

MAX_CONCURRENT_CALLS = 4096
"""More are refused with Unavailable. Higher than the server's, for a call may wait for another one here."""

Methods = dict[str, "grpc.RpcMethodHandler[Any, Any]"]
Metadata = Sequence[tuple[str, str]]
Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]

log = logging.getLogger(__name__)


class _Collector:
    """Takes the place of a server where handlers are registered."""

    def __init__(self) -> None:
        self.methods: Methods = {}

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        self.methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same methods in the older form."""


class _Rpc:
    """The servicer context of a local call. Handlers of ours take none of it: who calls is `context.caller()`, and what
    goes wrong is raised; the generated code sets a status for methods that are not there, and raises."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """The NotImplementedError that follows says the same."""

    def set_details(self, details: str) -> None:
        """As above."""


_RPC = _Rpc()


def collect(services: Iterable[Service]) -> Methods:
    """The methods of these services, by path."""
    collector = _Collector()
    for service in services:
        for register, servicer, _ in service.servicers:
            register(servicer, collector)
    return collector.methods


class LocalChannel(grpc.aio.Channel):
    """A channel whose calls to `methods` stay in this process; everything else is `behind`'s."""

    def __init__(self, methods: Methods, behind: grpc.aio.Channel, answers: Mapping[str, AtHand] | None = None) -> None:
        self._methods, self._behind = methods, behind
        self._answers: Mapping[str, AtHand] = {} if answers is None else answers
        self._under_way = 0

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> Any:
        behind = self._behind.unary_unary(method, request_serializer, response_deserializer)

        async def call(request: Any, *, timeout: float | None = None, metadata: Metadata | None = None) -> Any:
            # Looked up late: services ask for their stubs before all of them are there.
            handler = self._methods.get(method)
            if handler is None or handler.unary_unary is None:
                return await behind(request, timeout=timeout, metadata=metadata)
            inner: Handler = handler.unary_unary
            read_request: Any = handler.request_deserializer
            write_response: Any = handler.response_serializer
            packet = _fitting(method, request_serializer(request))
            if self._under_way >= MAX_CONCURRENT_CALLS:
                raise Unavailable(f"{MAX_CONCURRENT_CALLS} calls are under way. Try again.")
            present = context.current()
            who = (context.from_metadata(dict(metadata)) if metadata else None) or present
            self._under_way += 1
            try:
                work = inner(read_request(packet), _RPC)
                limit_s = rpc.CALL_TIMEOUT_S if timeout is None else timeout
                if who is None or who is present:
                    response = await _run(work, limit_s)
                else:
                    with context.acting_as(who):
                        response = await _run(work, limit_s)
            except _TooSlow as error:
                raise Unavailable(f"A service did not answer (DEADLINE_EXCEEDED): {method}. Try again.") from error
            except BelvedereError as error:
                raise _as_over_the_wire(error) from error
            except NotImplementedError as error:
                raise Internal(f"UNIMPLEMENTED: {method} is not implemented") from error
            except Exception as error:
                request_id = who.request_id if who else context.new_request_id()
                log.exception("%s failed, request %s", method, request_id)
                raise Internal(f"INTERNAL: {request_id}") from error
            finally:
                self._under_way -= 1
            return response_deserializer(_fitting(method, write_response(response)))

        return call

    def at_hand(self, method: str) -> AtHand:
        """See the function of this name."""
        answers = self._answers

        def ask(who: context.Caller, packet: bytes) -> bytes | None:
            # Looked up late, as above.
            found = answers.get(method)
            return found(who, packet) if found is not None else None

        return ask

    # The rest is the channel's behind.

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._behind.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._behind.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._behind.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._behind.channel_ready()

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._behind.unary_stream(*arguments, **named)

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._behind.stream_unary(*arguments, **named)

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._behind.stream_stream(*arguments, **named)


def at_hand(channel: grpc.aio.Channel, method: str) -> AtHand:
    """What asks for an answer of `method` that needs no waiting: no task, no time limit, not a single turn of the loop. Over a
    channel to another process there never is one."""
    return channel.at_hand(method) if isinstance(channel, LocalChannel) else _nothing


def _nothing(who: context.Caller, packet: bytes) -> bytes | None:
    return None


class _TooSlow(Exception):
    """The time limit of a call is over."""


async def _run(work: Coroutine[Any, Any, Any], limit_s: float) -> Any:
    """What a handler returns. It begins at once: what waits for nothing, an answer that is remembered, needs no limit."""
    try:
        first = work.send(None)
    except StopIteration as done:
        return done.value
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await _Rest(work, first)
    except TimeoutError as error:
        if limit.expired():
            raise _TooSlow from error
        raise


class _Rest:
    """What is left of a coroutine that has begun and waits for `first`."""

    __slots__ = ("_first", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], first: Any) -> None:
        self._work, self._first = work, first

    def __await__(self) -> Generator[Any, Any, Any]:
        waits_for = self._first
        while True:
            try:
                try:
                    given = yield waits_for
                except BaseException as error:  # noqa: BLE001 (a cancellation is the coroutine's own)
                    waits_for = self._work.throw(error)
                else:
                    waits_for = self._work.send(given)
            except StopIteration as done:
                return done.value


def _fitting(method: str, packet: bytes) -> bytes:
    if len(packet) > rpc.MAX_MESSAGE_BYTES:
        raise Internal(f"RESOURCE_EXHAUSTED: a message of {method} has {len(packet)} bytes")
    return packet


def _as_over_the_wire(error: BelvedereError) -> BelvedereError:
    """A service's own subclass of an error reaches its peers as what the contract names."""
    return rpc.from_status(rpc.to_status(error)[1]) or Internal(error.message)
