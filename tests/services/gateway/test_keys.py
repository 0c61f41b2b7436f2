"""Signing keys that the front door remembers, with the real identity behind."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from belvedere.v1 import identity_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.gateway.access import Access
from services.gateway.errors import AuthError, AuthKind
from services.gateway.sigv4 import Scope, Signature
from tests.services.gateway.signing import signing_key
from tests.support.cloud import ACCOUNT, RunningCloud
from tests.support.front_door import Door


def signature(door: Door, service: str, key: str = "", token: str = "") -> Signature:
    now = datetime.now(UTC)
    scope = Scope(key or door.access_key_id, now.strftime("%Y%m%d"), "us-east-1", service)
    return Signature(scope, ("host",), "0" * 64, now, None, token)


def keys_of(cloud: RunningCloud, monotonic: Callable[[], float], clock: Callable[[], datetime] | None = None) -> Access:
    return Access(
        cloud.channel,
        account=ACCOUNT,
        cache_entries=2,
        cache_s=60,
        monotonic=monotonic,
        clock=clock or cloud.runtime.clock,
    )


def test_keys_are_derived_by_identity_remembered_for_a_while_and_bounded(door: Door) -> None:
    now = [0.0]

    async def ask(cloud: RunningCloud) -> None:
        access = keys_of(cloud, lambda: now[0])
        first = signature(door, "panorama")
        key = await access.key(first, "id")
        expected = signing_key(first.scope.date, "panorama", door.secret_access_key)
        assert key.signer.sign("text") == hmac.new(expected, b"text", "sha256").hexdigest()
        assert key.principal.arn == f"arn:aws:iam::{ACCOUNT}:user/admin"
        assert await access.key(first, "id") is key
        now[0] = 61.0
        renewed = await access.key(first, "id")
        assert renewed is not key
        for service in ("s3", "logs"):
            await access.key(signature(door, service), "id")
        assert len(access) == 2
        assert await access.key(first, "id") is not renewed

    door.call(ask)


@pytest.mark.parametrize(("key", "token"), [("AKIANOBODY", ""), ("", "no token"), ("ASIANOBODY", "x" * 300)])
def test_a_key_that_identity_does_not_know_is_not_remembered(door: Door, key: str, token: str) -> None:
    async def ask(cloud: RunningCloud) -> None:
        access = keys_of(cloud, lambda: 0.0)
        with pytest.raises(AuthError) as caught:
            await access.key(signature(door, "s3", key, token), "id")
        assert caught.value.kind is AuthKind.UNKNOWN_KEY and len(access) == 0

    door.call(ask)


def test_the_key_of_a_session_is_asked_for_again_the_moment_the_session_ends(door: Door) -> None:
    # Roles' sessions live a quarter of an hour at least: the front door's clock is moved, identity's says when it is over.
    now = datetime.now(UTC)

    async def ask(cloud: RunningCloud) -> None:
        role = await IdentityServiceStub(cloud.channel).AssumeRole(
            pb.AssumeRoleRequest(
                role_arn=f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication",
                role_session_name="a-session",
                duration_seconds=900,
            )
        )
        clock = [now]
        access = keys_of(cloud, lambda: 0.0, lambda: clock[0])
        signed = signature(door, "panorama", role.access_key_id, role.session_token)
        key = await access.key(signed, "id")
        assert key.expires == role.expiration.ToDatetime(UTC)
        clock[0] = key.expires - timedelta(microseconds=1)
        assert access.known(signed) is key
        clock[0] = key.expires
        assert access.known(signed) is None

    door.call(ask)
