"""`belvedere models`: the environments of model import, on the cloud side's machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

FRAMEWORKS = ("onnx", "pytorch", "tensorflow", "mxnet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "install", "remove"])
    parser.add_argument("framework", nargs="*", help=f"{', '.join(FRAMEWORKS)}; all of them where none is named")
    parser.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Becomes the packages service's own program for it: the CLI knows no service."""
    command = [sys.executable, "-m", "services.packages.models", options.action, *options.framework]
    os.execv(sys.executable, [*command, "--data", str(options.data)])
