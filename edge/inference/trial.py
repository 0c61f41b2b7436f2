"""How a model is computed best on this machine: measured when it is loaded, remembered for the next time.

What is tried: some computations side by side, with fewer threads each; several calls in one computation, where the model's
file leaves that open; both. Less latency wins unless the other saves enough to matter. A model whose answers in a batch are
not those that it gives alone is not batched. Bounded in time.

All ways are measured in turn, in short slices, again and again. On a CPU what a way takes of the cores decides: what it uses, and
what it leaves idle. How long it takes does not: when an appliance starts, and every service with it, no slice is free of
others, and a few that were made a batch look better than it is. On a GPU, which is ours alone, the best slice counts.

Must not know calls or clients.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from belvedere.chassis.logs import get_logger
from edge.inference import twice
from edge.inference.backends.base import Prepared, Session, Tuning
from edge.inference.cores import Cores, core_count
from edge.inference.errors import DeviceLost, ModelError
from edge.inference.settings import Settings
from edge.inference.tensors import Array, TensorInfo

log = get_logger(__name__)

# What a larger batch must save of each call's time: it costs latency.
GAIN = 1.10
# Side by side, where a lone call has all cores all the same: it may even cost a little. Threads of one computation wait for each
# other, spinning, as soon as one of them has lost its core to a decoder: what took 18 ms of the cores when it was measured
# took 26 at work, and one thread each 18 (person detector, eight cameras on two cores).
BESIDE_GAIN = 0.95
# Side by side, where a lone call cannot have all cores since the model is too large to be loaded twice: an application that
# asks for one answer after the other waits twice as long.
PARALLEL_GAIN = 1.25
# For a batch where others were at work: what was measured then is not sure to a tenth.
DISTURBED_GAIN = 1.20
# More than these would leave cores idle where there are few cameras, and make a lone call slow.
PARALLEL_MAX = 4
# One slice of one way: this many computations at least, for this long.
REPEATS_MIN = 2
SLICE_S = 0.06
# Slices of each way, where there is time. The first look at a way is longer than one.
PASSES = 8
LOOK_S = 0.12
# After the first look: a way that is this much worse than the best is left out; so are batches larger than one that is this
# much worse than the next smaller one. It is a lot: what was looked at once may have met others at work.
HOPELESS = 2.0
# Batched answers may differ by rounding: other sizes are computed by other routines.
TOLERANCE = 1e-2
REMEMBERED_MAX = 64
VERSION = 3
"""Of this way to choose: what an earlier one remembered does not hold."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was chosen."""

    tuning: Tuning
    infer_ms: float | None
    """One computation of a whole batch, as measured; None where it was not."""
    why: str
    gives_nan: bool = False
    """Its answers to harmless numbers were not numbers."""


def run(
    prepared: Prepared, settings: Settings, memory: TrialMemory, key: str, *, may_load_twice: bool
) -> tuple[Session, Outcome]:
    """The session to use, and why it is this one. Raises ModelError where no session can be made."""
    fixed = Tuning(settings.threads, max(1, settings.parallel_calls))
    remembered = memory.get(key)
    if remembered is not None:
        session = twice.session(prepared, remembered.tuning)
        _once(session)
        return session, remembered
    session = prepared.session(fixed)
    if not all(info.is_fixed for info in session.inputs):
        return session, Outcome(fixed, None, "not measured: the sizes of its inputs are open")
    if settings.trial_s <= 0:
        return session, Outcome(fixed, _once(session), "measuring is turned off")
    try:
        trial = _Trial(prepared, session, settings, may_load_twice)
        outcome, best = trial.choose(fixed)
    except (ModelError, DeviceLost):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises at numbers that mean nothing
        log.info("model not measured", key=key, error=f"{type(error).__name__}: {error}"[:300])
        return session, Outcome(fixed, None, "not measured: it does not compute random numbers")
    if trial.disturbed:
        return best, replace(outcome, why=f"{outcome.why}; not remembered")
    memory.put(key, outcome)
    return best, outcome


