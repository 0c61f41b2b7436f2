"""What computes a model: one module a backend, all behind `base.Backend`, all held to one contract suite.

openvino      the default on a CPU; reads ONNX, TensorFlow and TFLite
onnxruntime   ONNX only; on a CPU, or by CUDA
tensorrt      ONNX only, on NVIDIA's GPUs: `tensorrt` or `tensorrt_rtx_bindings`
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from belvedere.chassis.logs import get_logger
from edge.inference.backends.base import Backend, Prepared
from edge.inference.backends.gpu import gpu_present
from edge.inference.errors import ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import InputSpec

log = get_logger(__name__)

BACKENDS = {"openvino": "OpenVinoBackend", "onnxruntime": "OnnxRuntimeBackend", "tensorrt": "TensorRtBackend"}
NEEDS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime",), "tensorrt": ("tensorrt", "tensorrt_rtx_bindings")}
"""Any of these modules is enough."""
AUTO = "auto"


def installed(name: str) -> bool:
    """Its library is there."""
    return any(importlib.util.find_spec(module) is not None for module in NEEDS[name])


def order(wanted: str) -> tuple[Sequence[str], str]:
    """The backends to try for a model, in their order, and why. Raises ValueError for a name that is none, ModelUnsupported
    where nothing is installed.
    """
    if wanted != AUTO:
        if wanted not in BACKENDS:
            raise ValueError(
                f"there is no inference backend `{wanted}`; there are: {', '.join(sorted(BACKENDS))}, {AUTO}"
            )
        if not installed(wanted):
            raise ValueError(
                f"the inference backend `{wanted}` is not installed: it needs {' or '.join(NEEDS[wanted])}"
            )
        return (wanted,), "it is set"
    gpu = gpu_present()
    there = [name for name in BACKENDS if installed(name)]
    return automatic(there, gpu=gpu, cuda=gpu and "onnxruntime" in there and onnxruntime_has_cuda())


def automatic(there: Sequence[str], *, gpu: bool, cuda: bool) -> tuple[Sequence[str], str]:
    """`order` where nothing is set: of the backends that are `there`; `cuda`: ONNX Runtime computes on the GPU. Raises ValueError."""
    on_gpu = [name for name in ("tensorrt", "onnxruntime") if name in there and (gpu if name == "tensorrt" else cuda)]
    names = [*on_gpu, *(name for name in ("openvino", "onnxruntime") if name in there and name not in on_gpu)]
    if on_gpu:
        return names, "there is a GPU"
    if not names:
        raise ValueError("no inference backend is installed; install openvino, or onnxruntime for ONNX models only")
    if gpu:
        return names, "there is a GPU, and neither TensorRT nor onnxruntime-gpu for it"
    return names, "there is no GPU" if names[0] == "openvino" else "OpenVINO is not installed"


def onnxruntime_has_cuda() -> bool:
    """The package that is installed is the one for CUDA."""
    return "CUDAExecutionProvider" in importlib.import_module("onnxruntime").get_available_providers()


def create(name: str, settings: Settings, cache: Path) -> Backend:
    """One backend; only its own library is imported. `cache`: a folder for what it converts, its own below it."""
    module = importlib.import_module(f"edge.inference.backends.{name}")
    backend: Backend = getattr(module, BACKENDS[name])(settings, cache / name)
    return backend


class Choice:
    """For each model the first backend, in the order of `order`, that can run it. Raises ValueError as `order` does."""

    def __init__(self, settings: Settings, cache: Path) -> None:
        self._settings = settings
        self._cache = cache
        self._names, self._why = order(settings.backend)
        self._backends: dict[str, Backend] = {}

    def prepare(
        self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]
    ) -> tuple[Backend, Prepared, str]:
        """(backend, model, why this backend). Raises ModelInvalid, ModelUnsupported: of the last that was tried."""
        why = self._why
        for name in self._names:
            backend = self._backend(name)
            try:
                prepared = backend.prepare(path, key=key, framework=framework, precision=precision, inputs=inputs)
                return backend, prepared, why
            except ModelUnsupported as error:
                if name == self._names[-1]:
                    raise
                why = f"{name} cannot run it ({error})"
                log.info(
                    "backend cannot run the model: the next one is tried", key=key, backend=name, reason=str(error)
                )
        raise AssertionError("order() names at least one backend")

    def _backend(self, name: str) -> Backend:
        if name not in self._backends:
            self._backends[name] = create(name, self._settings, self._cache)
        return self._backends[name]
