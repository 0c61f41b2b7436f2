"""`belvedere camera serve`: a simulated camera that plays a file in a loop."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path

from belvedere.chassis.logs import configure
from belvedere.chassis.secret import Secret
from belvedere.chassis.stop import stop_on_signals
from belvedere.cli.errors import CliError
from belvedere.rtsp import FaultScript, RtspError, serve_camera


def add_arguments(parser: argparse.ArgumentParser) -> None:
    serving = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "serve", help="play a video file in a loop as an RTSP camera with digest authentication"
    )
    serving.add_argument("file", type=Path, help="H.264 or H.265 video")
    serving.add_argument("--host", default="127.0.0.1")
    serving.add_argument("--port", type=int, default=8553)
    serving.add_argument("--path", default="camera")
    serving.add_argument("--username", default="camera")
    serving.add_argument(
        "--password-file", type=Path, help="file with the password; without it one is made and printed"
    )
    serving.add_argument("--fault", metavar="SCRIPT", type=Path, help="what goes wrong, and when (docs/run.md)")
    serving.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> int:
    configure("camera")
    if not options.file.exists():
        raise CliError(f"no video at {options.file}")
    try:
        faults = FaultScript.load(options.fault) if options.fault is not None else None
    except RtspError as error:
        raise CliError(str(error)) from error
    if options.password_file is not None:
        password = _read_password(options.password_file)
    else:
        password = secrets.token_urlsafe(9)
        print(f"user {options.username}, password {password}", flush=True)
    try:
        asyncio.run(_serve(options, Secret(password), faults))
    except RtspError as error:
        raise CliError(str(error)) from error
    return 0


def _read_password(file: Path) -> str:
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        # Without its cause: a decoding error carries what it read.
        raise CliError(f"the password file {file} can't be read: {why}") from None
    if not password:
        raise CliError(f"the password file {file} is empty: write the camera's password into it")
    return password


async def _serve(options: argparse.Namespace, password: Secret[str], faults: FaultScript | None) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    await serve_camera(
        options.file,
        options.host,
        options.port,
        options.path,
        options.username,
        password,
        ready=lambda url: print(f"playing at {url}", flush=True),
        stop=stop,
        faults=faults,
        told=lambda text: print(f"fault: {text}", flush=True),
    )
