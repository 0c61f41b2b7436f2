"""Who calls and whether they may: asks identity, and remembers signing keys for a short while.

Knows identity's gRPC; secrets never come here, only keys derived for one day, region and service.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import grpc

from belvedere.chassis.context import Caller, acting_as, service_principal
from belvedere.chassis.errors import Denied, NotFound
from belvedere.chassis.local import at_hand
from belvedere.v1 import identity_pb2
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.gateway.errors import AuthError, AuthKind
from services.gateway.message import NO_FACTS, Call, Facts, Named
from services.gateway.sigv2 import SignatureV2
from services.gateway.sigv4 import MISMATCH_TEXT, HttpRequest, Scope, Signature, Signer

UNKNOWN_KEY_TEXT = "The security token included in the request is invalid."
_CLAIMED = re.compile(r"(?:Credential|AWSAccessKeyId)=([\w+=,.@-]{1,128})")
AUTHORIZE = "/belvedere.v1.IdentityService/Authorize"
ALLOWED = identity_pb2.AuthorizeResponse(allowed=True).SerializeToString()
ASKED_MAX = 1024
"""Characters of resource and user agent of a question that is kept."""


class Key(NamedTuple):
    """A signing key and whose it is."""

    signer: Signer
    principal: identity_pb2.Principal
    account: str
    """The principal's, as are its ARN and id: texts of their own, for a message makes a new one each time."""
    arn: str
    user_id: str
    expires: datetime | None
    """Of temporary credentials."""


class Asker(NamedTuple):
    """What policies may look at of who asks."""

    principal: str
    """ARN."""
    user_id: str
    region: str
    source_address: str
    agent: str


class Access:
    """Signing keys and decisions."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        account: str,
        cache_entries: int,
        cache_s: float,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        self._identity = IdentityServiceStub(channel)
        self._authorize = channel.unary_unary(AUTHORIZE, bytes, bytes)
        self._decided = at_hand(channel, AUTHORIZE)
        self._clock = clock
        self._account = account
        self._entries, self._lifetime_s, self._now = cache_entries, cache_s, monotonic
        self._keys: OrderedDict[tuple[Scope, str], tuple[float, Key]] = OrderedDict()
        self._questions: OrderedDict[tuple[Asker, str, str, bool], bytes] = OrderedDict()
        self._changes = 0

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._keys)

    def forget(self) -> None:
        """An access key, user or role has changed: every key is asked for again."""
        self._changes += 1
        self._keys.clear()

    async def key(self, signature: Signature, request_id: str) -> Key:
        """The key that should have signed. Raises AuthError: UNKNOWN_KEY, EXPIRED_TOKEN.

        A key is remembered until `forget`, which identity's events bring about, for `cache_s` at most, and never past the end of
        its session.
        """
        known = self.known(signature)
        if known is not None:
            return known
        changes = self._changes
        key = await self._ask(signature, request_id)
        if changes != self._changes:
            # Answered before a change that was heard of since: good for this request, which came first.
            return key
        place = _place(signature)
        self._keys[place] = (self._now() + self._lifetime_s, key)
        self._keys.move_to_end(place)
        while len(self._keys) > self._entries:
            self._keys.popitem(last=False)
        return key

    def known(self, signature: Signature) -> Key | None:
        """`key`, where it is remembered."""
        place = _place(signature)
        known = self._keys.get(place)
        if known is None or known[0] <= self._now():
            return None
        expires = known[1].expires
        if expires is not None and self._clock() >= expires:
            return None
        self._keys.move_to_end(place)
        return known[1]

    async def _ask(self, signature: Signature, request_id: str) -> Key:
        scope = signature.scope
        request = identity_pb2.GetSigningKeyRequest(
            access_key_id=scope.access_key_id,
            date=scope.date,
            region=scope.region,
            service=scope.service,
            session_token=signature.session_token,
        )
        with self._as_itself(scope.region, request_id), _told_as_auth_errors():
            answer = await self._identity.GetSigningKey(request)
        principal = answer.principal
        expires = answer.expires.ToDatetime(UTC) if answer.HasField("expires") else None
        return Key(
            signer=Signer(answer.signing_key),
            principal=principal,
            account=principal.account_id,
            arn=principal.arn,
            user_id=principal.user_id,
            expires=expires,
        )

    async def verify_v2(self, signature: SignatureV2, string_to_sign: str, region: str, request_id: str) -> Key:
        """The key that has signed a URL by Signature Version 2. Raises AuthError: UNKNOWN_KEY, EXPIRED_TOKEN, MISMATCH."""
        request = identity_pb2.VerifySignatureV2Request(
            access_key_id=signature.access_key_id,
            session_token=signature.session_token,
            string_to_sign=_sent(string_to_sign),
            signature=signature.value,
            region=region,
        )
        with self._as_itself(region, request_id), _told_as_auth_errors():
            answer = await self._identity.VerifySignatureV2(request)
        if not answer.matches:
            raise AuthError(AuthKind.MISMATCH, MISMATCH_TEXT)
        who = answer.principal
        return Key(Signer(b""), who, who.account_id, who.arn, who.user_id, None)

    async def refused(self, call: Call, named: Named) -> None:
        """Leaves the line in the audit trail of a call that ended before policies were asked."""
        request = identity_pb2.RecordRefusalRequest(
            action=_sent(named.action),
            resource=_sent(named.resource),
            source_address=call.source_address,
            request_id=call.request_id,
        )
        if call.proof is not None:
            request.principal = call.proof.principal.arn
        else:
            request.access_key_id = claimed_key(call.http) or _key_of_form(call)
        with self._as_itself(call.caller.region if call.caller else "", call.request_id):
            await self._identity.RecordRefusal(request)

    def _as_itself(self, region: str, request_id: str) -> AbstractContextManager[Caller]:
        """Nobody is known yet: the front door asks for itself."""
        return acting_as(Caller(self._account, region, service_principal("gateway"), request_id))

    async def authorize(self, call: Call, action: str, resource: str, facts: Facts = NO_FACTS) -> None:
        """Raises AuthError(DENIED) unless policies allow it. The first decision of a call leaves its line in the audit trail, further
        ones join it there."""
        if call.proof is None:
            raise AuthError(AuthKind.MISSING, "Missing Authentication Token")
        further, call.decided = call.decided, True
        # The parts of a message that follow each other are one message.
        principal, who = call.proof.principal, call.who
        asker = Asker(who.principal, principal.user_id, who.region, call.source_address, call.header("user-agent"))
        asked = self._asked(principal, asker, action, resource, facts)
        packet = asked + identity_pb2.AuthorizeRequest(request_id=call.request_id, further=further).SerializeToString()
        answer = await self._authorize(packet)
        if answer == ALLOWED:
            return
        decision = identity_pb2.AuthorizeResponse.FromString(answer)
        if decision.resource_tags_needed and facts.resource_tags is not None:
            call.decided = further  # nothing was, and the tags may be out of reach
            tags = await facts.resource_tags()
            call.decided = True
            request = identity_pb2.AuthorizeRequest.FromString(packet)
            request.resource_tags.CopyFrom(identity_pb2.TagMap(tags=tags))
            decision = identity_pb2.AuthorizeResponse.FromString(await self._authorize(request.SerializeToString()))
        if not decision.allowed:
            arn = call.proof.principal.arn
            fallback = f"User: {arn} is not authorized to perform: {action} on resource: {resource}"
            raise AuthError(AuthKind.DENIED, decision.message or fallback)

    def allowed(
        self, who: Caller, principal: identity_pb2.Principal, asker: Asker, action: str, resource: str, facts: Facts
    ) -> bool:
        """True: identity has said yes at once, and left the line in the trail. False: nothing is decided, `authorize` is to ask."""
        return self._decided(who, self._asked(principal, asker, action, resource, facts)) == ALLOWED

    def _asked(
        self, principal: identity_pb2.Principal, asker: Asker, action: str, resource: str, facts: Facts
    ) -> bytes:
        """The question but for the request's id. Clients ask the same again and again: it is written once."""
        no_tags = facts.resource_tags is None
        place = (asker, action, resource, no_tags)
        few = len(resource) + len(asker.agent) <= ASKED_MAX
        kept = few and not (facts.context or facts.request_tags or facts.tag_keys)
        if kept and (asked := self._questions.get(place)) is not None:
            self._questions.move_to_end(place)
            return asked
        asked = identity_pb2.AuthorizeRequest(
            principal=principal,
            action=action,
            resource=resource,
            context=_context(asker, facts),
            source_address=asker.source_address,
            tag_keys=sorted({*facts.tag_keys, *facts.request_tags}),
            # Present, though empty, where there is nothing to read: identity then does not ask for it.
            resource_tags=identity_pb2.TagMap() if no_tags else None,
        ).SerializeToString()
        if kept:
            self._questions[place] = asked
            if len(self._questions) > self._entries:
                self._questions.popitem(last=False)
        return asked


