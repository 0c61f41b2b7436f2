"""Which database a test runs on.

`pytest --database postgresql` (`make test DATABASE=postgresql`) runs everything on PostgreSQL. Without it tests run on
SQLite, and those marked `both_databases` a second time on PostgreSQL:

    pytestmark = pytest.mark.both_databases
"""

from __future__ import annotations

from pathlib import Path

from belvedere.chassis.database import Database
from tests.support.postgres import Postgres

SQLITE, POSTGRESQL = "sqlite", "postgresql"

server: Postgres | None = None
"""Set while a test is to run on PostgreSQL: by tests/conftest.py."""


async def database(path: Path, name: str) -> Database:
    """A database of its own: the SQLite file `path`, or where the test runs on PostgreSQL one made for that path."""
    return Database.at(path, name) if server is None else Database(name, await server.database(str(path)))