def _once(session: Session) -> float | None:
    """Compute once. The first time takes longer (GPUs compile for seconds): it belongs to loading, and must not be taken for a hang.
    Milliseconds; None where it cannot compute random numbers.
    """
    rng = np.random.default_rng(0)
    began = time.monotonic()
    try:
        session.infer({info.name: _random(info, rng) for info in session.inputs})
    except DeviceLost:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a library raises at numbers that mean nothing
        log.debug("model does not compute random numbers", error=f"{type(error).__name__}: {error}"[:300])
        return None
    return round((time.monotonic() - began) * 1e3, 2)


@dataclass(slots=True)
class _Way:
    """One way to compute, and the best that was seen of it."""

    tuning: Tuning
    session: Session
    inputs: Mapping[str, Array]
    call_ms: float = float("inf")
    """From call to call, while it does nothing else."""
    calls: int = 0
    cores_s: float = 0.0
    """Seconds of the cores that its slices used or left idle: what they took from others. Before the first one: of the look at it."""

    @property
    def cores_ms(self) -> float:
        """What a call takes of the cores, all of them: as `call_ms` where nobody else is at work."""
        return self.cores_s * 1e3 / self.calls / core_count() if self.calls else self.call_ms

    @property
    def latency_ms(self) -> float:
        """One computation."""
        return self.call_ms * self.tuning.batch * self.tuning.parallel

    def forget(self) -> None:
        """What it took of the cores when it was looked at for the first time: caches were cold."""
        self.calls, self.cores_s = 0, 0.0

    def measure(self, seconds: float, give_up_s: float) -> Cores:
        """One slice; what became of the cores in it."""
        counts, spans = [0] * self.tuning.parallel, [0.0] * self.tuning.parallel

        def work(number: int) -> None:
            began = time.perf_counter()
            while counts[number] < REPEATS_MIN or spans[number] < seconds:
                self.session.infer(self.inputs)
                counts[number] += 1
                spans[number] = time.perf_counter() - began
                if spans[number] > give_up_s:
                    break

        before = Cores.now()
        if self.tuning.parallel == 1:
            work(0)
        else:
            threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(counts))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        spent = Cores.now() - before
        rate = sum(count / span for count, span in zip(counts, spans, strict=True) if count)
        self.call_ms = min(self.call_ms, 1e3 / (rate * self.tuning.batch))
        self.calls += sum(counts) * self.tuning.batch
        self.cores_s += spent.own_s + spent.idle_s
        return spent

    def __str__(self) -> str:
        batch, parallel = self.tuning.batch, self.tuning.parallel
        name = "1 call" if batch == 1 else f"{batch} at once"
        beside = f", {parallel} side by side" if parallel > 1 else ""
        return f"{name}{beside} {self.latency_ms:.1f} ms ({self.cores_ms:.1f} of all cores a call)"


