"""`belvedere app dev`: watches an application's folder, and puts the changed code in the place of what runs.

On this machine, in the engine of `belvedere run`: cameras stay open and models loaded, the old code runs until the new
one delivers, and on where it doesn't. With `--device`, by deployments that replace each other.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from belvedere.appdir import AppFolder, FolderInvalid, FolderProblem, FolderWork
from belvedere.appdir.resolving import syntax_problem
from belvedere.chassis.stop import stop_on_signals
from belvedere.cli.errors import CliError
from belvedere.cli.run import INTERRUPTED, Teller, add_run_arguments, console, finish, options_of, quiet, show, told
from belvedere.cli.run.session import LocalRun

SWAP_TIMEOUT_S = 30.0
"""For the new code's first delivery; the old one runs meanwhile."""
RETRY_S = 1.0
"""Before it is looked again whether code that failed at its start delivers now."""
SETTLE_MS = 50
"""Without a change, before what has changed is looked at: editors write in several steps."""
SETTLE_MAX_MS = 400

Redeploy = Callable[[], None]


def add_dev_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--fault", metavar="SCRIPT", type=Path, help="what goes wrong with the cameras (docs/run.md)")
    parser.add_argument("--view", action="store_true", help="open the video in a browser")


def dev(options: argparse.Namespace, redeploy: Redeploy | None) -> int:
    """Until Ctrl-C. `redeploy`: what to do at a change instead of swapping it here."""
    with told():
        quiet()
        return asyncio.run(_deploying(options, redeploy) if redeploy is not None else _run(options))


async def _run(options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    local = LocalRun(options_of(options), say=Teller(), on_log=console)
    work = asyncio.create_task(_local(local, options))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
    return INTERRUPTED if work.cancelled() else work.result()


async def _local(local: LocalRun, options: argparse.Namespace) -> int:
    async with local:
        await local.start()
        # From the beginning: code that fails at its start wants to be mended too.
        tasks = [asyncio.create_task(_watch(local)), asyncio.create_task(_follow(local, options))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except asyncio.CancelledError:
            if local.state != "running":
                raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return finish(local, None)


async def _follow(local: LocalRun, options: argparse.Namespace) -> None:
    """Tells what happens, for ever."""
    print(f"  watching {options.app_dir}: save a file, and its change runs", flush=True)
    while not await local.delivered(float("inf")):
        await local.rest(RETRY_S)
    await show(local, view=options.view)
    await local.last(None)


async def _watch(local: LocalRun) -> None:
    """Swaps at every change, one after the other."""
    async for changed in changes(local.work.sources()):
        try:
            swapped = await local.swap(SWAP_TIMEOUT_S)
        except FolderInvalid as error:
            _print(error.problems)
            print("  the old code runs on", file=sys.stderr, flush=True)
            continue
        if swapped is not None:
            print(f"  swapped: {_since(changed):.2f} s from the change to the new code's first frame", flush=True)
        elif local.swap_problem:
            print(f"  not swapped: {local.swap_problem}; the old code runs on", file=sys.stderr, flush=True)


async def changes(folders: Sequence[Path]) -> AsyncIterator[set[Path]]:
    """The files in them that change, as they do; several at once come together."""
    async for found in awatch(*folders, watch_filter=_Sources(), debounce=SETTLE_MAX_MS, step=SETTLE_MS):
        yield {Path(path) for _, path in found}


class _Sources(DefaultFilter):
    """Neither what editors leave behind nor bytecode."""

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path) and not Path(path).name.startswith(".")


async def _deploying(options: argparse.Namespace, redeploy: Redeploy) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    work = FolderWork(AppFolder.load(options.app_dir), options.app_dir / "assets")
    watching = asyncio.create_task(_redeploy(work, redeploy))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if watching.done():
        watching.result()
    watching.cancel()
    await asyncio.wait([watching])
    return 0


async def _redeploy(work: FolderWork, redeploy: Redeploy) -> None:
    saved: set[Path] = set()
    news = asyncio.Event()

    async def watch() -> None:
        # Only the code: a build writes into package.json itself.
        async for changed in changes(work.code_folders()):
            saved.update(changed)
            news.set()

    # From the beginning: what is saved while something is being deployed is deployed after it.
    watching = asyncio.create_task(watch())
    watching.add_done_callback(lambda _: news.set())
    try:
        await asyncio.to_thread(redeploy)
        while await news.wait():
            news.clear()
            if watching.done():
                watching.result()
            changed = set(saved)
            saved.clear()
            await _redeploy_once(work, redeploy, changed)
    finally:
        watching.cancel()


async def _redeploy_once(work: FolderWork, redeploy: Redeploy, changed: set[Path]) -> None:
    sources = [path for folder in work.code_folders() for path in sorted(folder.rglob("*.py"))]
    broken = [problem for path in sources if (problem := syntax_problem(path)) is not None]
    if broken:
        _print(broken)
        print("the old code runs on", file=sys.stderr, flush=True)
        return
    try:
        await asyncio.to_thread(redeploy)
    except CliError as error:
        print(f"not deployed: {error}; the old code runs on", file=sys.stderr, flush=True)
    else:
        print(f"  deployed: {_since(changed):.2f} s from the change to the new code's first frame", flush=True)


def _since(changed: set[Path]) -> float:
    """Seconds since the newest of these was written."""
    written = [path.stat().st_mtime for path in changed if path.exists()]
    return time.time() - max(written, default=time.time())


def _print(problems: Sequence[FolderProblem]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr, flush=True)
