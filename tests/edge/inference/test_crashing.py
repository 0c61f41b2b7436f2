"""A model that brings the process down while it is computed: found out, given up, and the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from belvedere.chassis.edge import ask
from belvedere.chassis.paths import EdgePaths
from edge.inference import board
from edge.inference.blame import CALM_S, CRASHES_MAX, IN_A_ROW_S, LOAD_CRASHES_MAX, Blame
from edge.inference.watch import Watch
from framelink import CallError
from tests.edge.inference.test_hanging import FOR_EVER, X, call, states, worker_of
from tests.support.edge_bus import RunningProcess, edge_bus, edge_process
from tests.support.models import endless_onnx, tiny_onnx
from tests.support.shared_memory import eventually

READY = {"deadly": "ready", "good": "ready", "innocent": "ready"}


async def test_a_model_that_brings_the_process_down_while_it_is_computed_is_given_up_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BELVEDERE_INFERENCE_TRIAL_S", "0")
    shown = EdgePaths(tmp_path).inference_socket.with_name("computing")
    common = {"framework": "ONNX", "precision": "FP32", "inputs": []}
    endless = str(endless_onnx(tmp_path / "endless"))
    rows = [
        {"model_id": "deadly", "path": endless, **common},
        {"model_id": "innocent", "path": endless, **common},
        {"model_id": "good", "path": str(tiny_onnx(tmp_path / "good")), **common},
    ]

    async def crash(inference: RunningProcess, called: list[str], at_work: set[bytes]) -> dict[str, Any]:
        """The process gets a fault of memory while these are called, and `at_work` stand on the board."""
        told = len(inference.statuses)
        callers = [asyncio.create_task(call(tmp_path, name, FOR_EVER)) for name in called]
        await asyncio.to_thread(eventually, lambda: board.names(shown) == at_work, "that they are computed")
        os.kill(worker_of(inference).pid, signal.SIGSEGV)
        for ended in await asyncio.gather(*callers, return_exceptions=True):
            assert isinstance(ended, CallError), ended
        await inference.status(lambda s: states(s) != READY, since=told)
        return await inference.status(lambda s: "loading" not in states(s).values())

    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        await ask(tmp_path, "inference", "apply", {"models": rows})
        await inference.status(lambda s: states(s) == READY)
        # Two at work: it may have been either. From then on they take turns.
        assert states(await crash(inference, ["deadly", "innocent"], {b"deadly", b"innocent"})) == READY
        for turn in range(1, CRASHES_MAX + 1):
            status = await crash(inference, ["deadly"], {b"deadly"})
            assert states(status) == (READY if turn < CRASHES_MAX else {**READY, "deadly": "failed"})
            assert await call(tmp_path, "good", {"x": X})
        [reason] = [row["reason"] for row in status["models"] if row["reason"]]
        assert reason["code"] == "APPLIANCE_ERROR"
        assert "brought the inference process down 3 times in a row (last by SIGSEGV)" in reason["message"]


def test_who_was_alone_at_work_did_it_and_of_several_the_next_time_tells() -> None:
    blame = Blame()
    assert blame.died(None, ["b", "a"], "", 0.0) == ["a", "b"]
    assert blame.apart == ["a", "b"] and not blame.given_up("a")
    for turn in range(CRASHES_MAX):
        assert blame.died(None, ["a"], "last by SIGSEGV", 10.0 + turn) == ["a"]
    assert blame.given_up("a") and not blame.given_up("b")
    # The culprit is known: nobody else needs to be watched.
    assert blame.apart == []


def test_a_model_that_is_loaded_while_others_compute_is_a_suspect_and_no_culprit() -> None:
    blame = Blame()
    for _ in range(LOAD_CRASHES_MAX):
        blame.died("new", ["old"], "", 0.0)
    assert not blame.given_up("new") and blame.apart == ["new", "old"]
    for _ in range(LOAD_CRASHES_MAX):
        blame.died("new", [], "", 0.0)
    assert blame.given_up("new")


def test_suspects_are_let_go_after_a_while_and_old_deaths_are_no_row() -> None:
    blame = Blame()
    blame.died(None, ["a", "b"], "", 0.0)
    assert not blame.calm(CALM_S - 1) and blame.calm(CALM_S) and blame.apart == []
    for turn in range(CRASHES_MAX):
        blame.died(None, ["a"], "", turn * (IN_A_ROW_S + 1))
    assert not blame.given_up("a")


def test_suspects_are_computed_one_at_a_time_and_not_while_a_model_is_loaded() -> None:
    watch = Watch(lambda hung: None)
    watch.set_apart(["a", "b"])
    begun = threading.Event()

    def compute(name: str) -> None:
        with watch.over(name, 60.0, []):
            begun.set()

    for busy in (watch.over("a", 60.0, []), watch.loading("c")):
        begun.clear()
        with busy:
            compute("d")  # no suspect
            assert begun.is_set()
            begun.clear()
            waiting = threading.Thread(target=compute, args=("b",))
            waiting.start()
            assert not begun.wait(0.1)
        waiting.join()
        assert begun.is_set()
    watch.close()


def test_what_stood_on_the_board_is_read_after_its_writer_is_gone(tmp_path: Path) -> None:
    path, long = tmp_path / "board", "m" * 300
    assert board.names(path) == set()
    writer = board.Board(path)
    with writer.shows("one"), writer.shows(long), writer.shows("one"):
        assert board.names(path) == {b"one", board.cut(long)}
    assert board.names(path) == set()
    with writer.shows("two"):
        pass
    for _ in range(3):
        with writer.shows("three"):
            assert board.names(path) == {b"three"}