class _Trial:
    def __init__(self, prepared: Prepared, session: Session, settings: Settings, may_load_twice: bool) -> None:
        self._prepared = prepared
        self._twice = may_load_twice
        self._session = session
        self._settings = settings
        self._until = time.monotonic() + settings.trial_s
        self._rng = np.random.default_rng(0)
        self._inputs = [self._random(session) for _ in range(2)]
        self._told: list[str] = []
        self._on_cpu = not prepared.device.startswith(("CUDA", "NVIDIA"))
        self._spent = Cores()

    def choose(self, fixed: Tuning) -> tuple[Outcome, Session]:
        answer = self._session.infer(self._inputs[0])
        nan = any(array.dtype.kind == "f" and bool(np.isnan(array).any()) for array in answer.values())
        single = self._way(fixed, self._session)
        best_batch = 1
        ways = [single, *self._side_by_side(single, 1)]
        for way in self._batches(single):
            ways.append(way)
            if self._cost(way) * GAIN < self._cost(single):
                best_batch = way.tuning.batch
        if best_batch > 1 and len(ways) > 1 and ways[1].tuning.parallel > 1:
            ways += self._side_by_side(single, best_batch)
        if not self._prepared.batchable and self._settings.batch_max > 1:
            self._told.append("no batches: its file fixes the number of pictures")
        least = min(map(self._cost, ways))
        contenders = [way for way in ways if way is single or self._cost(way) < HOPELESS * least]
        for number, way in enumerate(contenders * (PASSES if len(ways) > 1 else 0)):
            if time.monotonic() > self._until:
                break
            if number < len(contenders):
                way.forget()
            self._spent += way.measure(SLICE_S, self._settings.trial_s)
        latency_max = max(self._settings.latency_max_ms, single.latency_ms)
        best = single
        for way in sorted(ways, key=lambda way: way.latency_ms):
            if way.latency_ms <= latency_max and self._cost(way) * self._gain(best, way) < self._cost(best):
                best = way
        measured = [str(way) for way in ways]
        if self.disturbed:
            self._told.append(f"others had {self._spent.others_share:.0%} of the cores meanwhile")
        tuning, session = best.tuning, best.session
        lone = next((way for way in ways if way.tuning == Tuning(fixed.threads, 1, tuning.batch)), None)
        if self._twice and tuning.parallel > fixed.parallel and lone is not None:
            tuning, session = replace(tuning, alone=True), twice.TwoSessions(lone.session, session)
        return Outcome(tuning, round(best.latency_ms, 2), "; ".join(measured + self._told), nan), session

    @property
    def disturbed(self) -> bool:
        """Others were at work on this machine while it was measured."""
        return self._spent.others_share > self._settings.busy_share

    def _gain(self, best: _Way, way: _Way) -> float:
        """How many times as good it must be."""
        gain = 1.0
        if way.tuning.batch > best.tuning.batch:
            gain *= DISTURBED_GAIN if self.disturbed else GAIN
        if way.tuning.parallel > best.tuning.parallel:
            gain *= BESIDE_GAIN if self._twice else PARALLEL_GAIN
        return gain

    def _cost(self, way: _Way) -> float:
        return way.cores_ms if self._on_cpu else way.call_ms

    def _way(self, tuning: Tuning, session: Session) -> _Way:
        """Looked at for the first time."""
        way = _Way(tuning, session, self._stacked(tuning.batch))
        session.infer(way.inputs)
        self._spent += way.measure(LOOK_S, self._settings.trial_s)
        return way

    def _side_by_side(self, single: _Way, batch: int) -> Iterator[_Way]:
        """With as many threads each as leave none over."""
        if self._settings.threads or self._settings.parallel_calls or not self._on_cpu:
            return
        parallel = 2
        while parallel <= min(PARALLEL_MAX, core_count()) and time.monotonic() < self._until:
            tuning = Tuning(core_count() // parallel, parallel, batch)
            yield self._way(tuning, self._prepared.session(tuning))
            parallel *= 2

    def _batches(self, single: _Way) -> Iterator[_Way]:
        """Larger ones as long as they pay."""
        size, smaller = 2, single
        while self._prepared.batchable and size <= self._settings.batch_max:
            if time.monotonic() > self._until:
                self._told.append(f"no time for {size} at once")
                return
            tuning = replace(single.tuning, batch=size)
            try:
                session = self._prepared.session(tuning)
                if size == 2 and not self._agrees(session):
                    self._told.append(f"{size} at once give other answers than one by one")
                    return
                way = self._way(tuning, session)
            except DeviceLost:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a library raises
                self._told.append(f"{size} at once fail ({type(error).__name__})")
                return
            yield way
            if way.latency_ms > self._settings.latency_max_ms or self._cost(way) > HOPELESS * self._cost(smaller):
                return
            size, smaller = size * 2, way

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
