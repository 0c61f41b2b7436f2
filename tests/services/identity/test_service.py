"""IdentityService over real gRPC and SQLite, application credentials over a real hub."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from belvedere.bus import subjects
from belvedere.bus.connection import Message
from belvedere.bus.event import Event
from belvedere.bus.jetstream import publish_stored
from belvedere.bus.kv import KeyValue
from belvedere.chassis.errors import Denied, Invalid, NotFound, QuotaExceeded
from belvedere.fleet import DesiredState, Target, TargetApplication
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.identity import store
from tests.support.cloud import ACCOUNT, ADMIN, REGION, RunningCloud, running_cloud
from tests.support.database import assert_migrations_match

ROLE = f"arn:aws:iam::{ACCOUNT}:role/BelvedereApplication"


@pytest_asyncio.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    async with running_cloud(tmp_path, services=["identity"]) as running:
        with running.caller():
            yield running


@pytest.fixture
def identity(cloud: RunningCloud) -> IdentityServiceStub:
    return IdentityServiceStub(cloud.channel)


def derived(secret: str) -> bytes:
    """The signing key as AWS's documentation derives it."""
    key = ("AWS4" + secret).encode()
    for part in ("20261122", REGION, "panorama", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def signing_request(access_key_id: str, token: str = "") -> pb.GetSigningKeyRequest:
    return pb.GetSigningKeyRequest(
        access_key_id=access_key_id, date="20261122", region=REGION, service="panorama", session_token=token
    )


async def test_the_first_start_makes_an_administrator_whose_key_signs(
    cloud: RunningCloud, identity: IdentityServiceStub
) -> None:
    file = cloud.runtime.paths.admin_file
    admin = json.loads(file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert admin["account_id"] == ACCOUNT and admin["region"] == REGION and admin["access_key_id"].startswith("AKIA")
    answer = await identity.GetSigningKey(signing_request(admin["access_key_id"]))
    assert answer.signing_key == derived(admin["secret_access_key"])
    assert answer.principal.arn == ADMIN and answer.principal.user_id.startswith("AIDA")


async def test_the_secret_lies_in_no_file_but_the_administrators(cloud: RunningCloud) -> None:
    secret = json.loads(cloud.runtime.paths.admin_file.read_text())["secret_access_key"].encode()
    files = [p for p in cloud.runtime.data.rglob("*") if p.is_file() and p != cloud.runtime.paths.admin_file]
    assert files and not [p for p in files if secret in p.read_bytes()]


async def test_a_second_start_keeps_the_administrators_key(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        before = cloud.runtime.paths.admin_file.read_text()
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        assert cloud.runtime.paths.admin_file.read_text() == before
        admin = json.loads(before)
        answer = await IdentityServiceStub(cloud.channel).GetSigningKey(signing_request(admin["access_key_id"]))
        assert answer.signing_key == derived(admin["secret_access_key"])


async def test_an_unknown_access_key_is_not_found(identity: IdentityServiceStub) -> None:
    with pytest.raises(NotFound):
        await identity.GetSigningKey(signing_request("AKIAAAAAAAAAAAAAAAAA"))


async def test_a_user_gets_a_second_access_key_and_no_third(identity: IdentityServiceStub) -> None:
    made = await identity.CreateAccessKey(pb.CreateAccessKeyRequest(user_name="admin"))
    answer = await identity.GetSigningKey(signing_request(made.access_key_id))
    assert answer.signing_key == derived(made.secret_access_key)
    with pytest.raises(QuotaExceeded, match="delete one"):
        await identity.CreateAccessKey(pb.CreateAccessKeyRequest(user_name="admin"))
    with pytest.raises(NotFound):
        await identity.CreateAccessKey(pb.CreateAccessKeyRequest(user_name="nobody"))


async def test_temporary_credentials_sign_only_with_their_own_token(identity: IdentityServiceStub) -> None:
    first, second = [
        await identity.AssumeRole(pb.AssumeRoleRequest(role_arn=ROLE, role_session_name=name))
        for name in ("one", "two")
    ]
    answer = await identity.GetSigningKey(signing_request(first.access_key_id, first.session_token))
    assert answer.signing_key == derived(first.secret_access_key)
    assert answer.principal.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/BelvedereApplication/one"
    assert answer.principal == first.principal
    for token in (second.session_token, "bm90IGEgdG9rZW4=", "?"):
        with pytest.raises(Denied, match="invalid"):
            await identity.GetSigningKey(signing_request(first.access_key_id, token))
    with pytest.raises(NotFound):
        await identity.GetSigningKey(signing_request(first.access_key_id))


async def test_temporary_credentials_end_when_they_said(cloud: RunningCloud, identity: IdentityServiceStub) -> None:
    request = pb.AssumeRoleRequest(role_arn=ROLE, role_session_name="short", duration_seconds=900)
    made = await identity.AssumeRole(request)
    lasts = made.expiration.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(seconds=890) < lasts <= timedelta(seconds=900)
    from services.identity.service import IdentityHandlers
    from services.identity.settings import Settings
    from services.identity.vault import Vault

    runtime = cloud.runtime
    later = IdentityHandlers(
        runtime.database("identity"),
        Vault(runtime.paths.secrets),
        Settings(),
        runtime.cloud,
        runtime.paths.admin_file,
        lambda: datetime.now(UTC) + timedelta(seconds=901),
    )
    with pytest.raises(Denied, match="expired"):
        await later.GetSigningKey(signing_request(made.access_key_id, made.session_token), None)


@pytest.mark.parametrize(
    ("role", "name", "duration", "error"),
    [
        (f"arn:aws:iam::{ACCOUNT}:role/Nobody", "abc", 0, Denied),
        ("arn:aws:iam::999999999999:role/BelvedereApplication", "abc", 0, Denied),
        ("arn:aws:iam::123456789012:user/admin", "abc", 0, Invalid),
        ("nonsense", "abc", 0, Invalid),
        (ROLE, "a b", 0, Invalid),
        (ROLE, "abc", 10, Invalid),
    ],
)
async def test_a_role_that_is_not_there_or_not_asked_for_rightly_is_refused(
    identity: IdentityServiceStub, role: str, name: str, duration: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await identity.AssumeRole(
            pb.AssumeRoleRequest(role_arn=role, role_session_name=name, duration_seconds=duration)
        )


async def test_an_administrator_may_everything_and_an_application_little(
    cloud: RunningCloud, identity: IdentityServiceStub
) -> None:
    application = pb.Principal(arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/BelvedereApplication/i", account_id=ACCOUNT)
    admin, stranger = pb.Principal(arn=ADMIN), pb.Principal(arn=f"arn:aws:iam::{ACCOUNT}:user/stranger")
    expected = [
        (admin, "panorama:DeleteDevice", True),
        (application, "cloudwatch:PutMetricData", True),
        (application, "panorama:ListDevices", True),
        (application, "panorama:DeleteDevice", False),
        (application, "sts:AssumeRole", False),
        (stranger, "panorama:ListDevices", False),
    ]
    for principal, action, allowed in expected:
        request = pb.AuthorizeRequest(principal=principal, action=action, resource="*", request_id="r-1")
        answer = await identity.Authorize(request)
        assert answer.allowed is allowed, (principal.arn, action)
        assert allowed or answer.message.startswith(f"User: {principal.arn} is not authorized to perform: {action}")
    trail = (await identity.ListAuditEntries(pb.ListAuditEntriesRequest())).entries
    lines = [(row.principal, row.action, row.allowed) for row in reversed(trail)]
    assert lines == [(p.arn, a, ok) for p, a, ok in expected]


async def test_a_login_link_works_once_and_opens_a_session(identity: IdentityServiceStub) -> None:
    token = (await identity.CreateLoginToken(pb.CreateLoginTokenRequest(user_name="admin"))).token
    tries = await asyncio.gather(
        *(identity.RedeemLoginToken(pb.RedeemLoginTokenRequest(token=token)) for _ in range(5)), return_exceptions=True
    )
    opened = [answer for answer in tries if isinstance(answer, pb.RedeemLoginTokenResponse)]
    assert len(opened) == 1 and all(isinstance(a, Denied) for a in tries if a not in opened)
    session = await identity.GetSession(pb.GetSessionRequest(session_id=opened[0].session_id))
    assert session.principal.arn == ADMIN
    for wrong in ("", token, "x" * 43):
        with pytest.raises(Denied):
            await identity.GetSession(pb.GetSessionRequest(session_id=wrong))


async def ask(cloud: RunningCloud, device_id: str, instance_id: str) -> dict[str, str]:
    answer = await cloud.runtime.bus.request(subjects.up_credentials(device_id), {"instance_id": instance_id})
    found: dict[str, str] = answer.json()
    return found


async def test_only_the_device_whose_target_names_the_instance_gets_its_credentials(
    cloud: RunningCloud, identity: IdentityServiceStub
) -> None:
    run = TargetApplication("instance-a", "a", "sha256:" + "0" * 64, DesiredState.RUNNING, role_arn=ROLE)
    applications = (
        run,
        replace(run, instance_id="stopped", desired=DesiredState.STOPPED),
        replace(run, instance_id="no-role", role_arn=None),
        replace(run, instance_id="bad-role", role_arn=f"arn:aws:iam::{ACCOUNT}:role/Other"),
    )
    target = Target("device-a", 1, applications=applications)
    await KeyValue(cloud.runtime.bus, "target").put("device-a", target.to_json().encode())
    given = await ask(cloud, "device-a", "instance-a")
    assert set(given) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    key = await identity.GetSigningKey(signing_request(given["AccessKeyId"], given["Token"]))
    assert key.signing_key == derived(given["SecretAccessKey"])
    assert key.principal.arn.endswith(":assumed-role/BelvedereApplication/instance-a")
    assert datetime.fromisoformat(given["Expiration"]) > datetime.now(UTC)
    assert "to run on device-b" in (await ask(cloud, "device-b", "instance-a"))["error"]
    assert "to run on device-a" in (await ask(cloud, "device-a", "stopped"))["error"]
    assert "has no role" in (await ask(cloud, "device-a", "no-role"))["error"]
    assert "There is no role" in (await ask(cloud, "device-a", "bad-role"))["error"]


async def test_a_role_may_be_for_one_application_instance_of_one_account_only(
    cloud: RunningCloud, identity: IdentityServiceStub
) -> None:
    instances = f"arn:aws:panorama:*:{ACCOUNT}:applicationInstance"
    condition = {
        "ArnLike": {"aws:SourceArn": f"{instances}/instance-a"},
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
    }
    trust = {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"Service": "panorama.amazonaws.com"},
        "Condition": condition,
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = await identity.CreateRole(pb.CreateRoleRequest(role_name="one", assume_role_policy_document=document))
    run = TargetApplication("instance-a", "a", "sha256:" + "0" * 64, DesiredState.RUNNING, role_arn=role.role.arn)
    target = Target("device-s", 1, applications=(run, replace(run, instance_id="instance-b")))
    await KeyValue(cloud.runtime.bus, "target").put("device-s", target.to_json().encode())
    assert "AccessKeyId" in await ask(cloud, "device-s", "instance-a")
    assert "does not let panorama.amazonaws.com assume it" in (await ask(cloud, "device-s", "instance-b"))["error"]


async def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    await assert_migrations_match(tmp_path, Path(store.__file__).parent / "migrations", store.Row)


async def test_sessions_of_a_removed_instance_are_refused_and_nobody_elses(
    cloud: RunningCloud, identity: IdentityServiceStub
) -> None:
    run = TargetApplication("instance-a", "a", "sha256:" + "0" * 64, DesiredState.RUNNING, role_arn=ROLE)
    target = Target("device-a", 1, applications=(run, replace(run, instance_id="instance-b")))
    await KeyValue(cloud.runtime.bus, "target").put("device-a", target.to_json().encode())
    gone, other = [await ask(cloud, "device-a", name) for name in ("instance-a", "instance-b")]
    named = await identity.AssumeRole(pb.AssumeRoleRequest(role_arn=ROLE, role_session_name="instance-a"))
    for given in (gone, other):
        await identity.GetSigningKey(signing_request(given["AccessKeyId"], given["Token"]))
    heard = asyncio.Event()

    async def changed(message: Message) -> None:
        if Event.from_json(message.data).subject == "instance-a":
            heard.set()

    await cloud.runtime.bus.subscribe(subjects.event("identity.key.changed"), changed)
    removed = Event("deployments.instance.removed", "/test", "instance-a", ACCOUNT, REGION, {"roleArn": ROLE})
    await publish_stored(cloud.runtime.bus, removed.nats_subject, removed.to_json())
    async with asyncio.timeout(30):
        await heard.wait()
    with pytest.raises(Denied, match="invalid"):
        await identity.GetSigningKey(signing_request(gone["AccessKeyId"], gone["Token"]))
    # A user's own session of the same name is no application's.
    for key_id, token in ((other["AccessKeyId"], other["Token"]), (named.access_key_id, named.session_token)):
        await identity.GetSigningKey(signing_request(key_id, token))
