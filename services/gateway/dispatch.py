"""Which AWS service a request means: the one in its credential's scope, or what `guess` makes of it.

Pure but for the services it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway import naming
from services.gateway.access import claimed_key
from services.gateway.codecs import JsonCodec, QueryCodec
from services.gateway.errors import AwsError, GatewayError
from services.gateway.guess import FORM, Guess
from services.gateway.message import AnswersBroken, AwsService, Call, Named, Remembers, Reply
from services.gateway.model_service import ModelService
from services.gateway.panorama import failures

QUERY_NAMESPACE = "http://webservices.amazon.com/AWSFault/2005-15-09"


class Dispatcher:
    """The services behind the front door, by their signing names."""

    def __init__(self, services: Mapping[str, AwsService], guess: Guess) -> None:
        self._services, self.guess = services, guess
        self._other = OtherService()

    def remembering(self) -> dict[str, Remembers]:
        """Those that may have answers ready."""
        return {name: service for name, service in self._services.items() if isinstance(service, Remembers)}

    def service(self, call: Call) -> tuple[str, AwsService]:
        """(signing name, service); OtherService for what is not served."""
        name = self.guess.service(call.http)
        return name, self._services.get(name, self._other)

    def broken(self, front: bytes, request_id: str, *, too_large: bool) -> Reply:
        """The answer to what is no valid HTTP. `front`: how it begins; `too_large`: its head is."""
        request = self.guess.of_bytes(front)
        service = self._services.get(self.guess.service(request)) if request else None
        if request is not None and isinstance(service, AnswersBroken):
            return service.broken(request.method, request.path, request_id, too_large=too_large)
        return Reply(400, {"Content-Type": "application/json"}, b'{"Message":"Bad request"}')

    def named(self, call: Call, name: str) -> Named:
        """What a call of the service `name` is in the audit trail: by its operation; where it leads to none by method and path."""
        service = self._services.get(name)
        found = service.named(call) if service is not None else None
        if found is None and not claimed_key(call.http):
            # No credential says which service is meant: forms look alike but for their operation, and the root is everybody's.
            by_form = [other for other in self._services.values() if isinstance(other, ModelService)]
            anybody = self._services.values() if call.path == "/" else ()
            found = next((named for other in (*by_form, *anybody) if (named := other.named(call)) is not None), None)
        if found is not None:
            return found
        prefix = service.prefix if service is not None else name
        if operation := naming.spoken(call):
            return Named(f"{prefix}:{operation}", "*")
        return Named(f"{prefix}:{call.method}", call.path)


class OtherService:
    """Everything that is not served: AWS's own kind of error, naming the operation."""

    prefix = ""
    streams = False
    skew_s = 300

    async def handle(self, call: Call) -> Reply:
        name = call.proof.signature.scope.service if call.proof else "this service"
        operation = naming.spoken(call) or f"{call.method} {call.path[:128]}"
        call.operation = operation
        raise AwsError("UnknownOperationException", f"{operation} of {name} is not served here.", 404)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        if call.header("x-amz-target"):
            return JsonCodec("", "1.1").failed(call, error)
        if call.header("content-type").startswith(FORM):
            return QueryCodec(QUERY_NAMESPACE).failed(call, error)
        return failures.reply(error)

    def named(self, call: Call) -> Named | None:
        return None
