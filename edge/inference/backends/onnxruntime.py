"""ONNX Runtime: reads ONNX. On the CPU, or by CUDA where the installed package and the machine have it.

Its sessions take any number of calls at once where the model leaves the size open, and gain from it.

FP16: with CUDA a model of single precision is made one of half precision (`half`); CPUs are no quicker with it. INT8: for models
that are quantised.

Must not know framelink or clients.
"""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from belvedere.chassis.logs import get_logger
from belvedere.modelfile import ModelKind
from edge.inference import modelfile, tensors
from edge.inference.backends import half, onnx_file, onnx_graph
from edge.inference.backends.base import Tuning
from edge.inference.backends.gpu import LOST, gpu_present
from edge.inference.cache import FolderCache
from edge.inference.errors import DeviceLost, InvalidInput, ModelInvalid, ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, plain

log = get_logger(__name__)

SOURCE = "source"
FACTS = "facts.json"
WORDS_MAX = 300
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# How its CUDA provider names what CUDA said.
CUDA_FAILURE = re.compile(r"CUDA failure (\d+)")
# Its errors only; a log line of its own for each would say the same again.
SILENT = 4
_UNSUPPORTED_MARKS = ("not a registered function/op", "NOT_IMPLEMENTED", "Could not find an implementation")
_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class OnnxRuntimeBackend:
    """See `base.Backend`."""

    name = "onnxruntime"

    def __init__(self, settings: Settings, cache: Path, *, halves: bool | None = None) -> None:
        """`halves`: whether FP16 changes the model; None: where it is computed by CUDA."""
        cuda = CUDA in ort.get_available_providers() and gpu_present()
        self._halves = cuda if halves is None else halves
        self._cache = FolderCache(cache, entries=settings.cached_models, megabytes=settings.cached_mb)
        self.version = str(ort.__version__)
        ort.set_default_logger_severity(SILENT)

    def prepare(
        self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]
    ) -> OnnxRuntimeModel:
        """See `base.Backend.prepare`."""
        document: list[object] = [key, str(path.resolve())]
        halved = self._halves and precision.upper() == "FP16"
        if halved:
            document += ["half", self.version, [[spec.name, list(spec.shape)] for spec in inputs]]

        def make(folder: Path) -> None:
            found = modelfile.find(path, folder / SOURCE)
            if found.kind != ModelKind.ONNX:
                raise ModelUnsupported(f"ONNX Runtime cannot run a {found.kind}; convert it to ONNX, and register that")
            file, note = found.path, ""
            if halved:
                # It is computed for that.
                _check(file, precision, inputs)
                file, note = half.convert(file, folder, inputs)
            facts = {"file": str(file.relative_to(folder)), "notes": [note] if note else []}
            (folder / FACTS).write_text(json.dumps(facts))

        folder = self._cache.entry(document, make)
        try:
            facts = _facts(folder)
        except (OSError, ValueError, KeyError) as error:
            log.warning("cached model unreadable: unpacking again", key=key, error=str(error))
            folder = self._cache.remake(document, make)
            facts = _facts(folder)
        file = folder / facts["file"]
        if not file.exists():
            raise ModelInvalid("the model file cannot be read: No such file or directory")
        return OnnxRuntimeModel(file, precision, inputs, tuple(facts["notes"]))


def _facts(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / FACTS).read_text())
    return {"file": found["file"], "notes": found.get("notes", [])}


def _check(file: Path, precision: str, specs: Sequence[InputSpec]) -> None:
    """What can be known before it is read."""
    onnx_file.check_precision(file, precision)
    onnx_file.check_memory(file)
    onnx_graph.check_inside(file, specs)


