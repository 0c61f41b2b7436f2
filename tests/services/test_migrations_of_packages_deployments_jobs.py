"""The tables that the migrations make are the tables that the stores use."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData

from belvedere.chassis.database import Database
from services import deployments, device_jobs, packages
from services.deployments import store as deployments_store
from services.device_jobs import store as device_jobs_store
from services.packages import store as packages_store

OWN = {"outbox", "alembic_version"}
"""Tables of the chassis."""


@pytest.mark.parametrize(
    ("package", "metadata"),
    [
        (packages, packages_store.Row.metadata),
        (deployments, deployments_store.Row.metadata),
        (device_jobs, device_jobs_store.Row.metadata),
    ],
    ids=["packages", "deployments", "device_jobs"],
)
async def test_migrations_make_the_tables_of_the_store(tmp_path: Path, package: Any, metadata: MetaData) -> None:
    database = Database.at(tmp_path / "x.sqlite3", "x")
    await database.migrate(Path(package.__path__[0]) / "migrations")

    def differences(connection: Connection) -> Sequence[Any]:
        def ours(_: Any, name: str | None, kind: str, *rest: Any) -> bool:
            return not (kind == "table" and name in OWN)

        return compare_metadata(MigrationContext.configure(connection, opts={"include_object": ours}), metadata)

    async with database.engine.connect() as connection:
        assert list(await connection.run_sync(differences)) == []
    await database.close()
