"""The models' keeper behind a real call socket, with real models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.inference.backends import Choice
from edge.inference.backends.base import Prepared, Session, Tuning
from edge.inference.errors import DeviceLost
from edge.inference.model import WantedModel
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from framelink import CallError, CallTimeout
from tests.support.inference import WAIT_S, Inference, call_in_thread
from tests.support.models import tiny_onnx
from tests.support.shared_memory import eventually

SETTINGS = Settings(
    backend="openvino", queue_per_client=3, load_wait_s=WAIT_S, hang_min_s=WAIT_S, parallel_calls=1, trial_s=0
)
X = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def inference(tmp_path: Path) -> Iterator[Inference]:
    with Inference(tmp_path, SETTINGS) as inference:
        yield inference


def tiny(inference: Inference, model_id: str = "tiny", **changes: Any) -> WantedModel:
    path = tiny_onnx(inference.root / f"{model_id}.bin")
    return WantedModel(model_id, path, "ONNX", "FP32", changes.get("inputs", ()))


def test_a_call_gets_the_models_outputs_and_is_counted(inference: Inference) -> None:
    inference.ready(tiny(inference))
    with inference.client() as client:
        for _ in range(20):
            outputs = client.call("tiny", {"x": X}, WAIT_S)
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "doubled": [[2.0, 4.0, 6.0]],
        "negated": [[-1.0, -2.0, -3.0]],
    }
    assert list(outputs) == ["doubled", "negated"]
    row = inference.row("tiny", lambda row: row["calls"] == 20)
    assert row["errors"] == 0 and row["reason"] is None
    # Each cause from 0 on: who only sees what has risen sees the first one too.
    assert set(row["errors_by_code"].values()) == {0} and "OVERLOADED" in row["errors_by_code"]
    assert row["bytes_in"] == 20 * X.nbytes and row["bytes_out"] == 20 * 2 * X.nbytes
    assert 0 < row["infer_ms"]["p50"] <= row["infer_ms"]["p99"] < WAIT_S * 1000


def test_inputs_are_made_to_fit_and_wrong_ones_are_told_what_fits(inference: Inference) -> None:
    inference.ready(tiny(inference, inputs=(InputSpec("data", (1, 3)),)))
    with inference.client() as client:
        assert client.call("tiny", {"data": np.array([1, 2, 3])}, WAIT_S)["doubled"].tolist() == [[2.0, 4.0, 6.0]]
        with pytest.raises(CallError, match=r"no input `images`; the model takes `x` float32 \(1, 3\)") as caught:
            client.call("tiny", {"images": X}, WAIT_S)
        assert caught.value.code == "INVALID_INPUT"
        with pytest.raises(CallError, match=r"shape \(1, 4\) does not fit") as caught:
            client.call("tiny", {"x": np.zeros((1, 4))}, WAIT_S)
        assert caught.value.code == "INVALID_INPUT"
    assert inference.row("tiny", lambda row: row["errors"] == 2)["calls"] == 1


def test_an_unknown_model_is_named(inference: Inference) -> None:
    with inference.client() as client, pytest.raises(CallError, match="no model `nothing`") as caught:
        client.call("nothing", {"x": X}, WAIT_S)
    assert caught.value.code == "UNKNOWN_MODEL"


def test_a_file_that_is_no_model_fails_and_the_others_work(inference: Inference) -> None:
    broken = inference.root / "broken.bin"
    broken.write_bytes(b"this is no model")
    inference.models.apply([WantedModel("broken", broken, "ONNX", "FP32", ()), tiny(inference)])
    row = inference.row("broken", lambda row: row["state"] == "failed")
    assert row["reason"]["code"] == "MODEL_INVALID"
    assert "the model file is no model that can be recognised" in row["reason"]["message"]
    inference.row("tiny", lambda row: row["state"] == "ready")
    with inference.client() as client:
        with pytest.raises(CallError, match="could not be loaded: the model file is no model") as caught:
            client.call("broken", {"x": X}, WAIT_S)
        assert caught.value.code == "FAILED"
        assert client.call("tiny", {"x": X}, WAIT_S)


def test_a_failed_model_is_tried_again_when_its_file_was_put_right(inference: Inference) -> None:
    wanted = tiny(inference)
    good = wanted.path.read_bytes()
    wanted.path.write_bytes(good[:-20])
    inference.models.apply([wanted])
    inference.row("tiny", lambda row: row["state"] == "failed")
    inference.models.apply([wanted])
    assert inference.row("tiny", lambda row: True)["state"] == "failed"
    wanted.path.write_bytes(good)
    inference.ready(wanted)


class HeldChoice(Choice):
    """The usual choice; what the model `held` computes takes until the test opens the gate."""

    def __init__(self, cache: Path) -> None:
        super().__init__(SETTINGS, cache)
        self.gate = threading.Event()
        self.begun: list[float] = []
        """The first number of each of its inputs, in the order in which they are computed."""

    def prepare(self, path: Path, **details: Any) -> Any:
        backend, prepared, why = super().prepare(path, **details)
        return backend, HeldModel(prepared, self) if path.stem == "held" else prepared, why


class Computing:
    """A prepared model that is its only session: `infer` may be another's."""

    def __init__(self, prepared: Prepared) -> None:
        self.device, self.batchable, self.notes = prepared.device, prepared.batchable, prepared.notes
        self._prepared = prepared

    def session(self, tuning: Tuning) -> Session:
        session = self._prepared.session(tuning)
        self.inputs, self.outputs, self.close, self._infer = (
            session.inputs,
            session.outputs,
            session.close,
            session.infer,
        )
        return self

    def infer(self, inputs: Any) -> Any:
        return self._infer(inputs)


