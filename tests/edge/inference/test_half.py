"""Models of single precision that are asked for in FP16, where a backend computes in the types of the file.

What CUDA would compute is computed by ONNX Runtime on the CPU here: the same file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from belvedere.graph import ImageInput
from edge.inference.backends import onnx_file
from edge.inference.backends.base import Prepared, Tuning
from edge.inference.backends.onnxruntime import OnnxRuntimeBackend
from edge.inference.errors import ModelInvalid
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from tests.support.models import matmul_onnx, mobilenet_onnx, quantised_onnx, tiny_onnx, weighted_onnx

SIDE = 64
X = np.array([[1.0, 2.0, 3.0]], np.float32)


def prepare(tmp_path: Path, path: Path, *inputs: InputSpec) -> Prepared:
    backend = OnnxRuntimeBackend(Settings(), tmp_path / "cache", halves=True)
    return backend.prepare(path, key=path.name, framework="ONNX", precision="FP16", inputs=inputs)


def halved(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").glob("*/half.onnx"))


def answers(prepared: Prepared) -> np.ndarray:
    session = prepared.session(Tuning())
    [info], picture = session.inputs, np.random.default_rng(1).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    assert info.dtype == np.float32 and session.outputs[0].dtype == np.float32
    return session.infer({info.name: picture})["features"]


def test_a_model_becomes_one_of_half_precision_that_answers_nearly_the_same(tmp_path: Path) -> None:
    path = mobilenet_onnx(tmp_path / "model", side=SIDE)
    spec = InputSpec("image", (1, 3, SIDE, SIDE), "float32", ImageInput(color="RGB", scale=1 / 255))
    prepared = prepare(tmp_path, path, spec)
    assert prepared.batchable and "made half precision here, largest difference" in prepared.notes[0]
    [file] = halved(tmp_path)
    assert onnx_file.is_half(file) and file.stat().st_size < 0.6 * path.stat().st_size
    single = OnnxRuntimeBackend(Settings(), tmp_path / "cache").prepare(
        path, key="single", framework="ONNX", precision="FP32", inputs=[spec]
    )
    ours, theirs = answers(prepared), answers(single)
    assert 0 < np.abs(ours - theirs).max() < 2e-2 * np.abs(theirs).max()


def test_it_is_made_once(tmp_path: Path) -> None:
    path = tiny_onnx(tmp_path / "model")
    prepare(tmp_path, path)
    [file] = halved(tmp_path)
    before = file.stat().st_mtime_ns
    assert "made half precision" in prepare(tmp_path, path).notes[0]
    assert file.stat().st_mtime_ns == before


def test_numbers_that_half_precision_cannot_hold_keep_a_model_in_single_and_the_operation_is_named(
    tmp_path: Path,
) -> None:
    prepared = prepare(tmp_path, weighted_onnx(tmp_path / "model", np.array([[1.0, 1e6, 3.0]], np.float32)))
    [note] = prepared.notes
    assert "computed in FP32, since Mul `" in note and "half precision ends at 6.6e+04" in note
    assert halved(tmp_path) == []
    assert prepared.session(Tuning()).infer({"x": X})["y"].tolist() == [[1.0, 2e6, 9.0]]


def test_answers_that_would_differ_keep_a_model_in_single(tmp_path: Path) -> None:
    # Too small for half precision: it would become 0.
    [note] = prepare(tmp_path, weighted_onnx(tmp_path / "model", np.full((1, 3), 1e-9, np.float32))).notes
    assert "in half precision its answers differ by" in note


def test_operations_that_have_no_half_precision_stay_in_single(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, quantised_onnx(tmp_path / "model"))
    assert "made half precision" in prepared.notes[0]
    assert prepared.session(Tuning()).infer({"x": X})["y"].tolist() == [[1.0, 2.0, 3.0]]


def test_weights_that_are_no_numbers_stay_what_they_are(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, weighted_onnx(tmp_path / "model", np.array([[1.0, np.nan, 3.0]], np.float32)))
    assert np.isnan(prepared.session(Tuning()).infer({"x": X})["y"]).tolist() == [[False, True, False]]


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_computed_for_that(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match=r"makes a tensor \(1048576, 1048576\) of 4096\.0 GiB"):
        prepare(tmp_path, matmul_onnx(tmp_path / "model", 1 << 20))
