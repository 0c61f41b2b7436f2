"""TensorRT on NVIDIA's GPUs: reads ONNX. `tensorrt` or, from PyPI, `tensorrt_rtx_bindings`: the same names in both.

An engine is built for the GPU at hand, once, and kept by digest, version, device and shapes. Where the file leaves the size
of the batch open it takes 1 to `batch_max` calls at once. TensorRT-RTX builds engines on a machine without a GPU too;
computing needs one.

FP16: TensorRT chooses it for each layer (up to TensorRT 10); TensorRT-RTX, and TensorRT from 11 on, compute in the types of
the file: a model of single precision is made one of half precision (`half`). INT8: for models that are quantised (QuantizeLinear and DequantizeLinear).

Must not know framelink or clients.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import json
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from belvedere.chassis.logs import get_logger
from belvedere.modelfile import ModelKind
from edge.inference import modelfile, tensors
from edge.inference.backends import half, onnx_file, onnx_graph
from edge.inference.backends.base import Tuning
from edge.inference.backends.cuda import Device, DeviceMemory
from edge.inference.cache import FolderCache
from edge.inference.errors import InferenceError, InvalidInput, ModelInvalid, ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, plain

log = get_logger(__name__)

ENGINE = "engine.plan"
FACTS = "facts.json"
WORDS_MAX = 300
# An engine has limits for every size. Where nobody says one, these.
OPEN_MIN, OPEN_USUAL, OPEN_MAX = 1, 16, 1024
# The wheel that brings TensorRT-RTX's libraries, and the order in which they need each other.
RTX_LIBRARIES = "onnxruntime_ep_nv_tensorrt_rtx"
RTX_ORDER = ("libcudart.so*", "libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*")


@functools.cache
def library() -> Any:
    """The module, its libraries loaded. Raises ModelUnsupported where it cannot be."""
    if importlib.util.find_spec("tensorrt") is not None:
        return importlib.import_module("tensorrt")
    # The bindings look for the libraries among those that are loaded already, their symbols visible to all.
    brought = importlib.util.find_spec(RTX_LIBRARIES)
    for folder in (brought.submodule_search_locations if brought else None) or ():
        for pattern in RTX_ORDER:
            for file in sorted(Path(folder).glob(pattern)):
                ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    try:
        return importlib.import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        raise ModelUnsupported(f"TensorRT cannot be loaded: {error}") from error


class TensorRtBackend:
    """See `base.Backend`."""

    name = "tensorrt"

    def __init__(self, settings: Settings, cache: Path) -> None:
        self._settings = settings
        self._cache = FolderCache(cache, entries=settings.cached_models, megabytes=settings.cached_mb)
        self._trt = library()
        self._words = _Words(self._trt)
        self.version = f"{self._trt.__name__} {self._trt.__version__}"
        self._device = Device.find()

    def prepare(
        self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]
    ) -> TensorRtModel:
        """See `base.Backend.prepare`."""
        shapes = [[spec.name, list(spec.shape)] for spec in inputs]
        document = [key, precision, self.version, str(self._device), shapes, self._settings.batch_max]

        def make(folder: Path) -> None:
            self._build(path, folder, precision, inputs)

        folder = self._cache.entry(document, make)
        try:
            return TensorRtModel(self._trt, self._words, folder, self._device)
        except (OSError, ValueError, KeyError) as error:
            log.warning("cached engine unreadable: building again", key=key, error=str(error))
            return TensorRtModel(self._trt, self._words, self._cache.remake(document, make), self._device)

    def _build(self, path: Path, folder: Path, precision: str, specs: Sequence[InputSpec]) -> None:
        found = modelfile.find(path, folder / "source")
        if found.kind != ModelKind.ONNX:
            raise ModelUnsupported(f"TensorRT cannot run a {found.kind}; convert it to ONNX, and register that")
        onnx_file.check_precision(found.path, precision)
        onnx_file.check_memory(found.path)
        onnx_graph.check_inside(found.path, specs, None if self._device is None else self._device.memory_bytes)
        typed = getattr(self._trt.BuilderFlag, "FP16", None) is None
        file, note = found.path, ""
        if typed and precision.upper() == "FP16":
            file, note = half.convert(file, folder, specs)
        builder = self._trt.Builder(self._words.logger)
        network = builder.create_network(0)
        self._parse(network, file)
        infos = [self._info(network.get_input(index)) for index in range(network.num_inputs)]
        matched = tensors.matching(specs, infos)
        wanted = [tensors.fixed(info, matched.get(info.name)) for info in infos]
        outputs = [self._info(network.get_output(index)) for index in range(network.num_outputs)]
        tensors.check_sizes(wanted, "inputs")
        tensors.check_sizes(outputs, "outputs")
        batchable = tensors.is_batchable(infos, wanted)
        config = builder.create_builder_config()
        self._profile(builder, config, network, wanted, batchable)
        if precision.upper() == "FP16" and not typed:
            config.set_flag(self._trt.BuilderFlag.FP16)
        self._words.forget()
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise ModelUnsupported(f"TensorRT cannot build an engine for the model: {self._words.last()}")
        (folder / ENGINE).write_bytes(memoryview(engine))
        facts = {
            "batchable": batchable,
            "notes": [note] if note else [],
            "inputs": [_plain(info) for info in wanted],
            "outputs": [_plain(info) for info in outputs],
        }
        (folder / FACTS).write_text(json.dumps(facts))
        modelfile.discard(folder / "source")
        (folder / half.CONVERTED).unlink(missing_ok=True)

    def _parse(self, network: Any, file: Path) -> None:
        parser = self._trt.OnnxParser(network, self._words.logger)
        self._words.forget()
        if parser.parse_from_file(str(file)):
            if not network.num_inputs or not network.num_outputs:
                raise ModelInvalid("the ONNX has no inputs or no outputs; export it for inference")
            return
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        operations = sorted({error.node_operator() for error in errors if error.node_operator()})
        said = " ".join(str(errors[0].desc()).split())[:WORDS_MAX] if errors else self._words.last()
        if operations:
            domains = onnx_file.domains(file)
            named = ", ".join(f"{domains[name]}.{name}" if domains.get(name) else name for name in operations)
            raise ModelUnsupported(f"TensorRT cannot run the operations {named} of this ONNX: {said}")
        raise ModelInvalid(
            f"the model file looks like an ONNX, but cannot be read as one; it may be damaged or cut short: {said}"
        )

    def _profile(self, builder: Any, config: Any, network: Any, wanted: Sequence[TensorInfo], batchable: bool) -> None:
        profile = builder.create_optimization_profile()
        for index, info in enumerate(wanted):
            tensor = network.get_input(index)
            if all(size >= 0 for size in tensor.shape):
                continue
            least = [size or OPEN_MIN for size in info.shape]
            usual = [size or OPEN_USUAL for size in info.shape]
            most = [size or OPEN_MAX for size in info.shape]
            if batchable:
                most[0] *= self._settings.batch_max
                usual[0] = most[0]
            profile.set_shape(tensor.name, tuple(least), tuple(usual), tuple(most))
        config.add_optimization_profile(profile)

    def _info(self, tensor: Any) -> TensorInfo:
        sizes = tuple(None if size < 0 else int(size) for size in tensor.shape)
        return TensorInfo(plain(tensor.name), sizes, np.dtype(self._trt.nptype(tensor.dtype)))


class TensorRtModel:
    """See `base.Prepared`."""

    def __init__(self, trt: Any, words: _Words, folder: Path, device: Device | None) -> None:
        self._trt = trt
        self._words = words
        self._device = device
        facts = json.loads((folder / FACTS).read_text())
        self._engine = (folder / ENGINE).read_bytes()
        self.inputs = tuple(_read(row) for row in facts["inputs"])
        self.outputs = tuple(_read(row) for row in facts["outputs"])
        self.batchable = bool(facts["batchable"])
        self.notes: tuple[str, ...] = tuple(facts["notes"])
        self.device = f"NVIDIA {device}" if device is not None else "no GPU"

    def session(self, tuning: Tuning) -> TensorRtSession:
        """See `base.Prepared.session`."""
        if self._device is None:
            raise ModelUnsupported("the model's engine is built, but there is no NVIDIA GPU to compute it on")
        runtime = self._trt.Runtime(self._words.logger)
        self._words.forget()
        engine = runtime.deserialize_cuda_engine(self._engine)
        if engine is None:
            raise ModelUnsupported(f"TensorRT cannot load the model's engine: {self._words.last()}")
        # Made while it is loaded: the first use of a context can take seconds.
        lanes = [_Lane(engine.create_execution_context(), self._device) for _ in range(tuning.parallel)]
        return TensorRtSession(engine, lanes, self.inputs, self.outputs)


class TensorRtSession:
    """See `base.Session`."""

    def __init__(
        self,
        engine: Any,
        lanes: Sequence[_Lane],
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
    ) -> None:
        self._engine = engine
        self._lanes = lanes
        self._idle: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._names = {plain(name): name for name in names}
        self.inputs = inputs
        self.outputs = outputs

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `base.Session.infer`."""
        # No more compute at once than there are lanes: the wait is for one of them to end.
        lane = self._idle.get()
        try:
            return self._infer(lane, inputs)
        finally:
            self._idle.put(lane)

    def _infer(self, lane: _Lane, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for info in self.inputs:
            array = np.ascontiguousarray(inputs[info.name])
            if not lane.context.set_input_shape(self._names[info.name], array.shape):
                takes = ", ".join(map(str, self.inputs))
                raise InvalidInput(f"the sizes {array.shape} do not fit: the model takes {takes}")
            lane.send(self._names[info.name], array)
        outputs: dict[str, Array] = {}
        for info in self.outputs:
            shape = tuple(lane.context.get_tensor_shape(self._names[info.name]))
            if any(size < 0 for size in shape):
                raise InferenceError(
                    f"the size of output `{info.name}` depends on what is computed; cut the model before that"
                )
            outputs[info.name] = np.empty(shape, info.dtype)
            lane.expect(self._names[info.name], outputs[info.name])
        lane.compute(outputs, self._names)
        return outputs

    def close(self) -> None:
        """See `base.Session.close`."""
        for lane in self._lanes:
            lane.close()


class _Lane:
    """One computation's way to the GPU and back: a context, a stream and buffers of its own."""

    def __init__(self, context: Any, device: Device) -> None:
        self.context = context
        self._stream = device.stream()
        self._memory: dict[str, DeviceMemory] = {}

    def send(self, name: str, array: Array) -> None:
        """The input goes to the GPU."""
        memory = self._buffer(name, array.nbytes)
        self._stream.send(array, memory)
        self.context.set_tensor_address(name, memory.address)

    def expect(self, name: str, array: Array) -> None:
        """Room on the GPU for an output."""
        self.context.set_tensor_address(name, self._buffer(name, array.nbytes).address)

    def compute(self, outputs: Mapping[str, Array], names: Mapping[str, str]) -> None:
        """Compute, fetch the outputs, wait."""
        if not self.context.execute_async_v3(self._stream.handle):
            raise InferenceError("TensorRT could not start the computation")
        for name, array in outputs.items():
            self._stream.fetch(self._memory[names[name]], array)
        self._stream.wait()

    def close(self) -> None:
        """Free the GPU's memory."""
        self._stream.close()
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()

    def _buffer(self, name: str, size: int) -> DeviceMemory:
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            if memory is not None:
                memory.close()
            memory = self._memory[name] = self._stream.device.allocate(max(1, size))
        return memory


class _Words:
    """What TensorRT says: the last error, for messages; nothing on the console."""

    def __init__(self, trt: Any) -> None:
        serious = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)
        said = self._said = [""]

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in serious:
                    said[0] = message
                    log.debug("tensorrt", message=message[:WORDS_MAX])

        self.logger = Logger()

    def forget(self) -> None:
        """What was said before is of another model."""
        self._said[0] = ""

    def last(self) -> str:
        """The last error."""
        return " ".join(self._said[0].split())[:WORDS_MAX] or "it does not say why"


def _plain(info: TensorInfo) -> list[Any]:
    return [info.name, list(info.shape), info.dtype.name]


def _read(row: Sequence[Any]) -> TensorInfo:
    name, shape, dtype = row
    return TensorInfo(name, tuple(shape), np.dtype(dtype))
