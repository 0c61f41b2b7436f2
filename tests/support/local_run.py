"""A local appliance that several tests share, and applications to run on it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from belvedere.appdir import AppFolder, new_app
from belvedere.cli.run.engine import Engine

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
CACHE = REPOSITORY / ".cache"
ACCOUNT = "123456789012"


@contextlib.asynccontextmanager
async def local_engine(folder: Path) -> AsyncIterator[Engine]:
    """What `belvedere run` starts, running."""
    async with Engine(folder) as engine:
        await engine.begin()
        yield engine


def motion_app(folder: Path) -> AppFolder:
    """What `belvedere app init` makes: it marks what moves."""
    return new_app(folder, ACCOUNT)


def copied(name: str, folder: Path) -> Path:
    """An example that a test may change."""
    return Path(shutil.copytree(EXAMPLES / name, folder / name))


def code_of(app: Path) -> Path:
    """The application's first source file."""
    return next(iter(sorted(app.rglob("application.py"))))
