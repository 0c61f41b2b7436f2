"""Which AWS service a request means: the one in its credential's scope.

Pure but for the services it holds. Before anything is verified the answer is a guess, good enough for an error's form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from services.gateway.codecs import JsonCodec, QueryCodec
from services.gateway.errors import AwsError, GatewayError
from services.gateway.message import AwsService, Call, Remembers, Reply
from services.gateway.panorama import failures

_SCOPE = re.compile(r"Credential=[^/\s]+/\d{8}/[a-z0-9-]+/([a-z0-9.-]+)/aws4_request")
QUERY_NAMESPACE = "http://webservices.amazon.com/AWSFault/2005-15-09"


class Dispatcher:
    """The services behind the front door, by their signing names."""

    def __init__(self, services: Mapping[str, AwsService]) -> None:
        self._services = services
        self._other = OtherService()

    def remembering(self) -> dict[str, Remembers]:
        """Those that may have answers ready."""
        return {name: service for name, service in self._services.items() if isinstance(service, Remembers)}

    def service(self, call: Call) -> tuple[str, AwsService]:
        """(signing name, service); OtherService for what is not served."""
        name = signing_name(call)
        return name, self._services.get(name, self._other)


def signing_name(call: Call) -> str:
    """From the scope; without one, from what the request looks like."""
    match = _SCOPE.search(call.header("authorization"))
    if match:
        return match[1]
    credential = (call.parameter("X-Amz-Credential") or "").split("/")
    if len(credential) == 5:
        return credential[3]
    if call.parameter("AWSAccessKeyId") is not None:
        return "s3"
    target = call.header("x-amz-target")
    if target.startswith("Logs_") or target.startswith("GraniteService"):
        return "logs" if target.startswith("Logs_") else "monitoring"
    if call.header("content-type").startswith("application/x-www-form-urlencoded"):
        return "sts"
    return "panorama"


class OtherService:
    """Everything that is not served: AWS's own kind of error, naming the operation."""

    streams = False
    skew_s = 300

    async def handle(self, call: Call) -> Reply:
        name = call.proof.signature.scope.service if call.proof else "this service"
        operation = _operation(call)
        call.operation = operation
        raise AwsError("UnknownOperationException", f"{operation} of {name} is not served here.", 404)

    def failed(self, call: Call, error: GatewayError) -> Reply:
        if call.header("x-amz-target"):
            return JsonCodec("", "1.1").failed(call, error)
        if call.header("content-type").startswith("application/x-www-form-urlencoded"):
            return QueryCodec(QUERY_NAMESPACE).failed(call, error)
        return failures.reply(error)


def _operation(call: Call) -> str:
    if target := call.header("x-amz-target"):
        return target.rpartition(".")[2][:128]
    if call.header("content-type").startswith("application/x-www-form-urlencoded"):
        text = call.body[:4096].decode("utf-8", "replace")
        fields = dict(parse_qsl(text))
        return fields.get("Action", "A request without an action")[:128]
    return f"{call.method} {call.path[:128]}"