class HeldModel(Computing):
    def __init__(self, prepared: Prepared, choice: HeldChoice) -> None:
        super().__init__(prepared)
        self._choice = choice

    def infer(self, inputs: Any) -> Any:
        self._choice.begun.append(float(inputs["x"][0, 0]))
        assert self._choice.gate.wait(WAIT_S)
        return self._infer(inputs)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Inference, HeldChoice]]:
    """The models `tiny` and `held` are loaded; the gate is closed."""
    choice = HeldChoice(tmp_path / "cache")
    with Inference(tmp_path, SETTINGS, choice) as inference:
        try:
            choice.gate.set()
            inference.ready(tiny(inference), tiny(inference, "held"))
            choice.gate.clear()
            choice.begun.clear()
            yield inference, choice
        finally:
            choice.gate.set()


def test_a_slow_model_does_not_hold_up_another(held: tuple[Inference, HeldChoice]) -> None:
    inference, choice = held
    answers: list[Any] = []
    with inference.client("slow app") as one, inference.client("quick app") as two:
        threads = [call_in_thread(one, "held", {"x": X}, answers) for _ in range(3)]
        eventually(lambda: choice.begun, "its computing")
        for _ in range(10):
            assert two.call("tiny", {"x": X}, WAIT_S)
        assert not answers
        choice.gate.set()
        for thread in threads:
            thread.join()
    assert [list(answer) for answer in answers] == [["doubled", "negated"]] * 3


def test_a_client_that_asks_too_much_is_refused_and_others_are_served_in_turn(
    held: tuple[Inference, HeldChoice],
) -> None:
    inference, choice = held
    answers: list[Any] = []
    modest_answers: list[Any] = []

    def refused() -> list[CallError]:
        return [answer for answer in answers if isinstance(answer, CallError)]

    def waiting() -> int:
        """All that were taken, but for the one that is computed."""
        return 7 - len(refused()) - 1 + modest_comes

    modest_comes = 0
    with inference.client("greedy") as greedy, inference.client("modest") as modest:
        threads = [call_in_thread(greedy, "held", {"x": X}, answers) for _ in range(7)]
        inference.row("held", lambda row: row["queued"] == waiting())
        modest_comes = 1
        threads.append(call_in_thread(modest, "held", {"x": 2 * X}, modest_answers))
        inference.row("held", lambda row: row["queued"] == waiting())
        choice.gate.set()
        for thread in threads:
            thread.join()
    assert {error.code for error in refused()} == {"OVERLOADED"}
    assert 7 - SETTINGS.queue_per_client - 2 <= len(refused()) <= 7 - SETTINGS.queue_per_client
    assert list(modest_answers[0]) == ["doubled", "negated"]
    # Two of the greedy client's were at work already, and the next turn may have been its own.
    assert choice.begun.index(2.0) <= 3 and len(choice.begun) == 8 - len(refused())


