"""The gate of the services' gRPC where others than the owner reach it: bearer tokens, and the same policies as everywhere.

`Policies` alone is what other doors to gRPC ask (the console).

    grpcurl -cacert DATA/secrets/tls/ca.pem -H "authorization: Bearer $TOKEN" HOST:PORT belvedere.v1.RegistryService/ListDevices

Who calls is what the token says; `x-belvedere-account`, `-principal` and `-source` of a caller are not looked at. It may choose the
region (`x-belvedere-region`), as a SigV4 scope does. Every call gets its request id here, and leaves one line in the audit trail,
however it ends.
Asks identity; keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import Message

from belvedere.chassis import context
from belvedere.chassis.context import Caller, acting_as, new_request_id, service_principal
from belvedere.chassis.errors import BelvedereError, Denied, Invalid, NotFound, Unauthenticated
from belvedere.chassis.permissions import ANY, PREFIXES, Need, is_public, needs
from belvedere.v1 import deployments_pb2, identity_pb2, packages_pb2, registry_pb2
from belvedere.v1.deployments_pb2_grpc import DeploymentsServiceStub
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from belvedere.v1.packages_pb2_grpc import PackagesServiceStub
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub

PACKAGE = "/belvedere.v1."
TOKEN_MAX = 4096
SCHEME = "bearer "
PACKAGE_BY_NAME = ":package/packageName/"
"""In the ARN of a package that a request names by its name, not by its id."""
NO_METHOD = "grpc:POST"
"""In the place of an action in the line of a call to no method that is served: gRPC's HTTP method; its path is the resource."""
_REGION = re.compile(r"[a-z]{2}(-[a-z]{1,12}){1,3}-[0-9]{1,2}")
_MISSING = (
    "The call brings no token: send the metadata `authorization: Bearer <token>`; `belvedere token create` makes one."
)

T = TypeVar("T")


@dataclass(frozen=True)
class Visitor:
    """Who asks from outside, and how."""

    principal: identity_pb2.Principal
    who: Caller
    agent: str
    """Of `aws:UserAgent`."""
    secure: bool
    """Of `aws:SecureTransport`."""


class Policies:
    """What the policies say to a gRPC request: the decision that every door asks for."""

    def __init__(self, channel: grpc.aio.Channel, owner: str) -> None:
        """`owner`: the service that asks, as which resources' tags are read."""
        self._identity = IdentityServiceStub(channel)
        self._registry = RegistryServiceStub(channel)
        self._packages = PackagesServiceStub(channel)
        self._deployments = DeploymentsServiceStub(channel)
        self._owner = owner

    async def ask(self, needs: Sequence[Need], visitor: Visitor) -> None:
        """Whether one call with these needs is allowed. Raises Denied. Leaves the call's line in the audit trail."""
        for number, need in enumerate(needs):
            await self._ask(need, visitor, further=number > 0)

    async def refused(
        self, action: str, resource: str, *, request_id: str, source: str, principal: str | None = None
    ) -> None:
        """Leaves the line of a call that ended before policies were asked. `principal`: None where nobody is proven. As the caller
        of the context."""
        line = identity_pb2.RecordRefusalRequest(
            principal=principal or "",
            action=action,
            resource=resource,
            source_address=source,
            request_id=request_id,
        )
        await self._identity.RecordRefusal(line)

    async def _ask(self, need: Need, visitor: Visitor, *, further: bool) -> None:
        who = visitor.who
        own = Caller(who.account, who.region, service_principal(self._owner), who.request_id)
        resource = need.resource
        if PACKAGE_BY_NAME in resource:
            resource = await self._looked_up(self._package, need, own, who, further)
        request = identity_pb2.AuthorizeRequest(
            principal=visitor.principal,
            action=need.action,
            resource=resource,
            context={
                "aws:SecureTransport": "true" if visitor.secure else "false",
                "aws:RequestedRegion": who.region,
                "aws:UserAgent": visitor.agent,
                **{f"aws:RequestTag/{key}": value for key, value in need.request_tags.items()},
                **need.context,
            },
            source_address=who.source,
            request_id=who.request_id,
            tag_keys=sorted({*need.tag_keys, *need.request_tags}),
            further=further,
        )
        with acting_as(own):
            decision = await self._identity.Authorize(request)
        if decision.resource_tags_needed:
            tags = await self._looked_up(lambda _: self._tags(resource), need, own, who, further)
            request.resource_tags.CopyFrom(identity_pb2.TagMap(tags=tags))
            with acting_as(own):
                decision = await self._identity.Authorize(request)
        if not decision.allowed:
            raise Denied(decision.message)

    async def _looked_up(
        self, look_up: Callable[[str], Awaitable[T]], need: Need, own: Caller, who: Caller, further: bool
    ) -> T:
        """What a decision needs of another service. The call's line is left, too, where that one does not answer."""
        with acting_as(own):
            try:
                return await look_up(need.resource)
            except BelvedereError:
                if not further:
                    await self.refused(
                        need.action,
                        need.resource,
                        request_id=who.request_id,
                        source=who.source,
                        principal=who.principal,
                    )
                raise

    async def _package(self, resource: str) -> str:
        """The ARN by which policies know a package that is named by its name: one package, one decision."""
        named = packages_pb2.DescribePackageRequest(package_id=f"packageName/{resource.partition(PACKAGE_BY_NAME)[2]}")
        try:
            return (await self._packages.DescribePackage(named)).arn
        except (NotFound, Invalid):
            return resource

    async def _tags(self, resource: str) -> dict[str, str]:
        """The tags of a resource of the caller's account; none of what is not there or has no tags."""
        kind, _, name = resource.rpartition(":")[2].partition("/")
        try:
            match kind:
                case "device":
                    device = registry_pb2.DescribeDeviceRequest(device_id=name)
                    return dict((await self._registry.DescribeDevice(device)).tags)
                case "package":
                    package = packages_pb2.DescribePackageRequest(package_id=name)
                    return dict((await self._packages.DescribePackage(package)).tags)
                case "applicationInstance":
                    instance = deployments_pb2.DescribeApplicationInstanceRequest(application_instance_id=name)
                    return dict((await self._deployments.DescribeApplicationInstance(instance)).tags)
        except (NotFound, Invalid):
            return {}
        return {}


