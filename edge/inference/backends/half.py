"""An ONNX model of single precision in half precision, for backends that compute in the types of the file: by ONNX Runtime's own
converter, whose result is taken only if it holds.

Half precision ends at 65504 and has three digits. So the model is run as it is on random numbers first, and stays as it is where
one inside of it comes near that; then both are run, and must agree. Inputs and outputs keep their types; operations that have no
half precision stay in single.

Must not know backends; all of it is computed on the CPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from belvedere.chassis.logs import get_logger
from edge.inference import pictures
from edge.inference.backends import onnx_file, onnx_graph
from edge.inference.errors import InvalidInput
from edge.inference.tensors import Array, InputSpec, TensorInfo, plain

if TYPE_CHECKING:
    import onnx

log = get_logger(__name__)

CONVERTED = "half.onnx"
SEED = 16
RANGE_MAX = 65504.0 / 4
"""Of what is seen inside with random numbers: others may be larger."""
TOLERANCE = 2e-2
"""The largest difference of any output, as a part of that output's largest number. Typical are 1e-4 to 5e-3."""
WORDS_MAX = 200
REFUSED = re.compile(r"of operator \((\w+)\)")
"""Which operation is meant where a graph is refused for a type."""


class NotHalved(Exception):
    """The model stays in single precision; says why."""


def convert(file: Path, folder: Path, specs: Sequence[InputSpec]) -> tuple[Path, str]:
    """(the file to compute, what its owner should know or ""). The file is `file` itself where that is of half precision, or
    cannot be made so; else a new one in `folder`.
    """
    if onnx_file.is_half(file):
        return file, ""
    try:
        difference = _convert(file, folder / CONVERTED, specs)
    except NotHalved as why:
        return file, f"FP16: computed in FP32, since {why}"
    except Exception as error:  # noqa: BLE001 - a converter's fault must not keep a model away that runs as it is
        log.warning("model not made half precision", error=f"{type(error).__name__}: {error}"[:500])
        said = " ".join(str(error).split())[:WORDS_MAX]
        return file, f"FP16: computed in FP32, since the model cannot be converted ({type(error).__name__}: {said})"
    return folder / CONVERTED, f"FP16: made half precision here, largest difference {difference:.1e} on random input"


def _convert(file: Path, target: Path, specs: Sequence[InputSpec]) -> float:
    if not onnx_graph.available():
        raise NotHalved(onnx_graph.MISSING)
    if importlib.util.find_spec("onnxruntime") is None:
        raise NotHalved("the Python package `onnxruntime` is not installed")
    import onnx

    if sum(one.stat().st_size for one in file.parent.iterdir() if one.is_file()) > onnx_graph.MESSAGE_BYTES_MAX:
        raise NotHalved("the model is larger than 2 GB; export it in FP16")
    model = onnx.load(str(file))
    given = _numbers(model, specs)
    _check_range(model, given)
    before = _run(model.SerializeToString(), given)
    data, after = _halved(model, given)
    difference = _difference(before, after)
    if not difference <= TOLERANCE:
        raise NotHalved(f"in half precision its answers differ by {difference:.1e}, more than {TOLERANCE:.0e}")
    target.write_bytes(data)
    return difference


def _halved(model: onnx.ModelProto, given: Mapping[str, Array]) -> tuple[bytes, dict[str, Array]]:
    """The model in half precision, and its answers. Operations that turn out to have none stay in single."""
    float16 = importlib.import_module("onnxruntime.transformers.float16")
    onnx_model = importlib.import_module("onnxruntime.transformers.onnx_model")
    # It tells of each weight that it rounds.
    logging.getLogger(float16.__name__).setLevel(logging.ERROR)
    single: list[str] = list(float16.DEFAULT_OP_BLOCK_LIST)
    while True:
        halved = float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=single)
        # Casts were added at the end; parsers want each node behind what it needs.
        onnx_model.OnnxModel.graph_topological_sort(halved.graph)
        data = halved.SerializeToString()
        try:
            return data, _run(data, given)
        except Exception as error:
            refused = REFUSED.search(str(error))
            if refused is None or refused[1] in single:
                raise
            single.append(refused[1])


