"""The identity service: IdentityService over gRPC, application credentials over the bus."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from belvedere.bus.keyring import write_secret
from belvedere.chassis.context import caller, new_request_id, service_principal
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Denied, Invalid, NotFound
from belvedere.chassis.ids import Arn
from belvedere.chassis.logs import get_logger
from belvedere.chassis.runtime import CloudSettings, Runtime
from belvedere.chassis.service import Service
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1 import identity_pb2_grpc
from services.identity import rules, store
from services.identity.at_hand import DecisionsAtHand
from services.identity.audit import Trail
from services.identity.authority import Authority
from services.identity.directory import DECISIONS_MAX, Directory
from services.identity.events import Changes, CredentialsDesk, EndedInstances
from services.identity.keys import KeyHandlers, session_principal, user_principal
from services.identity.policy import Request, Trust, managed
from services.identity.roles import RoleHandlers
from services.identity.settings import ENV, Settings
from services.identity.store import (
    AccountRow,
    AttachmentRow,
    ConsoleSessionRow,
    LoginTokenRow,
    RoleRow,
    UserRow,
)
from services.identity.trail_handlers import TrailHandlers
from services.identity.users import UserHandlers
from services.identity.vault import Session, Vault, fingerprint, new_secret_key, unique_id

PURGE_EVERY_S = 3600.0
TOKEN_BYTES = 32

log = get_logger(__name__)


class IdentityHandlers(KeyHandlers, UserHandlers, RoleHandlers, TrailHandlers):
    """IdentityService: decisions, credentials and sessions here; keys, users, roles and the trail's reading in the bases."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        settings: Settings,
        cloud: CloudSettings,
        admin_file: Path,
        clock: Callable[[], datetime],
    ) -> None:
        directory, trail = Directory(database), Trail(database)
        super().__init__(database, vault, directory, trail, clock)
        self._settings = settings
        self._cloud = cloud
        self._admin_file = admin_file
        self._authority = Authority(database, cloud.account, cloud.region, clock)
        self.directory, self.trail = directory, trail

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
                    created=now,
                )
            )
            session.add(
                RoleRow(
                    account=account,
                    name=rules.APPLICATION_ROLE,
                    role_id=unique_id("AROA", 17),
                    trust=managed.application_trust(account),
                    created=now,
                )
            )
            for kind, name, policy in (
                ("user", rules.ADMINISTRATOR, managed.ADMINISTRATOR_ACCESS),
                ("role", rules.APPLICATION_ROLE, managed.APPLICATION_ACCESS),
            ):
                session.add(AttachmentRow(account=account, kind=kind, name=name, policy_arn=policy))
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
                early = await store.purge(
                    session,
                    now=now,
                    audit_before=now - timedelta(days=self._settings.audit_days),
                    audit_rows=self._settings.audit_rows,
                    unproven_rows=self._settings.audit_unproven_rows,
                )
            if early:
                log.warning("lines of the audit trail made room for newer ones before their time", lines=early)
            await asyncio.sleep(PURGE_EVERY_S)

    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        who = rules.parse_principal(request.principal.arn)
        holder = await self._directory.holder(who)
        if holder is not None and holder.looks_at_tags and not request.HasField("resource_tags"):
            return pb.AuthorizeResponse(resource_tags_needed=True)
        action, resource, source = request.action, request.resource, request.source_address
        by_name_alone = holder is not None and not holder.keys and action != rules.ASSUME_ROLE
        why = holder.decided.get((action, resource)) if holder is not None and by_name_alone else None
        if why is None:
            known: dict[str, Sequence[str]] = {}
            if not by_name_alone:
                known = self._authority.context(who, holder, source)
                known.update({key.lower(): (value,) for key, value in request.context.items()})
                tags = request.resource_tags.tags
                known.update({f"aws:resourcetag/{key}".lower(): (value,) for key, value in tags.items()})
                if request.tag_keys:
                    known["aws:tagkeys"] = tuple(request.tag_keys)
            why = await self._authority.why_not(who, holder, Request(action, resource, known))
            if holder is not None and by_name_alone:
                if len(holder.decided) >= DECISIONS_MAX:
                    holder.decided.clear()
                holder.decided[action, resource] = why
        await self._leave_line(who, action, resource, not why, source, request.request_id, further=request.further)
        if not why:
            return pb.AuthorizeResponse(allowed=True)
        return pb.AuthorizeResponse(allowed=False, message=rules.refusal(who.arn, action, resource, why))

    async def PassRole(self, request: pb.PassRoleRequest, context: Any) -> pb.PassRoleResponse:
        who = caller()
        account, name = rules.parse_role_arn(request.role_arn)
        # By its one ARN: a path or another partition in the request's is no other role.
        role_arn = rules.role_arn(account, name)
        await self._require(rules.PASS_ROLE, role_arn, {"iam:passedtoservice": (request.service,)})
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (account, name)) if account == who.account else None
        if role is None:
            text = rules.unknown_role(request.role_arn, who.account)
            raise Invalid(text, [("RuntimeRoleArn", "there is no such role")])
        if (
            self._authority.trusted(role, service=request.service, known=self._authority.as_service(""))
            is not Trust.NAMED
        ):
            text = f"the role's trust policy does not let {request.service} assume it"
            raise Invalid(f"{request.role_arn}: {text}.", [("RuntimeRoleArn", text)])
        return pb.PassRoleResponse()

    async def AssumeRole(self, request: pb.AssumeRoleRequest, context: Any) -> pb.AssumeRoleResponse:
        duration_s = rules.check_session(request.role_session_name, request.duration_seconds)
        await self._require(rules.ASSUME_ROLE, rules.role_arn(*rules.parse_role_arn(request.role_arn)), {})
        role = await self._role(request.role_arn, caller().account)
        return self._credentials(role, request.role_session_name, duration_s)

    async def assume_for_instance(self, role_arn: str, instance_id: str) -> pb.AssumeRoleResponse:
        """Temporary credentials for an application instance. Raises Invalid, Denied."""
        account, _ = rules.parse_role_arn(role_arn)
        role = await self._role(role_arn, account)
        instance = str(Arn("panorama", self._cloud.region, account, f"applicationInstance/{instance_id}"))
        trusted = (
            self._authority.trusted(role, service=rules.PANORAMA, known=self._authority.as_service(instance))
            is Trust.NAMED
        )
        who = rules.Principal(service_principal("panorama"), rules.Kind.SERVICE, account, "panorama")
        await self._leave_line(who, rules.ASSUME_ROLE, role_arn, trusted, "", new_request_id())
        if not trusted:
            raise Denied(f"The trust policy of {role_arn} does not let {rules.PANORAMA} assume it.")
        return self._credentials(role, instance_id[:64], self._settings.application_session_s, instance_id)

    async def _require(self, action: str, resource: str, known: dict[str, Sequence[str]]) -> None:
        """Raises Denied where the caller's policies do not allow it. Services may by themselves."""
        call = caller()
        who = rules.parse_principal(call.principal)
        if who.kind is rules.Kind.SERVICE:
            return
        holder = await self._directory.holder(who)
        request = Request(action, resource, {**self._authority.context(who, holder, call.source), **known})
        why = await self._authority.why_not(who, holder, request)
        if action != rules.ASSUME_ROLE or not call.source:
            # What comes through a door has its line, which Authorize left: this is a permission that the call needs besides.
            from_door = bool(call.source)
            await self._leave_line(who, action, resource, not why, call.source, call.request_id, further=from_door)
        if why:
            raise Denied(rules.refusal(call.principal, action, resource, why))

    async def _leave_line(
        self,
        who: rules.Principal,
        action: str,
        resource: str,
        allowed: bool,
        source: str,
        request_id: str,
        *,
        further: bool = False,
    ) -> None:
        await self._trail.record(
            at=self._clock(),
            account=who.account,
            principal=who.arn,
            action=action,
            resource=resource,
            allowed=allowed,
            source_address=source,
            request_id=request_id,
            further=further,
        )

    async def _role(self, role_arn: str, for_account: str) -> RoleRow:
        account, name = rules.parse_role_arn(role_arn)
        async with self._database.session(read_only=True) as session:
            role = await session.get(RoleRow, (account, name)) if account == for_account else None
        if role is None:
            raise Denied(rules.unknown_role(role_arn, for_account))
        return role

    def _credentials(
        self, role: RoleRow, session_name: str, duration_s: int, instance_id: str = ""
    ) -> pb.AssumeRoleResponse:
        made = Session(
            access_key_id=unique_id("ASIA", 16),
            secret=new_secret_key(),
            account=role.account,
            role=role.name,
            role_id=role.role_id,
            session=session_name,
            expires=(self._clock() + timedelta(seconds=duration_s)).replace(microsecond=0),
            instance=instance_id,
        )
        response = pb.AssumeRoleResponse(
            access_key_id=made.access_key_id,
            secret_access_key=made.secret.reveal(),
            session_token=self._vault.token(made),
            principal=session_principal(made),
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
        await self._note("iam:CreateLoginToken", rules.user_arn(account, request.user_name))
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
        good = token is not None and token.expires > now
        who = rules.user_arn(token.account, token.user_name) if token is not None else rules.UNPROVEN
        await self._trail.record(
            at=now,
            account=caller().account,
            principal=who,
            action=rules.LOGIN,
            resource="*",
            allowed=good,
            source_address=caller().source,
            request_id=caller().request_id,
        )
        if not good:
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
        return pb.GetSessionResponse(principal=user_principal(user))


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
    at_hand = DecisionsAtHand(handlers.directory, handlers.trail, runtime.clock)
    desk = CredentialsDesk(runtime.bus, handlers.assume_for_instance)
    changes = Changes(runtime.bus, handlers.directory.forget)
    ended = EndedInstances(runtime.database("identity"), runtime.bus, settings.application_session_s, runtime.clock)
    return Service(
        name="identity",
        at_hand={"/belvedere.v1.IdentityService/Authorize": at_hand.authorize},
        servicers=[(identity_pb2_grpc.add_IdentityServiceServicer_to_server, handlers, "belvedere.v1.IdentityService")],
        tasks=[desk.give_credentials, changes.run, ended.follow, handlers.trail.run, handlers.purge],
        ready=[handlers.prepare],
        close=[handlers.trail.close],
        migrations=Path(__file__).parent / "migrations",
    )