class BearerGate:
    """A `rpc.Gate`."""

    def __init__(self, channel: grpc.aio.Channel, *, account: str, region: str) -> None:
        """`account`: for which the gate itself asks; `region`: of callers who choose none."""
        self._identity = IdentityServiceStub(channel)
        self._policies = Policies(channel, "gate")
        self._account, self._region = account, region

    def serves(self, method: str) -> bool:
        """Methods of the public services that are not for services among themselves."""
        if not method.startswith(PACKAGE):
            return False
        service, _, name = method.removeprefix(PACKAGE).partition("/")
        return is_public(service, name) if name else service in PREFIXES

    async def admit(self, method: str, request: Message | None, metadata: Mapping[str, str], peer: str) -> Caller:
        """Raises Unauthenticated, Denied, Invalid. `request`: None for bytes that are no message of the method."""
        named = metadata.get(context.REGION, self._region)
        region = named if _REGION.fullmatch(named) else self._region
        request_id, source = new_request_id(), address(peer)
        with acting_as(Caller(self._account, region, service_principal("gate"), request_id)):
            try:
                principal = await self._principal(metadata.get("authorization", ""))
            except Unauthenticated:
                await self._refused(method, request, None, region, request_id, source)
                raise
            if region != named or request is None:
                await self._refused(method, request, principal, region, request_id, source)
                wrong = f"{context.REGION}: {named[:40]!r} is no region such as {self._region}."
                raise Invalid(wrong if region != named else f"This is no request of {method}.")
        who = Caller(principal.account_id, region, principal.arn, request_id, source)
        visitor = Visitor(principal, who, metadata.get("user-agent", ""), secure=True)
        await self._policies.ask(needs_of(method, request, who), visitor)
        return who

    async def turn_away(self, method: str, metadata: Mapping[str, str], peer: str) -> None:
        """Leaves the line of a call to a method that is not served here."""
        request_id = new_request_id()
        with acting_as(Caller(self._account, self._region, service_principal("gate"), request_id)):
            try:
                principal = (await self._principal(metadata.get("authorization", ""))).arn
            except Unauthenticated:
                principal = None
            source = address(peer)
            await self._policies.refused(NO_METHOD, method, request_id=request_id, source=source, principal=principal)

    async def _refused(
        self,
        method: str,
        request: Message | None,
        principal: identity_pb2.Principal | None,
        region: str,
        request_id: str,
        source: str,
    ) -> None:
        service, _, name = method.removeprefix(PACKAGE).partition("/")
        action, resource = f"{PREFIXES[service]}:{name}", ANY
        if request is not None:
            need, *more = needs(service, name, request, self._account, region)
            action, resource = need.action, ANY if any(other.action == need.action for other in more) else need.resource
        arn = principal.arn if principal is not None else None
        await self._policies.refused(action, resource, request_id=request_id, source=source, principal=arn)

    async def _principal(self, authorization: str) -> identity_pb2.Principal:
        if authorization[: len(SCHEME)].lower() != SCHEME or len(authorization) > TOKEN_MAX:
            raise Unauthenticated(_MISSING)
        token = authorization[len(SCHEME) :].strip()
        try:
            return (await self._identity.GetBearer(identity_pb2.GetBearerRequest(token=token))).principal
        except Denied as error:
            raise Unauthenticated(error.message) from error


def needs_of(method: str, request: Message, who: Caller) -> list[Need]:
    """What a request to a method ("/belvedere.v1.RegistryService/ListDevices") needs."""
    service, _, name = method.removeprefix(PACKAGE).partition("/")
    return needs(service, name, request, who.account, who.region)


def address(peer: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:10.0.0.1:4242`, `ipv6:%5B::1%5D:4242`; else "unknown"."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "unknown"
    return unquote(rest).rpartition(":")[0].strip("[]") or "unknown"
