"""gRPC with typed errors and a known caller, on both sides.

    server = grpc.aio.server(interceptors=[ServerInterceptor()])      # chassis.grpc_server does it
    channel = open_channel("unix:/…/grpc.sock")                       # Runtime.channel() does it
    try:
        reply = await RegistryServiceStub(channel).DescribeDevice(DescribeDeviceRequest(device_id=id))
    except NotFound as error:                                         # as the handler raised it
        ...

Must not know any service. On the wire: `google.rpc.Status` with `ErrorInfo` (reason = class name, domain = "belvedere",
metadata = the error's fields) and `BadRequest` for `Invalid.fields`. Whatever else a handler raises is INTERNAL with
the request id as its only text; the traceback goes to the log.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf import any_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]

from belvedere.chassis import context
from belvedere.chassis.errors import (
    BelvedereError,
    Conflict,
    Denied,
    Internal,
    Invalid,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "belvedere"
CALL_TIMEOUT_S = 30.0
"""For calls that name no timeout of their own. A caller then gets Unavailable."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Both ways. Documents of the API end at 51,200 characters; log pages are the largest messages (1 MB)."""
DETAILS_KEY = "grpc-status-details-bin"

log = logging.getLogger(__name__)

_CODES: dict[type[BelvedereError], tuple[grpc.StatusCode, int]] = {
    NotFound: (grpc.StatusCode.NOT_FOUND, code_pb2.NOT_FOUND),
    Conflict: (grpc.StatusCode.FAILED_PRECONDITION, code_pb2.FAILED_PRECONDITION),
    Invalid: (grpc.StatusCode.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT),
    Denied: (grpc.StatusCode.PERMISSION_DENIED, code_pb2.PERMISSION_DENIED),
    Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, code_pb2.UNAUTHENTICATED),
    QuotaExceeded: (grpc.StatusCode.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED),
    Unavailable: (grpc.StatusCode.UNAVAILABLE, code_pb2.UNAVAILABLE),
    Internal: (grpc.StatusCode.INTERNAL, code_pb2.INTERNAL),
}


