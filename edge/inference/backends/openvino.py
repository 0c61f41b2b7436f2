"""OpenVINO on the CPU: reads ONNX, TensorFlow and TFLite files as they are.

A model is read, fixed to its descriptor's shapes and saved in OpenVINO's own form in `cache/<key>/`, once; from there
it loads with OpenVINO's compile cache. The person detector of the examples: 1.5 s the first time, 0.12 s afterwards;
a call takes 6.4 ms with fixed shapes, 10 ms with open ones (two cores).

Must not know framelink or clients.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from belvedere.chassis.logs import get_logger
from belvedere.modelfile import ModelFile, ModelKind
from edge.inference import modelfile
from edge.inference.backends.quiet import openvino as ov
from edge.inference.errors import InvalidInput, ModelError, ModelInvalid, ModelUnsupported
from edge.inference.settings import Settings
from edge.inference.tensors import Array, InputSpec, TensorInfo, plain

log = get_logger(__name__)

DEVICE = "CPU"
CONVERTED = "model.xml"
# How much of a library's text goes into a message.
WORDS_MAX = 300
# What OpenVINO says of operations that it does not have, in its several frontends.
_UNSUPPORTED_MARKS = ("No translator found", "No conversion rule", "not supported", "nsupported")


class OpenVinoBackend:
    """See `base.Backend`."""

    name = "openvino"

    def __init__(self, settings: Settings, cache: Path) -> None:
        self._settings = settings
        self._cache = cache
        self._core = ov.Core()

    def load(
        self, path: Path, *, key: str, framework: str, precision: str, inputs: Sequence[InputSpec]
    ) -> OpenVinoSession:
        """See `base.Backend.load`."""
        folder = self._cache / _cache_name(key, inputs)
        try:
            if not (folder / CONVERTED).exists():
                self._convert(path, folder, inputs)
            try:
                compiled = self._compile(folder, precision)
            except RuntimeError as error:
                # A cache that was cut short by a power failure must not keep the model away: once more from its file.
                log.warning("cached model unreadable: converting again", key=key, error=_words(error))
                shutil.rmtree(folder, ignore_errors=True)
                self._convert(path, folder, inputs)
                compiled = self._compile(folder, precision)
        except ModelError:
            raise
        except OSError as error:
            raise ModelInvalid(f"the model cannot be converted on the appliance: {error.strerror}") from error
        except RuntimeError as error:
            raise ModelUnsupported(f"OpenVINO cannot compile the model: {_words(error)}") from error
        os.utime(folder)
        self._forget_old(keep=folder)
        return OpenVinoSession(compiled)

    def _convert(self, path: Path, folder: Path, specs: Sequence[InputSpec]) -> None:
        """Read, fix the shapes, save; in a folder of its own until it is whole."""
        self._cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".converting-", dir=self._cache))
        try:
            found = modelfile.find(path, work / "source")
            model = self._read(found)
            _reshape(model, specs)
            done = work / "done"
            done.mkdir()
            # Weights as they are: "compressed" would halve the precision of an FP32 model.
            ov.save_model(model, str(done / CONVERTED), compress_to_fp16=False)
            shutil.rmtree(folder, ignore_errors=True)
            done.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

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

    def _compile(self, folder: Path, precision: str) -> ov.CompiledModel:
        parallel = max(1, self._settings.parallel_calls)
        config: dict[str, Any] = {
            "CACHE_DIR": str(folder),
            "PERFORMANCE_HINT": "LATENCY" if parallel == 1 else "THROUGHPUT",
            "NUM_STREAMS": parallel,
            # An appliance's cores belong to its applications too. Pinned threads wait at every operation for the one
            # whose core somebody else has: with one busy process beside it a call of 13 ms took 93 ms, and seconds on
            # a fuller machine; not pinned, it stays 13 ms (2 cores, person detector).
            "ENABLE_CPU_PINNING": False,
        }
        if self._settings.threads:
            config["INFERENCE_NUM_THREADS"] = self._settings.threads
        if precision.upper() == "FP32":
            # Without it, CPUs that can compute in bfloat16 do so.
            config["INFERENCE_PRECISION_HINT"] = "f32"
        return self._core.compile_model(str(folder / CONVERTED), DEVICE, config)

    def _forget_old(self, keep: Path) -> None:
        """Bound the cache: the folders used longest ago go."""
        folders = [entry for entry in self._cache.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        folders.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for folder in folders[self._settings.cached_models :]:
            if folder != keep:
                log.info("cached model removed", folder=folder.name)
                shutil.rmtree(folder, ignore_errors=True)


class OpenVinoSession:
    """See `base.Session`."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._requests = threading.local()
        self.inputs = tuple(_info(port, f"input{index}") for index, port in enumerate(compiled.inputs))
        self.outputs = tuple(_info(port, f"output{index}") for index, port in enumerate(compiled.outputs))

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `base.Session.infer`."""
        # A request has the memory of one call: each thread has its own.
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        tensors = {index: inputs[info.name] for index, info in enumerate(self.inputs)}
        try:
            request.infer(tensors)
        except RuntimeError as error:
            words = _words(error)
            if "shape" in words.lower():
                raise InvalidInput(
                    f"the sizes do not fit together: the model takes {', '.join(map(str, self.inputs))} ({words})"
                ) from error
            raise
        return {info.name: np.array(request.get_output_tensor(i).data) for i, info in enumerate(self.outputs)}

    def close(self) -> None:
        """See `base.Session.close`."""
        self._requests = threading.local()
        with contextlib.suppress(AttributeError):
            del self._compiled


def _reshape(model: ov.Model, specs: Sequence[InputSpec]) -> None:
    """Fix the model's open sizes to the descriptor's. Raises ModelInvalid where the two contradict each other."""
    ports = {plain(name): port for port in model.inputs for name in (port.get_names() or {_name(port, "")})}
    shapes = {}
    for spec in specs:
        port = ports.get(plain(spec.name))
        if port is None and len(specs) == 1 and len(model.inputs) == 1:
            port = model.inputs[0]
        if port is None:
            takes = ", ".join(str(_info(other, "?")) for other in model.inputs)
            raise ModelInvalid(f"the descriptor's input `{spec.name}` is not in the model, which takes {takes}")
        if not spec.shape:
            continue
        declared = ov.PartialShape(list(spec.shape))
        if not port.get_partial_shape().compatible(declared):
            raise ModelInvalid(
                f"the descriptor gives input `{spec.name}` the shape {spec.shape}, "
                f"the model takes {_info(port, spec.name)}"
            )
        if port.get_partial_shape().is_dynamic:
            shapes[port] = declared
    if not shapes:
        return
    try:
        model.reshape(shapes)
    except RuntimeError as error:
        given = ", ".join(f"`{spec.name}` {spec.shape}" for spec in specs)
        raise ModelInvalid(f"the model does not work with the descriptor's shapes {given}: {_words(error)}") from error


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


def _cache_name(key: str, specs: Sequence[InputSpec]) -> str:
    """Another OpenVINO or other shapes make another entry."""
    document = [key, ov.get_version(), [[spec.name, list(spec.shape)] for spec in specs]]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]


def _words(error: Exception) -> str:
    """What an OpenVINO exception says, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(told).split("Summary: -- ")[-1][:WORDS_MAX] or type(error).__name__


def _a(kind: ModelKind) -> str:
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"
