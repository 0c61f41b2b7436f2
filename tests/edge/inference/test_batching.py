"""Several calls computed at once, by ONNX Runtime, behind a real call socket."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.inference.model import WantedModel
from edge.inference.queue import Demand
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from framelink import CallError
from tests.support.inference import WAIT_S, Inference, call_in_thread
from tests.support.models import lookup_onnx, mixing_onnx, tiny_onnx

SETTINGS = Settings(
    backend="onnxruntime", batch_max=8, parallel_calls=1, trial_s=0.5, busy_share=1.0, hang_min_s=WAIT_S
)
CLIENTS, CALLS = 6, 40


def wanted(path: Path, name: str, shape: tuple[int, ...], model_id: str = "model") -> WantedModel:
    return WantedModel(model_id, path, "ONNX", "FP32", (InputSpec(name, shape),))


def test_calls_of_several_applications_are_computed_together_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    wrong: list[Any] = []

    def ask(inference: Inference, number: int) -> None:
        with inference.client(f"app {number}") as client:
            for turn in range(CALLS):
                x = np.array([[number, turn, number * turn]], np.float32)
                outputs = client.call("model", {"x": x}, WAIT_S)
                if outputs["doubled"].tolist() != (2 * x).tolist() or outputs["negated"].tolist() != (-x).tolist():
                    wrong.append((number, turn, outputs))

    with Inference(tmp_path, SETTINGS) as inference:
        inference.ready(wanted(tiny_onnx(tmp_path / "m", ("batch", 3)), "x", (1, 3)))
        threads = [threading.Thread(target=ask, args=(inference, number)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row = inference.row("model", lambda row: row["calls"] == CLIENTS * CALLS)
    assert wrong == []
    assert row["batch"] > 1
    assert max(int(size) for size in row["batches"]) > 1, row["batches"]
    assert sum(int(size) * count for size, count in row["batches"].items()) == CLIENTS * CALLS
    assert row["queue_ms"]["p50"] is not None and not any(row["errors_by_code"].values())


def test_a_call_that_cannot_be_computed_does_not_harm_those_it_was_computed_with(tmp_path: Path) -> None:
    # As long as the first is computed the others wait, and are taken together.
    with Inference(tmp_path, SETTINGS) as inference:
        inference.ready(wanted(lookup_onnx(tmp_path / "m"), "place", (1, 1)))
        answers: dict[int, list[Any]] = {place: [] for place in (3, 99, 7, 5)}
        with inference.client() as client:
            for _ in range(20):
                threads = [
                    call_in_thread(client, "model", {"place": np.array([[place]], np.int64)}, found)
                    for place, found in answers.items()
                ]
                for thread in threads:
                    thread.join()
        row = inference.row("model", lambda row: row["errors"] == 20)
    for place in (3, 7, 5):
        assert [answer["value"].tolist() for answer in answers[place]] == [[[place * 10.0]]] * 20
    assert {error.code for error in answers[99]} <= {"FAILED", "INVALID_INPUT"}
    assert row["calls"] == 60


def test_a_call_of_the_wrong_shape_is_refused_alone(tmp_path: Path) -> None:
    with Inference(tmp_path, SETTINGS) as inference:
        inference.ready(wanted(tiny_onnx(tmp_path / "m", ("batch", 3)), "x", (1, 3)))
        answers: list[Any] = []
        with inference.client() as client:
            right = [call_in_thread(client, "model", {"x": np.ones((1, 3))}, answers) for _ in range(3)]
            with pytest.raises(CallError, match=r"shape \(2, 3\) does not fit"):
                client.call("model", {"x": np.ones((2, 3))}, WAIT_S)
            for thread in right:
                thread.join()
        assert [answer["doubled"].tolist() for answer in answers] == [[[2.0, 2.0, 2.0]]] * 3
        assert inference.row("model", lambda row: row["errors"] == 1)["errors_by_code"]["INVALID_INPUT"] == 1


def test_a_model_whose_answers_depend_on_the_others_in_the_batch_gets_one_call_at_a_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Inference(tmp_path, SETTINGS) as inference:
        inference.ready(wanted(mixing_onnx(tmp_path / "m"), "x", (1, 3)))
        assert inference.row("model", lambda row: True)["batch"] == 1
    assert "2 at once give other answers than one by one" in capfd.readouterr().out


def test_what_was_measured_is_remembered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny_onnx(tmp_path / "m", ("batch", 3))
    rows = []
    for turn in range(2):
        with Inference(tmp_path, SETTINGS) as inference:
            inference.ready(wanted(path, "x", (1, 3)))
            rows.append(inference.row("model", lambda row: True)["batch"])
            if turn == 0:
                trials = (tmp_path / "cache" / "trials.json").read_text()
    assert (tmp_path / "cache" / "trials.json").read_text() == trials
    assert rows[0] == rows[1]
    assert "1 call " in capfd.readouterr().out


def test_a_lone_caller_waits_for_nobody() -> None:
    demand = Demand()
    for _ in range(10):
        demand.began()
        assert demand.lately() == 1
        demand.ended()


def test_as_many_are_waited_for_as_were_under_way_at_once_lately() -> None:
    demand = Demand()
    for _ in range(4):
        demand.began()
    demand.ended(4)
    assert demand.lately() == 4
    until = time.monotonic() + 5
    while demand.lately() > 1:  # forgotten within two periods
        assert time.monotonic() < until
        threading.Event().wait(0.05)
