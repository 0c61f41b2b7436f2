"""A private PostgreSQL for tests: Debian's server on a unix socket in a folder of its own, gone with the test run.

    with postgres() as server:                      # fixture `postgresql` of tests/conftest.py: one for the whole run
        Database("registry", await server.database("anything"))       # made where it is not there yet

Skips, with the package's name, where the server is not installed. PostgreSQL refuses to run as root: then it runs as
another user. Nothing is synced to the disk: what a crash of the machine does to PostgreSQL is not what tests are about.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from belvedere.chassis.secret import Secret

PACKAGE = "postgresql-15"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
USERS_INSTEAD_OF_ROOT = ("postgres", "nobody")
PORT = 5432
"""Part of the socket's name; nothing listens on TCP."""
QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")
ENCODING = ("--encoding=UTF8", "--locale=C")
ENCODING_OF_DATABASES = "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    folder: Path

    def url(self, name: str) -> Secret[str]:
        """Of a database, whether it is there or not."""
        return Secret(f"postgresql://tests@/{name}?host={self.folder}")

    async def database(self, key: str, create: str = ENCODING_OF_DATABASES) -> Secret[str]:
        """The database of `key` (any text), made at the first time."""
        name = "t" + hashlib.sha256(key.encode()).hexdigest()[:24]
        connection = await asyncpg.connect(host=str(self.folder), user="tests", database="postgres")
        try:
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name):
                await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {create}")
        finally:
            await connection.close()
        return self.url(name)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Makes a cluster and runs it; both are gone afterwards. A second and a half."""
    programs = _programs()
    # Not below pytest's folders, which only the user who runs the tests may enter.
    folder = Path(tempfile.mkdtemp(prefix="belvedere-pg-", dir="/tmp"))
    own = _other_user(folder)
    data = folder / "data"
    try:
        make: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "tests",
            "--auth=trust",
            "--no-sync",
            *ENCODING,
        ]
        done = subprocess.run([*own, *make], capture_output=True, text=True, timeout=START_TIMEOUT_S, cwd=folder)
        if done.returncode:
            raise AssertionError(f"initdb failed: {done.stdout}{done.stderr}")
        settings = [f"-c{setting}" for setting in (*QUICK, f"unix_socket_directories={folder}", "listen_addresses=")]
        # It ends with the test run, however that ends.
        front = ["setpriv", "--pdeathsig=INT", *own[1:]]
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [*front, programs / "postgres", "-D", data, "-p", str(PORT), *settings], cwd=folder, stderr=log
            )
        try:
            _until_ready(programs, folder, server)
            yield Postgres(folder)
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait(STOP_TIMEOUT_S)
    finally:
        shutil.rmtree(folder)


def _until_ready(programs: Path, folder: Path, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder, "-p", str(PORT)]).returncode:
        if server.poll() is not None or time.monotonic() > until:
            raise AssertionError(f"PostgreSQL does not start: {(folder / 'log').read_text()}")
        time.sleep(0.02)


def _programs() -> Path:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip(f"needs the Debian package {PACKAGE}")
    return folders[-1]


def _other_user(folder: Path) -> list[str]:
    """The front of a command that does not run as root; `folder` belongs to who it runs as."""
    if os.geteuid() != 0:
        return []
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = next(known[name] for name in USERS_INSTEAD_OF_ROOT if name in known)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
