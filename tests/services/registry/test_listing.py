"""Pages of devices by SQL, against the plain way: read all, filter, sort, cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

import services.registry
from belvedere.chassis.database import Database
from belvedere.chassis.errors import Invalid
from belvedere.chassis.page import encode_token
from belvedere.v1 import registry_pb2 as pb
from belvedere.v1.registry_pb2_grpc import RegistryServiceStub
from services.registry import listing, rules
from services.registry.listing import SortBy, Wanted, key_of
from services.registry.store import DeviceRow
from tests.support.cloud import ACCOUNT, REGION

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MIGRATIONS = Path(services.registry.__file__).parent / "migrations"
STATES = [
    ("AWAITING_PROVISIONING", False, None, None),
    ("PENDING", False, NOW + timedelta(days=1), None),
    ("SUCCEEDED", True, NOW + timedelta(days=1), None),
    ("SUCCEEDED", False, NOW + timedelta(days=1), {"status": "COMPLETED"}),
    ("SUCCEEDED", False, NOW - timedelta(days=1), None),
    ("SUCCEEDED", False, None, None),
    ("SUCCEEDED", True, NOW - timedelta(days=1), {"status": "REBOOTING"}),
]


def row(number: int, account: str = ACCOUNT) -> DeviceRow:
    provisioning, connected, lease, job = STATES[number % len(STATES)]
    created = NOW - timedelta(minutes=number // 3)  # several of one moment
    return DeviceRow(
        device_id=f"device-{(number * 37) % 1000:03d}{account[-1]}",
        account=account,
        region=REGION,
        name=f"{'abB'[number % 3]}_{(number * 53) % 1000:03d}",
        created=created,
        updated=created,
        provisioning=provisioning,
        connected=connected,
        lease_expires=lease,
        latest_job=job,
        token_hash="",
        token_expires=created,
        account_public_key=f"A{number}{account}",
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.at(tmp_path / "registry.sqlite3", "registry")
    await database.migrate(MIGRATIONS)
    async with database.session() as session, session.begin():
        session.add_all([row(n) for n in range(60)] + [row(n, "210987654321") for n in range(5)])
    yield database
    await database.close()


async def pages(database: Database, size: int, **asked: object) -> list[str]:
    names: list[str] = []
    after: tuple[str, str] | None = None
    while True:
        wanted = Wanted(ACCOUNT, REGION, NOW, size=size, after=after, **asked)  # type: ignore[arg-type]
        async with database.session(read_only=True) as session:
            found = await listing.page(session, wanted)
        names += [device.name for device in found]
        if len(found) < size:
            return names
        after = (key_of(found[-1], wanted.sort_by, NOW), found[-1].device_id)


@pytest.mark.parametrize("few", [0, 1000], ids=["many of a name", "few of a name"])
async def test_every_order_and_filter_gives_what_sorting_all_would(
    database: Database, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(listing, "FEW_NAMES", few)
    async with database.session(read_only=True) as session:
        rows = (await session.exec(select(DeviceRow).where(DeviceRow.account == ACCOUNT))).all()
    for sort_by, descending, status, front in itertools.product(
        SortBy, (False, True), ("", *rules.STATUSES, "ERROR"), ("", "b", "%")
    ):
        plain = [
            device
            for device in rows
            if device.name.startswith(front) and status in ("", rules.aggregated_status(device.state, NOW))
        ]
        plain.sort(key=lambda device: (key_of(device, sort_by, NOW), device.device_id), reverse=descending)
        found = await pages(database, 7, sort_by=sort_by, descending=descending, status=status, name_front=front)
        assert found == [device.name for device in plain], (sort_by, descending, status, front)


async def test_no_order_reads_more_than_its_page(database: Database) -> None:
    async with database.session(read_only=True) as session:
        connection = await session.connection()
        for order in ("created DESC, device_id DESC", "device_id", "name"):
            for status in ("", "AND standing = 'ONLINE'"):
                where = f"account = '{ACCOUNT}' AND region = '{REGION}' {status}"
                plan = await connection.execute(
                    text(f"EXPLAIN QUERY PLAN SELECT * FROM device WHERE {where} ORDER BY {order} LIMIT 26")
                )
                steps = [str(step.detail) for step in plan]
                assert all("USING INDEX" in step for step in steps), (order, status, steps)


async def test_devices_of_an_older_version_get_their_standing(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    (first / "r0001_tables.py").write_text((MIGRATIONS / "r0001_tables.py").read_text())
    database = Database.at(tmp_path / "old.sqlite3", "registry")
    await database.migrate(first)
    made = [row(number) for number in range(len(STATES))]
    async with database.engine.begin() as connection:
        for device in made:
            values = {
                **device.model_dump(exclude={"standing", "latest_job"}),
                "tags": "{}",
                "video": "[]",
                "networking_configuration": None,
                "networking": None,
                "latest_job": json.dumps(device.latest_job),
            }
            columns = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            await connection.execute(text(f"INSERT INTO device ({columns}) VALUES ({marks})"), values)
    await database.migrate(MIGRATIONS)
    async with database.session(read_only=True) as session:
        found = {device.device_id: device.standing for device in (await session.exec(select(DeviceRow))).all()}
    await database.close()
    assert found == {device.device_id: rules.standing(device.state) for device in made}


async def test_a_made_up_token_is_refused(registry: RegistryServiceStub) -> None:
    filters = ["", 0, 0, 0]
    for cursor in ({"key": "yesterday", "id": "x"}, {"key": "2026-01-01T00:00:00"}, {}):
        with pytest.raises(Invalid, match="NextToken"):
            token = encode_token(cursor, "ListDevices", filters)
            await registry.ListDevices(pb.ListDevicesRequest(next_token=token))
