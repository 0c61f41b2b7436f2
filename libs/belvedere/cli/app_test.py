"""`belvedere app test`: the application on clips, headless, in its sandbox; then what it did against what was expected.

Scenarios are `APP_DIR/tests/*.toml` (belvedere.cli.run.scenario); without any, one that only asks that it delivers. All
run one after the other on one local appliance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from belvedere.chassis.stop import stop_on_signals
from belvedere.cli.errors import CliError
from belvedere.cli.run import INTERRUPTED, LAST_FRAMES_S, add_run_arguments, options_of, quiet, told
from belvedere.cli.run.engine import Engine
from belvedere.cli.run.figures import Figures
from belvedere.cli.run.scenario import DEFAULT_SECONDS, Scenario, ScenarioInvalid, judge, load_scenarios
from belvedere.cli.run.session import LocalRun, RunOptions, data_folder, tidy

TESTS = "tests"
LINES_MAX = 20_000
"""Of an application's log that are kept to look through; more is told as a failure of its own."""
LOG_WAIT_S = 1.0
"""Lines come twice a second."""


@dataclass(frozen=True)
class Outcome:
    """What became of one scenario."""

    name: str
    seconds: float
    failures: tuple[str, ...]
    figures: Figures | None
    log: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


def add_test_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--scenario", metavar="NAME", action="append", default=[], help="only this one; may be repeated"
    )
    parser.add_argument("--seconds", type=float, help="how long each runs, instead of what it says")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write the results as JUnit XML")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results and figures as JSON")
    parser.set_defaults(run=test)


def test(options: argparse.Namespace) -> int:
    """0: all passed; 1: some failed."""
    with told():
        quiet()
        return asyncio.run(_run(options, scenarios_of(options)))


def scenarios_of(options: argparse.Namespace) -> tuple[Scenario, ...]:
    """The folder's, with what the command line says instead. Raises CliError."""
    try:
        found = load_scenarios(options.app_dir / TESTS)
    except ScenarioInvalid as error:
        raise CliError(f"{len(error.problems)} to mend in the tests:\n{error}") from error
    if unknown := set(options.scenario) - {scenario.name for scenario in found}:
        names = ", ".join(scenario.name for scenario in found) or "none"
        raise CliError(f"no scenario {', '.join(sorted(unknown))} in {options.app_dir / TESTS}; there are: {names}")
    chosen = [scenario for scenario in found if not options.scenario or scenario.name in options.scenario]
    if not chosen:
        chosen = [Scenario("default", seconds=DEFAULT_SECONDS)]
    if options.camera:
        chosen = [replace(scenario, cameras=tuple(options.camera)) for scenario in chosen]
    if options.seconds is not None:
        chosen = [replace(scenario, seconds=options.seconds, frames=None, once=False) for scenario in chosen]
    return tuple(chosen)


async def _run(options: argparse.Namespace, scenarios: tuple[Scenario, ...]) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    work = asyncio.create_task(_all(options, scenarios))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
        return INTERRUPTED
    outcomes = work.result()
    if options.json is not None:
        options.json.write_text(json.dumps([_plain(outcome) for outcome in outcomes], indent=2) + "\n")
    if options.junit is not None:
        options.junit.write_bytes(junit(outcomes))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


async def _all(options: argparse.Namespace, scenarios: tuple[Scenario, ...]) -> list[Outcome]:
    data = data_folder(options.data)
    outcomes = []
    try:
        async with Engine(data) as engine:
            for scenario in scenarios:
                values = (*options.override, *scenario.values)
                chosen = replace(
                    options_of(options),
                    cameras=scenario.cameras,
                    values=values,
                    fault=scenario.fault,
                    once=scenario.once,
                )
                outcome = await run_scenario(chosen, scenario, engine)
                _say(outcome)
                outcomes.append(outcome)
    finally:
        tidy(data, options.data)
    return outcomes


async def run_scenario(options: RunOptions, scenario: Scenario, engine: Engine) -> Outcome:
    """One scenario on an engine, which need not run yet. `options` name the application and its cameras."""
    begun = time.monotonic()
    lines: list[str] = []
    failures: list[str] = []

    def hear(stream: str, line: str) -> None:
        if len(lines) < LINES_MAX:
            lines.append(line)

    async with LocalRun(options, say=lambda text: None, on_log=hear, engine=engine) as run:
        await run.start()
        if await run.delivered(scenario.limit_s):
            if scenario.frames is not None:
                wanted = scenario.frames
                await run.watch(lambda: run.figures().frames_taken >= wanted, scenario.limit_s)
            else:
                await run.last(scenario.seconds)
            await run.rest(LAST_FRAMES_S if scenario.once else LOG_WAIT_S)
            figures = run.figures()
            failures = judge(scenario.expect, figures, lines)
            if run.state != "running":
                failures.insert(0, f"at the end it is {run.state}: {run.problem()}")
        else:
            await run.rest(LOG_WAIT_S)
            figures = run.figures()
            failures.append(f"it has delivered nothing: {run.problem()}")
    if len(lines) >= LINES_MAX:
        failures.append(f"it has written more than {LINES_MAX} lines: the rest was not looked through")
    return Outcome(scenario.name, time.monotonic() - begun, tuple(failures), figures, tuple(lines))


def junit(outcomes: list[Outcome]) -> bytes:
    """JUnit's XML, as build servers read it."""
    failed = sum(not outcome.passed for outcome in outcomes)
    suite = ElementTree.Element(
        "testsuite", name="belvedere", tests=str(len(outcomes)), failures=str(failed),
        time=f"{sum(outcome.seconds for outcome in outcomes):.3f}",
    )  # fmt: skip
    for outcome in outcomes:
        case = ElementTree.SubElement(suite, "testcase", name=outcome.name, time=f"{outcome.seconds:.3f}")
        if not outcome.passed:
            failure = ElementTree.SubElement(case, "failure", message=_clean(outcome.failures[0]))
            failure.text = _clean("\n".join(outcome.failures))
        ElementTree.SubElement(case, "system-out").text = _clean("\n".join(outcome.log))
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _clean(text: str) -> str:
    """Without the control characters that XML can't hold."""
    return "".join(letter if letter in "\n\t" or letter >= " " else "?" for letter in text)


def _say(outcome: Outcome) -> None:
    figures = outcome.figures
    told = (
        f"{figures.frames_taken} frames, {figures.fps:.1f} a second, {figures.results.boxes} boxes" if figures else ""
    )
    print(f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.name}  {outcome.seconds:.1f} s  {told}", flush=True)
    for failure in outcome.failures:
        print(f"     {failure}", flush=True)
    if not outcome.passed:
        for line in outcome.log[-10:]:
            print(f"     | {line}", file=sys.stderr, flush=True)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "passed": outcome.passed}
