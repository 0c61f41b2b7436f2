"""TensorRT: parsing and building engines, which needs no GPU; with one, the whole contract (docs/gpu.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.backends.base import Backend, Prepared, Tuning
from edge.inference.backends.gpu import gpu_present
from edge.inference.errors import ModelInvalid, ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec
from tests.edge.inference.contract import BackendContract
from tests.support.models import matmul_onnx, mobilenet_onnx, tiny_onnx, tiny_tensorflow, weighted_onnx
from tests.support.tensorrt import INSTALL_TIMEOUT_S, tensorrt_or_skip

pytestmark = pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)  # the first test may have to install it


def make(cache: Path) -> Backend:
    tensorrt_or_skip()
    from edge.inference.backends.tensorrt import TensorRtBackend

    return TensorRtBackend(Settings(cached_models=2, batch_max=4), cache)


@pytest.mark.tensorrt
class TestBuilding:
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return make(tmp_path / "cache")

    def build(self, backend: Backend, path: Path, shape: tuple[int, ...] = (), precision: str = "FP32") -> Prepared:
        inputs = [InputSpec("x", shape)] if shape else []
        return backend.prepare(path, key=path.name, framework="ONNX", precision=precision, inputs=inputs)

    def test_an_engine_is_built_for_one_call_and_for_several(self, backend: Backend, tmp_path: Path) -> None:
        fixed = self.build(backend, tiny_onnx(tmp_path / "fixed"))
        assert not fixed.batchable
        batched = self.build(backend, tiny_onnx(tmp_path / "open", ("batch", 3)), (1, 3))
        assert batched.batchable
        assert [str(info) for info in batched.inputs] == ["`x` float32 (1, 3)"]  # type: ignore[attr-defined]

    def test_an_engine_is_built_once(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        self.build(backend, path)
        [folder] = (tmp_path / "cache").iterdir()
        before = (folder / "engine.plan").stat().st_mtime_ns
        self.build(make(tmp_path / "cache"), path)
        assert (folder / "engine.plan").stat().st_mtime_ns == before

    def test_another_version_builds_an_engine_of_its_own(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        self.build(backend, path)
        newer = make(tmp_path / "cache")
        newer.version = "a later one"  # type: ignore[misc]
        self.build(newer, path)
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_the_longest_unused_engine_goes_first(self, backend: Backend, tmp_path: Path) -> None:
        for number in range(3):
            self.build(backend, tiny_onnx(tmp_path / f"model-{number}"))
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_an_engine_that_was_cut_short_is_built_again(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        self.build(backend, path)
        [folder] = (tmp_path / "cache").iterdir()
        (folder / "facts.json").write_text("{")
        assert self.build(backend, path).device

    def test_layers_as_in_real_models_are_built(self, backend: Backend, tmp_path: Path) -> None:
        path = mobilenet_onnx(tmp_path / "model", side=64)
        sizes = {}
        for precision in ("FP32", "FP16"):
            prepared = backend.prepare(
                path, key="m", framework="ONNX", precision=precision, inputs=[InputSpec("image", (1, 3, 64, 64))]
            )
            assert prepared.batchable
            newest = max((tmp_path / "cache").glob("*/engine.plan"), key=lambda plan: plan.stat().st_mtime_ns)
            sizes[precision] = newest.stat().st_size
        # Up to TensorRT 10 it chooses for each layer and says nothing.
        assert not prepared.notes or "made half precision here" in prepared.notes[0]
        assert sizes["FP16"] < 0.7 * sizes["FP32"]
        assert not list((tmp_path / "cache").glob("*/half.onnx"))

    def test_weights_of_half_precision_are_built_as_they_are(self, backend: Backend, tmp_path: Path) -> None:
        path = weighted_onnx(tmp_path / "model", np.ones((1, 3), np.float16))
        assert self.build(backend, path, precision="FP16").notes == ()

    def test_operations_that_nobody_has_are_named(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match=r"cannot run the operations my\.ops\.Frobnicate"):
            self.build(backend, tiny_onnx(tmp_path / "model", op="Frobnicate", domain="my.ops"))

    def test_a_model_that_was_cut_short_is_invalid(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ModelInvalid, match="damaged or cut short"):
            self.build(backend, path)

    def test_what_does_not_fit_the_descriptor_is_invalid(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelInvalid, match=r"shape \(1, 4\), the model takes `x` float32 \(1, 3\)"):
            self.build(backend, tiny_onnx(tmp_path / "model"), (1, 4))
        with pytest.raises(ModelInvalid, match=r"inputs take 4\.0 GiB of memory"):
            self.build(backend, tiny_onnx(tmp_path / "large", ("batch", 1024)), (1 << 20, 1024))
        with pytest.raises(ModelInvalid, match=r"makes a tensor \(1048576, 1048576\) of 4096\.0 GiB"):
            self.build(backend, matmul_onnx(tmp_path / "inside", 1 << 20))
        with pytest.raises(ModelInvalid, match="INT8, but the model is not quantised"):
            self.build(backend, tiny_onnx(tmp_path / "model"), precision="INT8")

    def test_what_is_not_onnx_is_named(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match="TensorRT cannot run a TensorFlow frozen graph; convert it to ONNX"):
            self.build(backend, tiny_tensorflow(tmp_path / "graph"))

    @pytest.mark.skipif(gpu_present(), reason="there is a GPU")
    def test_without_a_gpu_it_says_that_one_is_missing(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match="there is no NVIDIA GPU"):
            self.build(backend, tiny_onnx(tmp_path / "model")).session(Tuning())


if gpu_present():

    @pytest.mark.gpu
    @pytest.mark.tensorrt
    class TestTensorRt(BackendContract):
        def make_backend(self, cache: Path) -> Backend:
            return make(cache)

else:

    @pytest.mark.gpu
    @pytest.mark.tensorrt
    def test_the_contract_on_a_gpu() -> None:
        pytest.skip("there is no NVIDIA GPU: the contract suite of the TensorRT backend was not run")
