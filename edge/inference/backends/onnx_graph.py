"""An ONNX graph, read with the library `onnx`: what the file alone does not tell (`onnx_file`).

How large the tensors inside of a model get is found by shape inference, before a backend computes anything; without weights,
so that it costs little. Must not know any backend.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from belvedere.chassis.logs import get_logger
from edge.inference.errors import ModelInvalid
from edge.inference.tensors import InputSpec, plain

if TYPE_CHECKING:
    import onnx

log = get_logger(__name__)

# Of the memory that is free when a model is loaded, what a single tensor inside of it may take.
TENSOR_SHARE = 0.5
# Smaller weights may be sizes that others are computed from; larger ones are not needed.
WEIGHT_BYTES_MAX = 4096
# What one protobuf message can hold; a larger model has its weights in files beside it.
MESSAGE_BYTES_MAX = 2_000_000_000
MISSING = "the Python package `onnx` is not installed"


def available() -> bool:
    """The library is there."""
    return importlib.util.find_spec("onnx") is not None


def check_inside(file: Path, specs: Sequence[InputSpec], free: int | None = None) -> None:
    """Raises ModelInvalid where a tensor inside of the model does not fit into `free` bytes (None: this machine's memory).

    As far as sizes are known before it is computed. A file that cannot be read is left to the backend, whose words are better.
    """
    if not available() or not file.is_file() or file.stat().st_size > MESSAGE_BYTES_MAX:
        return
    import onnx

    free = psutil.virtual_memory().available if free is None else free
    try:
        model = onnx.load(str(file), load_external_data=False)
        _without_weights(model)
        _fix(model, specs)
        # Sizes that are computed from sizes are followed; what contradicts itself is left open.
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # noqa: BLE001 - the library has no tree of its own; a backend reads the same file next
        log.info("sizes inside of the model not known", error=f"{type(error).__name__}: {error}"[:300])
        return
    made_by = {name: node for node in model.graph.node for name in node.output}
    for value in (*model.graph.value_info, *model.graph.output):
        shape, size = _size(value)
        if size > free * TENSOR_SHARE:
            node = made_by.get(value.name)
            maker = f"{node.op_type} `{(node.name or value.name)[:80]}`" if node is not None else f"`{value.name[:80]}`"
            raise ModelInvalid(
                f"the model's {maker} makes a tensor {shape} of {size / (1 << 30):.1f} GiB, the appliance has "
                f"{free / (1 << 30):.1f} GiB of memory free; give its descriptor a smaller shape, or export it with one"
            )


def inputs(model: onnx.ModelProto) -> list[Any]:
    """The values that a call gives: the graph's inputs that are no weights."""
    weights = {one.name for one in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def spec_of(value: Any, given: Sequence[Any], specs: Iterable[InputSpec]) -> InputSpec | None:
    """What the descriptor says of an input: by its name, or as the only one of the only one."""
    named = {plain(spec.name): spec for spec in specs}
    only = next(iter(named.values())) if len(named) == 1 and len(given) == 1 else None
    return named.get(plain(value.name), only)


def _fix(model: onnx.ModelProto, specs: Sequence[InputSpec]) -> None:
    given = inputs(model)
    for value in given:
        spec = spec_of(value, given, specs)
        dims = value.type.tensor_type.shape.dim
        if spec is None or len(spec.shape) != len(dims):
            continue
        for dim, size in zip(dims, spec.shape, strict=True):
            if not dim.dim_value and size > 0:
                dim.dim_value = size


def _without_weights(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        if weight.ByteSize() > WEIGHT_BYTES_MAX:
            kept = type(weight)(name=weight.name, data_type=weight.data_type, dims=weight.dims)
            weight.CopyFrom(kept)


def _size(value: Any) -> tuple[tuple[int, ...], int]:
    """Its shape and its bytes; 0 where a size is open."""
    import onnx

    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return (), 0
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    try:
        itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except (KeyError, TypeError):
        return shape, 0  # No numbers.
    return shape, math.prod(shape) * itemsize
