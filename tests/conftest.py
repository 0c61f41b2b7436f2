"""Which database tests run on: see tests/support/databases.py. And what one test must not leave to the next."""

from __future__ import annotations

import locale
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from belvedere.chassis.paths import remove_run_dir
from tests.support import databases, installs
from tests.support.postgres import Postgres, postgres

OPTION = "--database"
MARKER = "both_databases"

# How long one example takes says how busy the machine is, not whether the code is right.
settings.register_profile("belvedere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("belvedere")


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
def installs_beside_the_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests of this run need from pip is installed while others run."""
    with installs.beside({marker.name for item in request.session.items for marker in item.iter_markers()}):
        yield


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


DATA_DEPTH = 4
"""Data folders lie at most so deep below the run's own folder."""


@pytest.fixture(scope="session", autouse=True)
def short_folders_go_with_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Data folders of tests lie so deep that their sockets are elsewhere, in short folders that only an appliance that
    ends removes."""
    base = tmp_path_factory.getbasetemp()
    yield
    for at, folders, _ in os.walk(base):
        data = Path(at)
        if len(data.relative_to(base).parts) > DATA_DEPTH:
            folders.clear()
        elif (data / "run").is_symlink():
            remove_run_dir(data)


@pytest.fixture(autouse=True)
def locale_as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Some library once left the process at ASCII, and the next test could not read a document. Who does is told."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    after = locale.setlocale(locale.LC_ALL)
    if after != before:
        locale.setlocale(locale.LC_ALL, before)
        warnings.warn(f"{request.node.nodeid} left the process's locale at {after}", stacklevel=1)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Commands that run in the tests' own process configure its log, which the next test reads."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
