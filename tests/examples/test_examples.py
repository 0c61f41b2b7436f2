"""Each example, as `belvedere app test` runs it: in its sandbox, on clips, with real models; all on one local appliance."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from belvedere.appdir import AppFolder
from belvedere.bus.server import free_port
from belvedere.cli.app_test import run_scenario
from belvedere.cli.run.engine import Engine
from belvedere.cli.run.scenario import load_scenarios
from belvedere.cli.run.session import LocalRun, RunOptions
from belvedere.footage import ensure_clip, ensure_detector, ensure_face_model
from belvedere.graph import parse_application, parse_descriptor, parse_package
from tests.support.clips import make_clip
from tests.support.local_run import CACHE, EXAMPLES, code_of, copied, local_engine

# The first of them may have to fetch footage and models.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

DELIVER_TIMEOUT_S = 90.0
HOST_PORTS = range(8000, 9001)
"""Those that applications may open."""
NAMES = ("debug-server", "facing-people", "people-counter", "recorder")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    async with local_engine(tmp_path_factory.mktemp("appliance")) as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_clip(tmp_path_factory.mktemp("clips") / "moving.mp4", fps=15, seconds=4.0))


@pytest.fixture(scope="module")
def people() -> str:
    return str(ensure_clip(CACHE, lambda _: None))


def models(*packages: str) -> tuple[str, ...]:
    files = {"PERSON_DETECTOR": ensure_detector, "FACE_CLASSIFIER": ensure_face_model}
    return tuple(f"{package}={files[package](CACHE, lambda _: None)}" for package in packages)


def hear_nothing(*_: str) -> None:
    """Nobody looks on."""


async def passes(engine: Engine, name: str, **options: Any) -> None:
    (scenario,) = load_scenarios(EXAMPLES / name / "tests")
    chosen = RunOptions(EXAMPLES / name, values=scenario.values, **options)
    outcome = await run_scenario(chosen, scenario, engine)
    assert outcome.failures == (), "\n".join(outcome.log)


@pytest.mark.parametrize("name", NAMES)
async def test_an_example_is_a_folder_as_awss_tools_expect_one(name: str) -> None:
    folder = AppFolder.load(EXAMPLES / name)
    assert folder.name == name and (EXAMPLES / name / "README.md").read_text().startswith("# ")
    override = folder.graph_path.with_name("override.json")
    manifest, _ = parse_application(
        folder.graph_path.read_bytes(), override.read_bytes() if override.exists() else None
    )
    accounts = {item.owner for item in manifest.packages} - {"panorama"}
    assert accounts == {package.account for package in folder.packages()}
    for package in folder.packages():
        document = parse_package(package.document_path.read_bytes())
        assert (document.name, document.version) == (package.name, "1.0")
        assert parse_descriptor((package.folder / "descriptor.json").read_bytes())


async def test_the_people_counter_counts_people(engine: Engine, people: str) -> None:
    await passes(engine, "people-counter", cameras=(people,), models=models("PERSON_DETECTOR"))


async def test_two_models_one_after_the_other_look_at_two_cameras(engine: Engine, people: str) -> None:
    cameras = (f"entrance={people}", f"exit={people}")
    await passes(engine, "facing-people", cameras=cameras, models=models("PERSON_DETECTOR", "FACE_CLASSIFIER"))


async def test_the_debug_server_answers_on_its_port_while_pictures_go_by(
    engine: Engine, clip: str, tmp_path: Path
) -> None:
    folder = copied("debug-server", tmp_path)
    graph = folder / "graphs/debug-server/graph.json"
    port = free_port(HOST_PORTS)
    graph.write_text(graph.read_text().replace('"hostPort": 8080', f'"hostPort": {port}'))
    options = RunOptions(folder, cameras=(clip,))
    lines: list[str] = []
    async with LocalRun(options, say=hear_nothing, on_log=lambda _, line: lines.append(line), engine=engine) as run:
        await run.start()
        assert await run.delivered(DELIVER_TIMEOUT_S), run.problem()
        await run.watch(lambda: any("listening" in line for line in lines), DELIVER_TIMEOUT_S)

        async def get(path: str) -> bytes:
            def ask() -> bytes:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                    return bytes(answer.read())

            return await asyncio.to_thread(ask)

        status = json.loads(await get("/"))
        assert status["cameras"]["moving"]["size"] == [320, 240] and status["threads"] >= 4
        assert (await get("/picture?camera=moving"))[:2] == b"\xff\xd8"
        assert b"process_streams" in await get("/threads")
        later = json.loads(await get("/"))
        assert run.state == "running"
    assert later["cameras"]["moving"]["pictures"] >= status["cameras"]["moving"]["pictures"]


async def test_records_outlive_the_code_that_wrote_them_and_keep_within_their_space(
    engine: Engine, clip: str, tmp_path: Path
) -> None:
    folder = copied("recorder", tmp_path)
    lines: list[str] = []
    options = RunOptions(folder, cameras=(clip,), values=("limit_kb=16", "site=lab", "sensitivity=0.02"))
    async with LocalRun(options, say=hear_nothing, on_log=lambda _, line: lines.append(line), engine=engine) as run:
        await run.start()
        assert await run.delivered(DELIVER_TIMEOUT_S), run.problem()
        await run.watch(lambda: run.figures().frames_taken >= 10, DELIVER_TIMEOUT_S)
        code = code_of(folder)
        code.write_text(code.read_text().replace("recorder: {len", "recorder, changed: {len"))
        assert await run.swap(DELIVER_TIMEOUT_S) is not None, run.swap_problem
        await run.watch(lambda: any("changed" in line for line in lines), DELIVER_TIMEOUT_S)
        kept = list((engine.paths.data / "storage").rglob("*.jsonl"))
        records = [json.loads(line) for path in kept for line in path.read_text().splitlines()]
    changed = next(line for line in lines if "changed" in line)
    assert int(changed.split()[2]) >= 5, "what the first code wrote is there for the second"
    assert {record["site"] for record in records} == {"lab"} and {record["camera"] for record in records} == {"moving"}


async def test_the_oldest_records_go_and_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    source = (EXAMPLES / "recorder").glob("packages/*/src/records.py")
    space: dict[str, Any] = {}
    exec(compile(next(source).read_text(), "records.py", "exec"), space)
    records = space["Records"](tmp_path, 16 * 1024)
    for number in range(2000):
        records.add({"number": number})
    assert records.size() <= 16 * 1024
    newest = max(tmp_path.iterdir())
    with newest.open("ab") as file:
        file.write(b'{"number": 20')
    again = space["Records"](tmp_path, 16 * 1024)
    assert len(again) == len(records)
    again.add({"number": 2000})
    numbers = [
        json.loads(line)["number"] for path in sorted(tmp_path.iterdir()) for line in path.read_text().splitlines()
    ]
    assert numbers == list(range(2001 - len(numbers), 2001))


async def test_nothing_here_is_left_out() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == set(NAMES)
