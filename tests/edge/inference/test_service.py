"""`python -m edge.inference` on a real local bus, called over its socket."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from belvedere.chassis.edge import CommandFailed, ask
from belvedere.chassis.paths import EdgePaths
from edge.inference import board
from edge.inference.service import wanted_models
from framelink import CallClient
from tests.support.edge_bus import RunningProcess, edge_bus, edge_process
from tests.support.models import tiny_onnx
from tests.support.shared_memory import eventually

X = np.array([[1.0, 2.0, 3.0]], np.float32)
CALL_TIMEOUT_S = 60.0


def model(path: Path, model_id: str) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "path": str(path),
        "framework": "ONNX",
        "precision": "FP32",
        "inputs": [{"name": "x", "shape": [1, 3], "dtype": "float32"}],
    }


def states(status: dict[str, Any]) -> dict[str, str]:
    return {row["model_id"]: row["state"] for row in status["models"]}


def worker_of(process: RunningProcess) -> psutil.Process:
    [worker] = [
        child
        for child in psutil.Process(process.child.pid).children(recursive=True)
        if "edge.inference.worker" in child.cmdline()
    ]
    return worker


async def call(tmp_path: Path, model_id: str) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        with CallClient(EdgePaths(tmp_path).inference_socket, "test") as client:
            return dict(client.call(model_id, {"x": X}, CALL_TIMEOUT_S))

    return await asyncio.to_thread(run)


async def test_models_are_loaded_called_counted_and_let_go(tmp_path: Path) -> None:
    good, broken = tiny_onnx(tmp_path / "good"), tmp_path / "broken"
    broken.write_bytes(b"no model at all")
    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        rows = [model(good, "good-FP32"), model(broken, "broken-FP32")]
        assert await ask(tmp_path, "inference", "apply", {"models": rows}) == {"ok": True}
        status = await inference.status(lambda s: states(s) == {"good-FP32": "ready", "broken-FP32": "failed"})
        reasons = {row["model_id"]: row["reason"] for row in status["models"]}
        assert reasons["good-FP32"] is None
        assert reasons["broken-FP32"]["code"] == "MODEL_INVALID"
        assert list(await call(tmp_path, "good-FP32")) == ["doubled", "negated"]
        status = await inference.status(lambda s: any(row["calls"] == 1 for row in s["models"]))
        await ask(tmp_path, "inference", "apply", {"models": rows[:1]})
        await inference.status(lambda s: states(s) == {"good-FP32": "ready"})
    assert (tmp_path / "cache" / "openvino").is_dir()


async def test_each_application_has_a_socket_of_its_own_as_long_as_it_is_wanted(tmp_path: Path) -> None:
    sockets = {name: EdgePaths(tmp_path).inference_client_socket(name) for name in ("app-one", "app-two")}

    def run(path: Path) -> list[str]:
        with CallClient(path, "who knows") as client:
            return list(client.call("good", {"x": X}, CALL_TIMEOUT_S))

    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        rows = [model(tiny_onnx(tmp_path / "good"), "good")]
        await ask(tmp_path, "inference", "apply", {"models": rows, "clients": list(sockets)})
        await inference.status(lambda s: states(s) == {"good": "ready"})
        for path in sockets.values():
            assert await asyncio.to_thread(run, path) == ["doubled", "negated"]
        # Also in the process that takes the place of one that died.
        os.kill(worker_of(inference).pid, signal.SIGKILL)
        await inference.status(lambda s: states(s) == {"good": "loading"})
        await inference.status(lambda s: states(s) == {"good": "ready"})
        assert await asyncio.to_thread(run, sockets["app-one"])
        await ask(tmp_path, "inference", "apply", {"models": rows, "clients": ["app-one"]})
        await asyncio.to_thread(eventually, lambda: not sockets["app-two"].exists(), "the end of its socket")
        assert await asyncio.to_thread(run, sockets["app-one"])


async def test_a_worker_that_dies_comes_back_with_its_models(tmp_path: Path) -> None:
    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        await ask(tmp_path, "inference", "apply", {"models": [model(tiny_onnx(tmp_path / "good"), "good-FP32")]})
        await inference.status(lambda s: states(s) == {"good-FP32": "ready"})
        before = worker_of(inference)
        os.kill(before.pid, signal.SIGKILL)
        await inference.status(lambda s: states(s) == {"good-FP32": "loading"})
        await inference.status(lambda s: states(s) == {"good-FP32": "ready"})
        assert worker_of(inference).pid != before.pid
        assert await call(tmp_path, "good-FP32")


async def test_a_model_whose_loading_kills_the_worker_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    os.mkfifo(deadly)  # reading it waits for ever: time to play the fault that kills the process
    shown = EdgePaths(tmp_path).inference_socket.with_name("computing")
    async with edge_bus(tmp_path) as bus, edge_process("inference", tmp_path, bus) as inference:
        rows = [model(deadly, "deadly-FP32"), model(tiny_onnx(tmp_path / "good"), "good-FP32")]
        await ask(tmp_path, "inference", "apply", {"models": rows})
        for _ in range(2):
            await inference.status(lambda s: s["loading"] == "deadly-FP32")
            assert board.names(shown) == {b"loading deadly-FP32"}, "told only once it stands on the board"
            os.kill(worker_of(inference).pid, signal.SIGKILL)
            await inference.status(lambda s: s["loading"] is None)
        status = await inference.status(lambda s: states(s) == {"good-FP32": "ready", "deadly-FP32": "failed"})
        [reason] = [row["reason"] for row in status["models"] if row["reason"]]
        assert reason["code"] == "MODEL_INVALID"
        assert "brought the inference process down each time" in reason["message"]
        assert await call(tmp_path, "good-FP32")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "models: must be a list of objects"),
        ({"models": [{"model_id": "m"}]}, "models[].path: must be a string"),
        ({"models": [{"model_id": "m", "path": "/x", "inputs": ["x"]}]}, "models[].inputs[]"),
    ],
)
def test_a_wanted_set_that_is_none_is_refused_by_name(body: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        wanted_models(body)
    assert caught.value.code == "INVALID_REQUEST"
    assert says in caught.value.message
