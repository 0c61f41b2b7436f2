"""`belvedere`: parses the command line and calls one function a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from belvedere.cli import app, appliance, awsmodel, camera, cloud, demo
from belvedere.cli.errors import CliError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. A CliError is one line on stderr and status 2."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CliError as error:
        print(f"belvedere: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="belvedere", description="Computer vision at the edge that you own: the open successor to AWS Panorama."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run the cloud side in the foreground, from one data folder")
    up.add_argument("--data", type=Path, required=True, help="data folder; made at first start")
    up.add_argument("--port", type=int, help="port of the AWS endpoint (first start: 8700); the others follow it")
    up.set_defaults(run=cloud.up)

    env = commands.add_parser("env", help="print the export lines that point the AWS tools at a running cloud side")
    env.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")
    env.set_defaults(run=cloud.env)

    link = commands.add_parser("console", help="print a link that opens the web console, good once, for five minutes")
    link.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere up`")
    link.set_defaults(run=cloud.console_link)

    box = commands.add_parser("appliance", help="run or ask an appliance").add_subparsers(
        required=True, metavar="COMMAND"
    )
    run = box.add_parser("run", help="run an appliance in the foreground")
    run.add_argument("--data", type=Path, required=True, help="data folder; made at first start")
    run.add_argument("--bundle", type=Path, help="the ZIP from ProvisionDevice; needed at first start only")
    run.set_defaults(run=appliance.run)
    status = box.add_parser("status", help="what a running appliance is doing")
    status.add_argument("--data", type=Path, required=True, help="the data folder of `belvedere appliance run`")
    status.add_argument("--json", action="store_true", help="everything, as JSON")
    status.set_defaults(run=appliance.status)

    simulated = commands.add_parser("camera", help="a simulated camera").add_subparsers(
        required=True, metavar="COMMAND"
    )
    serve = simulated.add_parser(
        "serve", help="play a video file in a loop as an RTSP camera with digest authentication"
    )
    serve.add_argument("file", type=Path, help="H.264 or H.265 video")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8553)
    serve.add_argument("--path", default="camera")
    serve.add_argument("--username", default="camera")
    serve.add_argument("--password-file", type=Path, help="file with the password; without it one is made and printed")
    serve.set_defaults(run=camera.serve)

    app.add_arguments(commands)

    model = commands.add_parser("aws-model", help="the Panorama API for today's AWS CLI and boto3").add_subparsers(
        required=True, metavar="COMMAND"
    )
    install = model.add_parser("install", help="put the API model where the AWS CLI and boto3 find it")
    install.add_argument("--into", type=Path, help="a folder for AWS_DATA_PATH instead of ~/.aws/models")
    install.set_defaults(run=awsmodel.install)

    play = commands.add_parser("demo", help="the main job, end to end: camera, model, application, live page")
    demo.add_arguments(play)
    play.set_defaults(run=demo.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
