"""A service's migrations make exactly the tables that its code describes.

async def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    await assert_migrations_match(tmp_path, Path(service.__file__).parent / "migrations", store.Row)
"""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

from tests.support import databases

CHASSIS_TABLES = {"outbox", "alembic_version"}


async def assert_migrations_match(folder: Path, migrations: Path, base: type[SQLModel]) -> None:
    """Migrates a fresh database and compares it with the tables of `base` (the service's `Row`)."""

    def differences(connection: Connection) -> list[object]:
        def ours(name: str | None, kind: str, _: object) -> bool:
            return kind != "table" or name not in CHASSIS_TABLES

        context = MigrationContext.configure(connection, opts={"include_name": ours, "compare_type": True})
        return list(compare_metadata(context, base.metadata))

    database = await databases.database(folder / "migrated.sqlite3", "migrated")
    try:
        await database.migrate(migrations)
        async with database.engine.connect() as connection:
            found = await connection.run_sync(differences)
    finally:
        await database.close()
    assert not found, f"the tables differ from what {migrations} makes: {found}"