class OnnxRuntimeModel:
    """See `base.Prepared`."""

    def __init__(self, file: Path, precision: str, specs: Sequence[InputSpec], notes: tuple[str, ...] = ()) -> None:
        self._file = file
        _check(file, precision, specs)
        self._providers = [name for name in (CUDA, CPU) if name in ort.get_available_providers()]
        self._overrides: dict[str, int] = {}
        first = self._open(Tuning())
        infos = [_info(node) for node in first.get_inputs()]
        if not infos or not first.get_outputs():
            raise ModelInvalid("the ONNX has no inputs or no outputs; export it for inference")
        found = tensors.matching(specs, infos)
        self.inputs = tuple(tensors.fixed(info, found.get(info.name)) for info in infos)
        self.batchable = tensors.is_batchable(infos, self.inputs)
        tensors.check_sizes(self.inputs, "inputs")
        tensors.check_sizes([_info(node) for node in first.get_outputs()], "outputs")
        self._first: Any = first
        self._opened: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        # Sizes that the descriptor fixes let the graph be simplified; that of the batch must stay open.
        for node, info in zip(first.get_inputs(), self.inputs, strict=True):
            for axis, (name, size) in enumerate(zip(node.shape, info.shape, strict=False)):
                if isinstance(name, str) and size is not None and not (axis == 0 and self.batchable):
                    self._overrides[name] = size
        for node in first.get_inputs():
            if self.batchable and node.shape and isinstance(node.shape[0], str):
                self._overrides.pop(node.shape[0], None)
        if self._overrides:
            self._first = None
        self.device = "CUDA" if first.get_providers()[0] == CUDA else "CPU"
        self.notes = notes
        if precision.upper() == "FP16" and not notes and not onnx_file.is_half(file):
            self.notes = (
                "FP16: the file's weights are FP32, and a CPU computes it so: it would be no quicker otherwise",
            )

    def session(self, tuning: Tuning) -> OnnxRuntimeSession:
        """See `base.Prepared.session`."""
        # One for each number of threads: it takes any size of batch, and as many computations at once as there are.
        session = self._opened.get(tuning.threads) or self._first
        if session is None or (tuning.threads and session is self._first):
            session = self._open(tuning)
        self._opened[tuning.threads] = session
        self._first = None
        return OnnxRuntimeSession(session, self.inputs)

    def _open(self, tuning: Tuning) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = SILENT
        # A number of its own: by default threads are pinned to cores, and then wait for whoever else runs there.
        options.intra_op_num_threads = tuning.threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        # Threads that wait busily for each other take the cores from the applications: with others at work on two cores,
        # 20 ms of CPU a call instead of 10 (MobileNetV2), and later answers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for name, size in self._overrides.items():
            options.add_free_dimension_override_by_name(name, size)
        try:
            return ort.InferenceSession(str(self._file), options, providers=self._providers)
        except Exception as error:
            words = _words(error)
            if any(mark in str(error) for mark in _UNSUPPORTED_MARKS):
                raise ModelUnsupported(f"ONNX Runtime cannot run this ONNX: {words}") from error
            if type(error).__name__ in ("InvalidProtobuf", "NoSuchFile"):
                raise ModelInvalid(
                    "the model file looks like an ONNX, but cannot be read as one; it may be damaged or cut short"
                ) from error
            raise ModelInvalid(
                f"the ONNX cannot be read as one that ONNX Runtime can compute, it may be damaged or cut short: {words}"
            ) from error


class OnnxRuntimeSession:
    """See `base.Session`."""

    def __init__(self, session: Any, inputs: tuple[TensorInfo, ...]) -> None:
        self._session = session
        self._given = {info.name: node.name for info, node in zip(inputs, session.get_inputs(), strict=True)}
        self._wanted = [node.name for node in session.get_outputs()]
        self.inputs = inputs
        self.outputs = tuple(_info(node) for node in session.get_outputs())

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `base.Session.infer`."""
        given = {self._given[name]: array for name, array in inputs.items()}
        try:
            outputs = self._session.run(self._wanted, given)
        except Exception as error:
            words = _words(error)
            failure = CUDA_FAILURE.search(str(error))
            if failure is not None and int(failure[1]) in LOST:
                raise DeviceLost(f"the GPU is of no more use in this process: {words}") from error
            if type(error).__name__ == "InvalidArgument" or "shape" in words.lower():
                raise InvalidInput(
                    f"the sizes do not fit together: the model takes {', '.join(map(str, self.inputs))} ({words})"
                ) from error
            raise
        return {info.name: np.asarray(array) for info, array in zip(self.outputs, outputs, strict=True)}

    def close(self) -> None:
        """See `base.Session.close`."""
        self._session = None


def _info(node: Any) -> TensorInfo:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise ModelUnsupported(
            f"the model's `{node.name}` is of type {node.type}; only tensors of numbers can be given to a model"
        )
    # No shape and no dimension are told alike: a scalar is rare, so none is taken for any.
    sizes = tuple(size if isinstance(size, int) and size >= 0 else None for size in node.shape)
    return TensorInfo(plain(node.name), sizes, np.dtype(dtype), rank_free=not node.shape)


def _words(error: Exception) -> str:
    """What an exception says, without its code and the path of the file."""
    text = " ".join(str(error).split())
    return text.split(" failed:", 1)[-1][:WORDS_MAX].strip() or type(error).__name__
