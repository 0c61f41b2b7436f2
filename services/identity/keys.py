"""Keys that prove who calls: the handlers."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import Any

from belvedere.chassis.errors import Denied, NotFound
from belvedere.v1 import identity_pb2 as pb
from services.identity import rules
from services.identity.administration import Administration
from services.identity.audit import Use
from services.identity.store import AccessKeyRow, EndedInstanceRow, RoleRow, UserRow
from services.identity.vault import Session, Vault


class KeyHandlers(Administration):
    """A part of IdentityService."""

    _vault: Vault

    async def GetSigningKey(self, request: pb.GetSigningKeyRequest, context: Any) -> pb.GetSigningKeyResponse:
        secret, principal, expires = await self._secret(
            request.access_key_id, request.session_token, request.service, request.region
        )
        key = rules.signing_key(secret, request.date, request.region, request.service)
        response = pb.GetSigningKeyResponse(signing_key=key, principal=principal)
        if expires is not None:
            response.expires.FromDatetime(expires)
        return response

    async def VerifySignatureV2(
        self, request: pb.VerifySignatureV2Request, context: Any
    ) -> pb.VerifySignatureV2Response:
        secret, principal, _ = await self._secret(request.access_key_id, request.session_token, "s3", request.region)
        made = hmac.digest(secret.encode(), request.string_to_sign.encode(), "sha1")
        if not hmac.compare_digest(made, request.signature):
            return pb.VerifySignatureV2Response(matches=False)
        return pb.VerifySignatureV2Response(matches=True, principal=principal)

    async def _secret(
        self, access_key_id: str, token: str, service: str, region: str
    ) -> tuple[str, pb.Principal, datetime | None]:
        """(secret, whose, until when). Raises NotFound, Denied."""
        if token:
            return await self._session_key(access_key_id, token)
        secret, principal = await self._user_key(access_key_id)
        self._trail.used(access_key_id, Use(self._clock(), service[:64], region[:32]))
        return secret, principal, None

    async def _user_key(self, access_key_id: str) -> tuple[str, pb.Principal]:
        async with self._database.session(read_only=True) as session:
            row = await session.get(AccessKeyRow, access_key_id)
            user = await session.get(UserRow, (row.account, row.user_name)) if row is not None else None
        if row is None or user is None or not row.active:
            raise NotFound("ACCESS_KEY", access_key_id, "The security token included in the request is invalid.")
        return self._vault.unseal(row.sealed_secret).reveal(), user_principal(user)

    async def _session_key(self, access_key_id: str, token: str) -> tuple[str, pb.Principal, datetime]:
        """(secret, whose, until when)."""
        found = self._vault.session(token)
        if found.access_key_id != access_key_id:
            raise Denied("The security token included in the request is invalid.")
        if found.expires <= self._clock():
            raise Denied("The security token included in the request is expired.")
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (found.account, found.role))
            ended = await session.get(EndedInstanceRow, found.instance) if found.instance else None
        if role is None or role.role_id != found.role_id or ended is not None:
            raise Denied("The security token included in the request is invalid.")
        return found.secret.reveal(), session_principal(found), found.expires


def user_principal(user: UserRow) -> pb.Principal:
    return pb.Principal(account_id=user.account, arn=rules.user_arn(user.account, user.name), user_id=user.user_id)


def session_principal(made: Session) -> pb.Principal:
    arn = rules.session_arn(made.account, made.role, made.session)
    return pb.Principal(account_id=made.account, arn=arn, user_id=f"{made.role_id}:{made.session}")
