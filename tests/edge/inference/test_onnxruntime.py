from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.backends.base import Backend
from edge.inference.backends.onnxruntime import OnnxRuntimeBackend
from edge.inference.errors import ModelUnsupported
from edge.inference.settings import Settings
from tests.edge.inference.contract import BackendContract
from tests.support.models import tiny_onnx, tiny_tensorflow


class TestOnnxRuntime(BackendContract):
    def make_backend(self, cache: Path) -> Backend:
        return OnnxRuntimeBackend(Settings(cached_models=3), cache)

    def test_what_is_not_onnx_is_named(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match="ONNX Runtime cannot run a TensorFlow frozen graph; convert it"):
            self.load(backend, tiny_tensorflow(tmp_path / "graph"))

    def test_on_a_cpu_half_precision_that_the_file_does_not_have_is_noted(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        prepared = self.prepare(backend, tiny_onnx(tmp_path / "model"), precision="FP16")
        assert "the file's weights are FP32" in prepared.notes[0]

    def test_a_model_whose_file_was_moved_is_found_where_it_is_now(self, backend: Backend, tmp_path: Path) -> None:
        first = self.load(backend, tiny_onnx(tmp_path / "first"), key="same")
        (tmp_path / "first").rename(tmp_path / "second")
        second = self.load(backend, tmp_path / "second", key="same")
        x = np.ones((1, 3), np.float32)
        assert first.infer({"x": x})["doubled"].tolist() == second.infer({"x": x})["doubled"].tolist()
