"""Every service's migrations make exactly the tables that its store describes."""

import importlib
from pathlib import Path

import pytest

from services.runner import SERVICES
from tests.support.database import assert_migrations_match

pytestmark = pytest.mark.both_databases
SERVICES_FOLDER = Path(__file__).parents[2] / "services"


@pytest.mark.parametrize("name", [name for name in SERVICES if (SERVICES_FOLDER / name / "migrations").is_dir()])
async def test_the_migrations_make_the_tables(name: str, tmp_path: Path) -> None:
    # Tables may stand in more modules than one: the service imports them all.
    importlib.import_module(f"services.{name}.service")
    store = importlib.import_module(f"services.{name}.store")
    await assert_migrations_match(tmp_path, SERVICES_FOLDER / name / "migrations", store.Row)
