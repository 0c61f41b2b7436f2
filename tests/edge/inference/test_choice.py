"""Which backend a model gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.inference.backends import Choice, automatic, order
from edge.inference.backends.gpu import gpu_present
from edge.inference.errors import ModelUnsupported
from edge.inference.settings import Settings
from tests.support.models import tiny_onnx, tiny_tensorflow


def chosen(tmp_path: Path, path: Path, backend: str = "auto") -> tuple[str, str]:
    choice = Choice(Settings(backend=backend), tmp_path / "cache")
    found, prepared, why = choice.prepare(path, key="m", framework="ONNX", precision="FP32", inputs=())
    assert prepared.session is not None
    return found.name, why


@pytest.mark.skipif(gpu_present(), reason="there is a GPU")
def test_without_a_gpu_openvino_computes(tmp_path: Path) -> None:
    assert chosen(tmp_path, tiny_onnx(tmp_path / "m")) == ("openvino", "there is no GPU")
    assert chosen(tmp_path, tiny_tensorflow(tmp_path / "t"))[0] == "openvino"


@pytest.mark.parametrize(
    ("there", "gpu", "cuda", "names", "why"),
    [
        ("openvino onnxruntime tensorrt", False, False, "openvino onnxruntime", "there is no GPU"),
        ("onnxruntime", False, False, "onnxruntime", "OpenVINO is not installed"),
        ("openvino onnxruntime tensorrt", True, False, "tensorrt openvino onnxruntime", "there is a GPU"),
        ("openvino onnxruntime tensorrt", True, True, "tensorrt onnxruntime openvino", "there is a GPU"),
        ("openvino onnxruntime", True, True, "onnxruntime openvino", "there is a GPU"),
        ("openvino onnxruntime", True, False, "openvino onnxruntime", "neither TensorRT nor onnxruntime-gpu"),
    ],
)
def test_a_gpu_computes_where_something_is_installed_for_it(
    there: str, gpu: bool, cuda: bool, names: str, why: str
) -> None:
    found, because = automatic(there.split(), gpu=gpu, cuda=cuda)
    assert list(found) == names.split() and why in because


def test_what_is_set_is_taken_and_nothing_else(tmp_path: Path) -> None:
    assert chosen(tmp_path, tiny_onnx(tmp_path / "m"), "onnxruntime") == ("onnxruntime", "it is set")
    with pytest.raises(ModelUnsupported, match="ONNX Runtime cannot run a TensorFlow frozen graph"):
        chosen(tmp_path, tiny_tensorflow(tmp_path / "t"), "onnxruntime")


@pytest.mark.skipif(gpu_present(), reason="there is a GPU")
def test_a_model_that_one_cannot_run_is_tried_with_the_next_and_the_last_one_says_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelUnsupported, match="ONNX Runtime cannot run this ONNX"):
        chosen(tmp_path, tiny_onnx(tmp_path / "m", op="Frobnicate", domain="my.ops"))
    assert "backend cannot run the model: the next one is tried" in capfd.readouterr().out


def test_backends_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match="there is no inference backend `abacus`; there are: onnxruntime, openvino"):
        order("abacus")
