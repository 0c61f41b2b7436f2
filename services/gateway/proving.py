"""Who signed a request: the signature's parts, the key that should have made it, the time, the body.

Knows signatures and identity's keys, no HTTP server and no operation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime

from belvedere.chassis.context import Caller
from services.gateway import forms, sigv2, sigv4
from services.gateway.access import Access
from services.gateway.errors import AwsError
from services.gateway.message import AwsService, Call, Proof, TakesForms, TakesV2, read_all
from services.gateway.payload import declared_hash


class Prover:
    """See the module."""

    def __init__(self, access: Access, clock: Callable[[], datetime], region: str) -> None:
        """`region`: of callers whose signature names none."""
        self._access, self._clock, self._region = access, clock, region

    async def prove(self, call: Call, service: AwsService) -> None:
        """Puts proof and caller into the call, and its body unless the service streams. Raises AuthError, AwsError."""
        if sigv2.is_signed(call.http) and isinstance(service, TakesV2):
            await self._prove_v2(call, service)
            return
        if isinstance(service, TakesForms) and (form := await service.read_form(call)) is not None:
            call.proof, call.caller = await forms.prove(form, call, self._access, self._region, self._clock())
            return
        signature = sigv4.parse(call.http)
        key = await self._access.key(signature, call.request_id)
        sigv4.verify_time(signature, self._clock(), service.skew_s)
        if service.streams:
            payload_hash = declared_hash(call)
        else:
            payload_hash = sigv4.EMPTY_SHA256
            if call.has_body:
                call.body = await read_all(call)
                payload_hash = hashlib.sha256(call.body).hexdigest()
            declared = call.http.header("x-amz-content-sha256")
            if declared is not None and declared != payload_hash:
                payload_hash = _unsigned(declared)
        sigv4.verify(call.http, signature, key.signer, payload_hash)
        call.proof = Proof(signature, key.signer, key.principal)
        call.caller = Caller(key.account, signature.scope.region, key.arn, call.request_id, call.source_address)

    async def _prove_v2(self, call: Call, service: TakesV2) -> None:
        """The same of a URL that is presigned the older way."""
        signature, now = sigv2.parse(call.http), self._clock()
        sigv2.verify_time(signature, now)
        text = sigv2.string_to_sign(signature, service.signed_path(call))
        key = await self._access.verify_v2(signature, text, self._region, call.request_id)
        scope = sigv4.Scope(signature.access_key_id, f"{now:%Y%m%d}", self._region, "s3")
        call.proof = Proof(sigv4.Signature(scope, (), "", now, None, ""), key.signer, key.principal)
        call.caller = Caller(key.account, self._region, key.arn, call.request_id, call.source_address)
        call.http = signature.request


def _unsigned(declared: str) -> str:
    """The word of a client that signs no payload; any other hash than the body's own cannot be right."""
    if declared == sigv4.UNSIGNED:
        return declared
    raise AwsError("InvalidSignatureException", "The x-amz-content-sha256 header does not match the body.", 403)
