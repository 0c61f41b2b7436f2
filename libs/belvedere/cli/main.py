"""`belvedere`: finds the command, and loads what that command needs and no more: some need boto3 or a decoder, most do not."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from belvedere.cli.errors import CliError

READER_GONE = 128 + signal.SIGPIPE
"""The exit status of a program that SIGPIPE ends, as a shell says it."""


@dataclass(frozen=True)
class Command:
    """One word after `belvedere`."""

    help: str
    module: str
    """Below belvedere.cli."""
    arguments: str = "add_arguments"
    """The function there that adds its arguments to a parser, and its `run`."""


COMMANDS = {
    "up": Command("run the cloud side in the foreground, from one data folder", "cloud", "add_up"),
    "env": Command("print the export lines that point the AWS tools at a running cloud side", "cloud", "add_env"),
    "console": Command("print a link that opens the web console, good once, for five minutes", "cloud", "add_console"),
    "user": Command("users of the account", "users", "add_users"),
    "key": Command("access keys of users, for the AWS tools", "users", "add_keys"),
    "token": Command("bearer tokens of users, for the services' gRPC over TCP", "users", "add_tokens"),
    "policy": Command("policies: who may what", "policies", "add_policies"),
    "role": Command("roles, which applications and people take on for a while", "policies", "add_roles"),
    "audit": Command("who did what, and who was not let", "audit"),
    "appliance": Command("run or ask an appliance", "appliance"),
    "camera": Command("a simulated camera", "camera"),
    "run": Command("run an application folder on this machine, without a cloud side", "run"),
    "app": Command("make, build, package and deploy an application", "app"),
    "rollout": Command("an application to a group of devices, in phases", "rollout"),
    "models": Command("what converts models of PyTorch, TensorFlow, MXNet when they are registered", "models"),
    "aws-model": Command("the Panorama API for today's AWS CLI and boto3", "awsmodel"),
    "demo": Command("the main job, end to end: camera, model, application, live page", "demo"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. A CliError is one line on stderr and status 2; a reader of stdout who
    leaves early, as `head` does, ends it without a word."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            options = _parser(words).parse_args(words)
            return int(options.run(options))
        finally:
            sys.stdout.flush()  # here, where it can be told why it fails; not at the interpreter's end
    except CliError as error:
        print(f"belvedere: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not _reader_gone():
            raise
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - for what is still in stdout's buffer
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return READER_GONE


def _reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads any more; a socket of the command's own may have broken instead."""
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="belvedere", description="Computer vision at the edge that you own: the open successor to AWS Panorama."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.help, description=command.help[0].upper() + command.help[1:] + ".")
        if words[:1] == [name]:
            getattr(importlib.import_module(f"belvedere.cli.{command.module}"), command.arguments)(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
