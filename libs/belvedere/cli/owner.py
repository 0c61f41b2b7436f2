"""Asking the identity service over the owner's socket, which nobody else can open: what the commands of users and policies share.

Knows no command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2  # type: ignore[import-untyped]

from belvedere.chassis import rpc
from belvedere.chassis.paths import run_dir
from belvedere.cli.cloud import GRPC_TIMEOUT_S, CloudAccess, owner_metadata
from belvedere.cli.errors import CliError
from belvedere.v1.identity_pb2_grpc import IdentityServiceStub

Run = Callable[["Identity", argparse.Namespace], None]


class Identity:
    """The identity service, or another one by its stub, as the owner of a data folder."""

    def __init__(self, data: Path, channel: grpc.Channel, access: CloudAccess, stub: Any = None) -> None:
        self._data, self._access = data, access
        self._stub = stub or IdentityServiceStub(channel)

    @property
    def account(self) -> str:
        return self._access.account_id

    def ask(self, request: Message) -> Any:
        """The answer to a message `<Method>Request`. Raises CliError in the service's words."""
        method = getattr(self._stub, request.DESCRIPTOR.name.removesuffix("Request"))
        try:
            return method(request, metadata=owner_metadata(self._access), timeout=GRPC_TIMEOUT_S)
        except grpc.RpcError as error:
            raise CliError(self._text(error)) from error

    def _text(self, error: grpc.RpcError) -> str:
        found = error if isinstance(error, grpc.Call) else None
        metadata: Any = (found.trailing_metadata() if found is not None else None) or ()
        details = next((value for key, value in metadata if key == rpc.DETAILS_KEY), None)
        typed = rpc.from_status(status_pb2.Status.FromString(details)) if isinstance(details, bytes) else None
        if typed is not None:
            return typed.message
        if found is not None and found.code() is grpc.StatusCode.UNAVAILABLE:
            return f"the cloud side in {self._data} does not answer: start it with `belvedere up --data {self._data}`"
        code, text = (found.code().name, found.details()) if found is not None else ("", str(error))
        return f"the cloud side in {self._data} could not do this ({code} {text}): its log says why"


@contextmanager
def identity(data: Path) -> Iterator[Identity]:
    """Raises CliError where the folder holds no cloud side."""
    access = CloudAccess.load(data)
    with grpc.insecure_channel(f"unix:{run_dir(data) / 'grpc.sock'}") as channel:
        yield Identity(data, channel, access)


class Commands:
    """The words after a command, each with `--data` and a function that is given the identity service."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._words = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, run: Run, text: str) -> argparse.ArgumentParser:
        """One word."""
        parser: argparse.ArgumentParser = self._words.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + "."
        )
        add_data(parser)
        parser.set_defaults(run=running(run))
        return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`."""
    parser.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")


def running(run: Run) -> Callable[[argparse.Namespace], int]:
    """`run` as a command calls it."""

    def command(options: argparse.Namespace) -> int:
        with identity(options.data) as service:
            run(service, options)
        return 0

    return command


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns as wide as what is in them."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def moment(time: Timestamp) -> str:
    """UTC, to the second."""
    return f"{time.ToDatetime(tzinfo=UTC):%Y-%m-%dT%H:%M:%SZ}"


def now() -> datetime:
    """With a time zone."""
    return datetime.now(UTC)


def read(file: Path) -> str:
    """The text of a file; `-` is stdin. Raises CliError."""
    try:
        return Path("/dev/stdin").read_text() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {error}") from error
