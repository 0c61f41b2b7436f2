"""The audit trail at its edges, changes made by another replica, and data folders of the version before policies."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from belvedere.chassis.database import Database
from belvedere.v1 import identity_pb2 as pb
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub
from services.identity import audit, directory, store
from services.identity.audit import Trail
from services.identity.service import IdentityHandlers
from services.identity.settings import Settings
from services.identity.store import AuditRow, FurtherRow, PolicyRow
from services.identity.vault import Vault
from tests.support import databases
from tests.support.cloud import ADMIN, RunningCloud, running_cloud
from tests.support.fleet import eventually

MIGRATIONS = Path(store.__file__).parent / "migrations"
ALLOW_ALL = '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'


def question(arn: str, request_id: str = "r") -> pb.AuthorizeRequest:
    return pb.AuthorizeRequest(
        principal=pb.Principal(arn=arn), action="panorama:ListDevices", resource="*", request_id=request_id
    )


def replica(cloud: RunningCloud) -> IdentityHandlers:
    """Another process of the service on the same database, as far as its handlers go."""
    runtime = cloud.runtime
    vault, file = Vault(runtime.paths.secrets), runtime.paths.admin_file
    return IdentityHandlers(runtime.database("identity"), vault, Settings(), runtime.cloud, file, runtime.clock)


async def test_an_orderly_stop_loses_no_line(tmp_path: Path) -> None:
    count = 1500
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        identity = IdentityServiceStub(cloud.channel)
        await asyncio.gather(*(identity.Authorize(question(ADMIN, f"r-{n}")) for n in range(count)))
    async with (
        running_cloud(tmp_path, services=["identity"]) as cloud,
        cloud.runtime.database("identity").session(read_only=True) as session,
    ):
        found = (await session.exec(select(AuditRow.request_id))).all()
    assert sorted(found) == sorted(f"r-{n}" for n in range(count))


async def test_the_trail_is_read_in_pages_newest_first(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        identity = IdentityServiceStub(cloud.channel)
        for n in range(7):
            await identity.Authorize(question(ADMIN, f"r-{n}"))
        with cloud.caller():
            request, seen = pb.ListAuditEntriesRequest(max_results=3), []
            while True:
                answer = await identity.ListAuditEntries(request)
                seen += [entry.request_id for entry in answer.entries]
                request.next_token = answer.next_token
                if not answer.next_token:
                    break
            assert seen == [f"r-{n}" for n in reversed(range(7))]
            later = pb.ListAuditEntriesRequest()
            later.since.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
            assert not (await identity.ListAuditEntries(later)).entries


async def ready_database(folder: Path, migrations: Path = MIGRATIONS) -> Database:
    database = Database.at(folder / "identity.sqlite3", "identity")
    await database.migrate(migrations)
    return database


async def record(
    trail: Trail, at: datetime, request_id: str, principal: str = ADMIN, *, resource: str = "*", further: bool = False
) -> None:
    await trail.record(
        at=at,
        account="123456789012",
        principal=principal,
        action="a:B",
        resource=resource,
        allowed=True,
        source_address="",
        request_id=request_id,
        further=further,
    )


async def test_the_trail_keeps_days_and_rows_and_no_more(tmp_path: Path) -> None:
    database, now = await ready_database(tmp_path), datetime.now(UTC)
    trail = Trail(database)
    for n in range(10):
        await record(trail, now - timedelta(days=10 - n), f"r-{n}")
    await trail.flush()
    for kept, expected in ((timedelta(days=5, hours=12), 5), (timedelta(days=99), 3)):
        async with database.session() as session, session.begin():
            await store.purge(
                session, now=now, audit_before=now - kept, audit_rows=1000 if expected == 5 else 3, unproven_rows=9
            )
        async with database.session(read_only=True) as session:
            found = (await session.exec(select(AuditRow.request_id).order_by(text("position")))).all()
        assert found == [f"r-{n}" for n in range(10 - expected, 10)]
    await database.close()


async def test_lines_of_strangers_push_out_nobody_elses(tmp_path: Path) -> None:
    database, now = await ready_database(tmp_path), datetime.now(UTC)
    trail = Trail(database)
    for n in range(3):
        await record(trail, now, f"r-{n}")
        for principal in ("unproven", "unproven/AKIA", "unproven/z"):
            await record(trail, now, f"{principal}-{n}", principal)
    await trail.flush()
    async with database.session() as session, session.begin():
        await store.purge(session, now=now, audit_before=now - timedelta(days=1), audit_rows=5, unproven_rows=2)
    async with database.session(read_only=True) as session:
        found = (await session.exec(select(AuditRow.request_id).order_by(text("position")))).all()
    assert found == ["r-0", "r-1", "r-2", "unproven/AKIA-2", "unproven/z-2"]
    await database.close()


@pytest.mark.both_databases
async def test_further_decisions_of_a_call_stand_in_its_line_whoever_made_them(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud, cloud.runtime.database("identity").session():
        identity, other = IdentityServiceStub(cloud.channel), replica(cloud)
        nobody = question("arn:aws:iam::123456789012:user/nobody", "call")
        await identity.Authorize(question(ADMIN, "call"))
        await identity.Authorize(question(ADMIN, "plain"))
        for asked in (question(ADMIN, "call"), nobody):
            asked.further, asked.action = True, "s3:GetObject"
            await other.Authorize(asked, None)
        await other.trail.flush()
        with cloud.caller():
            plain, call = (await identity.ListAuditEntries(pb.ListAuditEntriesRequest())).entries
            denied = (await identity.ListAuditEntries(pb.ListAuditEntriesRequest(denied_only=True))).entries
        await other.trail.close()
    assert (plain.request_id, plain.allowed, list(plain.decisions)) == ("plain", True, [])
    assert (call.request_id, call.action, call.allowed) == ("call", "panorama:ListDevices", False)
    told = [(decision.action, decision.allowed) for decision in call.decisions]
    assert told == [("panorama:ListDevices", True), ("s3:GetObject", True), ("s3:GetObject", False)]
    assert list(denied) == [call]


async def test_a_page_of_the_trail_is_no_larger_than_a_message(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        trail = replica(cloud).trail
        for n in range(6):
            await record(trail, datetime.now(UTC), f"r-{n}")
            for _ in range(1000):
                await record(trail, datetime.now(UTC), f"r-{n}", resource="k" * 2048, further=True)
        await trail.close()
        identity, request, seen = IdentityServiceStub(cloud.channel), pb.ListAuditEntriesRequest(), []
        with cloud.caller():
            while True:
                answer = await identity.ListAuditEntries(request)
                assert 0 < answer.ByteSize() < 7 << 20
                seen += [(entry.request_id, len(entry.decisions)) for entry in answer.entries]
                request.next_token = answer.next_token
                if not answer.next_token:
                    break
    assert seen == [(f"r-{n}", 1001) for n in reversed(range(6))]


@pytest.mark.both_databases
async def test_a_line_and_its_further_decisions_go_together_and_how_many_went_early_is_told(tmp_path: Path) -> None:
    database, now = await databases.database(tmp_path / "trail.sqlite3", "identity"), datetime.now(UTC)
    await database.migrate(MIGRATIONS)
    trail = Trail(database)
    for n in range(6):
        at = now + timedelta(seconds=n)
        await record(trail, at, f"r-{n}")
        for later_ms in range(n):
            await record(trail, at + timedelta(milliseconds=later_ms), f"r-{n}", further=True)
    await trail.flush()

    async def left(audit_rows: int) -> tuple[int, list[str], set[str]]:
        async with database.session() as session, session.begin():
            before = now - timedelta(days=1)
            early = await store.purge(session, now=now, audit_before=before, audit_rows=audit_rows, unproven_rows=9)
        async with database.session(read_only=True) as session:
            lines = list((await session.exec(select(AuditRow.request_id).order_by(text("position")))).all())
            return early, lines, set((await session.exec(select(FurtherRow.request_id))).all())

    assert await left(100) == (0, [f"r-{n}" for n in range(6)], {f"r-{n}" for n in range(1, 6)})
    # Fifteen further decisions, of which twelve may stay: three of r-1 and r-2, so that both lines go, and the one before them.
    assert await left(12) == (3, ["r-3", "r-4", "r-5"], {"r-3", "r-4", "r-5"})
    assert (await left(1))[:2] == (3, [])
    await database.close()


async def test_lines_wait_for_a_database_that_cannot_be_written_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY_S", 0.05)
    database, now = await ready_database(tmp_path), datetime.now(UTC)
    trail = Trail(database)
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit RENAME TO away"))
    running = asyncio.create_task(trail.run())
    for n in range(3):
        await record(trail, now, f"r-{n}")
    with pytest.raises(OperationalError):
        await trail.flush()
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO audit"))

    async def written() -> list[str]:
        async with database.session(read_only=True) as session:
            return list((await session.exec(select(AuditRow.request_id).order_by(text("position")))).all())

    await eventually(lambda: _is(written(), ["r-0", "r-1", "r-2"]), "the lines")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await trail.close()
    await record(trail, now, "after the stop")
    assert (await written())[-1] == "after the stop"
    await database.close()


async def test_who_is_cut_off_while_lines_are_written_neither_loses_nor_doubles_them(tmp_path: Path) -> None:
    database, now = await ready_database(tmp_path), datetime.now(UTC)
    trail = Trail(database)
    for n in range(40):
        await record(trail, now, f"r-{n}")
        flushing = asyncio.create_task(trail.flush())
        for _ in range(n % 4):
            await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
    await record(trail, now, "r-40")
    await trail.close()
    async with database.session(read_only=True) as session:
        found = list((await session.exec(select(AuditRow.request_id).order_by(text("position")))).all())
    assert found == [f"r-{n}" for n in range(41)]
    await database.close()


async def test_a_line_holds_what_was_asked_to_the_microsecond_and_no_nul(tmp_path: Path) -> None:
    database = await ready_database(tmp_path)
    trail = Trail(database)
    moments = [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)]
    for at in moments:
        await trail.record(
            at=at,
            account="123456789012",
            principal=ADMIN,
            action="a:B",
            resource="arn:\0%'\"",
            allowed=False,
            source_address="::1",
            request_id="r",
        )
    await trail.close()
    async with database.session(read_only=True) as session:
        rows = (await session.exec(select(AuditRow).order_by(text("position")))).all()
    assert [row.at for row in rows] == moments
    assert {(row.resource, row.allowed, row.source_address) for row in rows} == {("arn:\ufffd%'\"", False, "::1")}
    await database.close()


async def test_decisions_that_are_kept_are_those_of_each_action_and_resource(tmp_path: Path) -> None:
    only = '{"Statement": {"Effect": "Allow", "Action": "panorama:Describe*", "Resource": "arn:aws:panorama:*:*:device/odd-*"}}'
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        identity = IdentityServiceStub(cloud.channel)
        with cloud.caller():
            arn = (await identity.CreateUser(pb.CreateUserRequest(user_name="ada"))).user.arn
            made = pb.CreatePolicyRequest(policy_name="odd", policy_document=only)
            policy = (await identity.CreatePolicy(made)).policy.arn
            await identity.AttachPolicy(pb.AttachPolicyRequest(policy_arn=policy, user_name="ada"))
            for n in [*range(directory.DECISIONS_MAX + 5), *range(10)]:
                kind = ("even", "odd")[n % 2]
                for action in ("DescribeDevice", "DeleteDevice"):
                    resource = f"arn:aws:panorama:us-east-1:123456789012:device/{kind}-{n}"
                    asked = pb.AuthorizeRequest(
                        principal=pb.Principal(arn=arn), action=f"panorama:{action}", resource=resource
                    )
                    expected = kind == "odd" and action == "DescribeDevice"
                    answer = await identity.Authorize(asked)
                    assert answer.allowed is expected and (expected or action in answer.message)


async def _is(found: object, expected: object) -> bool:
    return await found == expected  # type: ignore[misc]


async def test_what_another_replica_changes_counts_here_as_soon_as_it_is_told(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        identity, other = IdentityServiceStub(cloud.channel), replica(cloud)
        with cloud.caller():
            arn = (await identity.CreateUser(pb.CreateUserRequest(user_name="ada"))).user.arn
            assert not (await identity.Authorize(question(arn))).allowed
            made = pb.CreatePolicyRequest(policy_name="all", policy_document=ALLOW_ALL)
            policy = (await other.CreatePolicy(made, None)).policy.arn
            await other.AttachPolicy(pb.AttachPolicyRequest(policy_arn=policy, user_name="ada"), None)

            async def allowed() -> bool:
                return (await identity.Authorize(question(arn))).allowed

            await eventually(allowed, "the change", timeout_s=directory.AGE_MAX_S / 3)


async def test_a_policy_that_cannot_be_read_any_more_allows_nothing(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, services=["identity"]) as cloud:
        identity = IdentityServiceStub(cloud.channel)
        with cloud.caller():
            arn = (await identity.CreateUser(pb.CreateUserRequest(user_name="ada"))).user.arn
            made = pb.CreatePolicyRequest(policy_name="later", policy_document=ALLOW_ALL)
            await identity.CreatePolicy(made)
            own = arn.replace(":user/ada", ":policy/later")
            async with cloud.runtime.database("identity").session() as session, session.begin():
                row = await session.get(PolicyRow, ("123456789012", "later"))
                assert row is not None
                row.document = {"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*", "New": 1}]}
                session.add(row)
            for policy in (own, "arn:aws:iam::aws:policy/AdministratorAccess"):
                await identity.AttachPolicy(pb.AttachPolicyRequest(policy_arn=policy, user_name="ada"))
            answer = await identity.Authorize(question(arn))
            assert not answer.allowed and "explicit deny" in answer.message


async def test_a_data_folder_from_before_policies_keeps_its_administrator_and_role(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(MIGRATIONS / "r0001_tables.py", old)
    folder = tmp_path / "cloud" / "db"
    folder.mkdir(parents=True)
    database = await ready_database(folder, old)
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO account VALUES ('123456789012', '2026-01-01')"))
        for table, name in (("user_account", "admin"), ("role", "BelvedereApplication")):
            row = f"('123456789012', '{name}', 'AIDAX{name}', '[{{}}]', '2026-01-01')"
            await connection.execute(text(f"INSERT INTO {table} VALUES {row}"))
        line = f"(1, '{datetime.now(UTC):%F %T.%f}', '123456789012', '{ADMIN}', 'old:Call', '*', 1, '10.0.0.7', 'old')"
        await connection.execute(text(f"INSERT INTO audit VALUES {line}"))
    await database.close()
    async with running_cloud(tmp_path / "cloud", services=["identity"]) as cloud:
        identity = IdentityServiceStub(cloud.channel)
        assert (await identity.Authorize(question(ADMIN))).allowed
        with cloud.caller():
            (role,) = (await identity.ListRoles(pb.ListRolesRequest())).roles
            assert list(role.policy_arns) == ["arn:aws:iam::aws:policy/belvedere/BelvedereApplicationAccess"]
            made = await identity.AssumeRole(pb.AssumeRoleRequest(role_arn=role.arn, role_session_name="s1"))
            assert made.access_key_id
            line = (await identity.ListAuditEntries(pb.ListAuditEntriesRequest())).entries[-1]
            assert (line.action, line.allowed, line.source_address, line.request_id) == (
                "old:Call",
                True,
                "10.0.0.7",
                "old",
            )
