"""A model that does not come back: its callers hear of it, its process is replaced, the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from belvedere.chassis.edge import ask
from belvedere.chassis.paths import EdgePaths
from edge.inference.model import WantedModel
from edge.inference.settings import Settings
from framelink import CallClient, CallError
from tests.support.edge_bus import RunningProcess, edge_bus, edge_process
from tests.support.inference import WAIT_S, Inference
from tests.support.models import endless_onnx, tiny_onnx
from tests.support.shared_memory import eventually

HANG_S = 2.0
"""Above what a busy machine keeps a model that does not hang from its work."""
X = np.array([[1.0, 2.0, 3.0]], np.float32)
FOR_EVER = {"rounds": np.array([2_000_000_000], np.int64), "x": X}
BRIEFLY = {"rounds": np.array([2], np.int64), "x": X}


def test_a_call_that_hangs_is_answered_with_an_error_and_said(tmp_path: Path) -> None:
    settings = Settings(backend="onnxruntime", trial_s=0, hang_min_s=HANG_S, hang_factor=0.0, parallel_calls=1)
    with Inference(tmp_path, settings) as inference, inference.client() as client:
        # So many rounds that the limit is passed, and few enough that this process can end.
        inference.ready(WantedModel("endless", endless_onnx(tmp_path / "m"), "ONNX", "FP32", ()))
        assert client.call("endless", BRIEFLY, WAIT_S)["y"].tolist() == [[3.0, 6.0, 9.0]]
        rounds = 1000
        while True:
            began = time.monotonic()
            try:
                client.call("endless", {**BRIEFLY, "rounds": np.array([rounds], np.int64)}, WAIT_S)
            except CallError as error:
                assert error.code == "FAILED"
                assert "not answered within 2 s and is taken to be hung" in error.message
                break
            rounds *= 2 if time.monotonic() - began > 0.5 else 8
        eventually(lambda: inference.hung == ["endless"], "the word to the process")


@pytest.fixture
def quick_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELVEDERE_INFERENCE_HANG_MIN_S", str(HANG_S))
    monkeypatch.setenv("BELVEDERE_INFERENCE_TRIAL_S", "0")


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    common = {"framework": "ONNX", "precision": "FP32", "inputs": []}
    return [
        {"model_id": "endless", "path": str(endless_onnx(tmp_path / "endless")), **common},
        {"model_id": "good", "path": str(tiny_onnx(tmp_path / "good")), **common},
    ]


def states(status: dict[str, Any]) -> dict[str, str]:
    return {row["model_id"]: row["state"] for row in status["models"]}


READY = {"endless": "ready", "good": "ready"}


def worker_of(process: RunningProcess) -> psutil.Process:
    [worker] = [
        child
        for child in psutil.Process(process.child.pid).children(recursive=True)
        if "edge.inference.worker" in child.cmdline()
    ]
    return worker


async def call(tmp_path: Path, model_id: str, inputs: dict[str, Any]) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        with CallClient(EdgePaths(tmp_path).inference_socket, "test") as client:
            return dict(client.call(model_id, inputs, WAIT_S))

    return await asyncio.to_thread(run)


@pytest.mark.usefixtures("quick_limits")
async def test_a_model_that_hangs_again_and_again_is_given_up_and_the_others_come_back_each_time(
    tmp_path: Path,
) -> None:
    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        await ask(tmp_path, "inference", "apply", {"models": rows(tmp_path)})
        await inference.status(lambda s: states(s) == READY)
        for turn in range(3):
            before, told = worker_of(inference).pid, len(inference.statuses)
            with pytest.raises(CallError, match="taken to be hung"):
                await call(tmp_path, "endless", FOR_EVER)
            after = {"endless": "failed", "good": "ready"} if turn == 2 else READY
            await inference.status(lambda s: states(s) != READY, since=told)
            status = await inference.status(lambda s, after=after: states(s) == after)
            assert worker_of(inference).pid != before
            assert await call(tmp_path, "good", {"x": X})
        [reason] = [row["reason"] for row in status["models"] if row["reason"]]
        assert reason["code"] == "APPLIANCE_ERROR" and "hung 3 times" in reason["message"]


async def test_a_process_that_says_nothing_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BELVEDERE_INFERENCE_SILENCE_S", "8")  # more than a busy machine takes to start it
    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        await ask(tmp_path, "inference", "apply", {"models": rows(tmp_path)[1:]})
        await inference.status(lambda s: states(s) == {"good": "ready"})
        before = worker_of(inference).pid
        os.kill(before, signal.SIGSTOP)
        await inference.status(lambda s: states(s) == {"good": "loading"})
        await inference.status(lambda s: states(s) == {"good": "ready"})
        assert worker_of(inference).pid != before
        assert await call(tmp_path, "good", {"x": X})
