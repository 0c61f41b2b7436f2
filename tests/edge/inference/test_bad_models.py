"""Models that are not as they should be, behind a real call socket: what is said of each, and that the others work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge.inference.model import WantedModel
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from framelink import CallError
from tests.support.inference import WAIT_S, Inference
from tests.support.models import matmul_onnx, tiny_onnx, weighted_onnx

X = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture(params=["openvino", "onnxruntime"])
def inference(request: pytest.FixtureRequest, tmp_path: Path):  # type: ignore[no-untyped-def]
    with Inference(tmp_path, Settings(backend=request.param, trial_s=0.2, hang_min_s=WAIT_S)) as inference:
        yield inference


def reason(inference: Inference, path: Path, *inputs: InputSpec, precision: str = "FP32") -> tuple[str, str]:
    """Why it failed: (code, message); a good model beside it is ready all the same."""
    good = WantedModel("good", tiny_onnx(inference.root / "good"), "ONNX", "FP32", ())
    inference.models.apply([WantedModel("bad", path, "ONNX", precision, inputs), good])
    row = inference.row("bad", lambda row: row["state"] == "failed")
    inference.row("good", lambda row: row["state"] == "ready")
    with inference.client() as client:
        assert client.call("good", {"x": X}, WAIT_S)
        with pytest.raises(CallError, match="could not be loaded") as caught:
            client.call("bad", {"x": X}, WAIT_S)
    assert caught.value.code == "FAILED" and row["reason"]["message"] in caught.value.message
    return row["reason"]["code"], row["reason"]["message"]


def test_an_input_that_the_model_does_not_have(inference: Inference, tmp_path: Path) -> None:
    given = (InputSpec("x", (1, 3)), InputSpec("mask", (1, 1)))
    code, message = reason(inference, tiny_onnx(tmp_path / "m"), *given)
    assert code == "MODEL_INVALID"
    assert "the descriptor's input `mask` is not in the model, which takes `x` float32 (1, 3)" in message


def test_an_input_that_a_call_leaves_out(inference: Inference, tmp_path: Path) -> None:
    inference.ready(WantedModel("m", tiny_onnx(tmp_path / "m"), "ONNX", "FP32", ()))
    with inference.client() as client, pytest.raises(CallError, match="missing: `x` float32") as caught:
        client.call("m", {}, WAIT_S)
    assert caught.value.code == "INVALID_INPUT"


def test_a_shape_that_the_model_does_not_take(inference: Inference, tmp_path: Path) -> None:
    code, message = reason(inference, tiny_onnx(tmp_path / "m"), InputSpec("x", (1, 4)))
    assert code == "MODEL_INVALID"
    assert "gives input `x` the shape (1, 4), the model takes `x` float32 (1, 3)" in message


def test_operations_of_somebodys_own(inference: Inference, tmp_path: Path) -> None:
    code, message = reason(inference, tiny_onnx(tmp_path / "m", op="Frobnicate", domain="my.ops"))
    assert code == "MODEL_UNSUPPORTED"
    assert "Frobnicate" in message and "my.ops" in message


def test_a_file_that_was_cut_short(inference: Inference, tmp_path: Path) -> None:
    path = tiny_onnx(tmp_path / "m")
    path.write_bytes(path.read_bytes()[:-20])
    code, message = reason(inference, path)
    assert code == "MODEL_INVALID" and "damaged or cut short" in message


def test_a_tensor_of_four_gigabytes(inference: Inference, tmp_path: Path) -> None:
    code, message = reason(inference, tiny_onnx(tmp_path / "m", ("batch", 1024)), InputSpec("x", (1 << 20, 1024)))
    assert code == "MODEL_INVALID"
    assert "inputs take 4.0 GiB of memory" in message and "at most 512 MiB" in message


def test_answers_of_four_gigabytes(inference: Inference, tmp_path: Path) -> None:
    path = weighted_onnx(tmp_path / "m", np.ones((1, 1), np.float32), (1 << 20, 1024))
    code, message = reason(inference, path)
    assert code == "MODEL_INVALID" and "4.0 GiB" in message


def test_weights_of_a_terabyte(inference: Inference, tmp_path: Path) -> None:
    path = tiny_onnx(tmp_path / "m")
    os.truncate(path, 1 << 40)  # a file with a hole: nobody may read it to its end
    code, message = reason(inference, path)
    assert code == "MODEL_INVALID"
    assert "weights take 1024.0 GiB" in message or "damaged or cut short" in message


def test_precision_that_the_model_does_not_have(inference: Inference, tmp_path: Path) -> None:
    code, message = reason(inference, tiny_onnx(tmp_path / "m"), precision="INT8")
    assert code == "MODEL_INVALID" and "the model is not quantised" in message


def test_weights_that_are_no_numbers_are_said_once_and_the_answers_are_the_applications(
    inference: Inference, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = weighted_onnx(tmp_path / "m", np.array([[1.0, np.nan, 3.0]], np.float32))
    inference.ready(WantedModel("m", path, "ONNX", "FP32", ()))
    with inference.client() as client:
        for _ in range(3):
            assert np.isnan(client.call("m", {"x": X}, WAIT_S)["y"]).tolist() == [[False, True, False]]
    assert inference.row("m", lambda row: True)["gives_nan"] is True
    assert capfd.readouterr().out.count("model gives NaN") == 1


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_tensor_inside_of_the_model_that_does_not_fit_into_memory(backend: str, tmp_path: Path) -> None:
    # (2²⁰, 1) × (1, 2²⁰): 4 MiB come in, one number goes out, and 4 TiB are in between.
    side = 1 << 20
    with Inference(tmp_path, Settings(backend=backend, trial_s=0, hang_min_s=WAIT_S)) as inference:
        code, message = reason(inference, matmul_onnx(tmp_path / "m", side))
    assert code == "MODEL_INVALID"
    assert "MatMul" in message and "GiB, the appliance has" in message and "of memory free" in message


def test_a_tensor_inside_whose_size_the_descriptor_says_does_not_fit_into_memory(tmp_path: Path) -> None:
    given = InputSpec("x", (1 << 20, 1))
    with Inference(tmp_path, Settings(backend="onnxruntime", trial_s=0, hang_min_s=WAIT_S)) as inference:
        code, message = reason(inference, matmul_onnx(tmp_path / "m", "side"), given)
    assert code == "MODEL_INVALID" and "makes a tensor (1048576, 1048576) of 4096.0 GiB" in message


def test_a_tensor_inside_that_only_shows_when_it_is_computed_fails_that_call_alone(tmp_path: Path) -> None:
    # Nobody says how large it is: the call that makes it too large hears that there is no memory.
    with Inference(tmp_path, Settings(backend="onnxruntime", trial_s=0, hang_min_s=WAIT_S)) as inference:
        huge = WantedModel("huge", matmul_onnx(tmp_path / "m", "side"), "ONNX", "FP32", ())
        inference.ready(huge, WantedModel("good", tiny_onnx(tmp_path / "good"), "ONNX", "FP32", ()))
        with inference.client() as client:
            with pytest.raises(CallError, match="the model failed on these inputs") as caught:
                client.call("huge", {"x": np.ones((1 << 20, 1), np.float32)}, WAIT_S)
            assert caught.value.code == "FAILED"
            assert client.call("huge", {"x": np.ones((3, 1), np.float32)}, WAIT_S)["y"] == 1.0
            assert client.call("good", {"x": X}, WAIT_S)