def test_a_call_whose_time_was_over_before_its_turn_came_is_not_computed(held: tuple[Inference, HeldChoice]) -> None:
    inference, choice = held
    answers: list[Any] = []
    with inference.client("patient") as patient, inference.client("hasty") as hasty:
        with pytest.raises(CallError, match="UNKNOWN_MODEL"):
            hasty.call("none", {"x": X}, WAIT_S)  # Connected from now on.
        threads = [call_in_thread(patient, "held", {"x": X}, answers) for _ in range(2)]
        eventually(lambda: choice.begun, "its computing")
        with pytest.raises(CallTimeout):
            hasty.call("held", {"x": 2 * X}, 0.1)
        choice.gate.set()
        for thread in threads:
            thread.join()
        row = inference.row("held", lambda row: row["calls"] + row["errors"] == 3)
    assert row["errors_by_code"]["OVERLOADED"] == row["errors"] == 1 and row["calls"] == 2
    assert choice.begun == [1.0, 1.0]


IMPATIENT = replace(SETTINGS, load_wait_s=0.6)


class GatedChoice(Choice):
    """The usual choice, with a gate before each load that the test opens."""

    def __init__(self, cache: Path) -> None:
        super().__init__(SETTINGS, cache)
        self.gate = threading.Event()

    def prepare(self, path: Path, **details: Any) -> Any:
        assert self.gate.wait(WAIT_S)
        return super().prepare(path, **details)


@pytest.fixture
def gated(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Inference, GatedChoice]]:
    choice = GatedChoice(tmp_path / "cache")
    with Inference(tmp_path, getattr(request, "param", SETTINGS), choice) as inference:
        try:
            yield inference, choice
        finally:
            choice.gate.set()


class FaultyChoice(Choice):
    """The usual choice, of a device that has a fault when something is computed the `good` + 1st time."""

    def __init__(self, cache: Path, good: int) -> None:
        super().__init__(SETTINGS, cache)
        self._good = good

    def prepare(self, path: Path, **details: Any) -> Any:
        backend, prepared, why = super().prepare(path, **details)
        return backend, FaultyModel(prepared, self._good), why


class FaultyModel(Computing):
    def __init__(self, prepared: Prepared, good: int) -> None:
        super().__init__(prepared)
        self._good = good

    def infer(self, inputs: Any) -> Any:
        self._good -= 1
        if self._good < 0:
            raise DeviceLost("the GPU is of no more use in this process: cudaErrorIllegalAddress")
        return self._infer(inputs)


@pytest.mark.parametrize("good", [0, 2])
def test_after_a_fault_of_the_device_the_callers_hear_of_it_and_the_process_is_told_to_end(
    tmp_path: Path, good: int
) -> None:
    # Computed once while it is loaded, then once for a call; or not even that.
    with (
        Inference(tmp_path, SETTINGS, FaultyChoice(tmp_path / "cache", good)) as inference,
        inference.client() as client,
    ):
        inference.models.apply([tiny(inference)])
        if good:
            assert client.call("tiny", {"x": X}, WAIT_S)
            assert not inference.lost.is_set()
        with pytest.raises(CallError, match="of no more use in this process: cudaErrorIllegalAddress") as caught:
            client.call("tiny", {"x": X}, WAIT_S)
        assert caught.value.code == "FAILED"
        assert inference.lost.wait(WAIT_S)


def test_a_call_waits_for_a_model_that_is_being_loaded(gated: tuple[Inference, GatedChoice]) -> None:
    inference, choice = gated
    inference.models.apply([tiny(inference)])
    answers: list[Any] = []
    with inference.client() as client:
        thread = call_in_thread(client, "tiny", {"x": X}, answers)
        inference.row("tiny", lambda row: row["state"] == "loading")
        assert thread.is_alive()
        choice.gate.set()
        thread.join(WAIT_S)
    assert list(answers[0]) == ["doubled", "negated"]


