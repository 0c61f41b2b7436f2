"""`belvedere up`, `belvedere env`, `belvedere console`: the cloud side from one data folder."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from belvedere import awsmodel
from belvedere.chassis.paths import run_dir
from belvedere.cli.errors import CliError

if TYPE_CHECKING:
    import grpc

    from belvedere.v1 import registry_pb2

ADMIN_FILE = "admin.json"
PORTS_FILE = "ports.json"
HOST_FILE = "host"
LOOPBACK = "127.0.0.1"
ADMIN = "admin"
GRPC_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class CloudAccess:
    """How the owner of a data folder reaches its cloud side; under the name that the cloud side was started with."""

    endpoint_url: str
    console_url: str
    account_id: str
    region: str
    access_key_id: str
    secret_access_key: str

    @classmethod
    def load(cls, data: Path) -> CloudAccess:
        """Raises CliError where the folder holds no cloud side that was ever ready."""
        try:
            admin = json.loads((data / ADMIN_FILE).read_text())
            ports = json.loads((data / PORTS_FILE).read_text())
        except FileNotFoundError as error:
            raise CliError(
                f"{data} holds no cloud side yet ({error.filename} is missing): start it with `belvedere up --data {data}`"
            ) from None
        named = data / HOST_FILE
        host = named.read_text().strip() if named.exists() else LOOPBACK
        return cls(
            endpoint_url=f"http://{host}:{ports['gateway']}",
            console_url=f"http://{host}:{ports['console']}",
            account_id=admin["account_id"],
            region=admin["region"],
            access_key_id=admin["access_key_id"],
            secret_access_key=admin["secret_access_key"],
        )


def add_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="data folder; made at first start")
    parser.add_argument("--port", type=int, help="port of the AWS endpoint (first start: 8700); the others follow it")
    parser.set_defaults(run=up)


def add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")
    parser.set_defaults(run=env)


def add_console(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")
    parser.add_argument("--user", default=ADMIN, help="whose link it is: what he may see is what his policies allow")
    parser.set_defaults(run=console_link)


def up(options: argparse.Namespace) -> int:
    """Becomes the cloud side: this process is replaced, so that signals reach it as they are."""
    options.data.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "services", "--data", str(options.data)]
    if options.port is not None:
        command += ["--port", str(options.port)]
    os.execv(sys.executable, command)


def env(options: argparse.Namespace) -> int:
    """Prints lines for `eval`: endpoint, keys, region, and where the AWS tools find the Panorama model."""
    access = CloudAccess.load(options.data)
    models = options.data.resolve() / "aws-models"
    awsmodel.install(models)
    values = {
        "AWS_ENDPOINT_URL": access.endpoint_url,
        "AWS_ACCESS_KEY_ID": access.access_key_id,
        "AWS_SECRET_ACCESS_KEY": access.secret_access_key,
        "AWS_DEFAULT_REGION": access.region,
        "AWS_REGION": access.region,
        "AWS_DATA_PATH": str(models),
    }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def console_link(options: argparse.Namespace) -> int:
    print(login_url(options.data, options.user))
    return 0


def login_url(data: Path, user: str = ADMIN) -> str:
    """A link that logs a user in to the console once."""
    from belvedere.v1 import identity_pb2, identity_pb2_grpc

    access = CloudAccess.load(data)
    with _owner_channel(data) as channel:
        answer = identity_pb2_grpc.IdentityServiceStub(channel).CreateLoginToken(
            identity_pb2.CreateLoginTokenRequest(user_name=user),
            metadata=owner_metadata(access),
            timeout=GRPC_TIMEOUT_S,
        )
    return f"{access.console_url}/login?token={answer.token}"


def viewer_credentials(data: Path, device_id: str) -> registry_pb2.CreateViewerCredentialsResponse:
    """Where a device's video can be seen, and what opens it."""
    from belvedere.v1 import registry_pb2, registry_pb2_grpc

    access = CloudAccess.load(data)
    with _owner_channel(data) as channel:
        return registry_pb2_grpc.RegistryServiceStub(channel).CreateViewerCredentials(
            registry_pb2.CreateViewerCredentialsRequest(device_id=device_id),
            metadata=owner_metadata(access),
            timeout=GRPC_TIMEOUT_S,
        )


@contextlib.contextmanager
def _owner_channel(data: Path) -> Iterator[grpc.Channel]:
    """The services' socket, which only the owner of the data folder can open. Raises CliError."""
    import grpc

    try:
        with grpc.insecure_channel(f"unix:{run_dir(data) / 'grpc.sock'}") as channel:
            yield channel
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            raise CliError(error.details() or str(error)) from error
        raise CliError(f"the cloud side in {data} does not answer ({error}): is `belvedere up` running?") from error


def owner_metadata(access: CloudAccess) -> tuple[tuple[str, str], ...]:
    """What a call over the owner's socket says of its caller."""
    return (
        ("x-belvedere-account", access.account_id),
        ("x-belvedere-region", access.region),
        ("x-belvedere-principal", f"arn:aws:iam::{access.account_id}:user/admin"),
    )
