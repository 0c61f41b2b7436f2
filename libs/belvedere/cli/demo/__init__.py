"""`belvedere demo`: the main job end to end, each step through the real part.

Camera → frames → application → model → annotated video, managed from the cloud side through the AWS Panorama API. It
starts what a user would start, calls what a user would call, looks from outside, and ends non-zero if any stage did not
really happen.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from belvedere.appdir import AppFolderError
from belvedere.chassis.edge import EdgeError
from belvedere.cli.demo.session import Demo, DemoOptions
from belvedere.cli.errors import CliError
from belvedere.footage import FootageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=Path(".demo"), help="folder of the demo's state; begun anew each time"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="where footage and model are kept")
    parser.add_argument("--example", type=Path, default=Path("examples/people-counter"), help="the application to run")
    parser.add_argument("--seconds", type=float, default=_number("DEMO_SECONDS"), help="end by itself after this long")
    parser.add_argument("--json", type=Path, default=_path("DEMO_JSON"), help="write the figures here")
    parser.add_argument("--clip", type=Path, default=_path("CLIP"), help="H.264 or H.265 file for the simulated camera")
    parser.add_argument("--camera", default=os.environ.get("CAMERA"), help="rtsp:// address of a real camera instead")
    parser.set_defaults(run=run)
    parser.add_argument("--port", type=int, help="port of the AWS endpoint; the cloud side's other ports follow it")


def run(options: argparse.Namespace) -> int:
    """Runs the demo; 0 only when every stage really happened."""
    settings = DemoOptions(
        data=options.data.absolute(),
        cache=options.cache.absolute(),
        example=options.example.absolute(),
        seconds=options.seconds,
        json_path=options.json,
        clip=options.clip,
        camera_url=options.camera,
        port=options.port,
    )
    try:
        return asyncio.run(Demo(settings).run())
    except (AppFolderError, FootageError, EdgeError, BotoCoreError, ClientError) as error:
        raise CliError(str(error)) from error


def _number(name: str) -> float | None:
    value = os.environ.get(name)
    return float(value) if value else None


def _path(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None
