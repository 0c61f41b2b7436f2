"""How a model is computed best on this machine: measured when it is loaded, remembered for the next time.

What is tried: several calls in one computation, where the model's file leaves that open; as many computations side by side
as there are cores, each with one thread. Less latency wins unless the other saves enough to matter. A model whose
answers in a batch are not those that it gives alone is not batched. Bounded in time.

Must not know calls or clients.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from belvedere.chassis.logs import get_logger
from edge.inference.backends.base import Prepared, Session, Tuning
from edge.inference.errors import ModelError
from edge.inference.settings import Settings
from edge.inference.tensors import Array, TensorInfo

log = get_logger(__name__)

# What must be saved of each call's time for a larger batch, and for computing side by side: they cost latency.
BATCH_GAIN = 1.10
PARALLEL_GAIN = 1.20
# Of each way: this many computations at least, for this long.
REPEATS_MIN = 3
SLICE_S = 0.15
# Batched answers may differ by rounding: other sizes are computed by other routines.
TOLERANCE = 1e-2
REMEMBERED_MAX = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was chosen."""

    tuning: Tuning
    infer_ms: float | None
    """One computation of a whole batch, as measured; None where it was not."""
    why: str
    gives_nan: bool = False
    """Its answers to harmless numbers were not numbers."""


def run(prepared: Prepared, settings: Settings, memory: TrialMemory, key: str) -> tuple[Session, Outcome]:
    """The session to use, and why it is this one. Raises ModelError where no session can be made."""
    fixed = Tuning(settings.threads, max(1, settings.parallel_calls))
    remembered = memory.get(key)
    if remembered is not None:
        return prepared.session(remembered.tuning), remembered
    session = prepared.session(fixed)
    if settings.trial_s <= 0:
        return session, Outcome(fixed, None, "measuring is turned off")
    if not all(info.is_fixed for info in session.inputs):
        return session, Outcome(fixed, None, "not measured: the sizes of its inputs are open")
    try:
        trial = _Trial(prepared, session, settings)
        outcome, best = trial.choose(fixed)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises at numbers that mean nothing
        log.info("model not measured", key=key, error=f"{type(error).__name__}: {error}"[:300])
        return session, Outcome(fixed, None, "not measured: it does not compute random numbers")
    busy = os.getloadavg()[0] > settings.busy_load * len(os.sched_getaffinity(0))
    if busy:
        return best, replace(outcome, why=f"{outcome.why}; not remembered: the machine was busy")
    memory.put(key, outcome)
    return best, outcome