@pytest.mark.parametrize("gated", [IMPATIENT], indirect=True, ids=["impatient"])
def test_a_call_that_has_waited_long_enough_is_told_that_the_model_is_loading(
    gated: tuple[Inference, GatedChoice],
) -> None:
    inference, _ = gated
    inference.models.apply([tiny(inference, "first"), tiny(inference, "second")])
    for model_id in ("first", "second"):  # one is being loaded, the other waits for its turn
        began = time.monotonic()
        with inference.client() as client, pytest.raises(CallError, match=r"still being loaded after 0\.6 s") as caught:
            client.call(model_id, {"x": X}, WAIT_S)
        assert caught.value.code == "LOADING"
        assert time.monotonic() - began >= IMPATIENT.load_wait_s


def test_models_that_are_ready_answer_while_another_is_loaded(gated: tuple[Inference, GatedChoice]) -> None:
    inference, choice = gated
    choice.gate.set()
    ready = tiny(inference)
    inference.ready(ready)
    choice.gate.clear()
    inference.models.apply([ready, tiny(inference, "next")])
    with inference.client() as client:
        assert client.call("tiny", {"x": X}, WAIT_S)
    assert inference.row("next", lambda row: True)["state"] == "loading"
    eventually(lambda: inference.models.loading() == "next", "its turn to be loaded")


class Unreadable:
    """A call whose inputs there is no memory for."""

    client, model_id, deadline_ns = "app", "tiny", 1 << 62

    def __init__(self) -> None:
        self.pictures: dict[str, Any] = {}
        self.told: list[tuple[str, str]] = []

    @property
    def inputs(self) -> dict[str, Any]:
        raise MemoryError("Unable to allocate 4.00 GiB")

    def reply(self, outputs: Any) -> None:
        raise AssertionError("it cannot be computed")

    def fail(self, code: str, message: str) -> None:
        self.told.append((code, message))


def test_a_call_that_there_is_no_memory_for_is_told_so_and_the_model_goes_on(inference: Inference) -> None:
    inference.ready(tiny(inference))
    for turn in range(1, 4):  # more often than it has threads
        call = Unreadable()
        inference.models.submit(call)
        inference.row("tiny", lambda row, turn=turn: row["errors"] == turn)
        assert call.told == [("FAILED", "the inputs cannot be made fit: MemoryError: Unable to allocate 4.00 GiB")]
    with inference.client() as client:
        assert client.call("tiny", {"x": X}, WAIT_S)


def test_a_model_that_is_not_wanted_any_more_is_unknown_and_lets_its_callers_go(
    gated: tuple[Inference, GatedChoice],
) -> None:
    inference, _ = gated
    inference.models.apply([tiny(inference)])
    answers: list[Any] = []
    with inference.client() as client:
        thread = call_in_thread(client, "tiny", {"x": X}, answers)
        inference.row("tiny", lambda row: row["state"] == "loading")
        inference.models.apply([])
        thread.join(WAIT_S)
    assert answers[0].code == "UNKNOWN_MODEL"
    assert inference.models.rows() == []


def test_the_same_set_again_loads_nothing_twice(inference: Inference) -> None:
    wanted = tiny(inference)
    inference.ready(wanted)
    with inference.client() as client:
        client.call("tiny", {"x": X}, WAIT_S)
        inference.models.apply([wanted])
        assert inference.row("tiny", lambda row: True)["calls"] == 1
        assert client.call("tiny", {"x": X}, WAIT_S)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"path": "/x"}, r"models\[\]\.model_id"),
        ({"model_id": "m"}, r"models\[\]\.path"),
        ({"model_id": "m", "path": "/x", "inputs": [{"name": "x", "shape": [0]}]}, r"models\[\]\.inputs\[\]"),
    ],
)
def test_a_wanted_model_that_is_none_names_its_field(row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        WantedModel.from_json(row)