@contextmanager
def _told_as_auth_errors() -> Iterator[None]:
    """What identity says of a key, as the front door says it."""
    try:
        yield
    except NotFound as error:
        raise AuthError(AuthKind.UNKNOWN_KEY, UNKNOWN_KEY_TEXT) from error
    except Denied as error:
        expired = "expired" in error.message.lower()
        kind = AuthKind.EXPIRED_TOKEN if expired else AuthKind.UNKNOWN_KEY
        text = "The security token included in the request is expired" if expired else UNKNOWN_KEY_TEXT
        raise AuthError(kind, text) from error


def claimed_key(request: HttpRequest) -> str:
    """The access key that a request names, proven or not; empty where it names none."""
    found = _CLAIMED.search(request.named.get("authorization", "")) or _CLAIMED.search(request.query)
    return found[1] if found else ""


def _key_of_form(call: Call) -> str:
    """The same of a form, whose fields hold it."""
    fields = call.form.fields if call.form is not None else {}
    named = fields.get("x-amz-credential", "").partition("/")[0] or fields.get("awsaccesskeyid", "")
    found = _CLAIMED.fullmatch(f"Credential={named}")
    return found[1] if found else ""


def _sent(text: str) -> str:
    """A text in which there may be halves of characters, as it can be sent."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _place(signature: Signature) -> tuple[Scope, str]:
    # The token's hash, so that no token lies about in memory longer than its request.
    token = signature.session_token
    return (signature.scope, hashlib.sha256(token.encode()).hexdigest() if token else "")


def _context(asker: Asker, facts: Facts) -> dict[str, str]:
    """Condition keys of every request, then those of the operation."""
    known = {
        "aws:SecureTransport": "false",  # one HTTP port: a proxy's TLS ends before it
        "aws:UserAgent": asker.agent,
        "aws:RequestedRegion": asker.region,
        **{f"aws:RequestTag/{key}": value for key, value in facts.request_tags.items()},
        **facts.context,
    }
    return {key: t if t.isascii() else t.encode("utf-8", "replace").decode() for key, t in known.items()}