class _Trial:
    def __init__(self, prepared: Prepared, session: Session, settings: Settings) -> None:
        self._prepared = prepared
        self._session = session
        self._settings = settings
        self._until = time.monotonic() + settings.trial_s
        self._rng = np.random.default_rng(0)
        self._inputs = [self._random(session) for _ in range(2)]

    def choose(self, fixed: Tuning) -> tuple[Outcome, Session]:
        answer = self._session.infer(self._inputs[0])
        nan = any(array.dtype.kind == "f" and bool(np.isnan(array).any()) for array in answer.values())
        single_ms = self._measure(self._session, self._inputs[0])
        ways = {1: (self._session, single_ms)}
        told = []
        for size in self._sizes():
            if time.monotonic() > self._until and size > 2:
                told.append(f"no time for {size} at once")
                break
            try:
                session = self._prepared.session(Tuning(fixed.threads, fixed.parallel, size))
                if not self._agrees(session):
                    told.append(f"{size} at once give other answers than one by one")
                    break
                took_ms = self._measure(session, self._stacked(size))
            except Exception as error:  # noqa: BLE001 - whatever a library raises
                told.append(f"{size} at once fail ({type(error).__name__})")
                break
            ways[size] = (session, took_ms)
            if took_ms > max(self._settings.latency_max_ms, single_ms):
                break
        if len(ways) > 1:
            # Once more: a moment in which others were at work must not decide.
            ways = {
                size: (session, min(took_ms, self._measure(session, self._stacked(size))))
                for size, (session, took_ms) in ways.items()
            }
        told[:0] = [f"{size} {'call' if size == 1 else 'at once'} {ms:.1f} ms" for size, (_, ms) in ways.items()]
        single_ms = ways[1][1]
        best, best_session, best_ms = fixed, self._session, single_ms
        for size, (session, took_ms) in ways.items():
            quick = took_ms <= max(self._settings.latency_max_ms, single_ms)
            if quick and best_ms / best.batch > took_ms / size * BATCH_GAIN:
                best, best_session, best_ms = session_tuning(fixed, size), session, took_ms
        if not self._prepared.batchable and self._settings.batch_max > 1:
            told.append("no batches: its file fixes the number of pictures")
        if not fixed.threads and not self._settings.parallel_calls and self._on_cpu():
            best, best_session, best_ms = self._side_by_side(best, best_session, best_ms, told)
        return Outcome(best, round(best_ms, 2), "; ".join(told), nan), best_session

    def _side_by_side(
        self, best: Tuning, session: Session, best_ms: float, told: list[str]
    ) -> tuple[Tuning, Session, float]:
        cores = len(os.sched_getaffinity(0))
        if cores < 2 or time.monotonic() > self._until:
            return best, session, best_ms
        other = Tuning(1, cores, best.batch)
        candidate = self._prepared.session(other)
        inputs = self._stacked(best.batch)
        took_ms = self._measure_together(candidate, inputs, cores)
        told.append(f"{cores} side by side {took_ms:.1f} ms each")
        if best_ms * cores > took_ms * PARALLEL_GAIN and took_ms <= max(self._settings.latency_max_ms, best_ms):
            return other, candidate, took_ms
        return best, session, best_ms

    def _on_cpu(self) -> bool:
        return not self._prepared.device.startswith(("CUDA", "NVIDIA"))

    def _sizes(self) -> list[int]:
        if not self._prepared.batchable:
            return []
        return [size for size in (2, 4, 8, 16, 32) if size <= self._settings.batch_max]

    def _random(self, session: Session) -> dict[str, Array]:
        return {info.name: _random(info, self._rng) for info in session.inputs}

    def _stacked(self, calls: int) -> dict[str, Array]:
        return {
            name: np.concatenate([self._inputs[number % 2][name] for number in range(calls)])
            for name in self._inputs[0]
        }

    def _agrees(self, session: Session) -> bool:
        """Two calls at once have the answers that each has alone."""
        together = session.infer(self._stacked(2))
        alone = [self._session.infer(inputs) for inputs in self._inputs]
        return all(_same(together[name], np.concatenate([one[name] for one in alone])) for name in together)

    def _measure(self, session: Session, inputs: Mapping[str, Array]) -> float:
        """The least of several computations, in ms: what others do on this machine meanwhile only adds to it."""
        session.infer(inputs)
        times: list[float] = []
        until = time.monotonic() + SLICE_S
        while len(times) < REPEATS_MIN or time.monotonic() < until:
            began = time.perf_counter()
            session.infer(inputs)
            times.append((time.perf_counter() - began) * 1e3)
            if sum(times) > self._settings.trial_s * 1e3:
                break
        return min(times)

    def _measure_together(self, session: Session, inputs: Mapping[str, Array], count: int) -> float:
        """How long one takes while as many run as there are threads, in ms; of several slices of time the best."""
        session.infer(inputs)
        best = float("inf")
        for _ in range(REPEATS_MIN):
            done = [0] * count
            began = time.monotonic()

            def work(number: int, began: float = began, done: list[int] = done) -> None:
                while time.monotonic() - began < SLICE_S or not done[number]:
                    session.infer(inputs)
                    done[number] += 1

            threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            best = min(best, (time.monotonic() - began) * 1e3 * count / sum(done))
        return best


def session_tuning(fixed: Tuning, batch: int) -> Tuning:
    """The same with another size of batch."""
    return Tuning(fixed.threads, fixed.parallel, batch)


def _random(info: TensorInfo, rng: np.random.Generator) -> Array:
    shape = tuple(size or 1 for size in info.shape)
    if info.dtype.kind == "f":
        return rng.random(shape, np.float32).astype(info.dtype)
    if info.dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    # Whole numbers are often places in a table: only 0 is one in every table.
    return np.zeros(shape, info.dtype)


def _same(first: Array, second: Array) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f":
        return bool(np.array_equal(first, second))
    scale = float(np.nanmax(np.abs(second), initial=1.0))
    return bool(np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))


class TrialMemory:
    """Outcomes by key (digest, backend, version, device, cores, settings) in one JSON file. Lost ones are measured anew."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get(self, key: str) -> Outcome | None:
        """None where it is not remembered, or not understood."""
        row = self._rows().get(key)
        try:
            return Outcome(Tuning(**row["tuning"]), row["infer_ms"], row["why"], row["gives_nan"]) if row else None
        except (TypeError, KeyError):
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        """The oldest are forgotten."""
        rows = self._rows()
        rows.pop(key, None)
        rows[key] = asdict(outcome)
        kept = dict(list(rows.items())[-REMEMBERED_MAX:])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        work = self._file.with_suffix(".new")
        work.write_text(json.dumps(kept, indent=1))
        work.replace(self._file)

    def _rows(self) -> dict[str, Any]:
        try:
            rows = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return rows if isinstance(rows, dict) else {}
