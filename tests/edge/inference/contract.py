"""What every inference backend must do: subclass it, and give it the backend.

    class TestOpenVino(BackendContract):
        def make_backend(self, cache): return OpenVinoBackend(Settings(), cache)

On a machine with a GPU: docs/gpu.md.

Models here are ONNX, which every backend reads.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.inference.backends.base import Backend, Prepared, Session, Tuning
from edge.inference.errors import InvalidInput, ModelInvalid, ModelUnsupported
from edge.inference.tensors import InputSpec, aliases, fit
from tests.support.models import ONNX_UINT8, image_onnx, quantised_onnx, tiny_onnx, weighted_onnx

X = np.array([[1.0, 2.0, 3.0]], np.float32)


class BackendContract:
    @abstractmethod
    def make_backend(self, cache: Path) -> Backend:
        """A fresh backend with its cache in this folder."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return self.make_backend(tmp_path / "cache")

    def load(
        self,
        backend: Backend,
        path: Path,
        inputs: Sequence[InputSpec] = (),
        key: str | None = None,
    ) -> Session:
        return self.prepare(backend, path, inputs, key).session(Tuning())

    def prepare(
        self,
        backend: Backend,
        path: Path,
        inputs: Sequence[InputSpec] = (),
        key: str | None = None,
        precision: str = "FP32",
    ) -> Prepared:
        return backend.prepare(path, key=key or path.name, framework="ONNX", precision=precision, inputs=inputs)

    def test_it_says_what_the_model_takes_and_gives(self, backend: Backend, tmp_path: Path) -> None:
        session = self.load(backend, tiny_onnx(tmp_path / "model"))
        assert [str(info) for info in session.inputs] == ["`x` float32 (1, 3)"]
        assert [info.name for info in session.outputs] == ["doubled", "negated"]

    def test_outputs_come_in_the_models_own_order(self, backend: Backend, tmp_path: Path) -> None:
        outputs = self.load(backend, tiny_onnx(tmp_path / "model")).infer({"x": X})
        assert list(outputs) == ["doubled", "negated"]
        assert outputs["doubled"].tolist() == [[2.0, 4.0, 6.0]]
        assert outputs["negated"].tolist() == [[-1.0, -2.0, -3.0]]
        assert outputs["doubled"].dtype == np.float32

    def test_outputs_are_the_callers_own(self, backend: Backend, tmp_path: Path) -> None:
        session = self.load(backend, tiny_onnx(tmp_path / "model"))
        first = session.infer({"x": X})
        session.infer({"x": X * 100})
        assert first["doubled"].tolist() == [[2.0, 4.0, 6.0]]

    def test_inputs_may_be_read_only(self, backend: Backend, tmp_path: Path) -> None:
        frozen = X.copy()
        frozen.flags.writeable = False
        outputs = self.load(backend, tiny_onnx(tmp_path / "model")).infer({"x": frozen})
        assert outputs["doubled"].tolist() == [[2.0, 4.0, 6.0]]

    def test_open_sizes_are_fixed_to_the_descriptors_shape(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model", ("batch", 3))
        session = self.load(backend, path, [InputSpec("x", (2, 3))])
        assert session.inputs[0].shape == (2, 3)
        assert session.infer({"x": np.ones((2, 3), np.float32)})["doubled"].shape == (2, 3)

    def test_a_single_input_may_have_any_name_in_the_descriptor(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model", ("batch", 3))
        assert self.load(backend, path, [InputSpec("data", (1, 3))]).inputs[0].name == "x"

    def test_a_model_loads_again_under_its_key(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        for again in (backend, self.make_backend(tmp_path / "cache")):
            session = self.load(again, path, key="same")
            assert list(session.infer({"x": X})) == ["doubled", "negated"]
            session.close()

    def test_the_same_key_with_other_shapes_is_another_model(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model", ("batch", 3))
        for batch in (1, 2):
            session = self.load(backend, path, [InputSpec("x", (batch, 3))], key="same")
            assert session.inputs[0].shape == (batch, 3)

    def test_a_picture_may_have_its_channels_last_and_be_of_bytes(self, backend: Backend, tmp_path: Path) -> None:
        session = self.load(backend, image_onnx(tmp_path / "model", (1, 2, 2, 3), ONNX_UINT8))
        assert str(session.inputs[0]) == "`image` uint8 (1, 2, 2, 3)"
        picture = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
        assert session.infer({"image": picture})["same"].tolist() == picture.tolist()

    def test_calls_are_made_to_fit_before_it_sees_them(self, backend: Backend, tmp_path: Path) -> None:
        session = self.load(backend, tiny_onnx(tmp_path / "model"))
        names = aliases(session.inputs, [])
        for given in (np.array([1, 2, 3]), X.astype(np.float64), X.astype(np.float16), X[0]):
            assert session.infer(fit({"x": given}, names))["doubled"].tolist() == [[2.0, 4.0, 6.0]]
        with pytest.raises(InvalidInput, match="there is no input `y`; the model takes `x` float32"):
            fit({"y": X}, names)

    def test_several_calls_are_computed_at_once_where_the_file_leaves_it_open(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        prepared = self.prepare(backend, tiny_onnx(tmp_path / "model", ("batch", 3)), [InputSpec("x", (1, 3))])
        assert prepared.batchable
        session = prepared.session(Tuning(batch=4))
        assert session.inputs[0].shape == (1, 3)
        for calls in (1, 3, 4, 2):
            x = np.arange(calls * 3, dtype=np.float32).reshape(calls, 3)
            outputs = session.infer({"x": x})
            assert outputs["doubled"].tolist() == (2 * x).tolist()
            assert outputs["negated"].tolist() == (-x).tolist()

    def test_a_file_with_a_fixed_size_takes_one_call_at_a_time(self, backend: Backend, tmp_path: Path) -> None:
        assert not self.prepare(backend, tiny_onnx(tmp_path / "model"), [InputSpec("x", (1, 3))]).batchable

    def test_sizes_that_nobody_fixes_stay_open(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model", ("batch", "width"))
        session = self.load(backend, path, [InputSpec("x", (1, -1))])
        assert session.inputs[0].shape == (1, None)
        for width in (2, 5):
            assert session.infer({"x": np.ones((1, width), np.float32)})["doubled"].shape == (1, width)

    def test_tensors_that_no_call_can_carry_are_refused_with_their_size(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model", ("batch", 1024))
        with pytest.raises(ModelInvalid, match=r"inputs take 4\.0 GiB of memory.*at most 512 MiB"):
            self.load(backend, path, [InputSpec("x", (1 << 20, 1024))])

    def test_weights_that_are_no_numbers_load_and_come_out_as_they_are(self, backend: Backend, tmp_path: Path) -> None:
        path = weighted_onnx(tmp_path / "model", np.array([[1.0, np.nan, 3.0]], np.float32))
        outputs = self.load(backend, path).infer({"x": X})
        assert np.isnan(outputs["y"]).tolist() == [[False, True, False]]

    def test_int8_of_a_model_that_is_not_quantised_is_refused(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelInvalid, match="INT8, but the model is not quantised"):
            self.prepare(backend, tiny_onnx(tmp_path / "model"), precision="INT8")

    def test_int8_of_a_quantised_model_computes(self, backend: Backend, tmp_path: Path) -> None:
        session = self.prepare(backend, quantised_onnx(tmp_path / "model"), precision="INT8").session(Tuning())
        x = np.array([[1.0, 1.3, -200.0]], np.float32)
        # In steps of a half, and not below what 8 bits hold of them.
        assert session.infer({"x": x})["y"].tolist() == [[1.0, 1.5, -64.0]]

    def test_fp16_computes(self, backend: Backend, tmp_path: Path) -> None:
        session = self.prepare(backend, tiny_onnx(tmp_path / "model"), precision="FP16").session(Tuning())
        assert session.inputs[0].dtype == np.float32
        assert session.infer({"x": X})["doubled"].tolist() == [[2.0, 4.0, 6.0]]

    def test_threads_that_call_at_once_get_their_own_answers(self, backend: Backend, tmp_path: Path) -> None:
        session = self.load(backend, tiny_onnx(tmp_path / "model"))
        wrong: list[int] = []

        def call(number: int) -> None:
            for _ in range(200):
                if session.infer({"x": X * number})["doubled"][0, 0] != 2.0 * number:
                    wrong.append(number)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "the model file is empty"),
            (b"#!/bin/sh\necho no model\n", "is no model that can be recognised"),
            (b"\x08\x08" + bytes(range(256)) * 4, "cannot be read as one"),
        ],
    )
    def test_a_file_that_is_no_model_is_invalid(
        self, backend: Backend, tmp_path: Path, content: bytes, says: str
    ) -> None:
        path = tmp_path / "model"
        path.write_bytes(content)
        with pytest.raises(ModelInvalid, match=says):
            self.load(backend, path)

    def test_a_model_that_was_cut_short_is_invalid(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ModelInvalid, match="damaged or cut short"):
            self.load(backend, path)

    def test_a_file_that_is_gone_is_invalid(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelInvalid, match="cannot be read: No such file"):
            self.load(backend, tmp_path / "nothing")

    def test_operations_that_nobody_has_are_unsupported_and_named(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(ModelUnsupported, match=r"my\.ops.*Frobnicate|Frobnicate.*my\.ops"):
            self.load(backend, tiny_onnx(tmp_path / "model", op="Frobnicate", domain="my.ops"))

    def test_a_descriptor_that_contradicts_the_model_is_invalid(self, backend: Backend, tmp_path: Path) -> None:
        path = tiny_onnx(tmp_path / "model")
        with pytest.raises(ModelInvalid, match=r"shape \(1, 4\), the model takes `x` float32 \(1, 3\)"):
            self.load(backend, path, [InputSpec("x", (1, 4))])
        with pytest.raises(ModelInvalid, match="input `mask` is not in the model, which takes `x` float32"):
            self.load(backend, path, [InputSpec("x", (1, 3)), InputSpec("mask", (1, 3))])

    def test_after_a_model_that_failed_others_load(self, backend: Backend, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        broken.write_bytes(b"\x08\x08garbage")
        with pytest.raises(ModelInvalid):
            self.load(backend, broken)
        assert self.load(backend, tiny_onnx(tmp_path / "model")).infer({"x": X})
