"""What is chosen by measuring, with models that take a known time; and the model that is held twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.inference import cores, trial
from edge.inference.backends.base import Session, Tuning
from edge.inference.cores import core_count
from edge.inference.settings import Settings
from edge.inference.tensors import Array, TensorInfo
from edge.inference.trial import TrialMemory
from edge.inference.twice import CROWDED_S, TwoSessions

SETTINGS = Settings(trial_s=2.0, busy_share=1.0, batch_max=2)
X = TensorInfo("x", (1, 3), np.dtype("float32"))
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _time_is_what_a_way_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These models sleep; who else is at work meanwhile does not make them cheaper. As where nothing is known of others."""
    monkeypatch.setattr(cores, "STAT", tmp_path / "none")


class Timed:
    """A model that takes the seconds that `takes(tuning)` says, and doubles its input."""

    device = "CPU"
    notes = ()

    def __init__(self, takes: Callable[[Tuning], float], batchable: bool = True) -> None:
        self.batchable = batchable
        self._takes = takes

    def session(self, tuning: Tuning) -> Session:
        return TimedSession(lambda: self._takes(tuning))


class TimedSession:
    inputs = (X,)
    outputs = (TensorInfo("y", (1, 3), np.dtype("float32")),)

    def __init__(self, takes: Callable[[], float]) -> None:
        self._takes = takes
        self.computed = 0
        self.closed = False

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.computed += 1
        time.sleep(self._takes())
        return {"y": inputs["x"] * 2}

    def close(self) -> None:
        self.closed = True


def chosen(
    tmp_path: Path, model: Timed, *, may_load_twice: bool = True, settings: Settings = SETTINGS
) -> tuple[trial.Outcome, Session]:
    session, outcome = trial.run(
        model, settings, TrialMemory(tmp_path / "trials.json"), "key", may_load_twice=may_load_twice
    )
    return outcome, session


def test_a_moment_in_which_others_were_at_work_does_not_decide(tmp_path: Path) -> None:
    computed: list[Tuning] = []

    def takes(tuning: Tuning) -> float:
        computed.append(tuning)
        # As long as it is looked at for the first time, one call seems slow.
        if tuning == Tuning():
            return 0.09 if computed.count(tuning) < 5 else 0.03
        return 0.03 * tuning.batch * tuning.parallel * 1.3

    # Time for all passes, on a machine that others keep busy too; alone it takes a quarter of it.
    outcome, _ = chosen(tmp_path, Timed(takes), may_load_twice=False, settings=replace(SETTINGS, trial_s=10.0))
    assert outcome.tuning == Tuning(), outcome.why


def test_a_batch_is_chosen_where_it_saves_time(tmp_path: Path) -> None:
    outcome, _ = chosen(tmp_path, Timed(lambda tuning: 0.02 * tuning.parallel), may_load_twice=False)
    assert outcome.tuning == Tuning(batch=2), outcome.why
    assert "1 call " in outcome.why and "2 at once " in outcome.why


@pytest.mark.skipif(core_count() < 2, reason="one core")
def test_side_by_side_is_chosen_where_it_saves_time_and_a_lone_call_keeps_all_cores(tmp_path: Path) -> None:
    model = Timed(lambda tuning: 0.02, batchable=False)
    outcome, session = chosen(tmp_path, model)
    assert outcome.tuning.parallel > 1 and outcome.tuning.alone, outcome.why
    assert isinstance(session, TwoSessions)
    again, remembered = chosen(tmp_path, model)
    assert again == outcome and isinstance(remembered, TwoSessions)


@pytest.mark.skipif(core_count() < 2, reason="one core")
def test_side_by_side_need_save_little_where_a_lone_call_keeps_all_cores(tmp_path: Path) -> None:
    # A tenth quicker: too little to have lone calls wait for it.
    model = Timed(lambda tuning: 0.05 * tuning.parallel * (1.0 if tuning.parallel == 1 else 0.9), batchable=False)
    outcome, _ = chosen(tmp_path, model)
    assert outcome.tuning.parallel > 1 and outcome.tuning.alone, outcome.why
    outcome, _ = chosen(tmp_path / "large", model, may_load_twice=False)
    assert outcome.tuning == Tuning(), outcome.why


@pytest.mark.skipif(core_count() < 2, reason="one core")
def test_a_model_too_large_to_be_held_twice_is_not(tmp_path: Path) -> None:
    _, session = chosen(tmp_path, Timed(lambda tuning: 0.02, batchable=False), may_load_twice=False)
    assert isinstance(session, TimedSession)


def test_measuring_ends_in_time_whatever_the_model_takes(tmp_path: Path) -> None:
    computed: list[Tuning] = []

    def takes(tuning: Tuning) -> float:
        computed.append(tuning)
        return 1.0

    outcome, _ = chosen(tmp_path, Timed(takes))
    assert outcome.tuning == Tuning()
    # A second each; what else it takes is the machine's affair.
    assert len(computed) < 4 * SETTINGS.trial_s


def test_the_first_computation_which_takes_longer_belongs_to_loading(tmp_path: Path) -> None:
    computed: list[Tuning] = []

    def takes(tuning: Tuning) -> float:
        computed.append(tuning)
        return 0.001

    model = Timed(takes)
    unmeasured = replace(SETTINGS, trial_s=0)
    for settings, memory in ((SETTINGS, "measured"), (SETTINGS, "measured"), (unmeasured, "none")):
        computed.clear()
        _, outcome = trial.run(model, settings, TrialMemory(tmp_path / memory), "key", may_load_twice=False)
        assert computed and outcome.infer_ms


def test_a_lone_computation_has_all_cores_and_those_that_meet_have_some_each() -> None:
    meet = threading.Event()
    inside = threading.Semaphore(0)

    def waits() -> float:
        inside.release()
        assert meet.wait(WAIT_S)
        return 0.0

    alone, together = TimedSession(waits), TimedSession(waits)
    both = TwoSessions(alone, together)
    x = {"x": np.ones((1, 3), np.float32)}
    threads = [threading.Thread(target=both.infer, args=(x,)) for _ in range(3)]
    for thread in threads:
        thread.start()
        assert inside.acquire(timeout=WAIT_S)
    meet.set()
    for thread in threads:
        thread.join()
    assert (alone.computed, together.computed) == (1, 2)
    # A while later nobody is expected beside it any more.
    until = time.monotonic() + CROWDED_S
    while time.monotonic() <= until:
        threading.Event().wait(0.01)
    assert both.infer(x)["y"].tolist() == [[2.0, 2.0, 2.0]]
    assert (alone.computed, together.computed) == (2, 2)
    both.close()
    assert alone.closed and together.closed