def _numbers(model: onnx.ModelProto, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """Random ones for each input: pictures where the descriptor says that it is one. Sizes that nobody says are 1."""
    import onnx

    random = np.random.default_rng(SEED)
    given = onnx_graph.inputs(model)
    numbers: dict[str, Array] = {}
    for value in given:
        spec = onnx_graph.spec_of(value, given, specs)
        wanted = spec.shape if spec is not None else ()
        dims = value.type.tensor_type.shape.dim
        shape = tuple(
            dim.dim_value or (max(1, wanted[axis]) if axis < len(wanted) else 1) for axis, dim in enumerate(dims)
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        if dtype.kind not in "biuf":
            raise NotHalved(f"its input `{value.name}` takes no numbers")
        numbers[value.name] = _picture(random, plain(value.name), shape, dtype, spec)
    return numbers


def _picture(
    random: np.random.Generator, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], spec: InputSpec | None
) -> Array:
    if spec is not None and spec.image is not None:
        try:
            pixels = random.integers(0, 256, (480, 640, 3), np.uint8)
            return pictures.tensor(pixels, TensorInfo(name, shape, dtype), spec.image).astype(dtype)
        except InvalidInput:
            log.debug("no picture fits the input that the descriptor says is one", input=name)
    if dtype.kind in "iu":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    return random.standard_normal(shape).astype(dtype)


def _run(model: bytes, given: Mapping[str, Array]) -> dict[str, Array]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # As it is written: what is put together, or computed with more digits, would hide what half precision loses.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, (np.asarray(one) for one in session.run(names, dict(given))), strict=True))


def _check_range(model: onnx.ModelProto, given: Mapping[str, Array]) -> None:
    """Raises NotHalved where a number inside of the model is none, or too large for half precision."""
    import onnx

    seen = onnx.ModelProto()
    seen.CopyFrom(onnx.shape_inference.infer_shapes(model))
    floats = {
        value.name
        for value in (*seen.graph.value_info, *seen.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    made = [(node, name) for node in seen.graph.node for name in node.output if name in floats]
    del seen.graph.output[:]
    makers: dict[str, str] = {}
    for number, (node, name) in enumerate(made):
        size, most = f"belvedere_size_{number}", f"belvedere_most_{number}"
        # One number of each: nothing is kept that the model itself would not keep.
        seen.graph.node.append(onnx.helper.make_node("Abs", [name], [size]))
        seen.graph.node.append(onnx.helper.make_node("ReduceMax", [size], [most], keepdims=0))
        seen.graph.output.append(onnx.helper.make_tensor_value_info(most, onnx.TensorProto.FLOAT, []))
        makers[most] = f"{node.op_type} `{node.name or name}`"
    if not makers:
        raise NotHalved("nothing in it is computed in FP32")
    for most, found in _run(seen.SerializeToString(), given).items():
        if not float(found) <= RANGE_MAX:
            raise NotHalved(
                f"{makers[most]} gives numbers of {float(found):.1e} on random input, and half precision ends at 6.6e+04"
            )


def _difference(before: Mapping[str, Array], after: Mapping[str, Array]) -> float:
    """The largest of any output, as a part of its largest number."""
    worst = 0.0
    for name, array in before.items():
        other = after[name]
        if array.shape != other.shape:
            return float("inf")
        if array.size and array.dtype.kind in "f":
            finite = np.isfinite(array)
            if not np.array_equal(finite, np.isfinite(other)):
                return float("inf")
            most = float(np.abs(array[finite]).max(initial=0.0)) or 1.0
            apart = np.abs(array[finite].astype(np.float64) - other[finite])
            worst = max(worst, float(apart.max(initial=0.0)) / most)
        elif array.size and not np.array_equal(array, other):
            return float("inf")
    return worst
