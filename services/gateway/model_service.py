"""An AWS service that is a model, some protocols, and a function per operation: STS, Logs and CloudWatch are.

Knows no operation. Reads the request by its protocol, checks it against the model, asks whether it is allowed, calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from belvedere import awsmodel
from belvedere.awsmodel import ServiceModel
from belvedere.chassis.errors import BelvedereError
from services.gateway.codecs import Codec
from services.gateway.errors import AwsError, GatewayError
from services.gateway.message import NO_FACTS, Call, Facts, Named, Reply
from services.gateway.validation import Problems, read_members

Values = Mapping[str, Any]
Handler = Callable[[Values, Call], Awaitable[dict[str, Any]]]


class ModelService:
    """See the module. `handlers` are by operation, `failure` gives the service's own error for a peer's."""

    streams = False
    skew_s = 300
    prefix: str

    def __init__(
        self,
        *,
        model: ServiceModel,
        codecs: Sequence[Codec],
        prefix: str,
        handlers: Mapping[str, Handler],
        resource: Callable[[Values, Call], str],
        invalid: Callable[[Problems], AwsError],
        failure: Callable[[BelvedereError], AwsError],
        context: Callable[[Values], Mapping[str, str]] | None = None,
    ) -> None:
        """`context`: the service's own condition keys."""
        self._model, self._codecs, self.prefix = model, codecs, prefix
        self._handlers, self._resource = handlers, resource
        self._invalid, self._failure, self._context = invalid, failure, context

    async def handle(self, call: Call) -> Reply:
        """Raises GatewayError with the service's codes."""
        codec = self._codec(call)
        request = codec.read(call, self._model)
        operation = self._model.operations.get(request.operation)
        if operation is None or operation.input is None:
            name = request.operation[:128] or "A request without an operation"
            raise AwsError("UnknownOperationException", f"{name} is not served here.", 400)
        call.operation = operation.name
        problems = request.problems
        by_name = {name: request.values.get(m.wire_name) for name, m in operation.input.members.items()}
        values = read_members(operation.input, by_name, "", problems)
        # Asked before the caller is told what is wrong: who may not call learns nothing.
        facts = NO_FACTS if self._context is None else Facts(context=self._context(values))
        await call.authorize(f"{self.prefix}:{operation.name}", self._resource(values, call), facts)
        if problems:
            raise self._invalid(problems)
        try:
            output = await self._handlers[operation.name](values, call)
        except BelvedereError as error:
            raise self._failure(error) from error
        return codec.write(call, operation, output)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        return self._codec(call).failed(call, error)

    def named(self, call: Call) -> Named | None:
        codec = self._codec(call)
        operation = self._model.operations.get(codec.operation(call))
        if operation is None or operation.input is None:
            return None
        call.operation = operation.name
        try:
            sent = codec.read(call, self._model).values
            by_name = {name: sent.get(m.wire_name) for name, m in operation.input.members.items()}
            resource = self._resource(read_members(operation.input, by_name, "", Problems()), call)
        except AwsError:
            resource = "*"
        return Named(f"{self.prefix}:{operation.name}", resource)

    def _codec(self, call: Call) -> Codec:
        """The first that speaks as the request does; else the last, to say that this is none of it."""
        return next((codec for codec in self._codecs if codec.speaks(call)), self._codecs[-1])


def load_model(folder: str) -> ServiceModel:
    """The model.json of a package of the front door."""
    return awsmodel.load(Path(__file__).parent / folder / "model.json")
