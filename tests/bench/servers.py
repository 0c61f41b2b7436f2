"""The processes that are measured: our cloud side, moto's server, the bare echo. Loopback only; each ends with its block.

    with ours(folder) as server, moto() as peer, echo(folder, reply) as limit:
        server.url, server.pid, server.client("panorama")

They run on the server's core, the one who asks on the other.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from belvedere import awsmodel
from belvedere.chassis.process import guarded
from belvedere.cli.cloud import CloudAccess
from tests.bench import machine, peers

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOOK_EVERY_S = 0.05
SHOWN_ERRORS = 3
"""Of a server under which a benchmark failed."""
REGION = "us-east-1"


@dataclass(frozen=True)
class Server:
    """One that listens."""

    name: str
    url: str
    pid: int
    access_key_id: str
    secret_access_key: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, service: str) -> Any:
        """A boto3 client of today with our model: the same for everybody who is asked."""
        session = botocore.session.Session()
        session.set_config_variable("data_path", str(awsmodel.model_folder()))
        return boto3.Session(
            botocore_session=session,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=REGION,
        ).client(
            service,
            endpoint_url=self.url,
            config=Config(
                retries={"total_max_attempts": 1}, read_timeout=30, request_min_compression_size_bytes=1 << 20
            ),
        )


@contextlib.contextmanager
def ours(folder: Path, *, cores: Sequence[int] = (machine.SERVER_CORE,)) -> Iterator[Server]:
    """The cloud side as `belvedere up` starts it, on the data folder `folder/cloud`."""
    data = folder / "cloud"
    argv = [sys.executable, "-m", "services", "--data", str(data), "--port", "0"]
    with _running("ours", argv, folder, cores) as process:
        _first_line(process, folder / "ours.out", "ready ")
        access = CloudAccess.load(data)
        yield Server("ours", access.endpoint_url, process.pid, access.access_key_id, access.secret_access_key)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """moto's server. Raises PeerAbsent where it cannot be installed."""
    python, port = peers.python_of("moto", peers.MOTO), _free_port()
    argv = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running("moto", argv, folder, (machine.SERVER_CORE,)) as process:
        _until_listening(process, port)
        yield Server("moto", f"http://127.0.0.1:{port}", process.pid, "AKIABENCHBENCHBENCH0", "bench")


@contextlib.contextmanager
def echo(folder: Path, reply: bytes) -> Iterator[Server]:
    """A bare server whose every answer is `reply`."""
    (folder / "reply").write_bytes(reply)
    argv = [sys.executable, "-m", "tests.bench.echo", str(folder / "reply")]
    with _running("echo", argv, folder, (machine.SERVER_CORE,)) as process:
        port = _first_line(process, folder / "echo.out", "")
        yield Server("limit", f"http://127.0.0.1:{port}", process.pid, "AKIABENCHBENCHBENCH0", "bench")


@contextlib.contextmanager
def _running(name: str, argv: list[str], folder: Path, cores: Sequence[int]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("BELVEDERE_", "AWS_"))}
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err, machine.on(*cores):
        process = subprocess.Popen(
            guarded(argv), cwd=peers.REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    try:
        yield process
    except Exception:
        errors = [line for line in (folder / f"{name}.err").read_text().splitlines() if '"level": "error"' in line]
        print(f"the last errors of {name}:", *errors[-SHOWN_ERRORS:], sep="\n", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_line(process: subprocess.Popen[bytes], output: Path, front: str) -> str:
    for _ in _looks(process, f"no line {front!r} in {output}"):
        for line in output.read_text().splitlines(keepends=True):
            if line.startswith(front) and line.endswith("\n"):
                return line.removeprefix(front).strip()
    raise AssertionError("unreachable")


def _until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in _looks(process, f"nobody listens on {port}"):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return


def _looks(process: subprocess.Popen[bytes], missing: str) -> Iterator[None]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {missing}")
        yield
        time.sleep(LOOK_EVERY_S)
    raise RuntimeError(f"not within {START_TIMEOUT_S:g} s: {missing}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
