"""Users, their access keys and their bearer tokens: the handlers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from belvedere.chassis.context import caller
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Conflict, Denied, NotFound, QuotaExceeded
from belvedere.v1 import identity_pb2 as pb
from services.identity import events, rules, store
from services.identity.administration import Administration, found_user
from services.identity.audit import Trail
from services.identity.directory import Directory
from services.identity.store import AccessKeyRow, UserRow
from services.identity.vault import Bearer, Vault, new_secret_key, unique_id


class UserHandlers(Administration):
    """A part of IdentityService."""

    def __init__(
        self, database: Database, vault: Vault, directory: Directory, trail: Trail, clock: Callable[[], datetime]
    ) -> None:
        super().__init__(database, directory, trail, clock)
        self._vault = vault

    async def CreateUser(self, request: pb.CreateUserRequest, context: Any) -> pb.CreateUserResponse:
        account, name = caller().account, request.user_name
        rules.check_name("user", name)
        arn = rules.user_arn(account, name)
        row = UserRow(account=account, name=name, user_id=unique_id("AIDA", 17), created=self._clock())
        async with self._change("iam:CreateUser", arn, events.POLICY_CHANGED, arn) as session:
            if await session.get(UserRow, (account, name)) is not None:
                raise Conflict("USER", name, f"There is a user {name!r} already.")
            if await store.count_of(session, UserRow, account) >= rules.MAX_USERS:
                raise QuotaExceeded("UsersPerAccount", f"The account has {rules.MAX_USERS} users already.")
            session.add(row)
        return pb.CreateUserResponse(user=_user(row, [], 0))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        account = caller().account
        async with self._database.session(read_only=True) as session:
            users = await store.all_of(session, UserRow, account)
            attached = await store.attachments(session, account)
            keys = await store.key_counts(session, account)
        found = [_user(row, attached.get(("user", row.name), []), keys.get(row.name, 0)) for row in users]
        return pb.ListUsersResponse(users=found)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Any) -> pb.DeleteUserResponse:
        account, name = caller().account, request.user_name
        arn = rules.user_arn(account, name)
        if name == rules.ADMINISTRATOR:
            raise Conflict("USER", name, f"{name} is the owner of the data folder: delete its access keys instead.")
        async with self._change("iam:DeleteUser", arn, events.POLICY_CHANGED, arn) as session:
            row = await found_user(session, account, name)
            await store.delete_holder(session, account, "user", name)
            await session.delete(row)
        return pb.DeleteUserResponse()

    async def CreateAccessKey(self, request: pb.CreateAccessKeyRequest, context: Any) -> pb.CreateAccessKeyResponse:
        account, name = caller().account, request.user_name
        row, secret = self._new_key(account, name)
        arn = rules.user_arn(account, name)
        async with self._change("iam:CreateAccessKey", arn, events.KEY_CHANGED, row.access_key_id) as session:
            await found_user(session, account, name)
            if len(await store.access_keys(session, account, name)) >= rules.MAX_ACCESS_KEYS:
                raise QuotaExceeded(
                    "AccessKeysPerUser", f"{name} has {rules.MAX_ACCESS_KEYS} access keys already: delete one first."
                )
            session.add(row)
        return pb.CreateAccessKeyResponse(access_key_id=row.access_key_id, secret_access_key=secret)

    async def ListAccessKeys(self, request: pb.ListAccessKeysRequest, context: Any) -> pb.ListAccessKeysResponse:
        account = caller().account
        await self._trail.flush()
        async with self._database.session(read_only=True) as session:
            await found_user(session, account, request.user_name)
            rows = await store.access_keys(session, account, request.user_name)
        return pb.ListAccessKeysResponse(access_keys=[_key(row) for row in rows])

    async def UpdateAccessKey(self, request: pb.UpdateAccessKeyRequest, context: Any) -> pb.UpdateAccessKeyResponse:
        key_id = request.access_key_id
        async with self._change("iam:UpdateAccessKey", key_id, events.KEY_CHANGED, key_id) as session:
            row = _found_key(await session.get(AccessKeyRow, key_id), key_id)
            row.active = request.active
            session.add(row)
        return pb.UpdateAccessKeyResponse()

    async def DeleteAccessKey(self, request: pb.DeleteAccessKeyRequest, context: Any) -> pb.DeleteAccessKeyResponse:
        key_id = request.access_key_id
        async with self._change("iam:DeleteAccessKey", key_id, events.KEY_CHANGED, key_id) as session:
            await session.delete(_found_key(await session.get(AccessKeyRow, key_id), key_id))
        return pb.DeleteAccessKeyResponse()

    async def CreateBearerToken(
        self, request: pb.CreateBearerTokenRequest, context: Any
    ) -> pb.CreateBearerTokenResponse:
        account, now = caller().account, self._clock()
        lasts = timedelta(seconds=rules.check_token(request.duration_seconds))
        async with self._database.session(read_only=True) as session:
            user = await found_user(session, account, request.user_name)
        expires = (now + lasts).replace(microsecond=0)
        token = self._vault.bearer_token(Bearer(account, user.name, user.user_id, now, expires))
        await self._note("iam:CreateBearerToken", rules.user_arn(account, user.name))
        response = pb.CreateBearerTokenResponse(token=token)
        response.expires_at.FromDatetime(expires)
        return response

    async def RevokeBearerTokens(
        self, request: pb.RevokeBearerTokensRequest, context: Any
    ) -> pb.RevokeBearerTokensResponse:
        account, arn = caller().account, rules.user_arn(caller().account, request.user_name)
        async with self._change("iam:RevokeBearerTokens", arn, events.KEY_CHANGED, arn) as session:
            user = await found_user(session, account, request.user_name)
            user.tokens_from = self._clock()
            session.add(user)
        return pb.RevokeBearerTokensResponse()

    async def GetBearer(self, request: pb.GetBearerRequest, context: Any) -> pb.GetBearerResponse:
        bearer = self._vault.bearer(request.token)
        if bearer.expires <= self._clock():
            raise Denied("The bearer token has expired: make another with `belvedere token create`.")
        arn = rules.user_arn(bearer.account, bearer.user)
        holder = await self._directory.holder(rules.parse_principal(arn))
        gone = holder is None or holder.unique_id != bearer.user_id
        if holder is None or gone or (holder.tokens_from is not None and bearer.made <= holder.tokens_from):
            raise Denied("The bearer token was revoked: make another with `belvedere token create`.")
        principal = pb.Principal(account_id=bearer.account, arn=arn, user_id=bearer.user_id)
        return pb.GetBearerResponse(principal=principal)

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


def _found_key(row: AccessKeyRow | None, access_key_id: str) -> AccessKeyRow:
    if row is None or row.account != caller().account:
        raise NotFound("ACCESS_KEY", access_key_id, f"There is no access key {access_key_id!r} in this account.")
    return row


def _user(row: UserRow, policies: list[str], keys: int) -> pb.User:
    arn = rules.user_arn(row.account, row.name)
    user = pb.User(name=row.name, arn=arn, user_id=row.user_id, policy_arns=policies, access_keys=keys)
    user.created_time.FromDatetime(row.created)
    return user


def _key(row: AccessKeyRow) -> pb.AccessKey:
    key = pb.AccessKey(
        access_key_id=row.access_key_id,
        user_name=row.user_name,
        active=row.active,
        last_used_service=row.last_used_service,
        last_used_region=row.last_used_region,
    )
    key.created_time.FromDatetime(row.created)
    if row.last_used is not None:
        key.last_used_time.FromDatetime(row.last_used)
    return key
