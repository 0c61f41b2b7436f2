"""OpenVINO on the CPU: reads ONNX, TensorFlow and TFLite files as they are.

A model is read, fixed to its descriptor's shapes and saved in OpenVINO's own form, once; from there it loads with
OpenVINO's compile cache. The person detector of the examples: 1.5 s the first time, 0.12 s afterwards; a call takes
6.4 ms with fixed shapes, 10 ms with open ones (two cores).

FP16: weights rounded to half precision, computed in it where the CPU can. INT8: for models that are quantised.

Must not know framelink or clients.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from belvedere.chassis.logs import get_logger
from belvedere.modelfile import ModelFile
from edge.inference import modelfile, tensors
from edge.inference.backends.base import Tuning
from edge.inference.backends.loops import straightened
from edge.inference.backends.quiet import openvino as ov
from edge.inference.cache import FolderCache
from edge.inference.errors import InvalidInput, ModelError, ModelInvalid, ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, plain

log = get_logger(__name__)

DEVICE = "CPU"
CONVERTED = "model.xml"
STRAIGHT = "straight.xml"
"""For one call at a time, where that is another graph (`loops.py`)."""
FACTS = "facts.json"
CONVERSION = 2
"""Of this way to convert: what an earlier one left in the cache does not hold."""
# How much of a library's text goes into a message.
WORDS_MAX = 300
# Operations that make a graph a quantised one.
QUANTISED = ("FakeQuantize", "FakeConvert")
# Of the memory that is free when a model is loaded, what a single tensor inside of it may take.
TENSOR_SHARE = 0.5
# What OpenVINO says of operations that it does not have, in its several frontends.
_UNSUPPORTED_MARKS = ("No translator found", "No conversion rule", "not supported", "nsupported")


class OpenVinoBackend:
    """See `base.Backend`."""

    name = "openvino"

    def __init__(self, settings: Settings, cache: Path) -> None:
        self._settings = settings
        self._cache = FolderCache(cache, entries=settings.cached_models, megabytes=settings.cached_mb)
        self._work = cache
        self._core = ov.Core()
        self.version = str(ov.get_version())

    def prepare(
        self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]
    ) -> OpenVinoModel:
        """See `base.Backend.prepare`."""
        document = [CONVERSION, key, precision, self.version, [[spec.name, list(spec.shape)] for spec in inputs]]

        def make(folder: Path) -> None:
            self._convert(path, folder, inputs, precision)

        try:
            folder = self._cache.entry(document, make)
            try:
                return OpenVinoModel(self._core, folder, precision)
            except (RuntimeError, ValueError) as error:
                # A cache that was cut short by a power failure must not keep the model away: once more from its file.
                log.warning("cached model unreadable: converting again", key=key, error=_words(error))
                return OpenVinoModel(self._core, self._cache.remake(document, make), precision)
        except ModelError:
            raise
        except OSError as error:
            raise ModelInvalid(f"the model cannot be converted on the appliance: {error.strerror}") from error
        except RuntimeError as error:
            raise ModelUnsupported(f"OpenVINO cannot compile the model: {_words(error)}") from error

    def _convert(self, path: Path, folder: Path, specs: Sequence[InputSpec], precision: str) -> None:
        """Read, fix the shapes, save."""
        found = modelfile.find(path, folder / "source")
        model = self._read(found)
        if precision.upper() == "INT8" and not any(op.get_type_name() in QUANTISED for op in model.get_ops()):
            raise ModelInvalid(
                "the descriptor's precisionMode is INT8, but the model is not quantised: quantise it before it is "
                "registered, or say FP16 or FP32"
            )
        infos = [_info(port, f"input{index}") for index, port in enumerate(model.inputs)]
        batchable = _reshape(model, specs, infos)
        _check_memory(model)
        # Weights as they are, unless half precision is asked for.
        half = precision.upper() == "FP16"
        ov.save_model(model, str(folder / CONVERTED), compress_to_fp16=half)
        if (straight := straightened(model)) is not None:
            ov.save_model(straight, str(folder / STRAIGHT), compress_to_fp16=half)
        (folder / FACTS).write_text(json.dumps({"batchable": batchable}))
        # Read to its end: what is unpacked is of no further use.
        del model, straight
        modelfile.discard(folder / "source")

    def _read(self, found: ModelFile) -> ov.Model:
        try:
            model = self._core.read_model(str(found.path))
        except RuntimeError as error:
            words = _words(error)
            if any(mark in words for mark in _UNSUPPORTED_MARKS) and "Unable to read" not in words:
                raise ModelUnsupported(f"OpenVINO cannot run this {found.kind}: {words}") from error
            raise ModelInvalid(
                f"the model file looks like {_a(found.kind)}, but cannot be read as one; it may be damaged or cut short"
            ) from error
        if not model.inputs or not model.outputs:
            raise ModelInvalid(f"the {found.kind} has no inputs or no outputs; export it for inference")
        return model


class OpenVinoModel:
    """See `base.Prepared`."""

    def __init__(self, core: ov.Core, folder: Path, precision: str) -> None:
        self._core = core
        self._folder = folder
        self._precision = precision.upper()
        self.device = str(core.get_property(DEVICE, "FULL_DEVICE_NAME"))
        self.batchable = bool(json.loads((folder / FACTS).read_text())["batchable"])
        half = "FP16" in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        self.notes: tuple[str, ...] = ()
        if self._precision == "FP16" and not half:
            self.notes = ("FP16: weights are rounded to half precision; this CPU computes in FP32 all the same",)
        # Compiled as most will use it: what is wrong with the model or its cache is known before it is measured.
        self._first: ov.CompiledModel | None = self._compile(Tuning(), 1)

    def session(self, tuning: Tuning) -> OpenVinoSession:
        """See `base.Prepared.session`."""
        try:
            first, self._first = self._first, None
            if first is None or tuning.threads or tuning.parallel > 1:
                first = self._compile(tuning, 1)
            return OpenVinoSession(first, tuning, self._compile)
        except RuntimeError as error:
            raise ModelUnsupported(f"OpenVINO cannot compile the model: {_words(error)}") from error

    def _compile(self, tuning: Tuning, calls: int) -> ov.CompiledModel:
        config: dict[str, Any] = {
            "CACHE_DIR": str(self._folder),
            "PERFORMANCE_HINT": "LATENCY" if tuning.parallel == 1 else "THROUGHPUT",
            "NUM_STREAMS": tuning.parallel,
            # An appliance's cores belong to its applications too. Pinned threads wait at every operation for the one
            # whose core somebody else has: with one busy process beside it a call of 13 ms took 93 ms, and seconds on
            # a fuller machine; not pinned, it stays 13 ms (2 cores, person detector).
            "ENABLE_CPU_PINNING": False,
        }
        if tuning.threads:
            config["INFERENCE_NUM_THREADS"] = tuning.threads * tuning.parallel
        if self._precision == "FP16":
            config["INFERENCE_PRECISION_HINT"] = "f16"
        elif self._precision == "FP32":
            # Without it, CPUs that can compute in bfloat16 do so.
            config["INFERENCE_PRECISION_HINT"] = "f32"
        if calls == 1:
            straight = self._folder / STRAIGHT
            return self._core.compile_model(
                str(straight if straight.exists() else self._folder / CONVERTED), DEVICE, config
            )
        model = self._core.read_model(str(self._folder / CONVERTED))
        shapes = {}
        for port in model.inputs:
            first, *rest = port.get_partial_shape()
            shapes[port] = ov.PartialShape([first.get_length() * calls, *rest])
        model.reshape(shapes)
        return self._core.compile_model(model, DEVICE, config)


class OpenVinoSession:
    """See `base.Session`."""

    def __init__(self, compiled: ov.CompiledModel, tuning: Tuning, compile: Any) -> None:
        self._compiled = {1: compiled}
        self._tuning = tuning
        self._compile = compile
        self._lock = threading.Lock()
        self._requests = threading.local()
        self.inputs = tuple(_info(port, f"input{index}") for index, port in enumerate(compiled.inputs))
        self.outputs = tuple(_info(port, f"output{index}") for index, port in enumerate(compiled.outputs))

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `base.Session.infer`."""
        calls, padded = 1, inputs
        if self._tuning.batch > 1:
            info = self.inputs[0]
            rows = info.shape[0] or 1
            calls = len(inputs[info.name]) // rows
            size = min(_power_of_two(calls), self._tuning.batch)
            # A compiled model has one size of batch: what is missing is filled with the first call again.
            if size != calls:
                padded = {
                    name: np.concatenate([array, *[array[: len(array) // calls]] * (size - calls)])
                    for name, array in inputs.items()
                }
        else:
            size = 1
        request = self._request(size)
        given = {index: padded[info.name] for index, info in enumerate(self.inputs)}
        try:
            request.infer(given, share_inputs=True)
        except RuntimeError as error:
            words = _words(error)
            if "shape" in words.lower():
                raise InvalidInput(
                    f"the sizes do not fit together: the model takes {', '.join(map(str, self.inputs))} ({words})"
                ) from error
            raise
        outputs = {info.name: np.array(request.get_output_tensor(i).data) for i, info in enumerate(self.outputs)}
        if size == calls:
            return outputs
        return {name: array[: len(array) // size * calls] for name, array in outputs.items()}

    def close(self) -> None:
        """See `base.Session.close`."""
        self._requests = threading.local()
        self._compiled.clear()

    def _request(self, size: int) -> ov.InferRequest:
        """A request has the memory of one computation: each thread has its own for each size of batch."""
        own: dict[int, ov.InferRequest] | None = getattr(self._requests, "own", None)
        if own is None:
            own = self._requests.own = {}
        if size not in own:
            with self._lock:
                if size not in self._compiled:
                    self._compiled[size] = self._compile(self._tuning, size)
                own[size] = self._compiled[size].create_infer_request()
        return own[size]


def _power_of_two(calls: int) -> int:
    return 1 << (calls - 1).bit_length()


def _reshape(model: ov.Model, specs: Sequence[InputSpec], infos: Sequence[TensorInfo]) -> bool:
    """Fix the model's open sizes to the descriptor's; whether it can take several calls at once.

    Raises ModelInvalid where the two contradict each other.
    """
    found = tensors.matching(specs, infos)
    wanted = [tensors.fixed(info, found.get(info.name)) for info in infos]
    shapes = {}
    for port, info, fixed in zip(model.inputs, infos, wanted, strict=True):
        if info.shape != fixed.shape or info.rank_free != fixed.rank_free:
            shapes[port] = ov.PartialShape([-1 if size is None else size for size in fixed.shape])
    if shapes:
        try:
            model.reshape(shapes)
        except RuntimeError as error:
            given = ", ".join(f"`{spec.name}` {spec.shape}" for spec in specs)
            raise ModelInvalid(
                f"the model does not work with the descriptor's shapes {given}: {_words(error)}"
            ) from error
    outputs = [_info(port, f"output{index}") for index, port in enumerate(model.outputs)]
    tensors.check_sizes(wanted, "inputs")
    tensors.check_sizes(outputs, "outputs")
    return tensors.is_batchable(infos, wanted)


def _check_memory(model: ov.Model) -> None:
    """Raises ModelInvalid where a tensor inside of the model does not fit into what the appliance has free."""
    free = psutil.virtual_memory().available
    for op in model.get_ops():
        for port in op.outputs():
            shape = port.get_partial_shape()
            if shape.is_static:
                size = int(np.prod([int(side) for side in shape.to_shape()], dtype=np.float64))
                size *= port.get_element_type().size
                if size > free * TENSOR_SHARE:
                    raise ModelInvalid(
                        f"the model's {op.get_type_name()} `{op.get_friendly_name()[:80]}` makes a tensor "
                        f"{tuple(shape.to_shape())} of {size / (1 << 30):.1f} GiB, the appliance has "
                        f"{free / (1 << 30):.1f} GiB of memory free; give its descriptor a smaller shape, or export it with one"
                    )


def _info(port: Any, default: str) -> TensorInfo:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        sizes: tuple[int | None, ...] = ()
    else:
        sizes = tuple(None if size.is_dynamic else size.get_length() for size in shape)
    return TensorInfo(_name(port, default), sizes, np.dtype(port.get_element_type().to_dtype()), shape.rank.is_dynamic)


def _name(port: Any, default: str) -> str:
    """The name that the model's author gave: a tensor has several after OpenVINO has simplified the graph."""
    names = port.get_names()
    friendly = port.get_node().get_friendly_name().split("/sink_port_")[0]
    if friendly in names or not names:
        return plain(friendly if names else default)
    return plain(min(names, key=lambda name: (len(name), name)))


def _words(error: Exception) -> str:
    """What an OpenVINO exception says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(told).split("Summary: -- ")[-1][:WORDS_MAX] or type(error).__name__


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"
