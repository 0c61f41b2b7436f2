"""The environments of model import, installed by pip the first time and kept in `.cache/model-import`.

environment = framework("pytorch")                    # skips the test, with pip's reason, where pip cannot
make(environment, SCRIPT, folder)                     # a script that makes models with the framework
"""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

from services.packages.models.environments import Environment, Environments, InstallFailed

CACHE = Path(__file__).parents[2] / ".cache" / "model-import"
MAKE_TIMEOUT_S = 300.0


def framework(name: str) -> Environment:
    """The framework's environment, complete."""
    environment = Environments(CACHE).named(name)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests share the folder
        if not environment.installed:
            try:
                environment.install()
            except InstallFailed as error:
                pytest.skip(str(error))
    return environment


def make(environment: Environment, script: str, folder: Path) -> None:
    """Runs a script in the environment, in `folder`."""
    done = subprocess.run(
        [environment.python, "-c", script],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=MAKE_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
