"""The identity service: IdentityService over gRPC, application credentials over the bus."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from belvedere.bus.keyring import write_secret
from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Denied, Invalid, NotFound, QuotaExceeded
from belvedere.chassis.logs import get_logger
from belvedere.chassis.runtime import CloudSettings, Runtime
from belvedere.chassis.service import Service
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1 import identity_pb2_grpc
from services.identity import rules, store
from services.identity.events import CredentialsDesk
from services.identity.settings import ENV, Settings
from services.identity.store import (
    AccessKeyRow,
    AccountRow,
    AuditRow,
    ConsoleSessionRow,
    LoginTokenRow,
    RoleRow,
    UserRow,
)
from services.identity.vault import Session, Vault, fingerprint, new_secret_key, unique_id

PURGE_EVERY_S = 3600.0
TOKEN_BYTES = 32

log = get_logger(__name__)


class IdentityHandlers(identity_pb2_grpc.IdentityServiceServicer):
    """IdentityService."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        settings: Settings,
        cloud: CloudSettings,
        admin_file: Path,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._vault = vault
        self._settings = settings
        self._cloud = cloud
        self._admin_file = admin_file
        self._clock = clock

    async def prepare(self) -> None:
        """At first start: the account, its administrator with one access key in admin.json, the applications' role."""
        account, now = self._cloud.account, self._clock()
        async with self._database.session() as session, session.begin():
            if await session.get(AccountRow, account) is not None:
                return
            session.add(AccountRow(account=account, created=now))
            await session.flush()
            session.add(
                UserRow(
                    account=account,
                    name=rules.ADMINISTRATOR,
                    user_id=unique_id("AIDA", 17),
                    policies=[rules.ADMINISTRATOR_POLICY],
                    created=now,
                )
            )
            session.add(
                RoleRow(
                    account=account,
                    name=rules.APPLICATION_ROLE,
                    role_id=unique_id("AROA", 17),
                    policies=[rules.APPLICATION_POLICY],
                    created=now,
                )
            )
            row, secret = self._new_key(account, rules.ADMINISTRATOR)
            session.add(row)
            admin = {
                "access_key_id": row.access_key_id,
                "secret_access_key": secret,
                "account_id": account,
                "region": self._cloud.region,
            }
            # Before the commit: should this process die in between, the next start makes both anew.
            write_secret(self._admin_file, json.dumps(admin, indent=2).encode() + b"\n")
        log.info("first start: made an account with an administrator", account=account, file=str(self._admin_file))

    async def purge(self) -> None:
        """Until cancelled: removes what is too old."""
        while True:
            now = self._clock()
            async with self._database.session() as session, session.begin():
                await store.purge(session, now=now, audit_before=now - timedelta(days=self._settings.audit_days))
            await asyncio.sleep(PURGE_EVERY_S)

    async def GetSigningKey(self, request: pb.GetSigningKeyRequest, context: Any) -> pb.GetSigningKeyResponse:
        if request.session_token:
            secret, principal = await self._session_key(request.access_key_id, request.session_token)
        else:
            secret, principal = await self._user_key(request.access_key_id)
        key = rules.signing_key(secret, request.date, request.region, request.service)
        return pb.GetSigningKeyResponse(signing_key=key, principal=principal)

    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        arn = request.principal.arn
        kind, account, name = rules.parse_principal(arn)
        async with self._database.session() as session, session.begin():
            holder: UserRow | RoleRow | None
            if kind == "user":
                holder = await session.get(UserRow, (account, name))
            else:
                holder = await session.get(RoleRow, (account, name))
            allowed = False
            if holder is not None:
                try:
                    allowed = rules.allowed(holder.policies, request.action, request.resource)
                except Invalid as error:
                    log.error("a stored policy cannot be read: denied", principal=arn, reason=error.message)
            session.add(
                AuditRow(
                    at=self._clock(),
                    account=account,
                    principal=arn[:512],
                    action=request.action[:128],
                    resource=request.resource[:2048],
                    allowed=allowed,
                    source_address=request.source_address[:64],
                    request_id=request.request_id[:64],
                )
            )
        message = "" if allowed else rules.refusal(arn, request.action, request.resource)
        return pb.AuthorizeResponse(allowed=allowed, message=message)

    async def CreateAccessKey(self, request: pb.CreateAccessKeyRequest, context: Any) -> pb.CreateAccessKeyResponse:
        account = caller().account
        async with self._database.session() as session, session.begin():
            user = await session.get(UserRow, (account, request.user_name))
            if user is None:
                raise NotFound("USER", request.user_name)
            if len(await store.access_keys(session, account, user.name)) >= rules.MAX_ACCESS_KEYS:
                raise QuotaExceeded(
                    "AccessKeysPerUser",
                    f"{user.name} has {rules.MAX_ACCESS_KEYS} access keys already: delete one first.",
                )
            row, secret = self._new_key(account, user.name)
            session.add(row)
        return pb.CreateAccessKeyResponse(access_key_id=row.access_key_id, secret_access_key=secret)

    async def AssumeRole(self, request: pb.AssumeRoleRequest, context: Any) -> pb.AssumeRoleResponse:
        duration_s = rules.check_session(request.role_session_name, request.duration_seconds)
        account, _ = rules.parse_role_arn(request.role_arn)
        if account != caller().account:
            raise Denied(rules.refusal(caller().principal, "sts:AssumeRole", request.role_arn))
        return await self.assume(request.role_arn, request.role_session_name, duration_s)

    async def assume(self, role_arn: str, session_name: str, duration_s: int | None = None) -> pb.AssumeRoleResponse:
        """Temporary credentials for a role. Raises Invalid, Denied."""
        account, name = rules.parse_role_arn(role_arn)
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (account, name))
        if role is None:
            raise Denied(rules.unknown_role(role_arn, account))
        lasts = timedelta(seconds=duration_s or self._settings.application_session_s)
        made = Session(
            access_key_id=unique_id("ASIA", 16),
            secret=new_secret_key(),
            account=account,
            role=name,
            role_id=role.role_id,
            session=session_name,
            expires=(self._clock() + lasts).replace(microsecond=0),
        )
        response = pb.AssumeRoleResponse(
            access_key_id=made.access_key_id,
            secret_access_key=made.secret.reveal(),
            session_token=self._vault.token(made),
            principal=_session_principal(made),
        )
        response.expiration.FromDatetime(made.expires)
        return response

    async def CreateLoginToken(self, request: pb.CreateLoginTokenRequest, context: Any) -> pb.CreateLoginTokenResponse:
        account, token = caller().account, secrets.token_urlsafe(TOKEN_BYTES)
        expires = self._clock() + timedelta(seconds=self._settings.login_token_s)
        async with self._database.session() as session, session.begin():
            if await session.get(UserRow, (account, request.user_name)) is None:
                raise NotFound("USER", request.user_name)
            session.add(
                LoginTokenRow(
                    token_hash=fingerprint(token), account=account, user_name=request.user_name, expires=expires
                )
            )
        response = pb.CreateLoginTokenResponse(token=token)
        response.expires_at.FromDatetime(expires)
        return response

    async def RedeemLoginToken(self, request: pb.RedeemLoginTokenRequest, context: Any) -> pb.RedeemLoginTokenResponse:
        now, session_id = self._clock(), secrets.token_urlsafe(TOKEN_BYTES)
        expires = now + timedelta(seconds=self._settings.console_session_s)
        async with self._database.session() as session, session.begin():
            token = await store.take_login_token(session, fingerprint(request.token))
            if token is not None and token.expires > now:
                session.add(
                    ConsoleSessionRow(
                        session_hash=fingerprint(session_id),
                        account=token.account,
                        user_name=token.user_name,
                        expires=expires,
                    )
                )
        if token is None or token.expires <= now:
            raise Denied("This login link was used already or has expired: make another with `belvedere console`.")
        response = pb.RedeemLoginTokenResponse(session_id=session_id)
        response.expires_at.FromDatetime(expires)
        return response

    async def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:
        async with self._database.session(read_only=True) as session:
            row = await session.get(ConsoleSessionRow, fingerprint(request.session_id))
            user = await session.get(UserRow, (row.account, row.user_name)) if row is not None else None
        if row is None or user is None or row.expires <= self._clock():
            raise Denied("There is no such session, or it has expired: log in again.")
        return pb.GetSessionResponse(principal=_user_principal(user))

    async def _user_key(self, access_key_id: str) -> tuple[str, pb.Principal]:
        async with self._database.session(read_only=True) as session:
            row = await session.get(AccessKeyRow, access_key_id)
            user = await session.get(UserRow, (row.account, row.user_name)) if row is not None else None
        if row is None or user is None:
            raise NotFound("ACCESS_KEY", access_key_id, "The security token included in the request is invalid.")
        return self._vault.unseal(row.sealed_secret).reveal(), _user_principal(user)

    async def _session_key(self, access_key_id: str, token: str) -> tuple[str, pb.Principal]:
        found = self._vault.session(token)
        if found.access_key_id != access_key_id:
            raise Denied("The security token included in the request is invalid.")
        if found.expires <= self._clock():
            raise Denied("The security token included in the request is expired.")
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (found.account, found.role))
        if role is None or role.role_id != found.role_id:
            raise Denied("The security token included in the request is invalid.")
        return found.secret.reveal(), _session_principal(found)

    def _new_key(self, account: str, user_name: str) -> tuple[AccessKeyRow, str]:
        secret = new_secret_key()
        row = AccessKeyRow(
            access_key_id=unique_id("AKIA", 16),
            account=account,
            user_name=user_name,
            sealed_secret=self._vault.seal(secret),
            created=self._clock(),
        )
        return row, secret.reveal()


def _user_principal(user: UserRow) -> pb.Principal:
    return pb.Principal(account_id=user.account, arn=rules.user_arn(user.account, user.name), user_id=user.user_id)


def _session_principal(made: Session) -> pb.Principal:
    arn = rules.session_arn(made.account, made.role, made.session)
    return pb.Principal(account_id=made.account, arn=arn, user_id=f"{made.role_id}:{made.session}")


def create(runtime: Runtime) -> Service:
    """The service, made of what the runtime gives."""
    settings = runtime.settings(Settings, ENV)
    handlers = IdentityHandlers(
        runtime.database("identity"),
        Vault(runtime.paths.secrets, settings.key),
        settings,
        runtime.cloud,
        runtime.paths.admin_file,
        runtime.clock,
    )
    desk = CredentialsDesk(runtime.bus, handlers.assume)
    return Service(
        name="identity",
        servicers=[(identity_pb2_grpc.add_IdentityServiceServicer_to_server, handlers, "belvedere.v1.IdentityService")],
        tasks=[desk.run, handlers.purge],
        ready=[handlers.prepare],
        migrations=Path(__file__).parent / "migrations",
    )