def _packed(detail: message.Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


_FIELDS = ("resource_type", "resource_id", "quota_code")


def to_status(error: BelvedereError) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """The wire form of a typed error."""
    kind = next(base for base in type(error).__mro__ if base in _CODES or base is BelvedereError)
    code, number = _CODES.get(kind, (grpc.StatusCode.INTERNAL, code_pb2.INTERNAL))
    info = error_details_pb2.ErrorInfo(reason=kind.__name__, domain=DOMAIN)
    for name in _FIELDS:
        if (value := getattr(error, name, None)) is not None:
            info.metadata[name] = str(value)
    status = status_pb2.Status(code=number, message=error.message)
    status.details.append(_packed(info))
    if isinstance(error, Invalid) and error.fields:
        bad = error_details_pb2.BadRequest()
        for path, text in error.fields:
            bad.field_violations.add(field=path, description=text)
        status.details.append(_packed(bad))
    return code, status


def from_status(status: status_pb2.Status) -> BelvedereError | None:
    """The typed error in a wire form; None where it holds none of ours."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    if info.domain != DOMAIN:
        return None
    text, fields = status.message, info.metadata
    match info.reason:
        case "NotFound":
            return NotFound(fields.get("resource_type", ""), fields.get("resource_id", ""), text)
        case "Conflict":
            return Conflict(fields.get("resource_type", ""), fields.get("resource_id", ""), text)
        case "Invalid":
            return Invalid(text, [(v.field, v.description) for v in bad.field_violations])
        case "Denied":
            return Denied(text)
        case "Unauthenticated":
            return Unauthenticated(text)
        case "QuotaExceeded":
            return QuotaExceeded(fields.get("quota_code", ""), text)
        case "Unavailable":
            return Unavailable(text)
        case _:
            return Internal(text)


def raise_typed(error: grpc.aio.AioRpcError) -> NoReturn:
    """Raises what the peer's handler raised: a BelvedereError, Unavailable where the peer is away or too slow, else
    Internal."""
    details = next((value for key, value in error.trailing_metadata() or () if key == DETAILS_KEY), None)
    if isinstance(details, bytes):
        typed = from_status(status_pb2.Status.FromString(details))
        if typed is not None:
            raise typed from error
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise Unavailable(f"A service did not answer ({error.code().name}): {error.details()}. Try again.") from error
    raise Internal(f"{error.code().name}: {error.details()}") from error


class Gate(Protocol):
    """Who may come in where a server is open to others than the owner."""

    def serves(self, method: str) -> bool:
        """Whether `/package.Service/Method` is for them at all; `/package.Service/`: any method of it."""
        ...

    async def admit(
        self, method: str, request: message.Message | None, metadata: Mapping[str, str], peer: str
    ) -> context.Caller:
        """The caller that the call proves, once it is allowed. Raises Unauthenticated, Denied, Invalid; always where `request` is
        None: what came is no message of the method."""
        ...

    async def turn_away(self, method: str, metadata: Mapping[str, str], peer: str) -> None:
        """Told of a call to a method that it does not serve."""
        ...


OPEN_TO_ALL = ("/grpc.health.", "/grpc.reflection.")


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Sets `chassis.context` for the handler and turns its errors into google.rpc.Status.

    Without a gate a call's metadata is believed: only the owner reaches such a server. With one it is not looked at.
    """

    def __init__(self, gate: Gate | None = None) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler = await continuation(handler_call_details)
        gate, method = self._gate, handler_call_details.method
        metadata = {k: v for k, v in handler_call_details.invocation_metadata or () if isinstance(v, str)}
        if method.startswith(OPEN_TO_ALL):
            return handler
        if gate is not None and (handler is None or not gate.serves(method)):
            return _not_served(gate, method, metadata)
        # Health and reflection stream; all methods of ours are unary.
        if handler is None or handler.unary_unary is None:
            return handler
        inner: Callable[[Any, Any], Awaitable[Any]] = handler.unary_unary
        # With a gate, bytes that cannot be read are a call too: it is told of them, where gRPC would answer by itself.
        deserialize = None if gate is None else handler.request_deserializer
        believed = context.from_metadata(metadata) if gate is None else None

        async def run(request: Any, rpc: grpc.aio.ServicerContext[Any, Any]) -> Any:
            who = believed
            try:
                if deserialize is not None:
                    request = _read(deserialize, request)
                if gate is not None:
                    who = await gate.admit(method, request, metadata, rpc.peer())
                if who is None:
                    return await inner(request, rpc)
                with context.acting_as(who):
                    return await inner(request, rpc)
            except BelvedereError as error:
                code, status = to_status(error)
                await rpc.abort(code, error.message, ((DETAILS_KEY, status.SerializeToString()),))
            except NotImplementedError:
                # The generated base class: a method that the proto declares and this service does not have.
                await rpc.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")
            except grpc.aio.AbortError:
                raise
            except Exception:
                given = metadata.get(context.REQUEST_ID) if gate is None else None
                request_id = who.request_id if who else given or context.new_request_id()
                log.exception("%s failed, request %s", method, request_id)
                await rpc.abort(grpc.StatusCode.INTERNAL, request_id)

        first = handler.request_deserializer if gate is None else None
        return grpc.unary_unary_rpc_method_handler(run, first, handler.response_serializer)


def _read(deserialize: Callable[[bytes], message.Message], data: bytes) -> message.Message | None:
    try:
        return deserialize(data)
    except message.DecodeError:
        return None


def _not_served(gate: Gate, method: str, metadata: Mapping[str, str]) -> "grpc.RpcMethodHandler[Any, Any]":
    """Answers however the client would speak, unary or in streams, and leaves it to the gate to remember."""

    async def run(requests: Any, rpc: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            await gate.turn_away(method, metadata, rpc.peer())
        except BelvedereError as error:
            log.error("%s, which is not served, could not be told of: %s", method, error.message)
        await rpc.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")

    return grpc.stream_stream_rpc_method_handler(run)


class ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the present caller's metadata and a timeout where the call names none; raises typed errors."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        who = context.current()
        if who is not None and metadata.get(context.ACCOUNT) is None:
            for key, value in context.call_metadata(who):
                metadata.add(key, value)
        timeout = client_call_details.timeout
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            CALL_TIMEOUT_S if timeout is None else timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        try:
            call = await continuation(details, request)
            return await call
        except grpc.aio.AioRpcError as error:
            raise_typed(error)


CHANNEL_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


def open_channel(target: str) -> grpc.aio.Channel:
    """A channel to `unix:/path` or `host:port` whose stubs raise typed errors. Close it with `await
    channel.close()`."""
    return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS, interceptors=[ClientInterceptor()])
