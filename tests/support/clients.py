"""AWS's own clients, unmodified, each in a Python environment of its own that is kept in `.cache/clients`.

    old = environment("botocore-1.43.37", ["boto3==1.43.37", "botocore==1.43.37"])     # installed by pip the first time
    old.run(door, ["python", "script.py"], cwd=tmp_path)                                # its programs first on PATH
    with old.forked([["aws", "s3", "ls"]], folder) as quick:        # the same, without starting Python for each program
        quick.run(door, ["aws", "s3", "ls"], cwd=tmp_path)

Skips the test, with pip's reason, where pip cannot install them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from belvedere import awsmodel
from tests.support.cloud import REGION
from tests.support.fork_server import SHIM
from tests.support.front_door import Door

CACHE = Path(__file__).parents[2] / ".cache" / "clients"
INSTALL_TIMEOUT_S = 150.0
RUN_TIMEOUT_S = 150.0
FORK_SERVER = Path(__file__).with_name("fork_server.py")
NOBODY = "http://127.0.0.1:9"
"""Where nobody listens."""


@dataclass(frozen=True)
class Clients:
    """One environment."""

    folder: Path
    quick: Path | None = None
    """A folder with programs that run in forks (tests/support/fork_server.py)."""

    @contextmanager
    def forked(self, warm: Sequence[Sequence[str]], folder: Path) -> Iterator[Clients]:
        """The same programs, forked from one process; `warm`: command lines that have each of them import what it
        needs, none of which reaches anything. `folder`: an empty one, of a path that is short enough for a socket."""
        names = sorted({command[0] for command in warm})
        variables = self._variables() | {"AWS_ENDPOINT_URL": NOBODY, "AWS_DATA_PATH": str(awsmodel.model_folder())}
        path = folder / "socket"
        python = self.folder / "bin" / "python"
        server = subprocess.Popen(
            [python, FORK_SERVER, path, json.dumps(list(map(list, warm)))],
            cwd=folder, env=variables | {"HOME": str(folder)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            assert said == "ready\n", f"the fork server ended with {server.wait()}"
            programs = folder / "bin"
            programs.mkdir()
            for name in names:
                (programs / name).write_text(SHIM.format(python=python, path=str(path)))
                (programs / name).chmod(0o755)
            yield replace(self, quick=programs)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
            server.stdout.close()

    def _variables(self) -> dict[str, str]:
        """Of every program, whoever's it is."""
        folders = [*([self.quick] if self.quick else []), self.folder / "bin", "/usr/bin", "/bin"]
        return {
            "PATH": ":".join(map(str, folders)),
            "LANG": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nobody",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "AWS_MAX_ATTEMPTS": "1",
            # Their warnings of an old Python are not about us.
            "PYTHONWARNINGS": "ignore",
        }

    def run(
        self,
        door: Door,
        command: Sequence[str],
        *,
        cwd: Path,
        check: bool = True,
        model: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program as the administrator. `model`: with our model of the Panorama API; `check`: it must succeed."""
        variables = {
            **self._variables(),
            "HOME": str(cwd),
            "AWS_ENDPOINT_URL": door.url,
            "AWS_ACCESS_KEY_ID": door.access_key_id,
            "AWS_SECRET_ACCESS_KEY": door.secret_access_key,
            **({"AWS_DATA_PATH": str(awsmodel.model_folder())} if model else {}),
            **(environment or {}),
        }
        program = shutil.which(command[0], path=variables["PATH"])
        assert program is not None, f"{command[0]} is not on {variables['PATH']}"
        done = subprocess.run(
            [program, *command[1:]],
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done


def last_botocore() -> Clients:
    """AWS's last boto3 that knows Panorama by itself."""
    return environment("botocore-1.43.37", ["boto3==1.43.37", "botocore==1.43.37"])


def panorama_tools() -> Clients:
    """The Panorama command line of AWS's and today's AWS CLI. setuptools: the former imports pkg_resources."""
    return environment("panoramacli-1.1.6", ["panoramacli==1.1.6", "setuptools<81", "awscli>=1.46"])


def environment(name: str, requirements: Sequence[str]) -> Clients:
    """The environment with these requirements; made if it is not there yet."""
    wanted = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{wanted}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            for old in CACHE.glob(f"{name}-????????????"):
                shutil.rmtree(old)
            _install(folder, requirements)
            (folder / "installed").touch()
    return Clients(folder)


def _install(folder: Path, requirements: Sequence[str]) -> None:
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    # pip may need what is set for it; Python's own settings are those of the environment that runs the tests.
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "AWS_"))}
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(folder / "bin" / "python"), *pip]):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False, env=variables
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"pip did not install {' '.join(requirements)} within {INSTALL_TIMEOUT_S:g} s")
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            pytest.skip(f"pip cannot install {' '.join(requirements)}: {said[-1] if said else 'no reason given'}")
