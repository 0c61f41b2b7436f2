"""`belvedere run`: an application folder on this machine, with the graph, the code, the sandbox and the models of an
appliance, and no cloud side."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import structlog

from belvedere.appdir import AppFolderError, FolderInvalid
from belvedere.chassis.stop import stop_on_signals
from belvedere.cli.errors import CliError
from belvedere.cli.run.session import LocalRun, RunOptions
from belvedere.cli.run.view import addresses
from belvedere.rtsp import RtspError

__all__ = ["add_arguments", "add_run_arguments", "console", "finish", "options_of", "quiet", "run", "show", "told"]

START_TIMEOUT_S = 120.0
"""For the first delivery where an end is set: a large model loads in less."""
LAST_FRAMES_S = 1.2
"""After the last picture of a file: for it to pass through, and for a status that counts it."""
OUTPUT_TIMEOUT_S = 10.0
INTERRUPTED = 130


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run`, `app test` and `app dev` take alike."""
    parser.add_argument("app_dir", metavar="APP_DIR", type=Path, help="the application's folder")
    parser.add_argument(
        "--camera",
        metavar="[NODE=]FILE|URL",
        action="append",
        default=[],
        help="a video file played as a camera, or an rtsp:// address; may be repeated, also for one node",
    )
    parser.add_argument(
        "--override",
        metavar="PARAMETER=VALUE",
        action="append",
        default=[],
        help="a parameter's value; may be repeated",
    )
    parser.add_argument("--overrides", metavar="FILE", type=Path, help="an overrides document to begin with")
    parser.add_argument(
        "--model", metavar="PACKAGE=FILE", action="append", default=[], help="a model file for a package that has none"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="keep state and logs here (gone at the end)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--fault", metavar="SCRIPT", type=Path, help="what goes wrong with the cameras (docs/run.md)")
    parser.add_argument("--once", action="store_true", help="play the files once, then end")
    parser.add_argument("--seconds", type=float, help="end so long after its first delivery")
    parser.add_argument("--view", action="store_true", help="open the video in a browser")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here")
    parser.set_defaults(run=run)


def options_of(options: argparse.Namespace) -> RunOptions:
    """The options that `add_run_arguments` has read."""
    return RunOptions(
        app_dir=options.app_dir,
        cameras=tuple(options.camera),
        values=tuple(options.override),
        overrides=options.overrides,
        models=tuple(options.model),
        fault=getattr(options, "fault", None),
        once=getattr(options, "once", False),
        data=options.data,
    )


def run(options: argparse.Namespace) -> int:
    """0: it has delivered, and did so at the end."""
    with told():
        quiet()
        return asyncio.run(_run(options))


def quiet() -> None:
    """The libraries' own log lines are for services: here only what went wrong counts."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What is wrong, for the person at the keyboard: all of it, a line each."""
    try:
        yield
    except FolderInvalid as error:
        count = len(error.problems)
        raise CliError(f"{count} problem{'s' if count > 1 else ''} to mend:\n{error}") from error
    except (AppFolderError, RtspError) as error:
        raise CliError(str(error)) from error


def console(stream: str, line: str) -> None:
    """What an application writes, as it comes; lines of its log files say where they are from."""
    print(line if stream == "console_output" else f"[{stream}] {line}", flush=True)


class Teller:
    """Says things with the time since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"{time.monotonic() - self._begun:7.2f} s  {text}", file=sys.stderr, flush=True)


async def _run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    local = LocalRun(options_of(options), say=Teller(), on_log=console)
    work = asyncio.create_task(_work(local, options))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
        if work.cancelled():
            return INTERRUPTED
    return work.result()


async def _work(local: LocalRun, options: argparse.Namespace) -> int:
    say = Teller()
    async with local:
        for camera in local.cameras:
            say(f"camera {camera.name} for {', '.join(camera.nodes)}: {camera.file or camera.url}")
        await local.start()
        limited = options.once or options.seconds is not None
        try:
            delivers = await local.delivered(START_TIMEOUT_S if limited else float("inf"))
            while not delivers and not limited and not local.model_problem():
                # It is started again and again: whoever looks on sees why, and ends it.
                delivers = await local.delivered(float("inf"))
            if not delivers:
                print(f"belvedere run: it has delivered nothing: {local.problem()}", file=sys.stderr)
                return 1
            await show(local, view=options.view)
            await local.last(options.seconds)
            if options.once:
                await local.rest(LAST_FRAMES_S)
        except asyncio.CancelledError:
            if local.state != "running":
                raise
        return finish(local, options.json)


async def show(local: LocalRun, *, view: bool) -> None:
    """Says where to look, and which ports are open."""
    say = Teller()
    assert local.resolved is not None
    for rule in local.resolved.graph.network_rules:
        print(f"  port     127.0.0.1:{rule.host_port} → {rule.container_port} of {rule.node}", flush=True)
    if local.resolved.graph.displays and await local.engine.until(
        lambda: bool(local.engine.output(local.instance_id)), OUTPUT_TIMEOUT_S
    ):
        where = addresses(local.data, local.name, local.engine.output(local.instance_id), local.engine.viewer_key)
        print(f"  video    {where.rtsp}\n  browser  {where.page.as_uri()}", flush=True)
        if view and not webbrowser.open(where.page.as_uri()):
            say("no browser can be opened here")


def finish(local: LocalRun, json_path: Path | None) -> int:
    """The figures; the exit status."""
    found = local.figures()
    print(found.table(), flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(found.to_json(), indent=2) + "\n")
    if local.state != "running":
        print(f"belvedere run: {local.problem()}", file=sys.stderr)
        return 1
    return 0
