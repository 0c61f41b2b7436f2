"""B4: calls a second through the inference service beside the bare library in a loop, same model, same threads.

The service is the real worker process, called over its socket by four callers, as four cameras would: one call at a time
each, the next when the answer has come. The bare session computes one call after the other in a process of its own, with
inputs that are there already. All cores belong to all of them. MobileNetV2's layers with random weights (3×224×224), and
the person detector of the examples.

What ONNX Runtime can gain here by batches, threads and computations side by side is swept bare, in a process that does
nothing else: the best of these ways is the limit of the line with four cameras.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from belvedere import footage
from edge.inference.settings import Settings
from edge.inference.worker import WorkerConfig
from framelink import CallClient
from tests.bench import machine, peers
from tests.bench.result import Line, Report, compared
from tests.support.models import mobilenet_onnx

ROUNDS = 7
ROUND_S = 2.5
CALLERS = 4
READY_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 30.0
SWEEP_ROUNDS = 5
SWEEP_ROUND_S = 0.8
SIDE = 224
CACHE = peers.REPOSITORY / ".cache"

Measure = Callable[[], float]
"""One round of one party: calls a second."""


def b4(folder: Path) -> Report:
    """One line a backend, and one for what batches give."""
    notes: list[str] = []
    mobilenet = mobilenet_onnx(folder / "mobilenet.onnx", side=SIDE)
    image = {"image": np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)}
    spec = {"name": "image", "shape": [1, 3, SIDE, SIDE], "dtype": "float32"}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        parties: dict[str, Measure] = {}
        for backend in ("openvino", "onnxruntime"):
            parties[f"bare {backend}"] = stack.enter_context(_bare(spawn, backend, mobilenet, image))
            parties[f"ours {backend}"] = stack.enter_context(
                service(folder / f"s-{backend}", notes, Settings(backend=backend), mobilenet, spec, image)
            )
        # One call at a time, as a session of its own would be used.
        parties["ours onnxruntime, batch 1"] = stack.enter_context(
            service(
                folder / "s-one",
                notes,
                Settings(backend="onnxruntime", batch_max=1, parallel_calls=1),
                mobilenet,
                spec,
                image,
            )
        )
        try:
            detector: Path | None = footage.ensure_detector(CACHE)
        except footage.FootageError as error:
            notes.append(f"left out: the person detector: {error}")
            detector = None
        if detector is not None:
            picture = {"image_tensor": np.full((1, 300, 300, 3), 128, np.uint8)}
            given = {"name": "image_tensor", "shape": [1, 300, 300, 3], "dtype": "uint8"}
            parties["bare detector"] = stack.enter_context(_bare(spawn, "openvino", detector, picture))
            parties["ours detector"] = stack.enter_context(
                service(folder / "s-detector", notes, Settings(backend="openvino"), detector, given, picture)
            )
        swept = stack.enter_context(_sweep(spawn, mobilenet, image))
        rounds: dict[str, list[float]] = {name: [] for name in parties}
        for turn in range(ROUNDS + 1):
            for name, measure in parties.items():
                value = measure()
                if turn:  # the first is warm-up
                    rounds[name].append(value)
        ways = swept()
    lines = [_line(f"MobileNetV2, {name}", rounds, name, "≥ 0.95× bare") for name in ("openvino", "onnxruntime")]
    if "bare detector" in rounds:
        lines.append(_line("person detector, openvino", rounds, "detector", "≥ 0.95× bare"))
    chosen = {"ours": rounds["ours onnxruntime"], "its own batch 1": rounds["ours onnxruntime, batch 1"]}
    line = compared("B4", f"MobileNetV2, onnxruntime, {CALLERS} cameras", "calls/s", chosen, reach="≥ 1.4× batch 1")
    best = max(ways, key=lambda name: ways[name])
    lines.append(replace(line, limit=ways[best]))
    notes.append("bare ONNX Runtime, calls/s: " + ", ".join(f"{name} {value:.0f}" for name, value in ways.items()))
    notes.append(f"the best of these is {ways[best] / ways[BATCH_1]:.2f}× its batch 1 ({best})")
    return Report(lines, notes)


def _line(measure: str, rounds: Mapping[str, list[float]], party: str, reach: str) -> Line:
    chosen = {"ours": rounds[f"ours {party}"], "bare": rounds[f"bare {party}"]}
    return compared("B4", f"calls through the service, {measure}", "calls/s", chosen, reach=reach)


@contextmanager
def service(
    folder: Path, notes: list[str], settings: Settings, model: Path, spec: dict[str, Any], inputs: dict[str, Any]
) -> Iterator[Measure]:
    """The real worker process with one model, and its callers."""
    folder.mkdir()
    config = WorkerConfig(folder / "calls.sock", folder / "cameras", folder / "cache", settings)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge.inference.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        row = {"model_id": "m", "path": str(model), "framework": "", "precision": "FP32", "inputs": [spec]}
        process.stdin.write(config.to_line() + json.dumps({"models": [row]}).encode() + b"\n")
        process.stdin.flush()
        _await_ready(process.stdout, folder)
        chosen = [line for line in (folder / "log").read_text(errors="replace").splitlines() if "model ready" in line]
        notes.append(f"{folder.name}: {_chosen(chosen[-1])}" if chosen else f"{folder.name}: nothing said")
        # What it says once a second must be taken off the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        with ExitStack() as stack:
            clients = [stack.enter_context(CallClient(config.socket_path, f"camera {n}")) for n in range(CALLERS)]
            yield lambda: _rate(clients, inputs)
    finally:
        process.stdin.close()
        process.wait(CALL_TIMEOUT_S)


def _await_ready(stdout: Any, folder: Path) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    for line in stdout:
        rows = json.loads(line)["models"]
        if rows and rows[0]["state"] == "ready":
            return
        if (rows and rows[0]["state"] == "failed") or time.monotonic() > until:
            raise RuntimeError(f"the model is not ready: {rows}")
    raise RuntimeError((folder / "log").read_text(errors="replace")[-500:])


def _chosen(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return line[:300]
    return f"{said.get('chosen')}: {said.get('measured')}"


def _rate(clients: list[CallClient], inputs: dict[str, Any]) -> float:
    stop = time.monotonic() + ROUND_S
    counts = [0] * len(clients)

    def ask(number: int) -> None:
        while time.monotonic() < stop:
            clients[number].call("m", inputs, CALL_TIMEOUT_S)
            counts[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(clients))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


@contextmanager
def _bare(spawn: Any, backend: str, model: Path, inputs: dict[str, Any]) -> Iterator[Measure]:
    near, far = spawn.Pipe()
    process = spawn.Process(target=_bare_child, args=(far, backend, str(model), inputs), daemon=True)
    process.start()
    far.close()
    try:
        if not near.poll(READY_TIMEOUT_S) or near.recv() != "ready":
            raise RuntimeError(f"bare {backend} did not get ready")

        def measure() -> float:
            near.send("round")
            return float(near.recv())

        yield measure
    finally:
        near.close()
        process.join(CALL_TIMEOUT_S)


def _bare_child(pipe: Any, backend: str, model: str, inputs: dict[str, Any]) -> None:
    run = _openvino(model, inputs) if backend == "openvino" else _onnxruntime(model, inputs)
    run()
    pipe.send("ready")
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        count, began = 0, time.monotonic()
        while time.monotonic() - began < ROUND_S:
            run()
            count += 1
        pipe.send(count / (time.monotonic() - began))


def _openvino(model: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    from edge.inference.backends.quiet import openvino as ov

    core = ov.Core()
    read = core.read_model(model)
    read.reshape(
        {port: ov.PartialShape(list(array.shape)) for port, array in zip(read.inputs, inputs.values(), strict=True)}
    )
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(read, "CPU", config).create_infer_request()
    given = dict(enumerate(inputs.values()))
    return lambda: request.infer(given)


def _onnxruntime(model: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


@dataclass(frozen=True)
class _Way:
    """How ONNX Runtime computes."""

    threads: int
    batch: int
    together: int = 1
    """Computations side by side."""
    spinning: bool = False
    """Its threads wait busily for each other, as they do by default."""


BATCH_1 = "1 call, all threads"
"""What a session of its own has, with threads that sleep, as in the service."""


def _ways() -> dict[str, _Way]:
    cores = len(machine.cores())
    ways = {BATCH_1: _Way(cores, 1)} | {f"{size} at once, all threads": _Way(cores, size) for size in (2, 4, 8)}
    ways |= {"1 call, all threads, spinning": _Way(cores, 1, spinning=True)}
    ways |= {"4 at once, all threads, spinning": _Way(cores, 4, spinning=True)}
    ways |= {f"{cores} × {size}, a thread each": _Way(1, size, cores) for size in (1, 2, 4)}
    return ways


@contextmanager
def _sweep(spawn: Any, model: Path, inputs: dict[str, Any]) -> Iterator[Callable[[], dict[str, float]]]:
    """Calls a second of each way, medians of rounds in turn."""
    near, far = spawn.Pipe()
    process = spawn.Process(target=_sweep_child, args=(far, str(model), inputs, _ways()), daemon=True)
    process.start()
    far.close()

    def measure() -> dict[str, float]:
        near.send("sweep")
        if not near.poll(READY_TIMEOUT_S):
            raise RuntimeError("the sweep of ONNX Runtime did not end")
        return dict(near.recv())

    try:
        yield measure
    finally:
        near.close()
        process.join(CALL_TIMEOUT_S)


def _sweep_child(pipe: Any, model: str, inputs: dict[str, Any], ways: dict[str, _Way]) -> None:
    try:
        pipe.recv()
    except EOFError:
        return
    sessions = {(way.threads, way.spinning): _session(model, way) for way in ways.values()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(SWEEP_ROUNDS + 1):
        for name, way in ways.items():
            given = {key: np.concatenate([array] * way.batch) for key, array in inputs.items()}
            rate = _together(sessions[way.threads, way.spinning], given, way)
            if turn:
                rates[name].append(rate)
    pipe.send({name: statistics.median(values) for name, values in rates.items()})


def _session(model: str, way: _Way) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = way.threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(way.spinning)))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _together(session: Any, inputs: dict[str, Any], way: _Way) -> float:
    rates = [0.0] * way.together

    def work(number: int) -> None:
        count, began = 0, time.monotonic()
        while time.monotonic() - began < SWEEP_ROUND_S:
            session.run(None, inputs)
            count += way.batch
        rates[number] = count / (time.monotonic() - began)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(way.together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)
