"""Which database tests run on: see tests/support/databases.py. And what one test must not leave to the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.support import databases
from tests.support.postgres import Postgres, postgres

OPTION = "--database"
MARKER = "both_databases"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        OPTION,
        choices=(databases.SQLITE, databases.POSTGRESQL),
        default=databases.SQLITE,
        help="what services keep their rows in; those marked both_databases run on PostgreSQL in any case",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker(MARKER) and metafunc.config.getoption(OPTION) == databases.SQLITE:
        metafunc.parametrize("database_kind", [databases.SQLITE, databases.POSTGRESQL], indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """One server for the whole run; started by the first who asks."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def database_of_the_run(request: pytest.FixtureRequest) -> None:
    """PostgreSQL from the start, for fixtures that outlive a test, where the option says so."""
    if request.config.getoption(OPTION) == databases.POSTGRESQL:
        databases.server = request.getfixturevalue("postgresql")


@pytest.fixture(autouse=True)
def database_kind(request: pytest.FixtureRequest, database_of_the_run: None) -> Iterator[str]:
    """Which one this test runs on."""
    kind: str = getattr(request, "param", request.config.getoption(OPTION))
    before = databases.server
    databases.server = request.getfixturevalue("postgresql") if kind == databases.POSTGRESQL else None
    yield kind
    databases.server = before


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Commands that run in the tests' own process configure its log, which the next test reads."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
