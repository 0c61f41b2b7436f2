"""`belvedere aws-model install`: the AWS CLI and boto3 of today dropped Panorama; this gives it back to them."""

from __future__ import annotations

import argparse
from pathlib import Path

from belvedere import awsmodel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    installing = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "install", help="put the API model where the AWS CLI and boto3 find it"
    )
    installing.add_argument("--into", type=Path, help="a folder for AWS_DATA_PATH instead of ~/.aws/models")
    installing.set_defaults(run=install)


def install(options: argparse.Namespace) -> int:
    folder = options.into or Path.home() / ".aws" / "models"
    print(f"Panorama model written to {awsmodel.install(folder)}")
    if options.into is not None:
        print(f"export AWS_DATA_PATH={folder.resolve()}")
    return 0
